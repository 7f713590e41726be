"""The verdict in sentences: nothing is claimed that the intervals do not bear."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guard.selftest.report.verdict import effect, leakage, sentences, status
from guard.selftest.results import Figure, Row
from tests.unit.selftest.report import sample


def attacked(strongest: Figure, control: Figure | None = None, **floors: Figure) -> Row:
    metric = strongest.metric
    control = control or sample.figure(metric, 0.95, 0.01)
    return sample.row("x", "model extraction", metric, undefended=control, adaptive=strongest, floors=floors)


@pytest.mark.parametrize(
    ("strongest", "floors", "said"),
    [
        (sample.figure("agreement", 0.71), {"zero_query": sample.figure("agreement", 0.7)}, "stopped"),
        (sample.figure("agreement", 0.81), {"label_only": sample.figure("agreement", 0.8)}, "labels"),
        (sample.figure("agreement", 0.85), {"label_only": sample.figure("agreement", 0.8)}, "harder"),
        (sample.figure("agreement", 0.94), {"label_only": sample.figure("agreement", 0.8)}, "unchanged"),
        (sample.figure("agreement", 0.97), {}, "unchanged"),
        (sample.figure("auc", 0.505), {}, "stopped"),
        (sample.figure("auc", 0.6), {}, "harder"),
    ],
)
def test_effect_is_judged_by_intervals(strongest: Figure, floors: dict[str, Figure], said: str) -> None:
    assert effect(attacked(strongest, **floors)) == said


def test_a_floor_as_good_as_the_attack_makes_no_policy_look_good() -> None:
    floor = sample.figure("agreement", 0.95)
    assert effect(attacked(sample.figure("agreement", 0.95), zero_query=floor, label_only=floor)) == "unchanged"


def test_nothing_is_said_of_what_is_unresolved_unmeasured_or_has_no_control() -> None:
    assert effect(sample.unresolved()) is None
    assert effect(sample.broken_figures()) is None
    assert effect(replace(sample.tree(), undefended=None)) is None


def test_leakage_is_a_share_of_the_undefended_gain() -> None:
    row = sample.softmax()
    share = leakage(row, row.adaptive)
    assert share is not None
    assert share[0] == pytest.approx((0.17 - 0.115) / 0.17, abs=1e-3)
    assert share[1] < share[0] < share[2]


def test_leakage_of_an_attack_that_gains_nothing_undefended_is_not_made_up() -> None:
    row = attacked(sample.figure("agreement", 0.9), zero_query=sample.figure("agreement", 0.945))
    assert leakage(row, row.adaptive) is None
    assert leakage(sample.inversion(), sample.inversion().adaptive) is None


def test_a_threat_is_as_bad_as_its_worst_attack() -> None:
    text = " ".join(sentences(sample.report()))
    assert "copying the model (1 of 2 attacks)" in text
    assert "not measurably harder than without Guard" in text


@pytest.mark.parametrize(
    ("case", "word", "said"),
    [
        ("failing", "failed", "2 of 4 gates hold; 1 could not be judged. Not held: membership_lira auc is 0.930"),
        ("passing", "passed", "the only gate holds"),
        ("partial", "partial", "interrupted"),
        ("empty", "nothing ran", "no gates"),
        ("live", "passed", "Nothing was measured without Guard"),
    ],
)
def test_status_and_sentences(case: str, word: str, said: str) -> None:
    report = sample.EVERY[case]()
    assert status(report) == word
    assert said in " ".join(sentences(report))


def test_without_gates_nothing_is_called_passed() -> None:
    assert status(sample.passing(gates=())) == "no gates"


def test_the_closest_copy_stands_beside_its_floors() -> None:
    text = sentences(sample.passing())[-1]
    assert text.startswith("The closest copy (tree_path_finding) names the model's own class on 97.2%")
    assert "98.1% without Guard, 97.0% from bare labels and 71.0% for a thief who never asks" in text
