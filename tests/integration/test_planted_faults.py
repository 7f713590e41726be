"""The self-test finds what is wrong with a Guard: each planted fault fails a gate that the sound Guard holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import faulty_guard
from tests.support.selftests import selftest

pytestmark = pytest.mark.lab

ROUTE = "version: 1\nname: planted\nroutes:\n  - name: r\n    api: open_inference\n    outputs: {kind: probabilities}\n"
NOISY = (
    ROUTE
    + """    inputs: {kind: vector, size: 30, low: -5, high: 5, step: 0.05}
    defences: [{kind: noise, mechanism: gaussian, scale: 0.05, reuse: query}]
selftest: {gates: [{attack: averaging, metric: residual_repeats, min: 0.03}]}
"""
)
ROUNDED = (
    ROUTE
    + """    defences: [{kind: grid, step: 0.1}]
selftest: {gates: [{attack: equation_solving_softmax, metric: surrogate_l1, min: 0.02}]}
"""
)
BUDGETED = (
    ROUTE
    + """    budgets: [{kind: information, per: client, graded_answers: 40, then: label_only, hard_limit: 3000}]
selftest: {gates: [{attack: equation_solving_softmax, metric: graded_answers, max: 40}]}
"""
)
PRIVATE = (
    ROUTE.replace("probabilities", "probabilities, classes: [a, b]")
    + """    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 1000}
    defences: [{kind: dp_gaussian, noise_multiplier: 13}]
    budgets: [{kind: privacy, per: model, epsilon: 8, delta: 1.0e-6}]
selftest: {gates: [{attack: averaging, metric: METRIC}]}
"""
)
"""It admits 396 answers: `guard explain` says so."""
PLANTED = [
    ("noise_keyed_on_raw_bytes", NOISY),
    ("second_copy_unrounded", ROUNDED),
    ("requests_counted_for_rows", BUDGETED),
    ("releases_forgotten", PRIVATE.replace("METRIC", "fresh_repeats, max: 0")),
    ("private_batch_charged_as_one_row", PRIVATE.replace("METRIC", "distinct_answers, max: 396")),
]


ELSEWHERE = {"parameters_unheeded"}
"""Tried on the preset `llm`, in test_preset_gates.py."""


@pytest.mark.parametrize(("fault", "policy"), PLANTED, ids=[fault for fault, _ in PLANTED])
def test_a_planted_fault_fails_a_gate_that_a_sound_guard_holds(tmp_path: Path, fault: str, policy: str) -> None:
    sound = selftest(tmp_path, policy)
    assert [row.verdict for row in sound.attacks] == ["held"], sound.attacks
    assert sound.passed
    broken = selftest(tmp_path, policy, fault)
    assert [row.verdict for row in broken.attacks] == ["not held"], broken.attacks
    assert not broken.passed


def test_every_planted_fault_is_tried() -> None:
    assert {fault for fault, _ in PLANTED} | ELSEWHERE == set(faulty_guard.FAULTS) - {"none"}
