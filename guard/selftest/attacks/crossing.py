"""Records crossed with other data: what many questions near a record say, where one answer says next to nothing.

A coarse answer moves only where the model's score crosses a border between two answers. Between a record and other
data there are many such places, and at some of them it decides whether the record was trained on: that is how a record
shines through an ensemble's mean and four levels of confidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guard.selftest.attacks.candidates import Bools
from guard.selftest.attacks.membership_shadow import judged_by_others, log_odds
from guard.selftest.measures import Floats

NEAR, FAR = 0.1, 0.45
"""Shares of the other row in a mixture."""
_FLOOR = 0.5
"""Added to every spread of logits, which so few shadows cannot know."""


def crossed(x: Floats, own: Floats, rng: np.random.Generator) -> Floats:
    """Return each row, shape (n, d), mixed with one of the attacker's own, drawn at random."""
    share = rng.uniform(NEAR, FAR, size=(len(x), 1))
    return (1 - share) * x + share * own[rng.integers(len(own), size=len(x))]


@dataclass(frozen=True)
class Heard:
    """What target and shadows said to the same questions about each record: logits of its recorded label.

    Args:
        target: shape (q, n).
        shadows: shape (q, s, n).
        answered: which questions the target answered, shape (q, n).
    """

    target: Floats
    shadows: Floats
    answered: Bools

    def log_odds(self, inside: Bools, rng: np.random.Generator) -> Floats:
        """Return log-odds of membership, shape (n,), learnt from shadows that are each judged by the others.

        Args:
            inside: which records trained each shadow, shape (s, n).
            rng: draws the opposites that leave with a shadow.
        """
        told = [
            self._features(self.shadows[:, k], inside & kept, ~inside & kept)
            for k, kept in judged_by_others(inside, rng)
        ]
        return log_odds(np.concatenate(told), inside.ravel(), self._features(self.target, inside, ~inside))

    def _features(self, said: Floats, inside: Bools, outside: Bools) -> Floats:
        """Return what `said`, shape (q, n), tells of each record beside the shadows in both sets, shape (n, f)."""
        weight, asked = self.answered, np.maximum(self.answered.sum(axis=0), 1)
        in_mean, out_mean = _mean(self.shadows, inside), _mean(self.shadows, outside)
        off = np.where(inside, self.shadows - in_mean[:, None], np.where(outside, self.shadows - out_mean[:, None], 0))
        spread = np.sqrt((off**2).sum(axis=1) / np.maximum((inside | outside).sum(axis=0), 1))
        ratio = ((said - out_mean) ** 2 - (said - in_mean) ** 2) / (2 * (spread + _FLOOR) ** 2)

        def mean(values: Floats) -> Floats:
            return np.where(weight, values, 0.0).sum(axis=0) / asked

        columns = [mean(ratio) * asked, said[0], ratio[0]]
        columns += map(mean, (said - out_mean, said - in_mean, said, in_mean - out_mean, out_mean, spread))
        return np.array(columns).T


def _mean(shadows: Floats, which: Bools) -> Floats:
    return np.where(which, shadows, 0.0).sum(axis=1) / np.maximum(which.sum(axis=0), 1)
