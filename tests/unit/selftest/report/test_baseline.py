"""Comparison with an earlier self-test: what is a regression, and what must not be taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from guard.selftest.report import write
from guard.selftest.report.baseline import compare, load, mismatches
from guard.selftest.report.json_report import Unreadable
from guard.selftest.results import Figure, Report, Row
from tests.unit.selftest.report import sample


def with_figure(row: Row, figure: Figure) -> Report:
    return sample.passing(attacks=(replace(row, adaptive=figure, attackers=(figure,)),))


def test_a_report_does_not_regress_from_itself(tmp_path: Path) -> None:
    write(sample.report(), [("json", tmp_path / "old.json")])
    old = load(tmp_path / "old.json")

    assert compare(old, sample.report()) == []
    assert mismatches(old, sample.report()) == []


@pytest.mark.parametrize(("value", "regresses"), [(0.09, True), (0.103, False), (0.2, False)])
def test_higher_is_safer_regresses_below_both_intervals(value: float, regresses: bool) -> None:
    new = with_figure(sample.softmax(), sample.figure("surrogate_l1", value, 0.007))

    found = compare(sample.passing(attacks=(sample.softmax(),)), new)

    assert bool(found) is regresses
    if regresses:
        assert "the strongest attacker gets 0.090 [0.083, 0.097], before 0.115 [0.108, 0.122]" in str(found[0])


@pytest.mark.parametrize(("value", "regresses"), [(0.99, True), (0.98, False), (0.5, False)])
def test_lower_is_safer_regresses_above_both_intervals(value: float, regresses: bool) -> None:
    new = with_figure(sample.tree(), sample.figure("agreement", value, 0.008))
    assert bool(compare(sample.passing(attacks=(sample.tree(),)), new)) is regresses


def test_an_attack_that_was_held_must_still_run_and_be_judged() -> None:
    old = sample.passing(attacks=(sample.softmax(), sample.tree()))
    unresolved = replace(sample.softmax(), verdict="unresolved", reason="no scores")

    assert [r.now for r in compare(old, sample.passing(attacks=()))] == ["missing"]
    assert [r.now for r in compare(old, sample.passing(attacks=(unresolved, sample.tree())))] == ["unresolved"]
    assert compare(old, sample.passing(attacks=()), asked={"hopskipjump"}) == []


def test_a_headline_that_is_not_measured_any_more_counts() -> None:
    old = sample.passing(attacks=(sample.softmax(),))
    assert [r.now for r in compare(old, with_figure(sample.softmax(), sample.figure("agreement", 0.9)))] == ["missing"]


def test_another_headline_is_compared_in_the_old_metric() -> None:
    agreement = sample.figure("agreement", 0.9, surrogate_l1=0.01)
    found = compare(sample.passing(attacks=(sample.softmax(),)), with_figure(sample.softmax(), agreement))
    assert [r.metric for r in found] == ["surrogate_l1"]


def test_figures_that_are_no_numbers_are_no_regression() -> None:
    old = sample.passing(attacks=(sample.broken_figures(),))
    assert compare(old, with_figure(sample.broken_figures(), sample.figure("auc", 0.99))) == []


@pytest.mark.parametrize(
    ("member", "value", "regresses"),
    [
        ("top1_changed", 0.02, True),
        ("top1_changed", 0.002, False),
        ("refused", 0.1, True),
        ("mean_l1", 0.3, True),
        ("mean_l1", 0.1, False),
        ("calibration_error", 0.2, True),
        ("calibration_error", 0.04, False),
        ("calibration_error", None, False),
        ("added_p50_ms", 3.0, True),
        ("added_p50_ms", 1.2, False),
    ],
)
def test_utility_regresses_beyond_chance(member: str, value: float | None, regresses: bool) -> None:
    utility = sample.utilities()
    new = sample.report(utility=[replace(utility[0], **{member: value}), *utility[1:]])

    found = compare(sample.report(), new)

    assert [r.metric for r in found] == ([member] if regresses else [])


def test_latency_of_another_machine_is_not_compared() -> None:
    utility = sample.utilities()
    new = sample.report(utility=[replace(utility[0], added_p50_ms=30.0)], hardware="64 cores")
    assert compare(sample.report(), new) == []


def test_a_doubtful_comparison_is_told() -> None:
    new = sample.report(
        policy="balanced\x1b[1m", seed=4, partial=True, attacks=(replace(sample.softmax(), attackers=()),)
    )

    found = mismatches(sample.report(), new)

    assert "the baseline's policy is strict, this self-test's is balanced?[1m" in found
    assert any("seed is 0" in sentence for sentence in found)
    assert "the self-test was interrupted" in found
    assert any("did not run: labels, published, split_accounts" in s or "published, labels" in s for s in found)


def test_files_that_cannot_be_a_baseline_are_told_with_their_name(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "other").write_text('{"schema_version": 99}')
    for name, said in (("missing", "No such file"), ("binary", "UTF-8"), ("other", "schema_version 99")):
        with pytest.raises(Unreadable, match=rf"{name}: .*{said}"):
            load(tmp_path / name)
