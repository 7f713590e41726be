"""What a run needs of a domain, whether its queries are numbers or texts."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy import typing as npt

from guard.detectors.sketch import Sketch
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from guard.model.queries import Queries
from tests.benchmarks.detection.attacks import ATTACKS, traces
from tests.benchmarks.detection.clients import Stream, client
from tests.benchmarks.detection.domains import DOMAINS, Domain, load
from tests.benchmarks.detection.notes import NOTES, TextDomain

Rows = npt.NDArray[Any]  # Any: numbers, shape (n, d), or texts, shape (n,)
SKETCH_SALT = "5a" * 16
BLENDED: tuple[str, ...] = ("uniform", "hop_skip_jump", "finite_differences", "tree_paths", "jbda", "knockoff")
SPREAD: tuple[str, ...] = (*BLENDED, "nes", "jittered_members", "in_distribution")
NAMES = (*DOMAINS, "notes")


class World(Protocol):
    """A model, its honest clients and its attackers."""

    name: str
    attacks: tuple[str, ...]
    """All attacks."""
    blended: tuple[str, ...]
    """Those that are hidden among honest queries."""
    spread: tuple[str, ...]
    """Those that are spread over accounts."""
    sketch: Sketch
    inputs: Inputs | None
    """What an operator would declare of the queries."""
    facts: dict[str, Any]  # Any: JSON

    def honest(self, rng: np.random.Generator, queries: int | None = None, *, shifted: bool = False) -> Stream:
        """Draw an honest client."""
        ...

    def traces(self, name: str, seeds: list[list[int]], queries: int) -> list[Rows]:
        """Run repetitions of an attack."""
        ...

    def queries(self, rows: Rows) -> Queries:
        """Return rows as the handler has them once they are decoded."""
        ...

    def predict(self, rows: Rows) -> Floats:
        """Return the model's probabilities, shape (n, K)."""
        ...

    def embed(self, rows: Rows) -> Floats:
        """Return what baselines look at, shape (n, d)."""
        ...


class Numbers:
    """A world whose queries are numbers. Texts that come as embeddings are numbers, too.

    Args:
        domain: which.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self.name = domain.name
        self.attacks, self.blended, self.spread = tuple(ATTACKS), BLENDED, SPREAD
        kind, shape = ("image", (8, 8, 1)) if domain.kind == "image" else ("vector", None)
        self.sketch = Sketch(kind=kind, size=domain.width, shape=shape, salt=SKETCH_SALT)
        raw = domain.raw(domain.z)
        low, high = raw.min(axis=0), raw.max(axis=0)
        high = np.maximum(high, low + 1e-6)
        self.inputs: Inputs | None = Inputs(
            kind="vector", size=domain.width, low=tuple(low.tolist()), high=tuple(high.tolist())
        )
        self.facts: dict[str, Any] = {  # Any: JSON
            "kind": domain.kind,
            "width": domain.width,
            "rows": len(domain.z),
            "classes": domain.classes,
            "accuracy": domain.accuracy,
        }

    def honest(self, rng: np.random.Generator, queries: int | None = None, *, shifted: bool = False) -> Stream:
        """Draw an honest client."""
        return client(self._domain, rng, queries, shifted=shifted)

    def traces(self, name: str, seeds: list[list[int]], queries: int) -> list[Rows]:
        """Run repetitions of an attack."""
        return list(traces(self._domain, name, seeds, queries))

    def queries(self, rows: Rows) -> Queries:
        """Return rows as the handler has them once they are decoded."""
        made = Queries(len(rows), None)
        made.replace(self._domain.raw(rows))
        return made

    def predict(self, rows: Rows) -> Floats:
        """Return the model's probabilities, shape (n, K)."""
        return self._domain.predict(rows)

    def embed(self, rows: Rows) -> Floats:
        """Return what baselines look at, shape (n, d)."""
        return rows


class Texts:
    """A world whose queries are texts.

    Args:
        domain: messages.
    """

    def __init__(self, domain: TextDomain) -> None:
        self._domain = domain
        self.name = "notes"
        self.attacks = tuple(NOTES)
        self.blended: tuple[str, ...] = ("gibberish", "leave_one_out", "good_words", "knockoff")
        self.spread: tuple[str, ...] = (*self.blended, "random_words", "in_distribution")
        self.sketch = Sketch(kind="text", salt=SKETCH_SALT)
        self.inputs: Inputs | None = Inputs(kind="text")
        base = domain.base
        self.facts: dict[str, Any] = {  # Any: JSON
            "kind": "text",
            "width": 64,
            "rows": len(base.z),
            "classes": base.classes,
            "accuracy": base.accuracy,
        }

    def honest(self, rng: np.random.Generator, queries: int | None = None, *, shifted: bool = False) -> Stream:
        """Draw an honest client."""
        return self._domain.client(rng, queries, shifted=shifted)

    def traces(self, name: str, seeds: list[list[int]], queries: int) -> list[Rows]:
        """Run repetitions of an attack."""
        return [self._domain.trace(name, np.random.default_rng(seed), queries) for seed in seeds]

    def queries(self, rows: Rows) -> Queries:
        """Return rows as the handler has them once they are decoded."""
        return Queries(len(rows), rows.tolist())

    def predict(self, rows: Rows) -> Floats:
        """Return the model's probabilities, shape (n, K)."""
        return self._domain.base.predict(self.embed(rows))

    def embed(self, rows: Rows) -> Floats:
        """Return what baselines look at, shape (n, d)."""
        return self._domain.embed(rows)


def world(name: str) -> World:
    """Load data and train the model; always the same."""
    return Texts(TextDomain(load("messages"))) if name == "notes" else Numbers(load(name))
