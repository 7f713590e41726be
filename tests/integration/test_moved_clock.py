"""Guard's test clock: an attacker who waits for days is measured in seconds, and only where the self-test says so."""

from __future__ import annotations

from pathlib import Path

from guard.policy.load import load_policy
from guard.selftest.cell import Cell, Done, run_cell
from guard.selftest.lab.registry import victim
from guard.selftest.processes import guard, lab
from guard.selftest.transplant import transplant

POLICY = """version: 1
routes:
  - api: open_inference
    outputs: {kind: probabilities}
    budgets: [{kind: rows, per: client, limit: 20, window: 24h, then: deny}]
"""


def attacked(folder: Path, url: str, wrapper: str) -> Done:
    (folder / "mine.yaml").write_text(POLICY)
    policy = load_policy(folder / "mine.yaml", env={}).policy
    made = transplant(policy, policy.routes[0], victim("breast_cancer", 0).knows)
    place = folder / (wrapper or "plain")
    place.mkdir()
    clock = place / "clock"
    with guard(str(made.write(place)), url, place, "--test-clock", str(clock)) as (guarded, _):
        cell = Cell("equation_solving_binary", "defended", wrapper, 0, "breast_cancer", guarded, clock=str(clock))
        return run_cell(cell)


def test_a_budget_with_a_window_holds_for_a_day_and_not_against_who_waits(tmp_path: Path) -> None:
    with lab(0) as url:
        hasty, patient = (attacked(tmp_path, url, wrapper) for wrapper in ("", "slow_pacing"))
    assert hasty.outcome is not None
    assert patient.outcome is not None
    assert hasty.tally.refusals == {429: 1}
    assert hasty.tally.rows == 20
    assert patient.outcome.best("surrogate_l1", plain=True).measures["surrogate_l1"].value < 1e-6
    assert hasty.outcome.best("surrogate_l1", plain=True).measures["surrogate_l1"].value > 0.01
