"""What a query may be: the declaration `inputs:` of a route."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from guard.errors import ClientError
from guard.model.arrays import Floats
from guard.model.queries import Queries

_NOT_FINITE = re.compile(r"\s*[+-]?(?:nan|inf(?:inity)?)\s*", re.IGNORECASE)
"""Texts that numpy and pandas read as a number that is none."""
Bound = float | tuple[float, ...]


class Inputs(BaseModel):
    """The domain of a route's queries. Queries outside it are refused (422), in `shadow` only counted.

    Args:
        kind: `vector`: rows of numbers; `text`: rows of strings; `any`: either, but numbers must be finite and
            complete. With a size, a low, a high or a step `any` means `vector`: these bound nothing else.
        size: features a row, when known.
        low: least value, one for all features or one a feature.
        high: greatest value, likewise.
        step: queries are snapped to `low + m * step` before the model sees them; likewise.
        max_chars: longest text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["vector", "text", "any"] = "any"
    size: int | None = Field(default=None, ge=1)
    low: Bound | None = None
    high: Bound | None = None
    step: Bound | None = None
    max_chars: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Inputs:
        bounds: dict[str, Bound | None] = {"low": self.low, "high": self.high, "step": self.step}
        for name, value in bounds.items():
            if isinstance(value, tuple):
                if self.size is None:
                    raise ValueError(f"{name} has one value a feature, so size must be given")
                if len(value) != self.size:
                    raise ValueError(f"{name} has {len(value)} values for size {self.size}")
            if value is not None and not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite")
        if self.step is not None and (np.asarray(self.step) <= 0).any():
            raise ValueError("step must be above 0")
        if self.low is not None and self.high is not None and (np.asarray(self.low) >= np.asarray(self.high)).any():
            raise ValueError("low must be below high")
        vector_only = [name for name in ("size", "low", "high", "step") if getattr(self, name) is not None]
        if self.kind == "text" and vector_only:
            raise ValueError(f"{', '.join(vector_only)} only fit kind: vector")
        return self

    def admit(self, queries: Queries) -> Floats | None:
        """Check queries against the domain and snap them.

        Args:
            queries: what the client asks.

        Returns:
            The snapped rows, shape (n, d), when `step` moved any of them; None when they stay as they are.

        Raises:
            ClientError: 422, with the offending member's path.
        """
        matrix = queries.matrix()
        if matrix is None:
            self._admit_other(queries)
            return None
        if self.kind == "text":
            raise _outside("must be a text", queries.place(0, -1))
        if self.size is not None and matrix.shape[1] != self.size:
            raise _outside(f"must have {self.size} features, has {matrix.shape[1]}", queries.place(0, -1))
        bad = ~np.isfinite(matrix)
        if bad.any():
            raise _at(bad, "must be a finite number", queries)
        if self.low is not None and (low := matrix < self.low).any():
            raise _at(low, "is below the least value", queries)
        if self.high is not None and (high := matrix > self.high).any():
            raise _at(high, "is above the greatest value", queries)
        return self._snap(matrix, queries)

    def _snap(self, matrix: Floats, queries: Queries) -> Floats | None:
        if self.step is None:
            return None
        low = 0.0 if self.low is None else self.low
        snapped = np.rint((matrix - low) / self.step) * self.step + low + 0.0
        if self.high is not None:
            snapped = np.minimum(snapped, self.high)
        if np.array_equal(snapped, matrix):
            return None
        queries.replace(snapped)
        return snapped

    def _admit_other(self, queries: Queries) -> None:
        values, vector = queries.values, self._vector()
        if values is None:
            if vector or self.kind != "any":
                raise _outside(f"must be a {'vector' if vector else self.kind}", queries.place(0, -1))
            return
        for row, value in enumerate(queries.row_values()):
            if isinstance(value, str):
                if vector:
                    raise _outside("must be a list of numbers", queries.place(row, -1))
                if self.max_chars is not None and len(value) > self.max_chars:
                    raise _outside(f"must have at most {self.max_chars} characters", queries.place(row, -1))
            elif self.kind == "text":
                raise _outside("must be a text", queries.place(row, -1))
            else:
                self._admit_row(queries, row, value)
        if vector:
            raise _ragged(queries)
        _same_members(queries)

    def _vector(self) -> bool:
        """Say whether only rows of numbers are inside the domain."""
        bounds = (self.size, self.low, self.high, self.step)
        return self.kind == "vector" or any(bound is not None for bound in bounds)

    def _admit_row(self, queries: Queries, row: int, value: object) -> None:
        """Find the missing or foreign feature in a row that is not a complete vector of numbers."""
        vector = self._vector()
        if isinstance(value, dict):
            features = list(cast("dict[str, object]", value).values())
        elif isinstance(value, list):
            features = cast("list[object]", value)
        else:
            if value is None or vector:
                raise _outside("must be a list of numbers", queries.place(row, -1))
            return
        for column, item in enumerate(features):
            for leaf in _leaves(item):
                if leaf is None:
                    raise _outside("is missing", queries.place(row, column))
                if isinstance(leaf, float) and not np.isfinite(leaf):
                    raise _outside("must be a finite number", queries.place(row, column))
                if isinstance(leaf, str) and _NOT_FINITE.fullmatch(leaf):
                    raise _outside("must be a finite number", queries.place(row, column))
                if vector and isinstance(leaf, bool | str):
                    raise _outside("must be a number", queries.place(row, column))
            if vector and isinstance(item, dict):
                raise _outside("must be a number", queries.place(row, column))
        if vector and self.size is not None and len(features) != self.size:
            raise _outside(f"must have {self.size} features", queries.place(row, -1))


def _leaves(value: object) -> Iterator[object]:
    """Yield what stands in nested lists and objects, which a codec has bounded."""
    if isinstance(value, dict):
        value = list(cast("dict[str, object]", value).values())
    if isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _leaves(item)
    else:
        yield value


def _same_members(queries: Queries) -> None:
    """Refuse objects of different members: what one has not is missing to whoever makes a table of them."""
    records = ((i, cast("dict[str, object]", v)) for i, v in enumerate(queries.row_values()) if isinstance(v, dict))
    names: object = None
    for row, record in records:
        names = record.keys() if names is None else names
        if record.keys() != names:
            raise _outside("must have the members that the others have", queries.place(row, -1))


def _ragged(queries: Queries) -> ClientError:
    """Name the first row that differs in length from the one before it; every feature of every row is a number."""
    lengths = [len(cast("list[object]", value)) for value in queries.row_values()]
    row = next((row for row in range(1, len(lengths)) if lengths[row] != lengths[row - 1]), 0)
    return _outside("must have as many features as the others", queries.place(row, -1))


def _at(bad: np.ndarray, what: str, queries: Queries) -> ClientError:
    row, column = (int(i) for i in np.argwhere(bad)[0])
    return _outside(what, queries.place(row, column))


def _outside(what: str, path: str) -> ClientError:
    return ClientError(f"{path} {what}", code="outside_domain", status=422, path=path)
