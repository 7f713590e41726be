"""Makes the shipped null: `python -m guard.calibrate.default_null [--write] [--clients 300] [--fresh 150]`.

Structure signals need no data of a route's own, only a notion of how often honest clients repeat, vary and approach
their queries. It is pooled over ten sets of real data of three kinds and eight kinds of simulated clients, with more
busy ones (retries, what-ifs, health checks, batches) than there are, so that it errs on the quiet side. Prints what it
measures on fresh clients, and on those of each set with the null of all others. Needs the extra `selftest`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from guard.calibrate.courses import course
from guard.calibrate.simulated import BUSY, DOMAINS, USUAL, Domain, Kind, client, coarse, domain
from guard.calibrate.windows import View, windows
from guard.detectors import DETECTORS
from guard.detectors.base import Detector
from guard.detectors.packed import pack_null
from guard.detectors.setup import Setup
from guard.detectors.sketch import Sketch, Sketcher
from guard.evidence.fit import fit_null
from guard.evidence.null import Null
from guard.evidence.values import Signal
from guard.model.arrays import Floats

FILE = Path(__file__).parents[1] / "detectors" / "default_null.json"
_SALT = b"guard default null, public: 16 bytes and more"
_SCALED = 0.7
"""Share of clients of tables on routes that declare their domain."""
_COARSE = 0.25
"""Share of clients of tables that the null is made with whose table is poorer than the data."""
_ALPHAS = (1e-2, 1e-3)


class _Found(NamedTuple):
    """Greatest ln e of one client: with the null of all data, and with that of all but its own."""

    kind: Kind
    known: float
    unknown: float


class _Simulated(NamedTuple):
    kind: Kind
    view: View
    width: int
    scaled: bool


def structure() -> list[Detector]:
    """Return the detectors of the structure tier, in the order of their signals."""
    return [
        spec(kind=kind)
        for kind, spec in DETECTORS.items()
        if spec.tier == "structure" and spec.names and not spec.profiled
    ]


def _simulate(of: Domain, seed: int, shares: dict[Kind, float], poorer: float = 0.0) -> _Simulated:
    rng = np.random.default_rng([seed, list(DOMAINS).index(of.name)])
    if of.kind == "table" and rng.random() < poorer:
        of = coarse(of, rng)
    kind, rows = client(of, rng, shares)
    scaled = of.kind != "text" and rng.random() < _SCALED
    sketch = Sketch(kind="text") if of.kind == "text" else Sketch(kind="vector", size=rows.shape[1])
    sketcher = Sketcher(sketch, _SALT, *(_declared(of) if scaled else (None, None)))
    features = sketcher.features(of.queries(rows))
    return _Simulated(kind, View(features, np.full(len(rows), np.nan)), sketcher.width, scaled)


def _declared(of: Domain) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of features uniform over the data's range, as `inputs` would declare it."""
    low, high = of.rows.min(axis=0), of.rows.max(axis=0)
    return (low + high) / 2, np.maximum(high - low, 1e-9) / math.sqrt(12)


def _runs_on(detector: Detector, one: _Simulated) -> bool:
    return one.scaled or not detector.scaled


def _windows(detectors: Sequence[Detector], one: _Simulated) -> list[Floats]:
    """Return window means by signal; none of the signals of a detector that would be off."""
    on = [detector for detector in detectors if _runs_on(detector, one)]
    found = iter(windows([detector.bind({}, one.width, _SALT) for detector in on], [], one.view))
    return [next(found) if _runs_on(detector, one) else np.zeros(0) for detector in detectors for _ in detector.names]


def _sup(detectors: Sequence[Detector], null: Null, one: _Simulated) -> float:
    """Return the greatest ln e of the structure tier over a client's stream."""
    on = [detector for detector in detectors if _runs_on(detector, one)]
    names = {name for detector in on for name in detector.names}
    rows = [number for number, signal in enumerate(null.signals) if signal.name in names]
    part = Null(
        tuple(null.signals[row] for row in rows),
        *(array[rows] for array in (null.edges, null.prototypes, null.log_weights, null.log_bets, null.mean)),
    )
    bound = tuple(detector.bind({}, one.width, _SALT) for detector in on)
    setup = Setup(Sketcher(None, _SALT), bound, (), part, len(rows), "0" * 12)
    return float(course(setup, one.view).structure.max())


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the null, measure it, and write it when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=300, help="a set of data (default: %(default)s)")
    parser.add_argument("--fresh", type=int, default=150, help="fresh clients a set (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    args = parser.parse_args(arguments)
    detectors = structure()
    signals = [signal for detector in detectors for signal in detector.signals()]
    streams = {
        name: [_windows(detectors, _simulate(domain(name), args.seed + i, BUSY, _COARSE)) for i in range(args.clients)]
        for name in DOMAINS
    }
    null = fit_null(signals, [client for some in streams.values() for client in some], args.seed)
    if args.write:
        FILE.write_bytes(_content(null, args.clients, args.seed))
        _say(f"{FILE}: {FILE.stat().st_size:,} bytes")
    _measure(detectors, signals, streams, null, args.fresh, args.seed)
    return 0


def _content(null: Null, clients: int, seed: int) -> bytes:
    made = {"domains": list(DOMAINS), "clients_each": clients, "seed": seed, "shares": BUSY}
    return orjson.dumps({"format": "guard-null", "version": 1, "made": made, "null": pack_null(null)}) + b"\n"


def _measure(
    detectors: Sequence[Detector],
    signals: Sequence[Signal],
    streams: dict[str, list[list[Floats]]],
    null: Null,
    fresh: int,
    seed: int,
) -> None:
    """Print false alarms of fresh clients with the null, and with the null of the other data."""
    together: list[_Found] = []
    for name in DOMAINS:
        rest = fit_null(signals, [client for other, some in streams.items() if other != name for client in some], seed)
        found: list[_Found] = []
        for i in range(fresh):
            one = _simulate(domain(name), seed + 10_000_000 + i, USUAL)
            found.append(_Found(one.kind, _sup(detectors, null, one), _sup(detectors, rest, one)))
        together += found
        _say(f"{name:<17}{_rates(found)}")
    _say(f"{'all':<17}{_rates(together)}")
    for kind in USUAL:
        _say(f"  {kind:<15}{_rates([each for each in together if each.kind == kind])}")


def _rates(found: Sequence[_Found]) -> str:
    parts = [f"{len(found):>5} clients"]
    for where, sups in (
        ("known data", [each.known for each in found]),
        ("data left out", [each.unknown for each in found]),
    ):
        hits = [sum(sup >= -math.log(alpha) for sup in sups) for alpha in _ALPHAS]
        most = max(sups, default=0.0) / math.log(10)
        parts.append(f"{where}: {hits[0]} at 1e-2, {hits[1]} at 1e-3, most 10^{most:.1f}")
    return "; ".join(parts)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
