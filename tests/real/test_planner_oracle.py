"""The planner and opacus itself: 120 plans agree, mistaken ones do not, and the command asks it in its own process.

`pytest -s` prints how far the two are apart; `docs/privacy.md` keeps a copy.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from guard.cli.budget_oracle import opinion_of
from guard.cli.common import Exit
from guard.privacy.events import Gaussian
from guard.privacy.planner import Opinion, Priced, disagreements, price, solve_noise
from tests.support.plans import USEFUL, Capture, document, plan
from tests.support.processes import ROOT, venv_of

pytestmark = pytest.mark.real
EPSILONS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 50.0)
DELTAS = (1e-5, 1e-6, 1e-9)
ANSWERS = (1, 10, 300, 1000, 100_000)
COLUMNS = 10
MANY = """
import json, sys
from guard.privacy.oracle import answer
print(json.dumps([answer(request) for request in json.load(sys.stdin)]))
"""
Document = dict[str, Any]  # Any: JSON


@pytest.fixture(scope="module")
def python() -> Path:
    return venv_of("dp")


def run(python: Path, arguments: list[str], text: str) -> Any:  # Any: JSON
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(python), *arguments], input=text, env=env, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def request(noises: list[float], plan_: Priced) -> Document:
    return {
        "noise_multipliers": noises,
        "answers": plan_.answers,
        "epsilon": plan_.epsilon,
        "delta": plan_.delta,
    }


@pytest.fixture(scope="module")
def grid(python: Path) -> list[tuple[Priced, float, Opinion, Document]]:
    """Return plan, noise, opinion and opacus' document for every combination."""
    plans: list[tuple[Priced, float]] = []
    for epsilon, delta, answers in product(EPSILONS, DELTAS, ANSWERS):
        noise = solve_noise(Gaussian, epsilon, delta, answers, COLUMNS)
        plans.append((price(Gaussian(noise), epsilon, delta, COLUMNS), noise))
    figures = run(python, ["-c", MANY], json.dumps([request([noise], made) for made, noise in plans]))
    return [(made, noise, opinion_of(f), f) for (made, noise), f in zip(plans, figures, strict=True)]


def test_every_plan_of_the_grid_agrees_with_opacus(grid: list[tuple[Priced, float, Opinion, Document]]) -> None:
    assert len(grid) == len(EPSILONS) * len(DELTAS) * len(ANSWERS) >= 100
    apart: list[float] = []
    for made, noise, opinion, figures in grid:
        least = solve_noise(Gaussian, made.epsilon, made.delta, made.answers, COLUMNS)
        assert disagreements(made, least, opinion) == [], (made, noise, figures)
        assert opinion.rdp_answers is not None
        assert opinion.rdp_answers <= made.answers
        assert opinion.prv_epsilon is not None
        middle = opinion.prv_epsilon - opinion.prv_error
        apart.append(abs(middle / made.spent - 1.0))
    shares = [opinion.rdp_answers / made.answers for made, _, opinion, _ in grid if opinion.rdp_answers]
    work = [figures["work_s"] for *_, figures in grid]
    print(f"\n{len(grid)} plans: Guard's epsilon and the middle of PRV's bounds are at most {max(apart):.1e} apart;")
    print(f"opacus' RDP accountant admits {min(shares):.1%} to {max(shares):.1%} of Guard's answers;")
    print(f"a plan took opacus {max(work):.2f} s at most, {sum(work) / len(work):.2f} s on average")
    assert max(apart) < 5e-4


def test_filters_that_admit_a_fiftieth_too_much_or_half_are_found(
    grid: list[tuple[Priced, float, Opinion, Document]],
) -> None:
    """The negative control: the same comparison, of a filter that is mistaken."""
    lenient = strict = 0
    for made, noise, opinion, _ in grid:
        lenient += bool(disagreements(replace(made, spent=made.spent * 0.98), noise, opinion))
        strict += bool(disagreements(replace(made, answers=made.answers // 2), noise, opinion))
    assert lenient == len(grid)
    # Where opacus' own orders are too few for so little epsilon, or one answer is all there is, half is no fewer.
    assert strict == sum(o.rdp_answers is not None and made.answers // 2 + 1 < o.rdp_answers for made, _, o, _ in grid)
    assert strict > len(grid) / 2


def test_a_threshold_and_a_vote_are_composed_by_opacus_itself(python: Path) -> None:
    made = price(Gaussian(24.0), 8.0, 1e-6, COLUMNS)
    line = json.dumps(request([30.0, 40.0], made)) + "\n"
    figures = run(python, ["-m", "guard.privacy.oracle"], line)
    assert disagreements(made, 24.0, opinion_of(figures)) == []
    alone = run(python, ["-m", "guard.privacy.oracle"], json.dumps(request([30.0], made)) + "\n")
    assert disagreements(made, 24.0, opinion_of(alone)) != []


def test_the_command_asks_opacus_and_prints_its_figures(python: Path, capsys: Capture) -> None:
    said = document(capsys, *USEFUL, "--records", "60000", "--oracle-python", str(python))
    check = said["cross_check"]
    assert check["status"] == "agrees"
    assert check["figures"]["opacus"] == "1.6.0"
    assert check["figures"]["prv"]["steps"] == 1000
    assert check["figures"]["rdp"]["answers"] < said["answers"] == 1000
    code, out, _ = plan(capsys, "--epsilon", "8", "--answers", "1000", "--oracle-python", str(python))
    assert code == Exit.FAILED
    assert "useless" in out
    assert "opacus 1.6.0" in out


def test_figures_that_opacus_cannot_give_are_named(python: Path, capsys: Capture) -> None:
    asked = ("--epsilon", "0.05", "--delta", "1e-12", "--answers", "1000", "--teachers", "4000")
    said = document(capsys, *asked, "--oracle-python", str(python))["cross_check"]
    assert said["status"] == "agrees"
    assert said["figures"]["prv"]["epsilon"] is None
    assert any("floating-point errors" in line for line in said["said"])
