"""Scores written as strings: Triton's classification extension, a BYTES tensor of `score:index` or `score:index:label`.

Any client can ask for it, whatever the policy expects, so a tensor of this shape is recognised wherever it turns up.
Each row is a sparse prediction: what a defence drops leaves with its label, and what stays is put in order of the
released scores. A tensor is a rectangle, so its last dimension shrinks to the longest row kept, and shorter rows are
filled up with `0.000000:i` for the lowest indexes `i` that the row does not keep: a choice that says nothing about what
was dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from guard.model.arrays import Floats
from guard.model.prediction import Release

_SCORE = r"[-+]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?(?:[eE][-+]?[0-9]{1,4})?|nan|inf)"
_ENTRY = re.compile(rf"({_SCORE}):([0-9]{{1,15}})(?::(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entries:
    """A classification tensor, decoded.

    Args:
        scores: shape (n, k).
        indexes: the class of each score, shape (n, k).
        texts: `index` or `index:label` of each score, n lists of k.
        whole: the scores are written as whole numbers: a label tensor, not a score tensor, was asked for its classes.
    """

    scores: Floats
    indexes: list[list[int]]
    texts: list[list[str]]
    whole: bool

    def written(self, release: Release) -> list[list[str]]:
        """Return the strings of a release: n lists of the same length, each in order of its scores, ties by index."""
        rows = [self._row(release, row) for row in range(len(self.texts))]
        width = max(map(len, rows), default=0)
        for kept in rows:
            if len(kept) < width:
                taken = {index for _, index, _ in kept}
                free = (i for i in range(width + len(kept)) if i not in taken)
                kept += [(0.0, index, str(index)) for index, _ in zip(free, range(width - len(kept)), strict=False)]
        return [[f"{score:f}:{text}" for score, _, text in row] for row in rows]

    def _row(self, release: Release, row: int) -> list[tuple[float, int, str]]:
        scores: list[float] = release.scores[row].tolist()
        columns = range(len(scores)) if release.kept is None else np.flatnonzero(release.kept[row]).tolist()
        kept = [(scores[i], self.indexes[row][i], self.texts[row][i]) for i in columns]
        return sorted(kept, key=lambda entry: (-entry[0], entry[1], entry[2]))


def read_entries(strings: list[str], rows: int) -> Entries | None:
    """Decode the strings of a tensor, row-major; None when they are anything but classification entries.

    >>> read_entries(["0.5:7:cat", "0.25:1"], 1).texts
    [['7:cat', '1']]
    >>> read_entries(["cat"], 1) is None
    True
    """
    found = [_ENTRY.fullmatch(string) for string in strings]
    if not found or len(found) % rows or not all(found):
        return None
    matches = [match for match in found if match is not None]
    width = len(matches) // rows
    scores = np.array([float(match[1]) for match in matches]).reshape(rows, width)
    indexes = [int(match[2]) for match in matches]
    texts = [match[2] if match[3] is None else f"{match[2]}:{match[3]}" for match in matches]
    return Entries(
        scores,
        [indexes[i : i + width] for i in range(0, len(indexes), width)],
        [texts[i : i + width] for i in range(0, len(texts), width)],
        all(match[1].isdigit() for match in matches),
    )
