"""What a lab model is, and how models are trained once: a fitted estimator is cached under the hash of what made it."""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from guard.selftest.base import Knowledge, Rows
from guard.selftest.lab.data import untyped
from guard.selftest.measures import Floats, Ints


@dataclass(frozen=True)
class Victim:
    """A trained model, what outsiders know of it, and its owner's secrets.

    Args:
        predict: rows -> scores, shape (n, k).
        output: what its scores are.
        knows: what an outsider may know.
        test_x: held-out inputs.
        test_y: their labels.
        secrets: by name: `members`, `class_means`, `weights`, `bits`, `train_x`, `train_y`, ...
        extras: rows -> further numeric members of an answer (leaf counts, ...), shape (n, m) each.
        partial: it answers rows with NaN for features that are left out.
    """

    predict: Callable[[Rows], Floats]
    output: Literal["probabilities", "value"]
    knows: Knowledge
    test_x: Rows
    test_y: Ints | Floats | None
    secrets: Mapping[str, object] = field(default_factory=dict[str, object])
    extras: Callable[[Rows], dict[str, Floats]] | None = None
    partial: bool = False


def trained(estimator: Any, x: Any, y: Any = None) -> Any:  # Any: scikit-learn estimators have no types
    """Fit a scikit-learn estimator, or take the one that the same data and parameters made before.

    Args:
        estimator: unfitted, with a fixed `random_state`.
        x: what `fit` takes: numbers of shape (n, d), or texts.
        y: labels or values, shape (n,).
    """
    path = cache_folder() / f"{fingerprint(estimator, x, y)}.pickle"
    try:
        return pickle.loads(path.read_bytes())  # noqa: S301 -- our own file in a folder that only we can write
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError):
        pass
    fitted = estimator.fit(x) if y is None else estimator.fit(x, y)
    half = path.with_suffix(f".{os.getpid()}")
    try:
        half.write_bytes(pickle.dumps(fitted))
        half.replace(path)
    except OSError:  # a full disk or a read-only home: the model is trained again next time
        half.unlink(missing_ok=True)
    return fitted


def fingerprint(estimator: Any, x: Any, y: Any) -> str:  # Any: as above
    """Return the hash of everything that a fitted estimator depends on."""
    digest = hashlib.sha256()
    versions = f"{platform.python_version()} {np.__version__} {untyped('sklearn').__version__}"
    digest.update(f"{versions} {type(estimator).__qualname__} {estimator.get_params()!r}".encode())
    for part in (x, y):
        if part is not None:
            # Texts become rows of hashes, so that two texts are never taken for one.
            array = np.asarray([_hashed(p) if isinstance(p, str) else p for p in part])
            digest.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _hashed(text: str) -> list[int]:
    return list(hashlib.sha256(text.encode()).digest())


def cache_folder() -> Path:
    """Return the folder of fitted estimators: `$XDG_CACHE_HOME/guard/lab`, readable by its owner only.

    Raises:
        PermissionError: somebody else could write there.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "guard" / "lab"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others: chmod 700 it, or set XDG_CACHE_HOME")
    return folder
