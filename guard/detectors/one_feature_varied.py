"""The same query but for one group of features."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import GROUPS, Blind, Bound, Detector, Features, Keys, Past, Reference
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats


class OneFeatureVaried(Detector, frozen=True):
    """Measures whether a query agrees with one of the last 512 in all but one group of features: 1 or 0, twice.

    Features are dealt to eight secret groups; a key is made of the row without each. A hit is a key seen before: for
    `one_feature_varied` in a row that is no repeat, for `one_feature_varied.any` in any row. With at most eight
    features a group is one feature; of a text, a group is every eighth word.

    The last steps of a line search are so small that rounding makes them repeats: their share of either kind looks like
    an honest client who retries or tries "what if", and their sum does not.

    Moves it: finite differences, Lowd-Meek and other line searches along a feature, path finding in trees, replacing
    words one by one. Cannot see: changes of several features at once, rows of fewer than three members, words that
    are left out (all that follow move up). Honest users who try "what if" move it too: calibration has to know them.

    Source: Lowd and Meek, KDD 2005; Tramer et al., USENIX Security 2016, section 4.2, for the attacks it answers.

    >>> bound = OneFeatureVaried().bind({}, 0, b"")
    >>> rows = Features(np.zeros((2, 9), dtype=np.uint32), None, False)
    >>> hits = np.zeros((2, 8), dtype=bool)
    >>> hits[:, 3] = True
    >>> bound.measure(rows, np.array([False, True]), hits, Past())  # the second is a repeat
    array([[1., 1.],
           [0., 1.]])
    >>> bound.measure(rows, np.array([False, True]), np.zeros((2, 8), dtype=bool), Past())  # nothing like it before
    array([[0., 0.],
           [0., 0.]])
    """

    tier: ClassVar[Tier] = "structure"
    names: ClassVar[tuple[str, ...]] = ("one_feature_varied", "one_feature_varied.any")

    kind: Literal["one_feature_varied"] = "one_feature_varied"

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure; it needs nothing."""
        del reference, width, salt
        return _Varied()


class _Varied(Blind):
    columns = GROUPS

    def keys(self, features: Features) -> Keys:
        return features.keys[:, 1:]

    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del features, past
        if len(hits) == 1:
            found = 1.0 if True in hits[0].tolist() else 0.0
            return np.array(((0.0 if seen[0] else found, found),))
        some = hits.any(axis=1)
        return np.stack([some & ~seen, some], axis=1).astype(float)
