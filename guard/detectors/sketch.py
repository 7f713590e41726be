"""From queries to what detectors see: salted keys, and vectors of at most 64 numbers.

* `vector` of at most 64 features: the features themselves; of more: a salted random projection to 64.
* `image` (a vector with a declared shape): scaled down to at most 8 x 8 by means over blocks, channels averaged.
* `text`: salted hashed character 2- and 3-grams, 64 counts, square roots, unit length. Groups of keys are of words.
* `tokens` (rows of whole numbers of different lengths): likewise, of token 1- and 2-grams.

Named features (rows of mappings) are vectors in the order of their names. Rows with members that are no numbers, and
rows that do not fit the sketch, have keys and no vectors. What else a request carries (`Queries.context`) is left out:
whoever repeats a query beside ever new members that the model ignores would otherwise pass.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from guard.detectors.base import Features, Keys
from guard.detectors.grams import BUCKETS, Grams
from guard.detectors.keys import MOST_MEMBERS, RowKeys
from guard.detectors.project import WIDTH, Fold, blocks, tame
from guard.detectors.rows import Rows, read, words
from guard.model.arrays import Floats
from guard.model.queries import Queries

_MOST_UNDECLARED = 2048
"""Features of rows that nothing declares; of more there is no vector: a client must not choose how much is drawn."""


class Sketch(BaseModel, frozen=True):
    """How queries become vectors: part of a profile and of a recording, so that both agree.

    Args:
        kind: what queries are.
        size: features of a `vector` or pixels of an `image`; None for text and tokens, and for vectors of any length.
        shape: (height, width, channels) of an `image`.
        salt: hexadecimal, 16 bytes, secret: chooses the projections and hashes of sketches and of detectors.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["vector", "image", "text", "tokens"] = "vector"
    size: int | None = Field(default=None, ge=1, le=MOST_MEMBERS)
    shape: tuple[int, int, int] | None = None
    salt: str = Field(default="00" * 16, pattern=r"^[0-9a-f]{32}$")

    @model_validator(mode="after")
    def _consistent(self) -> Sketch:
        if self.size is not None and self.kind in ("text", "tokens"):
            raise ValueError(f"a sketch of kind {self.kind} has no size")
        if (self.kind == "image") != (self.shape is not None):
            raise ValueError(f"a sketch of kind {self.kind} {'needs a' if self.kind == 'image' else 'has no'} shape")
        if self.shape is not None and (min(self.shape) < 1 or np.prod(self.shape) != self.size):
            raise ValueError(f"an image of shape {self.shape} has not {self.size} pixels")
        return self

    @property
    def key(self) -> bytes:
        """The salt's 16 bytes."""
        return bytes.fromhex(self.salt)

    @property
    def width(self) -> int:
        """Return m, the numbers of a sketch; 0 for vectors of any length."""
        if self.shape is not None:
            return min(self.shape[0], 8) * min(self.shape[1], 8)
        if self.size is not None:
            return min(self.size, WIDTH)
        return 0 if self.kind == "vector" else BUCKETS


class Sketcher:
    """Makes features of queries.

    Args:
        sketch: how; None: numbers as they are, texts and tokens as their sketches would have them.
        salt: secret for keys, 16 bytes or more; need not be the same in two processes.
        mean: what is taken off each number of the sketch, shape (m,); None: 0.
        scale: what each is divided by, shape (m,); None: 1, and features are not `scaled`.

    Raises:
        ValueError: mean and scale do not fit the sketch.

    >>> Sketcher(None, bytes(16)).features(Queries(1, [[3.0, 4.0]])).vectors
    array([[3., 4.]])
    """

    width: int
    """m; 0 when it is not known before the first query."""

    def __init__(
        self, sketch: Sketch | None, salt: bytes, mean: Floats | None = None, scale: Floats | None = None
    ) -> None:
        self._sketch = sketch
        self.width = (0 if sketch is None else sketch.width) or (0 if mean is None else len(mean))
        for name, value in (("mean", mean), ("scale", scale)):
            if value is not None and (value.shape != (self.width,) or not np.isfinite(value).all()):
                raise ValueError(f"{name} must be {self.width} finite numbers")
        if scale is not None and (scale <= 0).any():
            raise ValueError("scale must be above 0")
        self._keys = RowKeys(salt)
        own = salt if sketch is None else sketch.key
        self._fold = Fold(own, 0 if sketch is None or sketch.kind != "vector" else sketch.size or 0)
        self._grams = Grams(own)
        self._mean, self._scale = mean, scale

    def raw(self, queries: Queries) -> Floats | None:
        """Return the sketch before it is standardised, shape (n, m); None when the queries do not fit it."""
        return self._raw(read(queries, tokens=self._tokens))

    def features(self, queries: Queries) -> Features:
        """Return what detectors see; queries that do not fit the sketch have keys and no vectors."""
        rows = read(queries, tokens=self._tokens)
        vectors = self._raw(rows)
        keys = self._keys_of(rows, queries)
        if vectors is None:
            return Features(keys, None, False)
        if self._mean is not None:
            vectors = vectors - self._mean
        if self._scale is None:
            return Features(keys, vectors, False)
        return Features(keys, tame(vectors / self._scale, 1e6), True)

    @property
    def _tokens(self) -> bool:
        return self._sketch is not None and self._sketch.kind == "tokens"

    def _raw(self, rows: Rows) -> Floats | None:
        kind = None if self._sketch is None else self._sketch.kind
        found: Floats | None = None
        if rows.matrix is not None and kind not in ("text", "tokens"):
            found = self._of_numbers(rows.matrix)
        elif rows.texts is not None and kind in (None, "text"):
            found = self._grams.of_texts(rows.texts)
        elif rows.tokens is not None and kind in (None, "tokens"):
            found = self._grams.of_tokens(rows.tokens)
        if found is None or (self.width and found.shape[1] != self.width):
            return None
        # Recordings hold single precision: live queries must not differ from recorded ones in digits those have not.
        return found.astype(np.float32).astype(np.float64)

    def _of_numbers(self, matrix: Floats) -> Floats | None:
        size = matrix.shape[1]
        declared = None if self._sketch is None else self._sketch.size
        if size != declared and (declared is not None or size > _MOST_UNDECLARED):
            return None
        matrix = tame(matrix, 1e15)
        if self._sketch is not None and self._sketch.shape is not None:
            return blocks(matrix, self._sketch.shape)
        return matrix if size <= WIDTH else self._fold.apply(matrix)

    def _keys_of(self, rows: Rows, queries: Queries) -> Keys:
        if rows.matrix is not None and rows.matrix.shape[1] <= MOST_MEMBERS:
            return self._keys.of_numbers(rows.matrix)
        if rows.texts is not None:
            return self._keys.of_words([words(text) for text in rows.texts])
        if rows.tokens is not None:
            return self._keys.of_tokens(rows.tokens)
        if rows.members is not None:
            return self._keys.of_members(rows.members)
        return self._keys.of_bytes(_bytes_of(queries))

    def declared(self, mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the sketch of independent features with these.

        Args:
            mean: shape (d,), for a sketch of a `vector`.
            deviation: shape (d,), above 0.
        """
        if len(mean) <= WIDTH:
            return mean, deviation
        return self._fold.apply(mean[None])[0], np.sqrt(self._fold.variances(deviation**2))


def sketch_salt(secret: bytes) -> str:
    """Return a sketch's salt, hexadecimal, that belongs to a secret and tells nothing of it."""
    return blake2b(secret, digest_size=16, person=b"guard sketch").hexdigest()


def sketch_of(queries: Queries, salt: str) -> Sketch:
    """Return the sketch that suits queries: for recording a route that declares nothing.

    >>> sketch_of(Queries(1, [[1, 2, 3]]), "00" * 16).size, sketch_of(Queries(1, ["a b"]), "00" * 16).kind
    (3, 'text')
    """
    rows = read(queries)
    if rows.matrix is not None and rows.matrix.shape[1] <= MOST_MEMBERS:
        return Sketch(kind="vector", size=rows.matrix.shape[1], salt=salt)
    if rows.texts is not None:
        return Sketch(kind="text", salt=salt)
    return Sketch(kind="vector" if rows.tokens is None else "tokens", salt=salt)


def _bytes_of(queries: Queries) -> list[bytes]:
    """Return bytes that stand for the rows, whatever they are."""
    try:
        return queries.row_bytes()
    except (TypeError, ValueError, OverflowError, RecursionError):
        # What a codec lets through has canonical bytes; this is for what does not come from one.
        return [b"%d" % row for row in range(queries.rows)]
