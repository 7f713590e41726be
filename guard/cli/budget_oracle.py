"""Asks opacus about a plan: starts `guard.privacy.oracle` in an interpreter that has it, and compares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from guard.cli.budget_request import Unplannable
from guard.cli.common import Exit
from guard.privacy.events import Gaussian
from guard.privacy.planner import Opinion, disagreements, noise_of, solve_noise

if TYPE_CHECKING:
    from guard.cli.budget_planned import Planned

INSTALL = "pip install torch==2.13.0 then model-guard[dp]"
TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Check:
    """What came of asking opacus.

    Args:
        status: `agrees`, `disagrees`, or why it was not asked.
        said: in words, a line each.
        figures: opacus' own document; None when it was not asked.
        noise: the least noise multiplier that Guard wants for the plan's answers.
    """

    status: Literal["agrees", "disagrees", "not installed", "not Gaussian", "failed"]
    said: tuple[str, ...]
    figures: dict[str, Any] | None = None  # Any: JSON
    noise: float | None = None


def cross_check(planned: Planned, python: str | None) -> Check:
    """Hold a plan against opacus.

    Args:
        planned: the plan.
        python: an interpreter that has opacus; None takes this one, if it has.

    Raises:
        Unplannable: an interpreter was named, and cannot be asked.
    """
    noises = noise_of(planned.measurement.event)
    if noises is None:
        said = f"not cross-checked: opacus knows Gaussian noise only, not {planned.name}"
        return Check("not Gaussian", (said,))
    if python is None and find_spec("opacus") is None:
        return Check("not installed", (f"not cross-checked: {INSTALL}",))
    print("asking opacus, which takes some seconds to import", file=sys.stderr)
    now = planned.priced
    request = {
        "noise_multipliers": noises, "answers": now.answers, "epsilon": now.epsilon, "delta": now.delta,
    }  # fmt: skip
    try:
        figures = ask(request, python)
        return _compare(planned, figures, opinion_of(figures))
    except ValueError as error:
        if python is not None:
            hint = f"name an interpreter that has opacus: {INSTALL}"
            raise Unplannable(f"--oracle-python {python}: {error}", hint, Exit.UNREACHABLE) from error
        return Check("failed", (f"not cross-checked: {error}",))


def ask(request: dict[str, Any], python: str | None) -> dict[str, Any]:  # Any: JSON
    """Return the oracle's answer.

    Raises:
        ValueError: there is none; the message says why.
    """
    import guard.privacy.oracle as module

    # By its file, so that it runs where Guard is not installed; nothing of Guard's may stand in for a library there.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}
    env |= {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    if python is not None:
        env.pop("PYTHONPATH", None)
    command = [python or sys.executable, str(Path(module.__file__).resolve())]
    try:
        done = subprocess.run(  # noqa: S603 -- our own script, in the interpreter that the operator names
            command, input=json.dumps(request) + "\n", capture_output=True, text=True, env=env, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f"it cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"opacus gave no answer within {TIMEOUT_S:g} s") from error
    try:
        answer: Any = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ValueError(f"it gave no answer: {last[:200]}") from error
    if isinstance(answer, dict) and "error" in answer:
        raise ValueError(str(cast("dict[str, Any]", answer)["error"])[:500])
    return cast("dict[str, Any]", answer)


def opinion_of(figures: dict[str, Any]) -> Opinion:  # Any: JSON
    """Return the oracle's figures.

    Raises:
        ValueError: it is no answer of the oracle's, or a figure is no number: what cannot be compared must not agree.
    """
    try:
        rdp, prv = figures["rdp"], figures["prv"]
        numbers = [rdp[name] for name in ("epsilon", "answers", "noise_multiplier")]
        numbers += [prv[name] for name in ("epsilon", "error", "noise_multiplier")]
        if not all(value is None or isfinite(value) for value in numbers) or prv["error"] is None:
            raise ValueError("a figure of the oracle's is no number")
        if not isinstance(figures["notes"], list) or not isinstance(figures["opacus"], str):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise ValueError("its answer is not the oracle's") from error
    return Opinion(*numbers)


def _compare(planned: Planned, figures: dict[str, Any], opinion: Opinion) -> Check:  # Any: JSON
    now, rdp, prv = planned.priced, figures["rdp"], figures["prv"]
    fine = planned.priced.filter.kind == "gdp"
    least = solve_noise(
        lambda noise: Gaussian(noise, fine=fine), now.epsilon, now.delta, now.answers, planned.columns
    )  # fmt: skip
    against = disagreements(now, least, opinion, own_filter=planned.own_filter)
    said = [
        f"opacus {figures['opacus']}: epsilon of {now.answers:,} answers is {_between(opinion)} by its PRV accountant,"
        f" {_shown(rdp['epsilon'])} by RDP, {now.spent:.5g} by Guard's filter",
        f"RDP would admit {_shown(rdp['answers'])}; get_noise_multiplier wants {_shown(rdp['noise_multiplier'])} by"
        f" RDP, {_shown(prv['noise_multiplier'])} by PRV, Guard {least:.5g}",
        *figures["notes"],
    ]
    if against:
        return Check("disagrees", (*against, *said), figures, least)
    if opinion.rdp_epsilon is None and opinion.prv_epsilon is None:
        return Check("failed", ("not cross-checked: opacus gives no figure for this plan", *said[2:]), figures, least)
    return Check("agrees", tuple(said), figures, least)


def _between(opinion: Opinion) -> str:
    if opinion.prv_epsilon is None:
        return _shown(None)
    return f"{opinion.prv_epsilon - 2 * opinion.prv_error:.5g} to {opinion.prv_epsilon:.5g}"


def _shown(value: float | None) -> str:
    if value is None:
        return "not to be had"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
