"""The operator's own model as a target, over real HTTP in process."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from guard.policy.load import load_policy, plan_of
from guard.policy.schema import Policy
from guard.selftest.api import Unreachable
from guard.selftest.attacks.registry import attack_named
from guard.selftest.base import Attack, Tally, Unresolved, World
from guard.selftest.cell import Cell, run_cell, world_of
from guard.selftest.targets.own import OwnModel, open_own
from guard.selftest.targets.spec import Layout, TargetError
from guard.selftest.transplant import KEY_HEADER, key, own_policy
from tests.unit.selftest.targets.servers import (
    NAMES,
    Answer,
    Json,
    Served,
    containers,
    lists,
    maps,
    objects,
    own,
    predict,
    ranked,
    serving,
    tensors,
)

X = np.random.default_rng(0).normal(size=(120, 4))


def queries(folder: Path, *, labels: bool = True, names: bool = False) -> str:
    found = predict(X).argmax(axis=1)
    path = folder / "rows.jsonl"
    lines: list[Json] = [{"x": row} for row in X.tolist()]
    if labels:
        lines = [{**line, "y": NAMES[y] if names else int(y)} for line, y in zip(lines, found, strict=True)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def policy(folder: Path, route: str, rest: str = "", env: dict[str, str] | None = None) -> Policy:
    path = folder / "policy.yaml"
    path.write_text(f"version: 1\nname: p\n{rest}\nroutes:\n  - {{{route}}}\n")
    return load_policy(path, env=env or {}).policy


def opened(folder: Path, served: Served, route: str, **options: Any) -> OwnModel:  # Any: options of `open_own`
    made = policy(folder, route)
    options.setdefault("queries", queries(folder) if "queries" not in options else "")
    return open_own(made, made.routes[0], upstream=served.url, model="m", **options)


def cell(target: OwnModel, url: str = "", attack: str = "equation_solving_softmax") -> Cell:
    made = target.cell(attack_named(attack), "undefended", "", 0, url or target.spec.upstream)
    return pickle.loads(pickle.dumps(made))


def world(target: OwnModel, url: str = "") -> World:
    return world_of(cell(target, url), Tally(), lambda share, what: None)


APIS: list[tuple[str, Answer, str]] = [
    ("open_inference", tensors, ""),
    ("kserve_v1", objects, ""),
    ("tensorflow_serving", lists, ""),
    ("torchserve", maps, ""),
    ("mlflow", lists, ""),
    ("sagemaker", containers, ""),
    ("huggingface", ranked, ""),
    ("json", own, ", match: {path: /score}, select: {queries: '$.rows[*].x', scores: '$.y[*].p'}"),
]


@pytest.mark.parametrize(("api", "answer", "more"), APIS)
def test_a_model_of_each_api_is_asked_and_judged(api: str, answer: Answer, more: str, tmp_path: Path) -> None:
    named = answer in (maps, ranked)
    with serving(answer) as served:
        target = opened(tmp_path, served, f"api: {api}{more}", queries=queries(tmp_path, names=named))
        seen = world(target)
        columns = [target.spec.layout.labels.index(name) for name in NAMES] if named else [0, 1, 2]
        np.testing.assert_allclose(seen.api.ask(X)[:, columns], predict(X))
        test = np.asarray(seen.judge.test_x)
        np.testing.assert_allclose(seen.judge.truth(test)[:, columns], predict(test))
        np.testing.assert_array_equal(seen.judge.test_y, seen.judge.truth(test).argmax(axis=1))
    assert seen.api.asked == len(X)
    assert {headers["user-agent"].partition("/")[0] for _, headers, _ in served.seen} == {"guard-selftest"}


def test_an_undefended_model_is_copied(tmp_path: Path) -> None:
    with serving(tensors) as served:
        done = run_cell(cell(opened(tmp_path, served, "api: open_inference")))
    assert done.outcome is not None, done.reason
    assert done.outcome.best("surrogate_l1").measures["surrogate_l1"].value < 1e-6
    assert done.outcome.best("agreement").measures["agreement"].value == 1.0
    assert done.outcome.queries == 200


def test_the_judge_and_the_attacker_see_different_rows(tmp_path: Path) -> None:
    with serving(tensors) as served:
        seen = world(opened(tmp_path, served, "api: open_inference"))
        test = np.asarray(seen.judge.test_x)
        np.testing.assert_allclose(seen.judge.truth(test), predict(test))
        assert served.rows == 64 + len(test)
        seen.judge.truth(test[:5])
        assert served.rows == 64 + len(test)
    assert not {tuple(row) for row in test} & {tuple(row) for row in np.asarray(seen.knows.own_x)}
    np.testing.assert_array_equal(seen.judge.test_y, predict(test).argmax(axis=1))
    with pytest.raises(KeyError):
        seen.judge.secret("weights")


def test_answers_that_measure_are_asked_once_for_all_workers(tmp_path: Path) -> None:
    with serving(tensors) as served:
        target = opened(tmp_path, served, "api: open_inference")
        with target.open(0):
            first = world(target).judge
            first.truth(first.test_x)
            asked = served.rows
            other = world(target).judge
            np.testing.assert_allclose(other.truth(other.test_x), predict(np.asarray(other.test_x)))
            assert served.rows == asked
            cache = Path(target.spec.cache)
            assert list(cache.glob("*.npz"))
        assert not cache.exists()
        assert target.spec.cache == ""


def test_the_tensor_is_called_what_the_server_calls_it(tmp_path: Path) -> None:
    metadata = {"name": "m", "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 2, 2]}]}
    with serving(tensors, metadata) as served:
        opened(tmp_path, served, "api: open_inference")
        asked = served.seen[-1][2]["inputs"][0]
        assert served.seen[0][0] == "/v2/models/m"
    assert (asked["name"], asked["datatype"], asked["shape"][1:]) == ("pixels", "FP32", [2, 2])


@pytest.mark.parametrize("metadata", [None, {"inputs": []}, {"inputs": [{"name": "a"}]}, [1], b"<html>"])
def test_metadata_that_say_nothing_change_nothing(metadata: Json, tmp_path: Path) -> None:
    with serving(tensors, metadata) as served:
        opened(tmp_path, served, "api: open_inference")
    assert served.seen[-1][2]["inputs"][0]["name"] == "x"


def one_at_a_time(served: Served, body: Json) -> tuple[int, Json]:
    status, answer = maps(served, body)
    return (500, {"message": "one row, please"}) if len(answer) > 1 else (status, answer)


def test_a_server_that_takes_one_row_a_request_is_asked_so(tmp_path: Path) -> None:
    with serving(one_at_a_time) as served:
        target = opened(tmp_path, served, "api: torchserve", queries=queries(tmp_path, names=True))
        assert world(target).api.ask(X[:3]).shape == (3, 3)
    assert target.spec.batch == 1
    assert "one row a request" in target.warnings[0]


REFUSALS: list[tuple[tuple[int, Json], type[Exception], str]] = [
    ((404, {}), TargetError, "no such endpoint or model"),
    ((401, {}), TargetError, "does not know the credential"),
    ((403, {}), TargetError, "denies"),
    ((415, {}), TargetError, "--template"),
    ((422, {}), TargetError, "inputs that the policy declares"),
    ((400, {"error": "no"}), TargetError, "answers 400"),
    ((429, {}), Unreachable, "a budget or a rate limit"),
    ((500, {"error": "crash"}), Unreachable, "answers 500"),
    ((200, {"hello": "world"}), TargetError, "no probabilities were found .* hold hello"),
    ((200, b"<html>"), TargetError, "cannot be read"),
]


@pytest.mark.parametrize(("answer", "kind", "message"), REFUSALS)
def test_a_model_that_cannot_be_asked_is_said(
    answer: tuple[int, Json], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with serving(lambda served, body: answer) as served, pytest.raises(kind, match=message):
        opened(tmp_path, served, "api: kserve_v1")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="the model cannot be reached"):
        opened(tmp_path, Served("http://127.0.0.1:9"), "api: kserve_v1")


def test_an_attack_survives_a_model_that_refuses_midway(tmp_path: Path) -> None:
    with serving(lists) as served:
        target = opened(tmp_path, served, "api: kserve_v1")

    def late(served: Served, body: Json) -> tuple[int, Json]:
        return (429, {}) if served.rows > 100 else lists(served, body)

    with serving(lists) as direct, serving(late) as guarded:
        moved = replace(target.spec, upstream=direct.url)
        done = run_cell(replace(cell(target, guarded.url), target=moved))
        assert done.outcome is not None, done.reason
        assert done.tally.first_refusal_at is not None
        assert 0 < done.outcome.queries <= 101
        gone = run_cell(replace(cell(target, "http://127.0.0.1:9"), target=moved))
        assert (gone.outcome, "does not answer" in gone.reason) == (None, True)


def test_accounts_are_keys_of_the_self_tests_guard_and_shadows_do_not_exist(tmp_path: Path) -> None:
    secret = {"MODEL_KEY": "s3cret"}
    made = policy(
        tmp_path, "api: kserve_v1", "upstream_headers: [{name: Authorization, value: {env: MODEL_KEY}}]", secret
    )
    with serving(lists) as served, serving(lists) as guarded:
        target = open_own(made, made.routes[0], upstream=served.url, queries=queries(tmp_path), model="m")
        seen = world(target, guarded.url)
        seen.account(3).ask(X[:1])
        seen.judge.truth(X[:1])
        with pytest.raises(Unresolved, match="lab only"):
            seen.shadow("digits")
        asked, direct = guarded.seen[-1][1], served.seen[-1][1]
    assert (asked[KEY_HEADER], asked.get("authorization")) == (key(3), None)
    assert (direct["authorization"], direct.get(KEY_HEADER)) == ("s3cret", None)
    assert "s3cret" not in repr(target.spec) + repr(cell(target))


def test_the_policy_stays_but_for_who_is_known(tmp_path: Path) -> None:
    made = policy(
        tmp_path,
        "name: b, api: json, match: {path: /score}, select: {queries: '$.x[*]', scores: '$.y[*]'}, "
        "inputs: {kind: vector, size: 4}, outputs: {classes: [a, b]}, defences: [{kind: round, decimals: 1}], "
        "budgets: [{kind: rows, per: client, limit: 9, window: 24h}]",
        "limits: {rows: 7}\nforward_headers: [x-tenant]\n"
        "upstream_headers: [{name: Authorization, value: {env: MODEL_KEY}}]\n"
        "identity: [{kind: api_key, keys_file: theirs}]",
        {"MODEL_KEY": "s3cret"},
    )
    kept = own_policy(made, made.routes[0], "json")
    assert "s3cret" not in json.dumps(kept.document)
    assert "s3cret" not in repr(kept)
    assert any(said.startswith("identity: was api_key") for said in kept.substitutions)
    again = load_policy(kept.write(tmp_path), env=kept.env)
    assert plan_of(again, api=None).mode == "enforce"
    assert again.policy.routes[0].model_dump() == made.routes[0].model_dump()
    assert (again.policy.limits, again.policy.forward_headers) == (made.limits, made.forward_headers)
    assert again.policy.upstream_headers[0].value.get_secret_value() == "s3cret"
    free = own_policy(made, made.routes[0], "json", budgets=False)
    assert "budgets" not in json.dumps(free.document["routes"])


def test_what_an_attack_lacks_is_the_reason_that_it_does_not_run(tmp_path: Path) -> None:
    with serving(lists) as served:
        target = opened(tmp_path, served, "api: mlflow", queries=queries(tmp_path, labels=False))

    def why(*needs: str, layout: Layout | None = None) -> str:
        chosen = target
        if layout is not None:
            chosen = OwnModel(target.policy, target.route, "mlflow", replace(target.spec, layout=layout))
        # Only what it needs is looked at.
        return chosen.applicable(cast("Attack", SimpleNamespace(needs=frozenset(needs)))) or ""

    assert why("vector", "scores") == ""
    assert "it runs in the lab" in why("lab", "vector")
    assert "the model takes lists of numbers" in why("text")
    assert "give every row of the queries a y" in why("own_labels")
    assert "--members" in why("members")
    assert "this one answers classes" in why("value")
    assert "labels alone" in why("scores", layout=Layout(3, graded=False))
    assert "this one answers a value" in why("vector", layout=Layout(1))
    assert why("value", layout=Layout(1)) == ""
    assert "it needs magic" in why("magic")


def test_a_route_that_asks_several_models_is_for_the_lab_or_a_running_guard(tmp_path: Path) -> None:
    made = policy(tmp_path, "api: mlflow, ensemble: {aggregate: mean, quorum: 2}")
    with pytest.raises(TargetError, match=r"asks several models.*--live"):
        open_own(made, made.routes[0], upstream="http://127.0.0.1:9", queries=queries(tmp_path))
