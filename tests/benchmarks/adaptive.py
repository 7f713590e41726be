"""Evasion by attackers who adapt, through Guard in process: `strict` as it ships, with declared inputs, with a profile.

    python -m tests.benchmarks.adaptive --profile digits.profile.json --seeds 0 1 2 3 4 --output .bench/adaptive.json
    python -m tests.benchmarks.adaptive --calibrate 2100          (makes the profile first: about 4 minutes of CPU)

Attackers, all of whom attack the lab's `digits_mlp` with eight accounts, each a customer of its own:

* `oars`: the self-test's; leaves an account at the first bare labels, 429 or 403, then probes more widely and hides
  deeper among data of its own;
* `stubborn`: the same, but labels are enough for it: it leaves at 403 and 429 only;
* `hidden 90%`, `hidden 95%`: stubborn, probes four times as wide, and hides from the start, among queries as an honest
  customer asks them: fresh ones, not repeats of a few hundred rows;
* `hopskipjump`: the self-test's, which adapts to nothing, on one account.

Success is what the model itself says, within the bound that `oars` states; inputs that a straight line wins are left
out, for `hopskipjump` too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from guard.model.arrays import Floats, Ints
from guard.selftest.attacks.boundary import FIRST, ITERATIONS, walk
from guard.selftest.attacks.evasion import Hunt, Plan, hunt, inputs, lined, reach, span_of, won
from guard.selftest.attacks.oars import WIDEST, Careful, Manner, plan
from guard.selftest.base import Api, Rows, World
from guard.selftest.lab.judge import LabJudge
from tests.support.customers import Shop, customer, guarded_by, lab_model, profile_of, write_keys, written

IMAGES, SHARE, LIMIT, ACCOUNTS, FEW = 20, 0.45, 3000, 8, 16
COVER_SEED = 9_000_000
"""Cover is asked by customers that no calibration has seen."""
DEFENCES = ("undefended", "strict", "strict, inputs declared", "strict, profile")


@dataclass(frozen=True)
class Result:
    """One attack.

    Args:
        defence: of `DEFENCES`.
        attacker: who.
        seed: of the attack's draws.
        won: inputs with an adversarial example within the bound.
        searched: of them, those that took more than `FEW` queries: the others lie on a line between two rows of data.
        inputs: under attack.
        queries: the attack's own.
        rows: with cover among them.
        accounts: that were asked with.
        left: what ended accounts, in order: `labels`, or a status.
        own: queries of the attack's own that each account that was left had answered.
        median: queries for a success, None without.
        seconds: of CPU.
    """

    defence: str
    attacker: str
    seed: int
    won: int
    searched: int
    inputs: int
    queries: int
    rows: int
    accounts: int
    left: list[str]
    own: list[int]
    median: int | None
    seconds: float


class Noting(Careful):
    """Hides among rows of honest customers, drawn anew.

    Args:
        accounts: by which it may ask.
        cover: returns so many rows to hide among.
        manner: changed by each refusal.
        rng: draws places.
        minds: bare labels are a refusal.
    """

    def __init__(
        self, accounts: list[Api], cover: Callable[[int], Floats], manner: Manner, rng: np.random.Generator, minds: bool
    ) -> None:
        super().__init__(accounts, np.empty((0, 1)), manner, rng, minds=minds)
        self.fresh = cover

    def _among(self, rows: Floats, places: NDArray[np.intp], total: int) -> Floats:
        batch = np.empty((total, rows.shape[1]))
        hiding = np.ones(total, dtype=bool)
        hiding[places] = False
        batch[hiding] = self.fresh(total - len(rows))
        batch[places] = rows
        return batch


@dataclass(frozen=True)
class Attacker:
    """Who attacks.

    Args:
        name: of the attacker.
        minds: leaves an account that is answered with labels.
        level: which of `SHARES` it begins with.
        width: of its probes, at first.
        fresh: hides among queries as honest customers ask them, instead of its own few hundred rows.
        accounts: how many.
    """

    name: str
    minds: bool = True
    level: int = 0
    width: float = 1.0
    fresh: bool = False
    accounts: int = ACCOUNTS


ATTACKERS = (
    Attacker("oars"),
    Attacker("stubborn", minds=False),
    Attacker("hidden 90%", minds=False, level=3, width=WIDEST, fresh=True),
    Attacker("hidden 95%", minds=False, level=4, width=WIDEST, fresh=True),
    Attacker("hidden 95%, 32 accounts", minds=False, level=4, width=WIDEST, fresh=True, accounts=32),
)


def own_rows(own: Floats, rng: np.random.Generator) -> Callable[[int], Floats]:
    """Return what draws from the attacker's own rows."""
    return lambda n: own[rng.integers(len(own), size=n)]


def honest_rows(seed: int) -> Callable[[int], Floats]:
    """Return what goes on with honest customers' streams, one after the other."""

    def stream() -> Iterator[Floats]:
        number = 0
        while True:
            yield from customer(COVER_SEED + seed, number)[1]
            number += 1

    rows = stream()
    width = 64

    def draw(n: int) -> Floats:
        return np.array([next(rows) for _ in range(n)]).reshape(n, width)

    return draw


def targets(world: World) -> Hunt:
    """Return the inputs under attack, as `oars` chooses them."""
    x, y = inputs(world, 2 * IMAGES)
    bound = reach(world.judge, SHARE)
    every = Hunt(x, y, "l2", np.full(len(x), bound), span_of(world))
    chosen = np.flatnonzero(~lined(world.judge, every))[:IMAGES]
    return Hunt(x[chosen], y[chosen], "l2", np.full(len(chosen), bound), span_of(world))


def adapting(world: World, who: Attacker) -> tuple[Hunt, Noting]:
    """Attack all inputs in lock-step, with as many accounts as the attacker has."""
    own = cast("Floats", world.knows.own_x)
    found = targets(world)
    manner = Manner(who.width, who.level)
    rng = world.rng("cover")
    cover = honest_rows(world.seed) if who.fresh else own_rows(own, rng)
    api = Noting([world.account(i) for i in range(who.accounts)], cover, manner, rng, who.minds)
    starts = starting(world, own, found.y)
    plans = [
        plan(row, int(c), starts[i], (world.knows.low, world.knows.high), manner, world.rng(f"plan {i}"))
        for i, (row, c) in enumerate(zip(found.x, found.y, strict=True))
    ]
    hunt(api, found, plans, LIMIT)
    return found, api


def starting(world: World, own: Floats, y: Ints) -> list[Floats]:
    """Return, for each input, the attacker's own rows of other classes."""
    drawn = world.rng("starts").permutation(len(own))
    classes = np.asarray(world.knows.own_y)[drawn]
    return [own[drawn[classes != c][:200]] for c in y]


def walking(world: World) -> Hunt:
    """Attack the same inputs as HopSkipJump does, on one account."""
    found = targets(world)
    plans: list[Plan] = [
        walk(row, int(c), world.knows.low, world.knows.high, world.rng(f"plan {i}"), ITERATIONS, FIRST)
        for i, (row, c) in enumerate(zip(found.x, found.y, strict=True))
    ]
    hunt(world.api, found, plans, LIMIT)
    return found


class _Bare:
    """The lab model itself."""

    def __init__(self, predict: Callable[[Rows], Floats]) -> None:
        self.ask = predict


def worlds(defence: str, folder: Path, profile: Path, seed: int, loop: asyncio.AbstractEventLoop) -> World:
    """Return an attacker's world behind a fresh Guard."""
    names = [f"attacker{i}" for i in range(max(who.accounts for who in ATTACKERS))]
    write_keys(folder, names)
    model = lab_model()
    bounds = {} if defence != "strict" else {"bounds": ""}
    policy = guarded_by("strict", folder, profile if "profile" in defence else None, **bounds)
    world = Shop(policy, folder, model, loop).world(seed, names)
    if defence != "undefended":
        return world
    bare = cast("Api", _Bare(LabJudge(model).truth))

    def account(number: int) -> Api:
        del number
        return bare

    return replace(world, api=bare, account=account)


def run(defence: str, who: Attacker | None, seed: int, profile: Path, loop: asyncio.AbstractEventLoop) -> Result:
    """Run one attack behind a fresh Guard; None is HopSkipJump."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        world = worlds(defence, Path(name), profile, seed, loop)
        if who is None:
            found = walking(world)
            why = [found.ended.partition("(")[2][:3]] if found.ended else []
            used, own, rows = 1, [found.asked] if why else [], found.asked
        else:
            found, api = adapting(world, who)
            why, own, rows = api.why, api.burnt, api.asked
            used = len(api.burnt) + bool(api.left)
    wins = won(world.judge, found)
    return Result(
        defence,
        "hopskipjump" if who is None else who.name,
        seed,
        int(wins.sum()),
        int((wins & (found.spent > FEW)).sum()),
        len(wins),
        found.asked,
        rows,
        used,
        why,
        own,
        int(np.median(found.spent[wins])) if wins.any() else None,
        time.process_time() - began,
    )


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table, seeds put together."""
    head = ("attacker", "defence", "success", "by a search", "by seed", "own queries", "rows", "left: labels, 403, 429")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, defence in dict.fromkeys((r.attacker, r.defence) for r in results):
        found = [r for r in results if (r.attacker, r.defence) == (name, defence)]
        hits, n = sum(r.won for r in found), sum(r.inputs for r in found)
        low, high = wilson(hits, n)
        cells = (
            name,
            defence,
            f"{hits / n:.0%} [{low:.0%}, {high:.0%}]",
            f"{sum(r.searched for r in found) / n:.0%}",
            ", ".join(f"{r.won}/{r.inputs}" for r in found),
            f"{np.mean([r.queries for r in found]):,.0f}",
            f"{np.mean([r.rows for r in found]):,.0f}",
            ", ".join(f"{sum(r.left.count(w) for r in found) / len(found):.1f}" for w in ("labels", "403", "429")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return a share's 95% interval (Wilson 1927)."""
    z, share = 1.959964, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(0.0, middle - half), min(1.0, middle + half)


def read(paths: Sequence[Path]) -> list[Result]:
    """Return what was written before."""
    return [Result(**json.loads(line)) for path in paths for line in path.read_text().splitlines()]


def main() -> None:
    """Run every attacker against every defence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, help="of digits' customers; made when it is left out")
    parser.add_argument("--calibrate", type=int, default=2100, help="customers that it is made of")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--attackers", nargs="*", default=["hopskipjump", *(who.name for who in ATTACKERS)])
    parser.add_argument("--defences", nargs="*", default=list(DEFENCES))
    parser.add_argument("--output", type=Path, help="JSON lines, one a run")
    parser.add_argument("--read", type=Path, nargs="+", help="print the table of earlier outputs, and run nothing")
    options = parser.parse_args()
    if options.read:
        print(table(read(options.read)))
        return
    profile: Path | None = options.profile
    if profile is None:
        profile = Path(tempfile.mkdtemp()) / "digits.profile.json"
        written(profile_of(7, options.calibrate, lab_model())[0], profile)
    loop, results = asyncio.new_event_loop(), list[Result]()
    for name in options.attackers:
        who = next((who for who in ATTACKERS if who.name == name), None)
        for defence in options.defences:
            for seed in options.seeds:
                results.append(run(defence, who, seed, profile, loop))
                print(json.dumps(asdict(results[-1])), flush=True)
                if options.output:
                    with options.output.open("a") as file:
                        file.write(json.dumps(asdict(results[-1])) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
