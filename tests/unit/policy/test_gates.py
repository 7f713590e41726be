"""Gates: one figure, one bound, and only words that the self-test knows."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from guard.errors import PolicyError
from guard.policy.gates import AttackName, MetricName, UtilityName
from guard.policy.load import load_policy
from guard.selftest.attacks.registry import names
from guard.selftest.measures import METRICS
from guard.selftest.results import Utility

MINIMAL = "version: 1\nroutes: [{api: mlflow}]\n"


def load(tmp_path: Path, gate: str) -> object:
    (tmp_path / "p.yaml").write_text(f"{MINIMAL}selftest: {{gates: [{{{gate}}}]}}\n")
    return load_policy(tmp_path / "p.yaml", env={}).policy.selftest.gates[0]


def test_the_words_are_the_self_tests_own() -> None:
    assert get_args(AttackName) == tuple(names())
    assert get_args(MetricName) == tuple(METRICS)
    assert set(get_args(UtilityName)) == {
        "top1_changed", "accuracy_lost", "mean_l1", "calibration_error", "added_p50_ms", "added_p99_ms", "refused",
    }  # fmt: skip
    measured = {*Utility.__dataclass_fields__, *dir(Utility)}
    assert set(get_args(UtilityName)) <= measured


def test_a_gate_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, "attack: equation_solving_softmax, metric: surrogate_l1, min: 0.02")
    assert load(tmp_path, "utility: top1_changed, max: 0")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("attack: equation_solving_softmx, metric: surrogate_l1, min: 1", "did you mean equation_solving_softmax?"),
        ("attack: equation_solving_softmax, metric: surrogate_l2, min: 1", "did you mean surrogate_l1?"),
        ("utility: top1_change, max: 0", "did you mean top1_changed?"),
        ("attack: equation_solving_softmax, min: 1", "needs its metric"),
        ("utility: mean_l1, metric: surrogate_l1, max: 1", "needs its metric"),
        ("attack: equation_solving_softmax, utility: mean_l1, metric: surrogate_l1, max: 1", "attack or about utility"),
        ("max: 1", "attack or about utility"),
        ("utility: mean_l1", "one bound"),
        ("utility: mean_l1, min: 0, max: 1", "one bound"),
        ("utility: mean_l1, max: .nan", "finite"),
        ("utility: mean_l1, maximum: 1", "did you mean max?"),
    ],
)
def test_what_no_gate_can_be_is_told_with_its_line(tmp_path: Path, gate: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(tmp_path, gate)
    (problem, *_) = caught.value.problems
    assert said in f"{problem.message} {problem.hint}"
    assert problem.line == 3
