"""Knockoff: train a copy on a model's answers to natural images that have nothing to do with its task."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.network_copies import Retraining
from guard.selftest.base import Attack, Knowledge, Unresolved, World
from guard.selftest.lab import data
from guard.selftest.measures import Floats

SCALES = 8
"""Patches are cut from photographs at 1/1 to 1/8 of their size."""


@dataclass(frozen=True)
class Knockoff(Retraining):
    """Queries are patches of two photographs.

    Source: Orekondy, Schiele, Fritz, CVPR 2019, section 4 ("random" strategy). Differs: the reward-driven "adaptive"
    choice of queries is left out; a patch is darkened below a random quantile of its own and stretched to the input's
    range, which is how an attacker makes a photograph resemble strokes on black; the copy starts from random weights,
    not from ImageNet's.
    """

    name: ClassVar[str] = "knockoff"
    title: ClassVar[str] = "train a copy of a network on foreign natural images"
    source: ClassVar[str] = "Orekondy et al., Knockoff Nets: Stealing Functionality of Black-Box Models, CVPR 2019"
    published: ClassVar[str] = (
        "four image classifiers from foreign photographs; an image analysis API for as little as $30"
    )

    def collect(self, world: World) -> tuple[Floats, Floats]:
        """Ask patches.

        Raises:
            Unresolved: queries are no square grey images.
        """
        x = foreign(world.knows, self.queries, world.rng("queries"))
        asked, y = harvest(world.api, x, world.knows.classes)
        return cast("Floats", asked), y


def foreign(knows: Knowledge, n: int, rng: np.random.Generator) -> Floats:
    """Return `n` patches of photographs as queries, shape (n, d), inside the features' ranges.

    Raises:
        Unresolved: queries are no square grey images.
    """
    side = isqrt(knows.size)
    if side < 4 or side * side != knows.size:
        raise Unresolved(f"photographs fit square grey images, not {knows.size} features")
    raw = patches(n, side, rng)
    ranks = (rng.uniform(0.2, 0.8, n) * (knows.size - 1)).astype(int)
    dark = np.sort(raw, axis=1)[np.arange(n), ranks][:, None]
    stretched = np.clip((raw - dark) / np.maximum(raw.max(axis=1, keepdims=True) - dark, 1e-9), 0.0, 1.0)
    low, high = float(knows.low.min()), float(knows.high.max())
    return np.clip(low + stretched * (high - low), knows.low, knows.high)


def patches(n: int, side: int, rng: np.random.Generator) -> Floats:
    """Return `n` patches of the photographs, shape (n, side * side), grey values from 0 to 1."""
    images = data.photographs()
    which, scale = rng.integers(len(images), size=n), rng.integers(1, SCALES + 1, size=n)
    found = np.empty((n, side * side))
    for i, image in enumerate(images):
        for s in range(1, SCALES + 1):
            rows = np.flatnonzero((which == i) & (scale == s))
            h, w = image.shape[0] // s, image.shape[1] // s
            small = image[: h * s, : w * s].reshape(h, s, w, s).mean(axis=(1, 3))
            windows = np.lib.stride_tricks.sliding_window_view(small, (side, side))
            top, left = rng.integers(windows.shape[0], size=len(rows)), rng.integers(windows.shape[1], size=len(rows))
            found[rows] = windows[top, left].reshape(len(rows), side * side)
    return found


ATTACKS: tuple[Attack, ...] = (Knockoff(),)
