"""Honest clients of eight kinds, in an ordinary and in a shifted form.

Ported from the prototype with which detection was designed (`docs/detection.md`), with other seeds; nothing is easier:

* `plain`: its own part of the data, at random;
* `drift`: the part changes in four stages;
* `batch`: sorted within batches of 32 to 128;
* `retry`: asks the same again, in runs;
* `whatif`: varies one feature of a row on purpose (of an embedding: six numbers);
* `sloppy`: leaves features at their average;
* `health`: asks a fixed row every 5 to 50 queries;
* `narrow`: a small part of the data.

All but `retry` and `whatif` do a little of both, too. Shifted clients have twice the slant; tables' numbers are moved,
images are paler and noisier.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy import typing as npt

from guard.model.arrays import Floats, Ints
from tests.benchmarks.detection.domains import Domain

Rows = npt.NDArray[Any]  # Any: numbers or texts
Kind = Literal["plain", "drift", "batch", "retry", "whatif", "sloppy", "health", "narrow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SHARES = np.array([0.36, 0.15, 0.14, 0.10, 0.07, 0.06, 0.06, 0.06])
SHORTEST, LONGEST = 256, 2048


class Stream(NamedTuple):
    """What one client asked.

    Args:
        kind: of client.
        rows: queries: standardised numbers, shape (n, d), or texts, shape (n,).
    """

    kind: str
    rows: Rows


def client(
    domain: Domain,
    rng: np.random.Generator,
    queries: int | None = None,
    *,
    shifted: bool = False,
) -> Stream:
    """Draw an honest client.

    Args:
        domain: whose model it asks.
        rng: all that is drawn.
        queries: how many; None: log-uniform from `SHORTEST` to `LONGEST`.
        shifted: unlike those that calibration saw.
    """
    n = queries or int(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
    kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
    rows = chosen_rows(domain, rng, n, kind, shifted=shifted)
    shift: Floats | float = 0.0
    if shifted and domain.kind == "table":
        shift = 0.35 * rng.standard_normal(domain.width) * (rng.random(domain.width) < 0.3)
    elif shifted and domain.kind == "image":
        shift = 0.2
    z = domain.fresh(rows, rng, shift)
    if kind == "batch":
        z = z[in_batches(domain, rng, rows)]
    repeat(z, rng, rng.beta(2, 8) if kind == "retry" else rng.beta(0.5, 60))
    _what_if(domain, z, rng, rng.beta(2, 6) if kind == "whatif" else rng.beta(0.3, 80))
    if kind == "sloppy":
        columns = rng.choice(domain.width, max(1, int(domain.width * rng.uniform(0.1, 0.3))), replace=False)
        part = z[:, columns]
        part[rng.random(part.shape) < rng.uniform(0.05, 0.9)] = 0
        z[:, columns] = part
        z = domain.snap(z)
    if kind == "health":
        z[:: int(rng.integers(5, 50))] = z[0]
    return Stream(kind, z)


def chosen_rows(domain: Domain, rng: np.random.Generator, n: int, kind: Kind, *, shifted: bool) -> Ints:
    """Choose rows of the data with the client's slant along a direction, and towards some classes."""
    slant = 3 + 2 * rng.random() if kind == "narrow" else abs(rng.normal()) * (2.0 if shifted else 1.0)
    way, other = (_unit(rng, domain.axes.shape[1]) for _ in range(2))
    labels = domain.source.y
    classes = rng.dirichlet(np.full(domain.classes, 0.3 if shifted else 0.7)) + 1e-3
    base = np.zeros(len(labels))
    if rng.random() < 0.6:
        base = np.log(classes / np.maximum(np.bincount(labels, minlength=domain.classes), 1))[labels]
    stages = 4 if kind == "drift" else 1
    parts: list[Ints] = []
    for stage in range(stages):
        along = way * (1 - stage / 4) + other * stage / 4
        logits = base + slant * np.clip(domain.axes @ along, -3, 3)
        weights: Floats = np.cumsum(np.exp(logits - logits.max()))
        size = n // stages + (n % stages if stage == 0 else 0)
        parts.append(np.asarray(np.searchsorted(weights, rng.random(size) * weights[-1]), dtype=np.int64))
    return np.minimum(np.concatenate(parts), len(labels) - 1)


def _unit(rng: np.random.Generator, width: int) -> Floats:
    way: Floats = rng.standard_normal(width)
    return way / np.linalg.norm(way)


def in_batches(domain: Domain, rng: np.random.Generator, rows: Ints) -> Ints:
    """Return the order in which somebody asks who sorts each batch."""
    size = int(rng.choice([32, 64, 128]))
    key = domain.axes[rows, rng.integers(domain.axes.shape[1])]
    return np.concatenate([s + np.argsort(key[s : s + size]) for s in range(0, len(rows), size)])


def repeat(z: Rows, rng: np.random.Generator, rate: float) -> None:
    """Ask the same again, in runs, in place."""
    if rate < 0.003:
        return
    i = 0
    while i < len(z) - 1:
        if rng.random() < rate:
            more = min(len(z) - 1 - i, 1 + int(rng.geometric(0.5)))
            z[i + 1 : i + 1 + more] = z[i]
            i += more
        i += 1


def _what_if(domain: Domain, z: Floats, rng: np.random.Generator, rate: float) -> None:
    if rate < 0.002:
        return
    i = 0
    while i < len(z) - 1:
        if rng.random() < rate:
            more = min(len(z) - 1 - i, int(rng.integers(1, 8)))
            columns = rng.integers(domain.width, size=6 if domain.kind == "text" else 1)
            z[i + 1 : i + 1 + more] = z[i]
            z[i + 1 : i + 1 + more, columns] = domain.z[rng.integers(len(domain.z), size=more)][:, columns]
            i += more
        i += 1
