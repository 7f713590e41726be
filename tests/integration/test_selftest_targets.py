"""The lab's server plays the operator's model: attacked bare, behind the operator's policy, and as a live Guard."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard.policy.load import load_policy
from guard.selftest import processes
from guard.selftest.api import HttpApi, OpenInference
from guard.selftest.attacks.registry import attack_named
from guard.selftest.base import Outcome
from guard.selftest.cell import run_cell
from guard.selftest.lab.registry import victim
from guard.selftest.lab.shards import ensemble
from guard.selftest.targets.live import open_live
from guard.selftest.targets.own import OwnModel, open_own
from guard.selftest.targets.spec import TargetError
from guard.selftest.transplant import KEY_HEADER, Transplant, key, transplant
from tests.support.processes import guard as logging_guard

ATTACK = attack_named("equation_solving_softmax")
ONE = {"other_draws": ()}
"""One way of drawing is enough here, and a third of the time."""


@pytest.fixture(scope="module")
def upstream() -> Generator[str]:
    with processes.lab(0) as url:
        yield url


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = victim("digits", 0)
    x = np.concatenate((np.asarray(model.knows.own_x), np.asarray(model.test_x))).tolist()
    y = np.concatenate((np.asarray(model.knows.own_y), np.asarray(model.test_y))).tolist()
    path = tmp_path_factory.mktemp("rows") / "sample.jsonl"
    path.write_text("".join(json.dumps({"x": row, "y": label}) + "\n" for row, label in zip(x, y, strict=True)))
    return str(path)


def opened(upstream: str, queries: str) -> OwnModel:
    policy = load_policy("balanced", env=os.environ).policy
    return open_own(policy, policy.routes[0], upstream=upstream, queries=queries, model="digits")


@contextmanager
def guarded(made: Transplant, upstream: str, folder: Path) -> Generator[str]:
    folder.mkdir()
    with processes.guard(str(made.write(folder)), made.models(upstream), folder, env=made.env) as (url, _):
        yield url


def best(outcome: Outcome | None) -> float:
    assert outcome is not None
    return outcome.best("surrogate_l1").measures["surrogate_l1"].value


@pytest.mark.lab
def test_the_operators_model_is_copied_bare_and_less_well_behind_the_policy(
    upstream: str, queries: str, tmp_path: Path
) -> None:
    target = opened(upstream, queries)
    with target.open(0) as url:
        assert target.applicable(ATTACK) is None
        bare = run_cell(replace(target.cell(ATTACK, "undefended", "", 0, url), changes=ONE))
        made = target.transplant(ATTACK, 0)
        assert made is not None
        with guarded(made, url, tmp_path / "guard") as through:
            cell = replace(target.cell(ATTACK, "defended", "", 0, url), changes=ONE)
            behind = run_cell(replace(cell, url=through))
            split = run_cell(replace(cell, url=through, wrapper="split_accounts"))
        assert best(bare.outcome) < 1e-3
        assert 0.03 < best(behind.outcome) < 0.3
        assert split.outcome is not None, split.reason
        assert {"surrogate_l1_uniform", "agreement_uniform"} < set(split.outcome.tries[0].measures)
        (utility,) = target.utility(0, url, lambda made: guarded(made, url, tmp_path / "utility"))
    assert (utility.top1_changed, utility.refused) == (0.0, 0.0)
    assert 0.02 < utility.mean_l1 < 0.12


def test_an_ensemble_behind_guard_answers_what_its_shards_say_together(upstream: str, tmp_path: Path) -> None:
    policy = load_policy("private-ensemble", env=os.environ).policy
    made, together = transplant(policy, policy.routes[0], victim("digits", 0).knows), ensemble("digits", 0, 5, "mean")
    x = np.asarray(victim("digits", 0).test_x)[:100]
    with guarded(made, upstream, tmp_path / "guard") as url:
        api = HttpApi(url, OpenInference("digits"), 10, headers={KEY_HEADER: key(0)})
        answers = api.ask(x)
        api.close()
    truth = together.predict(x)
    np.testing.assert_array_equal(answers.argmax(axis=1), truth.argmax(axis=1))
    assert set(answers.max(axis=1).tolist()) <= {0.55, 0.75, 0.9, 0.99}
    assert np.abs(answers - truth).max() < 0.4
    single = victim("digits", 0).predict(x)
    assert np.abs(single - truth).sum(axis=1).mean() > 0.05


def test_a_running_guard_is_attacked_within_its_limit_and_says_so_in_its_log(
    upstream: str, queries: str, tmp_path: Path
) -> None:
    policy = load_policy("balanced", env=os.environ).policy
    made = transplant(policy, policy.routes[0], victim("digits", 0).knows)
    with logging_guard(made.write(tmp_path), upstream, tmp_path / "guard") as running:
        with pytest.raises(TargetError, match="does not know the credential"):
            open_live(running.url, queries=queries, key="wrong", model="digits")
        target = open_live(running.url, queries=queries, key=key(0), limit=600, model="digits", upstream=upstream)
        target.divide(1)
        with target.open(0) as url:
            control = run_cell(replace(target.cell(ATTACK, "undefended", "", 0, url), changes=ONE))
            through = run_cell(replace(target.cell(ATTACK, "defended", "", 0, url), changes=ONE))
        log = running.log.read_text()
    assert best(control.outcome) < 1e-3
    assert best(through.outcome) > 0.03
    assert log.count(f"self-test run {target.run} began on route default") == 1
    assert key(0) not in log
