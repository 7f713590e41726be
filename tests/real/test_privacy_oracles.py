"""Guard's filter against opacus (Renyi and numerical accountants) and dp-accounting (privacy loss distributions).

Neither library is part of Guard's serving process; they run in a venv of their own. `pytest -s` prints the tables;
`docs/privacy.md` keeps a copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from guard.privacy.events import Event, Gaussian, Laplace, Pure
from guard.privacy.filters import Filter, choose
from tests.support.processes import client, venv_of

pytestmark = pytest.mark.real
KINDS: Mapping[str, Callable[[float], Event]] = {
    "gaussian": Gaussian,
    "discrete_gaussian": partial(Gaussian, fine=False),
    "laplace": Laplace,
    "pure": Pure,
}
PRECISE = 5e-3
"""How far apart optimistic and pessimistic estimates may be, relatively: further, the oracle would say little."""
CLOSE = {"gdp": 1e-4, "rdp": 0.1}
"""How far above the pessimistic estimate Guard's epsilon may be, relatively."""
OPACUS_GRID = tuple(product((2.0, 5.0, 20.0, 150.0, 4000.0), (0.5, 1.0, 3.0, 8.0), (1e-9, 1e-6, 1e-5)))
Said = dict[str, Any]  # Any: the client's JSON


@dataclass(frozen=True)
class Round:
    """What a client asks for again and again until the budget is spent.

    Args:
        mix: (kind, parameter, count) of its answers.
        epsilon: of the budget.
        delta: of the budget.
    """

    mix: tuple[tuple[str, float, int], ...]
    epsilon: float
    delta: float

    @property
    def filter(self) -> Filter:
        """What a ledger of these answers runs on."""
        return choose([KINDS[kind](parameter) for kind, parameter, _ in self.mix], self.epsilon, self.delta, 10)

    def cost(self) -> int:
        """Return what one round costs, in units."""
        return sum(self.filter.cost(KINDS[kind](parameter)) * count for kind, parameter, count in self.mix)

    def case(self, rounds: int) -> Said:
        """Return the question to the oracles about so many rounds."""
        mix = [(kind, parameter, count * rounds) for kind, parameter, count in self.mix]
        answers = sum(count for _, _, count in mix)
        ask = ["pld", "prv"] if all(kind == "gaussian" for kind, _, _ in mix) else ["pld"]
        interval = self.epsilon * PRECISE / 2.0 / answers
        return {"mix": mix, "epsilon": self.epsilon, "delta": self.delta, "ask": ask, "interval": interval}

    def __str__(self) -> str:
        return " ".join(f"{kind}({parameter:g})*{count}" for kind, parameter, count in self.mix)


ROUNDS = (
    Round((("gaussian", 50.0, 1),), 2.6, 1e-5),
    Round((("gaussian", 20.0, 1),), 1.0, 1e-6),
    Round((("gaussian", 5.0, 1),), 4.0, 1e-9),
    Round((("gaussian", 1.0, 1),), 8.0, 1e-6),
    Round((("gaussian", 30.0, 3), ("gaussian", 10.0, 1)), 3.0, 1e-6),
    Round((("discrete_gaussian", 20.0, 1),), 2.0, 1e-6),
    Round((("discrete_gaussian", 3.0, 1),), 5.0, 1e-6),
    Round((("laplace", 40.0, 1),), 2.0, 1e-6),
    Round((("laplace", 10.0, 1),), 1.0, 1e-5),
    Round((("laplace", 2.0, 1),), 8.0, 1e-9),
    Round((("pure", 0.05, 1),), 2.0, 1e-6),
    Round((("pure", 0.25, 1),), 1.0, 1e-5),
    Round((("pure", 1.0, 1),), 8.0, 1e-9),
    Round((("gaussian", 30.0, 2), ("laplace", 30.0, 1)), 2.0, 1e-6),
    Round((("gaussian", 20.0, 4), ("pure", 0.1, 1)), 3.0, 1e-5),
    Round((("gaussian", 10.0, 2), ("laplace", 15.0, 2), ("pure", 0.1, 2)), 6.0, 1e-6),
)


def ask(cases: list[Said], folder: Path) -> list[Said]:
    """Return what the oracles say."""
    questions = folder / "cases.json"
    questions.write_text(json.dumps(cases))
    return client(venv_of("dp"), "dp", str(questions))


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Round, int, Said]]:
    """Return, for each kind of round, how many the filter admits and what the oracles say of them."""
    admitted = [each.filter.limit(each.epsilon, each.delta) // each.cost() for each in ROUNDS]
    cases = [each.case(rounds) for each, rounds in zip(ROUNDS, admitted, strict=True)]
    return list(zip(ROUNDS, admitted, ask(cases, tmp_path_factory.mktemp("dp")), strict=True))


def understated(said_epsilon: float, oracle: Said) -> bool:
    """Say whether an epsilon is below what the oracles say is at least lost."""
    return said_epsilon < max(oracle["pld_low"], oracle.get("prv_low", 0.0))


def test_epsilon_is_never_understated(spent: list[tuple[Round, int, Said]]) -> None:
    print("\n\nanswers, delta: what dp-accounting's PLD and opacus' PRV say all admitted answers cost, and Guard\n")
    print(f"{'round':52} {'filter':12} rounds  delta   PLD low  PLD high  PRV low PRV high  Guard  Guard/PLD high")
    for each, rounds, oracle in spent:
        read = each.filter.epsilon(each.cost() * rounds, each.delta)
        prv = f"{oracle['prv_low']:8.4f} {oracle['prv_high']:8.4f}" if "prv_low" in oracle else " " * 17
        print(
            f"{each!s:52} {each.filter!s:12} {rounds:6} {each.delta:6.0e} {oracle['pld_low']:8.4f}"
            f"  {oracle['pld_high']:8.4f} {prv} {read:7.4f}  {read / oracle['pld_high']:.4f}"
        )
        assert rounds > 0
        assert oracle["pld_high"] - oracle["pld_low"] <= PRECISE * oracle["pld_high"]
        assert not understated(read, oracle)
        assert read <= each.epsilon * (1.0 + 1e-9)
        assert oracle["delta_low"] <= each.delta
        assert read <= oracle["pld_high"] * (1.0 + CLOSE[each.filter.kind])


def test_half_the_price_is_understated_every_time(spent: list[tuple[Round, int, Said]], tmp_path: Path) -> None:
    """The negative control: both checks above catch a filter whose answers cost half."""
    doubled = ask([each.case(2 * rounds) | {"ask": ["pld"]} for each, rounds, _ in spent], tmp_path)
    for (each, rounds, oracle), twice in zip(spent, doubled, strict=True):
        assert understated(each.filter.epsilon(each.cost() * rounds // 2, each.delta), oracle)
        assert twice["delta_low"] > each.delta


def test_opacus_never_admits_more(tmp_path: Path) -> None:
    cases = [
        {"mix": [("gaussian", noise, 1)], "epsilon": epsilon, "delta": delta, "ask": ["rdp"]}
        for noise, epsilon, delta in OPACUS_GRID
    ]
    print(
        "\n\nanswers admitted: Guard on a fine grid (GDP), on a coarse one (one Renyi order); opacus RDP, at its best\n"
    )
    for (noise, epsilon, delta), said in zip(OPACUS_GRID, ask(cases, tmp_path), strict=True):
        fine, coarse = choose([Gaussian(noise)], epsilon, delta, 10), Gaussian(noise, fine=False)
        renyi = choose([coarse], epsilon, delta, 10)
        exact = fine.limit(epsilon, delta) // fine.cost(Gaussian(noise))
        bound, theirs = renyi.limit(epsilon, delta) // renyi.cost(coarse), said["rdp_answers"]
        more = f"{exact / theirs:.3f}" if theirs else ""
        print(f"noise {noise:6g}  epsilon {epsilon:4g}  delta {delta:.0e}  {exact:11} {bound:11}  {theirs:11}  {more}")
        assert theirs <= exact
        # Opacus adds floats; a unit's rounding is all that a fixed order may lose.
        assert theirs <= bound + 1 + theirs // renyi.cost(coarse)
        assert bound <= exact
