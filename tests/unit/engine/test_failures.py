from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from guard.engine.failures import FAILURES, PHASES, Kind, Phase, as_markdown, outcome
from guard.errors import ClientError, Denied, GuardError, StateError, UpstreamError

DOCS = Path(__file__).resolve().parents[3] / "docs" / "failures.md"
ERRORS: dict[str, Exception] = {
    "client": ClientError("no", status=422),
    "denied": Denied("no", status=429),
    "upstream": UpstreamError("no"),
    "state": StateError("no"),
    "bug": ZeroDivisionError("1/0"),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", get_args(Kind))
def test_enforce_refuses_whatever_fails_wherever(phase: Phase, kind: str) -> None:
    action, shown = outcome(phase, ERRORS[kind], "enforce")
    assert action == "refuse"
    assert shown.status >= 400


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "forward"])
def test_shadow_passes_over_whatever_fails_but_the_model(phase: Phase) -> None:
    assert all(outcome(phase, error, "shadow")[0] == "pass" for error in ERRORS.values())


def test_shadow_cannot_answer_for_a_model_that_failed() -> None:
    assert outcome("forward", UpstreamError("gone"), "shadow")[0] == "refuse"


def test_every_phase_has_a_row_for_bugs() -> None:
    assert {phase for phase, kind in FAILURES if kind == "bug"} == set(PHASES) == set(get_args(Phase))


def test_a_bug_shows_nothing_of_itself() -> None:
    _, shown = outcome("release", ValueError("secret 31337"), "enforce")
    assert isinstance(shown, GuardError)
    assert "31337" not in shown.message
    assert shown.status == 500


def test_a_withheld_answer_is_the_models_failure() -> None:
    assert outcome("read_answer", ValueError("?"), "enforce")[1].status == 502
    assert outcome("read_answer", UpstreamError("?", status=404), "enforce")[1].status == 502


def test_the_docs_hold_this_table() -> None:
    assert as_markdown() in DOCS.read_text()
