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
from guard.selftest.lab.language import Language
from guard.selftest.measures import Floats, Ints

Predict = Callable[[Any], Floats]  # Any: rows of either kind, as the recipe knows them
"""Rows -> scores, shape (n, k)."""


@dataclass(frozen=True)
class Training:
    """What a model is trained on, so that the same recipe can be followed on a part of it.

    Args:
        ids: of the training rows, shape (n,): the same record has the same one in every model of a recipe.
        fit: numbers of training rows, shape (m,) -> the model that they make.
    """

    ids: Ints
    fit: Callable[[Ints], Predict]

    def whole(self) -> Predict:
        """Return the model of all rows."""
        return self.fit(np.arange(len(self.ids)))


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
        training: how models on shards of the same data are made; None for models that have no shards.
        language: what generates text, of a language model, whose scores are those of the next token.
    """

    predict: Callable[[Rows], Floats]
    output: Literal["probabilities", "value"]
    knows: Knowledge
    test_x: Rows
    test_y: Ints | Floats | None
    secrets: Mapping[str, object] = field(default_factory=dict[str, object])
    extras: Callable[[Rows], dict[str, Floats]] | None = None
    partial: bool = False
    training: Training | None = None
    language: Language | None = None


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
    fresh = untyped("sklearn.base").clone(estimator)  # one estimator may be fitted to many shards
    fitted = fresh.fit(x) if y is None else fresh.fit(x, y)
    half = path.with_suffix(f".{os.getpid()}")
    try:
        half.write_bytes(pickle.dumps(fitted))
        half.replace(path)
    except OSError:  # a full disk or a read-only home: the model is trained again next time
        half.unlink(missing_ok=True)
    return fitted


def classifier_of(
    estimator: Any, x: Any, y: Ints, classes: int, reading: Callable[[Any], Predict] | None = None
) -> Predict:  # Any: as above
    """Fit a classifier on rows that may lack classes, and return what answers probabilities of all of them.

    Args:
        estimator: unfitted.
        x: what `fit` takes.
        y: labels 0 to `classes` - 1.
        classes: how many there are.
        reading: a fitted estimator -> what answers probabilities of the classes that it saw; None: `predict_proba`.
    """
    seen = np.unique(y)
    if len(seen) < 2:  # nothing to tell apart
        return prior_of(y, classes)
    fitted = trained(estimator, x, y)
    predict: Predict = fitted.predict_proba if reading is None else reading(fitted)
    return lambda rows: spread(np.asarray(predict(rows), dtype=np.float64), seen, classes)


def prior_of(y: Ints, classes: int) -> Predict:
    """Return what answers every row with the classes' shares of `y`; without any, all alike."""
    share = np.bincount(y, minlength=classes) / len(y) if len(y) else np.full(classes, 1 / classes)
    return lambda rows: np.tile(share, (len(rows), 1))


def spread(scores: Floats, seen: Ints, classes: int) -> Floats:
    """Return scores of the classes `seen` in their columns among all, the others 0.

    >>> spread(np.array([[0.4, 0.6]]), np.array([0, 2]), 3)
    array([[0.4, 0. , 0.6]])
    """
    if len(seen) == classes:
        return scores
    whole = np.zeros((len(scores), classes))
    whole[:, seen] = scores
    return whole


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
