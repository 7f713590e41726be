"""The judge of a model that is not the lab's: it asks.

The model itself where it can be asked. A live Guard alone can only be judged by what it releases: copies are then
measured against released answers, which is a bound on nothing, and the report says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import cast

import numpy as np

from guard.selftest.base import Api, Refused, Rows, Unresolved
from guard.selftest.measures import Floats, Ints
from guard.selftest.targets.knowledge import Prepared

_KEY = 16
_SHARED = 8
"""Least rows that are worth a file: attacks that look at one row at a time would leave thousands of them."""


class Store:
    """Answers by row, in memory and in a folder that all workers of a self-test share.

    Args:
        folder: where; empty for memory alone.
    """

    def __init__(self, folder: str = "") -> None:
        self._folder = Path(folder) if folder else None
        self._known: dict[bytes, Floats] = {}
        self._read: set[str] = set()

    def get(self, keys: list[bytes]) -> list[Floats | None]:
        """Return what is known of some rows."""
        if self._folder is not None and sum(key not in self._known for key in keys) >= min(_SHARED, len(keys)):
            self._load(self._folder)
        return [self._known.get(key) for key in keys]

    def put(self, keys: list[bytes], answers: Floats) -> None:
        """Keep answers, shape (n, k)."""
        self._known |= dict(zip(keys, answers, strict=True))
        if self._folder is None or len(keys) < _SHARED:
            return
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:24]
        half = self._folder / f"{name}.{os.getpid()}"
        # A folder that cannot be written costs queries, not the self-test.
        with contextlib.suppress(OSError):
            with half.open("wb") as file:
                np.savez(file, keys=np.frombuffer(b"".join(keys), dtype=np.uint8), answers=answers)
            half.replace(self._folder / f"{name}.npz")

    def _load(self, folder: Path) -> None:
        for path in folder.glob("*.npz"):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            with np.load(path) as held:
                answers: Floats = held["answers"]
                flat = held["keys"].tobytes()
            keys = [flat[i : i + _KEY] for i in range(0, len(flat), _KEY)]
            self._known |= dict(zip(keys, answers, strict=True))


class AskingJudge:
    """Asks each row once.

    Args:
        prepared: held-out rows and the candidates' secret.
        api: whom to ask; None when nobody may be asked any more.
        store: answers so far.
        whom: in messages.
        room: most rows that may still be asked; None for no limit.
    """

    def __init__(
        self, prepared: Prepared, api: Api | None, store: Store, whom: str = "the model", room: int | None = None
    ) -> None:
        self._prepared, self._api, self._store, self._whom, self._room = prepared, api, store, whom, room

    @property
    def test_x(self) -> Rows:
        """Held-out inputs."""
        return self._prepared.held_x

    @property
    def test_y(self) -> Ints | Floats | None:
        """Their labels."""
        return self._prepared.held_y

    def truth(self, x: Rows) -> Floats:
        """Return the model's own scores, or the released ones.

        Raises:
            Unresolved: they cannot be had.
        """
        keys = [row_key(row) for row in x]
        found = self._store.get(keys)
        missing = [i for i, answer in enumerate(found) if answer is None]
        if missing:
            self._ask(x, keys, missing)
            found = self._store.get(keys)
        classes = self._prepared.knows.classes
        return np.array(found, dtype=np.float64).reshape(len(x), classes) if len(x) else np.empty((0, classes))

    def secret(self, name: str) -> object:
        """Return which candidates trained the model.

        Raises:
            KeyError: anything else, or there are no candidates.
        """
        if name != "members" or self._prepared.members is None:
            raise KeyError(name)
        return self._prepared.members

    def _ask(self, x: Rows, keys: list[bytes], missing: list[int]) -> None:
        # Each once, however often it is among the rows.
        places = list({keys[i]: i for i in missing}.values())
        if self._api is None or (self._room is not None and len(places) > self._room):
            raise Unresolved(f"{self._whom} may not be asked for {len(places)} more answers to measure with")
        rows = x[np.array(places)] if isinstance(x, np.ndarray) else [x[i] for i in places]
        if self._room is not None:
            self._room -= len(places)
        try:
            self._store.put([keys[i] for i in places], self._api.ask(rows))
        except Refused as error:
            raise Unresolved(f"{self._whom} refused to answer what the attack is measured with ({error})") from error


def row_key(row: object) -> bytes:
    """Return a row's key in a store."""
    data = (
        row.encode() if isinstance(row, str) else np.ascontiguousarray(cast("Floats", row), dtype=np.float64).tobytes()
    )
    return hashlib.sha256(data).digest()[:_KEY]
