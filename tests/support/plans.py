"""Runs `guard budget plan` in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guard.cli.main import main

Capture = pytest.CaptureFixture[str]
USEFUL = ("--epsilon", "8", "--answers", "1000", "--teachers", "100")
VALUES = ("--outputs", "value", "--low", "0", "--high", "5")
POLICY = """
version: 1
routes:
  - {name: open}
  - name: votes
    outputs: {kind: probabilities, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
    ensemble: {aggregate: noisy_vote, quorum: 90, noise_multiplier: 30, threshold: 60, threshold_noise_multiplier: 40}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 1000}
    budgets:
      - {kind: privacy, per: model, epsilon: 8, delta: 1.0e-6}
      - {kind: privacy, per: client, epsilon: 4, delta: 1.0e-6, period: 30d, guarantee: per_period}
"""


def plan(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    code = main(["budget", "plan", *arguments])
    done = capsys.readouterr()
    return code, done.out, done.err


def document(capsys: Capture, *arguments: str) -> dict[str, Any]:  # Any: JSON
    """Return the plan as JSON, whatever its exit code."""
    _, out, err = plan(capsys, *arguments, "--format", "json")
    assert out, err
    return json.loads(out)
