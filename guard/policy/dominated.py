"""Settings that buy nothing for what they cost: found by trying a route's defences on plausible answers."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import cast

import numpy as np

from guard.defences.base import Batch, Defence, Reuse
from guard.defences.label_only import LabelOnly
from guard.defences.mechanism import Mechanism
from guard.detectors.profile import Profile
from guard.errors import Problem
from guard.model.arrays import Floats, Words
from guard.policy.schema import Route

_MOST = 250
"""Answers that are tried."""
_NOTHING = 1e-9
"""Mean L1 distance that is only the arithmetic's."""


def warn_dominated(route: Route, profile: Profile | None, at: str) -> list[Problem]:
    """Name defences that cost more than `label_only`, which tells less than any, and those that change nothing.

    Args:
        route: its defences are calibrated.
        profile: its answers are tried; without them, those of a model of digits that Guard ships.
        at: the route's path.
    """
    mine = profile is not None and len(profile.answers) > 0
    scores = profile.answers[:_MOST] if profile is not None and mine else _shipped()
    if route.outputs.kind != "probabilities" or any(isinstance(d, Mechanism) for d in route.defences):
        return []
    of = "on the profile's answers" if mine else "on answers of a model of digits"
    begin = Batch(scores, scores.argmax(axis=1), "probabilities")
    warnings, end = _try(route.defences, begin, begin, f"{at}.defences", of)
    for i, rung in enumerate(route.ladder):
        warnings += _try(rung.defences, begin, end, f"{at}.ladder[{i}].defences", of)[0]
    return warnings


def _try(defences: tuple[Defence, ...], begin: Batch, batch: Batch, at: str, of: str) -> tuple[list[Problem], Batch]:
    """Run defences in a row, behind those that have made `batch` of `begin`."""
    warnings: list[Problem] = []
    rng = _Drawn(len(begin.scores))
    most = _moved(LabelOnly().apply(begin, rng, b""), begin)
    for i, defence in enumerate(defences):
        if defence.mode == "shadow":
            continue
        here, salt = f"{at}[{i}]", str(i).encode()
        cost = _moved(defence.apply(begin, rng, salt), begin)
        after = defence.apply(batch, rng, salt)
        if batch is not begin and cost > _NOTHING and _moved(after, batch) <= _NOTHING:
            message = f"{defence.kind} changes nothing that the steps before it leave ({of})"
            warnings.append(Problem(message, here, hint="drop it, or the step that leaves it nothing to do"))
        elif cost > most and not defence.leaves_labels:
            message = (
                f"{defence.kind} moves scores by {cost:.2g} (mean L1, {of}), and label_only by {most:.2g}: that would"
                " tell less and cost less"
            )
            warnings.append(Problem(message, here, hint="label_only, or gentler parameters"))
        batch = after
    return warnings, batch


def _moved(after: Batch, before: Batch) -> float:
    return float(np.abs(after.scores - before.scores).sum(axis=1).mean())


@cache
def _shipped() -> Floats:
    text = files("guard").joinpath("privacy/default_scores.json").read_text("utf-8")
    scores = np.array(cast("dict[str, list[list[float]]]", json.loads(text))["scores"])
    return scores / scores.sum(axis=1, keepdims=True)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Randomness that is the same every time."""

    rows: int
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        """Return words of a generator that is seeded with the step's place."""
        generator = np.random.default_rng(zlib.crc32(reuse.encode() + salt))
        return generator.integers(0, 2**16, (self.rows, width), dtype=np.uint16)

    def constant(self, name: bytes) -> float:
        """Return a number for the name."""
        return float(np.random.default_rng(zlib.crc32(name)).random())

    def fresh(self, size: int) -> bytes:
        """Return bytes."""
        return self.generator.bytes(size)

    def own(self, name: bytes, size: int) -> bytes:
        """Return bytes for the name."""
        return np.random.default_rng(zlib.crc32(b"own" + name)).bytes(size)
