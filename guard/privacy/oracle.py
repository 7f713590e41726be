"""What opacus says of Gaussian answers: a process of its own, the only one that imports opacus (and with it torch).

`python -m guard.privacy.oracle` reads one JSON line from stdin and writes one to stdout. It takes nothing from Guard,
neither a formula nor a package, so that it is another opinion and runs in any interpreter that has opacus.

An answer of Guard's is a step of full-batch DP-SGD to opacus: sample rate 1. Its numerical accountant's time and memory
grow with the square root of steps over the error asked for; past `_MOST_POINTS`, steps are put together into fewer of
as much (n Gaussian answers of noise multiplier m are one of m / sqrt n), and the answer says into how many.

Request: {"noise_multipliers": [of one answer's parts], "answers": n, "epsilon": budget, "delta": budget}.
Answer: {"opacus": version, "rdp": {"epsilon", "answers", "noise_multiplier"}, "prv": {"epsilon", "error",
"noise_multiplier", "steps"}, "notes": [what could not be had and why], "import_s", "work_s"}, or {"error": why}.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

MOST_BYTES = 2**16
_MOST_POINTS = 2e5
"""Points of the numerical accountant's grid: 50 ms each time, and ten times as many err more at a small delta."""
_LEAST_DELTA = 1e-11
"""Below it the numerical accountant's floating-point errors decide (measured: up to a third of epsilon at 1e-12)."""
_FEW_STEPS = 16
"""Steps of the numerical accountant in the search for a noise multiplier, which asks it a dozen times."""
_ERROR = 0.005
"""Error of the numerical accountant, as a share of epsilon."""


def main() -> int:
    """Answer one request."""
    try:
        document = answer(json.loads(sys.stdin.readline(MOST_BYTES)))
    except (ValueError, KeyError, TypeError) as error:
        document = {"error": f"the request cannot be read: {type(error).__name__}: {error}"}
    except ImportError as error:
        document = {"error": f"opacus cannot be imported: {error}"}
    print(json.dumps(document))  # noqa: T201 -- the answer is this process's output
    return 0


def answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Return what opacus says of a request.

    Raises:
        ImportError: it is not installed.
        KeyError, TypeError, ValueError: the request is none.
    """
    began = time.monotonic()
    with warnings.catch_warnings():
        # It warns of log(0) at sample rate 1, and of the ends of its list of orders: both are expected here.
        warnings.simplefilter("ignore")
        opacus: Any = import_module("opacus")  # Any: it is not installed where types are checked
        accountants: Any = import_module("opacus.accountants")
        solver: Any = import_module("opacus.accountants.utils").get_noise_multiplier
        imported = time.monotonic()
        figures = _Opinion(accountants, solver, request).all()
    took = {"import_s": imported - began, "work_s": time.monotonic() - imported}
    return {"opacus": opacus.__version__, **figures, **took}


class _Opinion:
    """One request's figures; what cannot be had is None, with a note."""

    def __init__(self, accountants: Any, solver: Any, request: dict[str, Any]) -> None:  # Any: opacus, JSON
        self.rdp: Any = accountants.RDPAccountant
        self.prv: Any = accountants.PRVAccountant
        self.solver = solver
        self.parts = [float(noise) for noise in request["noise_multipliers"]]
        self.answers = int(request["answers"])
        self.epsilon = float(request["epsilon"])
        self.delta = float(request["delta"])
        self.notes: list[str] = []

    def all(self) -> dict[str, Any]:
        """Return every figure that can be had."""
        error = _ERROR * self.epsilon
        steps = self._steps(error)
        few = min(_FEW_STEPS, self.answers)
        rdp = {
            "epsilon": self._had("the RDP accountant", lambda: self._renyi(self.answers)),
            "answers": self._had("the RDP accountant's answers", self._renyi_answers),
            "noise_multiplier": self._had("get_noise_multiplier by RDP", lambda: self._solved("rdp", self.answers)),
        }
        prv = {
            "epsilon": self._had("the PRV accountant", lambda: self._numerical(steps, error)),
            "error": error,
            "noise_multiplier": self._had("get_noise_multiplier by PRV", lambda: self._solved("prv", few)),
            "steps": steps,
        }
        return {"rdp": rdp, "prv": prv, "notes": self.notes}

    def _had(self, what: str, work: Callable[[], float | None]) -> float | None:
        try:
            value = work()
        except (ValueError, RuntimeError, ArithmeticError, MemoryError, IndexError) as error:
            self.notes.append(f"{what} gives no figure: {type(error).__name__}: {error}")
            return None
        if value is not None and not math.isfinite(value):
            self.notes.append(f"{what} gives {value}")
            return None
        return value

    def _renyi(self, answers: int) -> float:
        accountant = self.rdp()
        accountant.history = [(noise, 1.0, answers) for noise in self.parts]
        return float(accountant.get_epsilon(delta=self.delta))

    def _renyi_answers(self) -> int:
        low, high = 0, 1
        while self._renyi(high) <= self.epsilon and high < 2**53:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._renyi(middle) <= self.epsilon else (low, middle)
        return low

    def _steps(self, error: float) -> int:
        """Return into how many steps the answers must be put together for the numerical accountant's grid to fit."""
        accountant = self.rdp()
        accountant.history = [(noise, 1.0, self.answers) for noise in self.parts]
        # Its own choice of a grid: Gopi, Lee and Wutschitz, 2021, remark 5.6, as opacus has it.
        reach = 2.0 * (float(accountant.get_epsilon(delta=self.delta / 4000)) + 3.0)
        depth = math.log(12_000 / self.delta) / 2.0
        fits = (_MOST_POINTS * error / reach) ** 2 / depth / len(self.parts)
        return max(1, min(self.answers, int(fits)))

    def _numerical(self, steps: int, error: float) -> float:
        self._decides()
        together = math.sqrt(steps / self.answers)
        accountant = self.prv()
        accountant.history = [(noise * together, 1.0, steps) for noise in self.parts]
        return float(accountant.get_epsilon(delta=self.delta, eps_error=error))

    def _decides(self) -> None:
        if self.delta < _LEAST_DELTA:
            raise ValueError(f"its floating-point errors decide at a delta below {_LEAST_DELTA:g}")

    def _solved(self, accountant: str, steps: int) -> float:
        numerical = accountant == "prv"
        if numerical:
            self._decides()
        error = _ERROR * self.epsilon
        given = {"eps_error": error} if numerical else {}
        tolerance = error if numerical else 1e-4 * self.epsilon
        found = self.solver(
            target_epsilon=self.epsilon, target_delta=self.delta, sample_rate=1.0, steps=steps, accountant=accountant,
            epsilon_tolerance=tolerance, **given,
        )  # fmt: skip
        return float(found) * math.sqrt(self.answers / steps)


if __name__ == "__main__":
    raise SystemExit(main())
