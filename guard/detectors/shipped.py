"""The null that is shipped: what honest clients of nobody in particular look like to the structure tier.

`guard/detectors/default_null.json` is made by `python -m guard.calibrate.default_null` from simulated clients over
several real data sets. It is read when it is first needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files

import orjson

from guard.detectors.packed import mapping, unpack_null
from guard.evidence.null import Null
from guard.evidence.values import Signal


@lru_cache(maxsize=1)
def shipped_null() -> Null:
    """Return the shipped null, of all signals of the structure tier."""
    content = mapping(orjson.loads(files("guard.detectors").joinpath("default_null.json").read_bytes()), "file")
    return unpack_null(content.get("null"))


def of_signals(null: Null, signals: Iterable[Signal]) -> Null:
    """Return the part of a null that some signals are held against, in their order.

    Args:
        null: of at least these signals.
        signals: at least one.

    Raises:
        ValueError: the null knows nothing of a signal.
    """
    wanted = tuple(signals)
    known = {signal.name: number for number, signal in enumerate(null.signals)}
    if missing := [signal.name for signal in wanted if signal.name not in known]:
        raise ValueError(f"nothing is known of {', '.join(missing)}")
    rows = [known[signal.name] for signal in wanted]
    return Null(
        wanted, null.edges[rows], null.prototypes[rows], null.log_weights[rows], null.log_bets[rows], null.mean[rows]
    )
