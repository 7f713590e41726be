"""What a detector is: a frozen spec that, bound to what is known of honest traffic, turns queries into signals.

A detector never decides anything: it measures. Windows, counts, evidence and levels are made of its numbers elsewhere
(`guard.evidence`, `guard.engine.tracker`). It works on whole batches, in order: row i of a batch sees the rows before
it, as if each had come alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy import typing as npt
from pydantic import BaseModel, ConfigDict

from guard.evidence.values import Signal, Tier
from guard.model.arrays import Bools, Floats

Keys = npt.NDArray[np.uint32]
Reference = Mapping[str, npt.NDArray[Any]]  # Any: arrays of whatever type a detector keeps
"""What a detector has learnt from calibration traffic: named arrays that a profile carries."""
Side = Literal["query", "answer"]
GROUPS = 8
"""Salted groups of features (or words) for keys that leave one group out."""
HORIZON = 512
"""A client's last queries that an index looks back on."""


class Features(NamedTuple):
    """What detectors see of the queries of one request; made by `guard.detectors.sketch`.

    Args:
        keys: shape (n, 1 + GROUPS), uint32: a salted hash of the whole row, then of the row without each group of
            features. Numbers are rounded to 8 significant bits first, so that a tiny jitter changes nothing. A row that
            cannot be parted has the same key in every column.
        vectors: shape (n, m), m <= 64, float64, standardised by what is known of the features' scale; None when the
            queries have none.
        scaled: the scale is known (a profile, or declared bounds), so that distances mean something.
    """

    keys: Keys
    vectors: Floats | None
    scaled: bool


class Margins(NamedTuple):
    """What detectors see of answers.

    Args:
        margin: top score less the second, shape (n,), in [0, 1].
    """

    margin: Floats


_NO_SUM: Floats = np.zeros(0)


class Past(NamedTuple):
    """What is known of a client before a batch.

    Args:
        seen: queries with vectors so far.
        total: sum of their vectors, shape (m,); shape (0,) before the first.
        last: the last vector, shape (m,); None before the first.
        step: the last vector less the one before it, shape (m,); None before the second.
    """

    seen: int = 0
    total: Floats = _NO_SUM
    last: Floats | None = None
    step: Floats | None = None


class Sample(NamedTuple):
    """Calibration traffic that a detector learns from. All lists are one item a client, in the order of time.

    Args:
        features: each client's queries.
        margins: each client's answers, shape (n,); None where scores are not known.
        seed: for whatever is drawn.
    """

    features: list[Features]
    margins: list[Floats | None]
    seed: int


class Bound(Protocol):
    """A detector that can measure."""

    columns: int
    """Keys a row that it wants looked up among the client's last `HORIZON` queries, beside the key of the whole row."""

    def keys(self, features: Features) -> Keys:
        """Return what to look up, shape (n, columns), uint32."""
        ...

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        """Return the signals, shape (n, len(signals)); larger is more suspicious.

        Args:
            features: the queries.
            seen: shape (n,): the whole row's key was among the client's `HORIZON` queries before that row.
            hits: shape (n, columns): the same of each key that the detector asked for.
            past: what is known of the client before the first row.
        """
        ...

    def measure_answers(self, margins: Margins) -> Floats:
        """Return the signals of a detector of side `answer`, shape (n, len(signals))."""
        ...


class Blind:
    """What a bound detector does with what it does not look at; bound detectors derive from it."""

    columns = 0

    def keys(self, features: Features) -> Keys:
        """Ask for nothing, shape (n, 0)."""
        return np.zeros((len(features.keys), 0), dtype=np.uint32)

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        """Say nothing of queries, shape (n, 0)."""
        del seen, hits, past
        return np.zeros((len(features.keys), 0))

    def measure_answers(self, margins: Margins) -> Floats:
        """Say nothing of answers, shape (n, 0)."""
        return np.zeros((len(margins.margin), 0))


class Detector(BaseModel, frozen=True):
    """Base of all detectors: `kind` names it in YAML, its fields are its parameters."""

    model_config = ConfigDict(extra="forbid")

    tier: ClassVar[Tier]
    """`structure`: how queries relate to each other. `distribution`: how they differ from what honest clients ask."""
    names: ClassVar[tuple[str, ...]]
    """Its signals' names; the first is its kind."""
    side: ClassVar[Side] = "query"
    """Whether it measures queries or answers."""
    profiled: ClassVar[bool] = False
    """It needs a profile."""
    scaled: ClassVar[bool] = False
    """It needs vectors whose scale is known: a profile, or `inputs` with low and high."""

    kind: str

    @classmethod
    def signals(cls) -> tuple[Signal, ...]:
        """Return its signals."""
        return tuple(Signal(name, cls.names[0], cls.tier) for name in cls.names)

    def learn(self, sample: Sample) -> Reference:
        """Return what it must know of honest traffic; empty for one that needs nothing.

        Raises:
            ValueError: the sample has nothing to learn from; the message says what is missing.
        """
        del sample
        return {}

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return the detector ready to measure.

        Args:
            reference: what `learn` returned; empty without a profile.
            width: m, the vectors' width; 0 without vectors.
            salt: secret; whatever is projected or hashed depends on it.

        Raises:
            ValueError: the reference does not fit.
        """
        raise NotImplementedError


Registry = dict[str, type[Detector]]
