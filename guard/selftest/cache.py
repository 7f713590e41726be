"""Remembers what cells came to, under the hash of everything that they depend on.

A control asks the undefended lab model with a fixed seed, so it comes out the same every time; `guard tune` meets the
same policy again and again. Any change of Guard's code, of a library or of a parameter makes another key.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from guard.selftest.attacks.registry import attack_named
from guard.selftest.base import parameters
from guard.selftest.cell import Cell, Done
from guard.selftest.lab.victim import cache_folder
from guard.selftest.transplant import Transplant
from guard.selftest.versions import versions


@dataclass(frozen=True)
class Cache:
    """Results on disk.

    Args:
        folder: where; it must not be writable by others, since results are pickled.
    """

    folder: Path

    @classmethod
    def of_the_lab(cls) -> Cache:
        """Return the cache beside the lab's models."""
        return cls(cache_folder())

    def get(self, cell: Cell, made: Transplant | None) -> Done | None:
        """Return what the cell came to before, or None; only the lab's models are the same every time."""
        if cell.target is not None:
            return None
        try:
            found: object = pickle.loads(self._path(cell, made).read_bytes())  # noqa: S301 -- our own file, see above
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError):
            return None
        return found if isinstance(found, Done) else None

    def put(self, done: Done, made: Transplant | None) -> None:
        """Remember a cell that came through; failures are tried again."""
        if done.outcome is None or done.cell.target is not None:
            return
        path = self._path(done.cell, made)
        half = path.with_suffix(f".{os.getpid()}")
        try:
            half.write_bytes(pickle.dumps(done))
            half.replace(path)
        except OSError:
            half.unlink(missing_ok=True)

    def _path(self, cell: Cell, made: Transplant | None) -> Path:
        attack = attack_named(cell.attack, cell.changes)
        parts = {
            "code": code_digest(),
            "versions": versions() | {"platform": platform.platform()},
            "cell": [cell.attack, cell.way, cell.wrapper, cell.seed, cell.model, cell.shards, cell.aggregate],
            "parameters": parameters(attack),
            "policy": None if made is None else made.document,
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
        return self.folder / f"{digest}.done"


@lru_cache
def code_digest() -> str:
    """Return the hash of Guard's own code."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
