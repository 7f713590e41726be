"""Clients in calibration logs that would be denied: a thief in the logs makes theft look honest.

Every client is judged twice by the structure tier: by the shipped null, which no log can change, and by a null of the
other half of the clients, those flagged left out, until nobody new is found. Who reaches 1e-3 is flagged; of many
clients, who reaches one in twenty over all of them together, because one honest client in a thousand may reach 1e-3.

What this cannot see: thieves whose queries look in-distribution; and, where the shipped null is quiet, more than about
one client in a thousand who steal alike, for then they are part of what is usual.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from guard.calibrate.courses import Course, course
from guard.calibrate.windows import View, windows
from guard.detectors.setup import Setup
from guard.detectors.shipped import of_signals, shipped_null
from guard.evidence.fit import fit_null
from guard.evidence.null import Null

FLAG_AT = 1e-3
FLAG_ALL = 0.05
_ROUNDS = 3
_LEAST = 20


class Suspect(NamedTuple):
    """A client that the structure tier would flag.

    Args:
        client: its pseudonym.
        queries: it asked.
        log10_evidence: decimal logarithm of the e-value, at its greatest.
        judge: `shipped null` or `the other clients`.
        signals: that said most.
    """

    client: str
    queries: int
    log10_evidence: float
    judge: str
    signals: tuple[str, ...]


def suspects(
    setup: Setup, names: Sequence[str], views: Sequence[View], seed: int, tick: Callable[[], None]
) -> list[Suspect]:
    """Return the clients that the structure tier flags, the strongest first.

    Args:
        setup: with detectors of the structure tier alone; its null is not used.
        names: the clients' pseudonyms.
        views: what they asked.
        seed: parts the clients in halves.
        tick: called after each client of each judgement.
    """
    found: dict[int, Suspect] = {}
    threshold = math.log(max(1 / FLAG_AT, len(views) / FLAG_ALL))

    def judge(null: Null, numbers: Sequence[int], who: str) -> None:
        held = _with(setup, null)
        for number in numbers:
            run = course(held, views[number])
            if run.structure.max() >= threshold and number not in found:
                found[number] = _suspect(names[number], run, who)
            tick()

    known = _shipped(setup)
    if known is not None:
        judge(known, range(len(views)), "the shipped null")
    means = [windows(setup.queries, setup.answers, view) for view in views]
    order = np.random.default_rng([seed, 7]).permutation(len(views)).tolist()
    halves: tuple[list[int], list[int]] = (order[::2], order[1::2])
    for _ in range(_ROUNDS):
        before = len(found)
        for own, other in (halves, (halves[1], halves[0])):
            rest = [means[number] for number in other if number not in found]
            if len(rest) >= _LEAST:
                null = fit_null(setup.null.signals, rest, seed)
                judge(null, [number for number in own if number not in found], "the other clients")
        if len(found) == before:
            break
    return sorted(found.values(), key=lambda suspect: -suspect.log10_evidence)


def _shipped(setup: Setup) -> Null | None:
    try:
        return of_signals(shipped_null(), setup.null.signals)
    except ValueError:
        return None


def _with(setup: Setup, null: Null) -> Setup:
    return Setup(setup.sketcher, setup.queries, setup.answers, null, setup.query_signals, setup.fingerprint)


def _suspect(name: str, run: Course, judge: str) -> Suspect:
    return Suspect(name, run.queries, float(run.structure.max()) / math.log(10), judge, run.spoke)
