"""The same query but for one group of features."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from guard.detectors.base import GROUPS, Blind, Bound, Detector, Features, Keys, Past, Reference
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats


class OneFeatureVaried(Detector, frozen=True):
    """Measures whether a query agrees with one of the client's last 512 in all but one group of features: 1 or 0.

    Features are dealt to eight secret groups; a key is made of the row without each. A hit is a key seen before in a
    row that is no repeat. With at most eight features a group is one feature; of a text, a group is every eighth word.

    Moves it: finite differences, Lowd-Meek and other line searches along a feature, path finding in trees, replacing
    words one by one. Cannot see: changes of several features at once, rows of fewer than three members, words that
    are left out (all that follow move up). Honest users who try "what if" move it too: calibration has to know them.

    Source: Lowd and Meek, KDD 2005; Tramer et al., USENIX Security 2016, section 4.2, for the attacks it answers.

    >>> bound = OneFeatureVaried().bind({}, 0, b"")
    >>> rows = Features(np.zeros((2, 9), dtype=np.uint32), None, False)
    >>> hits = np.zeros((2, 8), dtype=bool)
    >>> hits[:, 3] = True
    >>> bound.measure(rows, np.array([False, True]), hits, Past()).ravel()  # the second is a repeat
    array([1., 0.])
    """

    tier: ClassVar[Tier] = "structure"
    names: ClassVar[tuple[str, ...]] = ("one_feature_varied",)

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
            return np.array(((1.0 if not seen[0] and True in hits[0].tolist() else 0.0,),))
        return (hits.any(axis=1) & ~seen)[:, None].astype(float)
