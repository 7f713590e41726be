"""The planner: what it solves is what the filter admits, and what opacus would say against it is heard."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from guard.privacy.events import BoundedRange, Composed, Event, Gaussian, Laplace, Pure
from guard.privacy.filters import Filter
from guard.privacy.gaussian import delta_of
from guard.privacy.planner import (
    Opinion,
    curve,
    disagreements,
    fewest_digits,
    noise_of,
    price,
    solve_epsilon,
    solve_noise,
)
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS: dict[str, Callable[[float], Event]] = {
    "gaussian": Gaussian,
    "coarse": lambda noise: Gaussian(noise, fine=False),
    "laplace": Laplace,
    "pure": lambda noise: Pure(1.0 / noise),
    "bounded": lambda noise: BoundedRange(1.0 / noise),
    "threshold": lambda noise: Composed((Gaussian(2.0 * noise), Gaussian(noise))),
}
ASKED = [(0.3, 1e-9, 1), (8.0, 1e-5, 1000)]
PLAN = price(Gaussian(20.648), 8.0, 1e-6, 10)
AGREES = Opinion(rdp_epsilon=8.5226, rdp_answers=897, rdp_noise=21.8, prv_epsilon=8.04, prv_error=0.04, prv_noise=20.82)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("epsilon", "delta", "answers"), ASKED)
def test_solved_noise_admits_the_answers_and_hardly_less_noise_does_not(
    kind: str, epsilon: float, delta: float, answers: int
) -> None:
    noise = solve_noise(KINDS[kind], epsilon, delta, answers, 10)
    assert price(KINDS[kind](noise), epsilon, delta, 10).answers >= answers
    assert price(KINDS[kind](noise * 0.9999), epsilon, delta, 10).answers < answers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("noise", "delta", "answers"), [(3.0, 1e-5, 1), (40.0, 1e-9, 1000)])
def test_solved_epsilon_admits_the_answers_and_hardly_less_does_not(
    kind: str, noise: float, delta: float, answers: int
) -> None:
    event = KINDS[kind](noise)
    epsilon = solve_epsilon(event, delta, answers, 10)
    assert price(event, epsilon, delta, 10).answers >= answers
    assert price(event, epsilon * 0.9999, delta, 10).answers < answers


def test_what_is_solved_has_few_digits() -> None:
    assert len(repr(solve_noise(Gaussian, 8.0, 1e-6, 1000, 10))) <= 6
    assert len(repr(solve_epsilon(Gaussian(50.0), 1e-5, 1000, 10))) <= 6


def test_more_digits_are_kept_where_few_are_not_enough() -> None:
    assert fewest_digits(1.23456789, lambda value: value <= 1.2345679) == 1.2345679
    assert fewest_digits(1.23456789, lambda value: value == 1.23456789) == 1.23456789


def test_nothing_admits_more_than_any_noise_or_any_epsilon_can() -> None:
    with pytest.raises(ValueError, match="not even epsilon 1000"):
        solve_epsilon(Gaussian(0.01), 1e-6, 10**9, 10)
    with pytest.raises(ValueError, match="no noise"):
        solve_noise(Gaussian, 1e-9, 1e-30, 10**12, 10)


def test_a_price_says_what_is_spent_and_what_one_answer_costs() -> None:
    assert PLAN.filter == Filter("gdp")
    assert PLAN.answers == 1000
    assert PLAN.alone < PLAN.spent <= PLAN.epsilon
    # Independent of the filter: the exact formula, with all answers' mu in one.
    assert delta_of(PLAN.spent, (PLAN.answers / 20.648**2) ** 0.5) <= 1e-6
    assert price(Gaussian(20.648), 8.0, 1e-6, 10, Filter("rdp", 6.0)).answers < 1000
    assert price(Gaussian(1e-3), 8.0, 1e-6, 10).answers == 0


def test_a_curve_rises_and_leaves_out_what_admits_nothing() -> None:
    points = curve(Gaussian(2.0), [0.01, 1.0, 2.0, 8.0], 1e-6, 10)
    assert [epsilon for epsilon, _ in points] == [2.0, 8.0][-len(points) :]
    assert [answers for _, answers in points] == sorted(answers for _, answers in points)


def test_only_what_is_gaussian_throughout_has_a_noise_multiplier() -> None:
    assert noise_of(Gaussian(3.0)) == (3.0,)
    assert noise_of(Composed((Gaussian(3.0), Pure(1.0)))) is None
    assert noise_of(Laplace(3.0)) is None


def test_opinions_that_agree_or_are_missing_are_no_disagreement() -> None:
    assert disagreements(PLAN, 20.648, AGREES) == []
    assert disagreements(PLAN, 20.648, Opinion(None, None, None, None, 0.04, None)) == []


@pytest.mark.parametrize(
    ("opinion", "words"),
    [
        (replace(AGREES, prv_epsilon=8.15), ["7.9998", "8.07 by opacus' PRV"]),
        (replace(AGREES, prv_noise=21.1), ["20.648", "opacus' PRV accountant at least 20.783"]),
        (replace(AGREES, rdp_epsilon=7.9), ["7.9998", "only 7.9 by opacus' RDP"]),
        (replace(AGREES, rdp_answers=1002), ["1,000 answers", "1,002"]),
        (replace(AGREES, rdp_noise=20.5), ["20.648", "only 20.5"]),
    ],
)
def test_each_figure_that_is_beyond_opacus_is_told_with_both(opinion: Opinion, words: list[str]) -> None:
    (said,) = disagreements(PLAN, 20.648, opinion)
    assert all(word in said for word in words), said


def test_a_filter_that_understates_by_a_hundredth_is_found() -> None:
    assert disagreements(replace(PLAN, spent=PLAN.spent * 0.99), 20.648, AGREES)


def test_a_shared_filter_may_admit_less_but_never_account_for_less() -> None:
    less = replace(PLAN, answers=500)
    assert disagreements(less, 20.648, AGREES)
    assert disagreements(less, 20.648, AGREES, own_filter=False) == []
    assert disagreements(replace(PLAN, spent=7.0), 20.648, AGREES, own_filter=False)


HOOKED = """
import importlib, json, pkgutil, sys

class Watch:
    asked = set()
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("torch", "opacus", "dp_accounting"):
            self.asked.add(top)
        return None

sys.meta_path.insert(0, Watch())
import guard, guard.proxy.server
for module in pkgutil.walk_packages(guard.__path__, "guard."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
{more}
loaded = sorted(name for name in sys.modules if name.startswith("guard."))
print(json.dumps([sorted(Watch.asked | (sys.modules.keys() & {{"torch", "opacus"}})), loaded]))
"""


def asked_for(more: str, folder: Path) -> tuple[list[str], list[str]]:
    """Import all of Guard in a fresh interpreter; return which heavy packages it asked for, and its modules."""
    program = folder / "program.py"
    program.write_text(HOOKED.format(more=more))
    done = subprocess.run(
        [sys.executable, str(program)], env={"PYTHONPATH": str(ROOT), "PATH": ""}, input="{}\n", capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked, loaded = json.loads(done.stdout.splitlines()[-1])
    return asked, loaded


def test_no_module_of_guard_imports_torch_or_opacus(tmp_path: Path) -> None:
    asked, loaded = asked_for("", tmp_path)
    assert {"guard.proxy.server", "guard.privacy.planner", "guard.cli.budget_plan"} <= set(loaded)
    assert asked == []


def test_the_oracle_alone_asks_for_opacus_when_it_runs(tmp_path: Path) -> None:
    """The negative control: the test above looks where an import would show."""
    asked, _ = asked_for("import guard.privacy.oracle; guard.privacy.oracle.main()", tmp_path)
    assert "opacus" in asked


@pytest.mark.parametrize("line", ["", "x", "[]", "{}", '{"answers": 1}'])
def test_the_oracle_answers_what_it_cannot_read_with_one_line(line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "guard.privacy.oracle"], cwd=ROOT, input=line + "\n", capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "error" in json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
