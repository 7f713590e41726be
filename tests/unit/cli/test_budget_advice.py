"""Useless plans are called so, and what is said to help does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guard.cli.common import Exit
from tests.support.plans import POLICY, USEFUL, VALUES, document, plan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.plans import Capture


def test_a_plan_without_a_bound_for_all_clients_together_says_what_they_may_pool(capsys: Capture) -> None:
    assert any("pool" in line for line in document(capsys, *USEFUL, "--per", "client")["reasons"])
    assert document(capsys, *USEFUL)["reasons"] == []


def test_noise_that_drowns_the_scores_is_useless_and_teachers_that_would_do_are_counted(capsys: Capture) -> None:
    code, out, _ = plan(capsys, "--epsilon", "8", "--answers", "1000")
    words = " ".join(out.split())
    assert code == Exit.FAILED
    assert "This plan is useless: 10% of released labels are the model's" in words
    assert "29.2 is more than two answers can differ by at all (1.41)" in words
    assert "DP-SGD" in words
    teachers = words.partition("more teachers: about ")[2].partition(" ")[0]
    enough = document(capsys, "--epsilon", "8", "--answers", "1000", "--teachers", teachers)
    assert enough["verdict"] == "usable"
    half = document(capsys, "--epsilon", "8", "--answers", "1000", "--teachers", str(int(teachers) // 2))
    assert half["verdict"] != "usable"


def test_answers_that_would_be_useful_are_counted(capsys: Capture) -> None:
    said = document(capsys, "--epsilon", "8", "--answers", "1000", "--teachers", "20")
    assert said["verdict"] == "useless"
    fewer = next(line for line in said["would_help"] if line.startswith("fewer answers")).split()[3]
    assert document(capsys, "--epsilon", "8", "--answers", fewer, "--teachers", "20")["verdict"] == "usable"
    assert document(capsys, "--epsilon", "8", "--answers", str(4 * int(fewer)), "--teachers", "20")["verdict"] == "poor"


def test_labels_alone_are_said_to_help_where_scores_are_lost(capsys: Capture) -> None:
    said = document(capsys, "--epsilon", "2", "--answers", "1000", "--teachers", "100")
    assert any(line.startswith("labels alone: noisy_vote of 100 teachers") for line in said["would_help"])
    vote = document(capsys, "--epsilon", "2", "--answers", "1000", "--teachers", "100", "--mechanism", "noisy_vote")
    assert not any(line.startswith("labels alone") for line in vote["would_help"])


def test_scores_that_are_lost_while_labels_hold_are_told(capsys: Capture, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.eye(100) * 0.5 + 0.005)
    data = ("--data", str(tmp_path / "flat.npy"), "--teachers", "100")
    said = document(capsys, "--epsilon", "8", "--noise-multiplier", "7", *data)
    assert said["verdict"] == "usable"
    assert "only the labels are worth anything" in said["reasons"][0]
    better = document(capsys, "--epsilon", "8", "--noise-multiplier", "0.7", *data)
    assert better["reasons"] == []


def test_noise_wider_than_a_range_of_values_is_told(capsys: Capture) -> None:
    said = document(capsys, "--epsilon", "1", "--answers", "1000", *VALUES)
    assert said["verdict"] == "useless"
    assert any("more than two answers can differ by at all (5)" in reason for reason in said["reasons"])


def test_where_no_ensemble_is_large_enough_that_is_told(capsys: Capture) -> None:
    said = document(capsys, "--epsilon", "0.01", "--answers", "10000", "--teachers", "100")
    assert "more teachers: not even 4,096 would do" in said["would_help"]
    most = document(capsys, "--epsilon", "0.01", "--answers", "10000", "--teachers", "4096")
    assert most["verdict"] == "useless"
    assert not any(line.startswith("more teachers") for line in most["would_help"])


def test_a_threshold_that_withholds_nearly_all_is_told(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY.replace("threshold: 60", "threshold: 90").replace(": 40}", ": 5}"))
    np.save(tmp_path / "torn.npy", np.full((10, 10), 0.1))
    said = document(capsys, "--policy", str(tmp_path / "p.yaml"), "--data", str(tmp_path / "torn.npy"))
    assert any("withheld by the threshold, and charged" in reason for reason in said["reasons"])


def test_randomised_response_is_not_told_to_take_more_teachers(capsys: Capture) -> None:
    asked = ("--epsilon", "8", "--answers", "1000", "--mechanism", "randomised_response")
    said = document(capsys, *asked)
    assert said["verdict"] == "useless"
    assert not any("more teachers: about" in line for line in said["would_help"])
    assert said["utility"]["changed"] == document(capsys, *asked, "--teachers", "250")["utility"]["changed"]


def test_an_epsilon_that_promises_nothing_is_useless_however_good_the_answers(capsys: Capture) -> None:
    asked = ("--answers", "1000", "--noise-multiplier", "3", "--teachers", "1000")
    code, out, _ = plan(capsys, *asked)
    assert code == Exit.FAILED
    assert "promises nothing" in " ".join(out.split())
    assert "less epsilon" in out


def test_noise_that_a_policy_has_worked_out_gets_the_same_advice(capsys: Capture, tmp_path: Path) -> None:
    policy = """
version: 1
routes:
  - outputs: {kind: probabilities, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
    ensemble: {aggregate: mean, quorum: 20}
    defences: [{kind: dp_gaussian, NOISE}]
    budgets: [{kind: privacy, per: model, epsilon: 8, delta: 1.0e-6}]
"""
    path = tmp_path / "p.yaml"
    path.write_text(policy.replace("NOISE", "epsilon: 8, delta: 1.0e-6, answers: 1000"))
    worked_out = document(capsys, "--policy", str(path))
    path.write_text(policy.replace("NOISE", f"noise_multiplier: {worked_out['noise_multiplier']!r}"))
    given = document(capsys, "--policy", str(path))
    assert len(given["would_help"]) == 4
    assert given == worked_out
