"""From queries to what detectors see: salted keys, and vectors of at most 64 numbers.

* `vector` of at most 64 features: the features themselves; of more: a salted random projection to 64.
* `image` (a vector with a declared shape): scaled down to at most 8 x 8 by means over blocks, channels averaged.
* `text`: salted hashed character 2- and 3-grams, 64 counts, square roots, unit length. Groups of keys are of words.
* `tokens` (rows of whole numbers of different lengths): likewise, of token 1- and 2-grams.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from guard.detectors.base import Features
from guard.model.arrays import Floats
from guard.model.queries import Queries

WIDTH = 64
"""Most numbers in a sketch."""


class Sketch(BaseModel, frozen=True):
    """How queries become vectors: part of a profile and of a recording, so that both agree.

    Args:
        kind: what queries are.
        size: features of a `vector` or pixels of an `image`; None for text and tokens.
        shape: (height, width, channels) of an `image`.
        salt: hexadecimal, 16 bytes: chooses projections and hashes of sketches.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["vector", "image", "text", "tokens"] = "vector"
    size: int | None = None
    shape: tuple[int, int, int] | None = None
    salt: str = "00" * 16


class Sketcher:
    """Makes features of queries.

    Args:
        sketch: how.
        salt: secret for keys, 16 bytes or more; need not be the same in two processes.
        mean: what is taken off each number of the sketch, shape (m,); None: 0.
        scale: what each is divided by, shape (m,); None: 1, and features are not `scaled`.
    """

    width: int
    """m; 0 when it is not known before the first query."""

    def __init__(
        self, sketch: Sketch | None, salt: bytes, mean: Floats | None = None, scale: Floats | None = None
    ) -> None:
        raise NotImplementedError

    def raw(self, queries: Queries) -> Floats | None:
        """Return the sketch before it is standardised, shape (n, m); None when the queries do not fit it."""
        raise NotImplementedError

    def features(self, queries: Queries) -> Features:
        """Return what detectors see; queries that do not fit the sketch have keys and no vectors."""
        raise NotImplementedError
