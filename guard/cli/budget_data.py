"""The scores that a plan is tried on: the operator's file, or what ships with Guard."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.cli.budget_request import Unplannable

if TYPE_CHECKING:
    from guard.model.arrays import Floats
    from guard.model.outputs import Outputs

MAX_BYTES = 64 * 2**20
MAX_ROWS = 2000
"""More rows say nothing more of noise, and take longer."""
_EVEN = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """Scores of one kind.

    Args:
        scores: shape (n, k).
        about: where they come from, in words.
    """

    scores: Floats
    about: str


def load(path: str) -> Sample:
    """Read scores from a file: CSV (a header may stand first), JSON (rows, or {"scores": rows}) or .npy.

    Raises:
        Unplannable: it cannot be read, or holds no table of finite numbers.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
        scores = _parsed(data, Path(path).suffix.lower())
    except OSError as error:
        raise Unplannable(f"--data: cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        hint = "rows of scores, as many in each: CSV, JSON or .npy"
        raise Unplannable(f"--data: {path} holds no table of numbers: {error}", hint) from error
    if scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise Unplannable(f"--data: {path} holds no table of finite numbers", "rows of scores, as many in each")
    about = f"{len(scores):,} answers in {path}"
    if len(scores) > MAX_ROWS:
        # Evenly spread, since a file may be sorted by class.
        scores = scores[np.linspace(0, len(scores) - 1, MAX_ROWS).astype(np.int64)]
        about = f"{MAX_ROWS:,} of the {about}"
    return Sample(scores, about)


def _parsed(data: bytes, suffix: str) -> Floats:
    if suffix == ".npy":
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), dtype=np.float64)
    if suffix == ".json":
        document: Any = json.loads(data)  # Any: JSON
        return np.asarray(document["scores"] if isinstance(document, dict) else document, dtype=np.float64)
    lines = data.decode("utf-8-sig").splitlines()
    try:
        rows = [[float(cell) for cell in line.split(",")] for line in lines[:1]]
    except ValueError:
        rows = []  # a header
    rows += [[float(cell) for cell in line.split(",")] for line in lines[1:] if line.strip()]
    return np.asarray(rows, dtype=np.float64)


def default(outputs: Outputs) -> Sample:
    """Return scores for a plan without data: a digits model's, folded or filled up to as many classes as there are.

    Values are spread evenly over their range; embeddings are the digits model's answers about their mean, made so long
    that the longest has the greatest norm.
    """
    if outputs.kind == "value":
        low, high = outputs.low or 0.0, outputs.high or 0.0
        return Sample(np.linspace(low, high, _EVEN)[:, None], f"{_EVEN} values spread evenly over {low:g} to {high:g}")
    document: Any = json.loads(files("guard").joinpath("privacy/default_scores.json").read_bytes())  # Any: JSON
    scores = np.asarray(document["scores"], dtype=np.float64)
    about = f"{len(scores)} answers of a digits model"
    if outputs.kind == "embedding":
        centred = scores - scores.mean(axis=0)
        longest = np.sqrt(np.square(centred).sum(axis=1)).max()
        return Sample(centred * ((outputs.norm or 1.0) / longest), f"{about}, scaled to norm {outputs.norm:g}")
    columns = len(outputs.classes or ()) or scores.shape[1]
    if columns == scores.shape[1]:
        return Sample(scores, about)
    folded = np.zeros((len(scores), columns))
    for column in range(scores.shape[1]):
        folded[:, column % columns] += scores[:, column]
    return Sample(folded, f"{about}, {'folded' if columns < scores.shape[1] else 'filled up'} to {columns} classes")
