"""What a search writes: a policy that loads, says what it costs and holds no secret; a picture of the front."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.policy.gates import Gate
from guard.policy.load import load_policy
from guard.selftest.results import GateResult, Utility
from guard.selftest.tuning.search import Point, Wanted
from guard.selftest.tuning.space import Candidate
from guard.selftest.tuning.write import draw_front, policy_text

GATE = Gate.model_validate({"attack": "equation_solving_softmax", "metric": "surrogate_l1", "min": 0.02})
WANTED = Wanted((GATE,), "equation_solving_softmax", "surrogate_l1")
SECRET = "Bearer upstream-token"


def point(price: float, leakage: float | None, **spec: object) -> Point:
    utility = [Utility("digits", 0.0, price, None, None, 1.0, 2.0, 0.0, 100)]
    gates = [GateResult("equation_solving_softmax", "surrogate_l1", "min", 0.02, leakage, True)]
    return Point(Candidate((dict(spec),) if spec else (), 1.0), utility, leakage, gates, True)


def test_the_policy_extends_the_operators_and_keeps_its_secrets_out(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "version: 1\nname: mine\nupstream_headers: [{name: authorization, value: {file: token}}]\n"
        "routes: [{name: a, api: mlflow}, {name: b, api: mlflow, match: {path: /invocations}}]\n"
    )
    policy = load_policy(mine, env={}).policy
    best = point(0.06, 0.031, kind="grid", step=0.05)
    text = policy_text(str(mine), policy, policy.routes[1], best, WANTED, target="the lab", seed=3)
    assert SECRET not in text
    assert "# Gate equation_solving_softmax surrogate_l1 ≥ 0.02: 0.031, holds." in text
    assert "scores move by 0.060" in text
    (tmp_path / "tuned.yaml").write_text(text)
    tuned = load_policy(tmp_path / "tuned.yaml", env={}).policy
    assert tuned.name == "mine-tuned"
    assert tuned.upstream_headers == policy.upstream_headers
    assert tuned.routes[0] == policy.routes[0]
    assert [d.kind for d in tuned.routes[1].defences] == ["grid"]
    assert [(b.kind, b.per) for b in tuned.routes[1].budgets] == [("information", "client"), ("information", "group")]
    assert tuned.selftest.gates == (GATE,)


def test_a_preset_is_extended_by_its_name() -> None:
    policy = load_policy("balanced", env={}).policy
    text = policy_text("balanced", policy, policy.routes[0], point(0.0, None), WANTED, target="the lab", seed=0)
    assert "\nextends: balanced\n" in text


@pytest.mark.parametrize("name", ["front.svg", "front.png"])
def test_the_front_is_drawn(tmp_path: Path, name: str) -> None:
    points = [point(0.0, 0.0), point(0.06, 0.03, kind="grid", step=0.05), point(0.2, None, kind="label_only")]
    draw_front(points, points[1], WANTED, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert data.startswith(b"\x89PNG") if name.endswith("png") else b"grid 0.05" in data or b"<svg" in data
