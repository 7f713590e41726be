"""A running Guard as a target: marked, within its limit, with one key, and honest about what is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.selftest.api import Unreachable
from guard.selftest.attacks.registry import attack_named
from guard.selftest.base import Tally, Unresolved
from guard.selftest.cell import run_cell, world_of
from guard.selftest.targets.live import LiveGuard, open_live
from guard.selftest.targets.spec import TargetError
from tests.unit.selftest.targets.servers import Json, Served, lists, predict, serving

X = np.random.default_rng(0).normal(size=(200, 4))
ATTACK = attack_named("equation_solving_softmax")


def rounded(served: Served, body: Json) -> tuple[int, Json]:
    status, answer = lists(served, body)
    return status, {"predictions": [[round(score, 1) for score in row] for row in answer["predictions"]]}


def opened(folder: Path, url: str, **options: Any) -> LiveGuard:  # Any: options of `open_live`
    path = folder / "rows.jsonl"
    labels = predict(X).argmax(axis=1).tolist()
    path.write_text("\n".join(json.dumps({"x": x, "y": y}) for x, y in zip(X.tolist(), labels, strict=True)))
    given: dict[str, Any] = {
        "queries": str(path),
        "api": "kserve_v1",
        "model": "m",
        "key": "k-1",
    } | options  # Any: likewise
    return open_live(url, **given)


def test_every_request_is_marked_and_carries_the_key(tmp_path: Path) -> None:
    with serving(lists) as served:
        target = opened(tmp_path, served.url, key_header="X-Tenant-Key")
        with target.open(0) as upstream:
            run_cell(target.cell(ATTACK, "defended", "", 0, upstream))
    assert upstream == ""
    assert {headers["x-guard-selftest"] for _, headers, _ in served.seen} == {target.run}
    assert {headers["x-tenant-key"] for _, headers, _ in served.seen} == {"k-1"}
    assert "k-1" not in repr(target.spec)
    assert target.transplant(ATTACK, 0) is None


@pytest.mark.parametrize(("limit", "cells"), [(200, 1), (300, 3)])
def test_no_more_rows_than_stated_are_ever_sent(limit: int, cells: int, tmp_path: Path) -> None:
    with serving(lists) as served:
        target = opened(tmp_path, served.url, limit=limit)
        target.divide(cells)
        with target.open(0) as upstream:
            done = [run_cell(target.cell(ATTACK, "defended", "", 0, upstream)) for _ in range(cells + 2)][-1]
        assert served.rows <= limit
    assert target.left >= 0
    assert done.reason == "the stated query limit left this attack nothing to ask"
    assert done.tally.first_refusal_at is None


def test_without_the_model_copies_are_measured_against_what_is_released(tmp_path: Path) -> None:
    with serving(rounded) as served:
        target = opened(tmp_path, served.url, limit=2000)
        target.divide(2)
        with target.open(0) as upstream:
            cell = target.cell(ATTACK, "defended", "", 0, upstream)
            world = world_of(cell, Tally(), lambda share, what: None)
            test = np.asarray(world.judge.test_x)
            asked = served.rows
            np.testing.assert_allclose(world.judge.truth(test), np.round(predict(test), 1))
            assert served.rows == asked
            with pytest.raises(Unresolved, match="may not be asked for 1500 more"):
                world.judge.truth(np.random.default_rng(1).normal(size=(1500, 4)))
            assert served.rows == asked
            done = run_cell(cell)
    assert done.outcome is not None, done.reason
    assert set(done.outcome.tries[0].measures) == {"surrogate_l1", "agreement", "graded_answers"}
    assert any("the model itself was not asked" in warning for warning in target.warnings)


def test_with_the_model_there_is_a_control_and_the_truth(tmp_path: Path) -> None:
    with serving(rounded) as guarded, serving(lists) as model:
        target = opened(tmp_path, guarded.url, upstream=model.url)
        target.divide(1)
        before = target.left
        with target.open(0) as upstream:
            control = run_cell(target.cell(ATTACK, "undefended", "", 0, upstream))
            assert target.left == before
            through = run_cell(target.cell(ATTACK, "defended", "", 0, upstream))
        assert all("x-guard-selftest" not in headers and "x-api-key" not in headers for _, headers, _ in model.seen)
    assert control.outcome is not None
    assert through.outcome is not None
    assert control.outcome.best("surrogate_l1").measures["surrogate_l1"].value < 1e-6
    assert through.outcome.best("surrogate_l1").measures["surrogate_l1"].value > 0.01
    assert "surrogate_l1_uniform" in through.outcome.tries[0].measures
    assert not any("was not asked" in warning for warning in target.warnings)


def test_there_is_one_account(tmp_path: Path) -> None:
    with serving(lists) as served:
        target = opened(tmp_path, served.url)
        with target.open(0) as upstream:
            done = run_cell(target.cell(ATTACK, "defended", "split_accounts", 0, upstream))
    assert (done.outcome, done.reason) == (None, "a live target is attacked with the one key that was given")


def test_a_target_that_throttles_leaves_the_attack_with_what_it_has(tmp_path: Path) -> None:
    def throttled(served: Served, body: Json) -> tuple[int, Json]:
        return (429, {}) if served.rows > room[0] else lists(served, body)

    room = [10**6]
    with serving(throttled) as served:
        target = opened(tmp_path, served.url)
        target.divide(2)
        with target.open(0) as upstream:
            room[0] = served.rows + 60
            some = run_cell(target.cell(ATTACK, "defended", "", 0, upstream))
            none = run_cell(target.cell(ATTACK, "defended", "", 0, upstream))
        with pytest.raises(Unreachable, match="429"):
            opened(tmp_path, served.url)
    assert some.outcome is not None, some.reason
    assert some.tally.refusals[429] == 1
    assert none.outcome is None
    assert none.reason.startswith("the API refused before the attack had anything to work with (429")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"limit": 199}, "too little"), ({"queries": ""}, "--live needs --queries"), ({"model": ""}, "--model")],
)
def test_what_is_missing_is_said_before_anything_is_asked(options: Json, message: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=message):
        opened(tmp_path, "http://127.0.0.1:9", **options)


def test_users_queries_are_not_spent_on_timing(tmp_path: Path) -> None:
    with serving(lists) as served:
        target = opened(tmp_path, served.url)
        asked = served.rows
        assert target.utility(0, "", lambda made: pytest.fail("no Guard is started")) == []
        assert served.rows == asked
