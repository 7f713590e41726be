"""The lab's models once more as ensembles: each on disjoint shards of its training data.

A record's shard follows from its number alone, by a rule that everybody may know: neither what it says nor who else is
there has a part in it, and a model of the attacker's own puts the same record in the same shard.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from guard.selftest.base import Rows
from guard.selftest.lab.registry import victim
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats, Ints

Aggregate = Literal["mean", "vote", "noisy_vote"]
MOST = 101
"""Shards that the lab's data bear: of 450 records each has four or five then."""
_NUMBERS = 2**13
"""More than any of the lab's data sets has records."""


def shard_of(ids: Ints, shards: int, seed: int) -> Ints:
    """Return which shard each record belongs to.

    Args:
        ids: the records' numbers, shape (n,).
        shards: how many there are.
        seed: of the rule.
    """
    return np.random.default_rng([seed, 12]).permutation(_NUMBERS)[ids] % shards


@lru_cache(maxsize=64)
def shards(name: str, seed: int, count: int) -> Sequence[Victim]:
    """Return a model's recipe followed on each of `count` shards: all at once, so that none is late when asked.

    Raises:
        KeyError: there is no such model, or it cannot be trained in parts.
    """
    whole = victim(name, seed)
    training = whole.training
    if training is None:
        raise KeyError(f"{name} has no shards")
    placed = shard_of(training.ids, count, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network's passes over a shard are shorter, and may not converge
        fitted = [training.fit(np.flatnonzero(placed == number)) for number in range(count)]
    return tuple(replace(whole, predict=predict, extras=None, training=None) for predict in fitted)


def ensemble(name: str, seed: int, count: int, aggregate: Aggregate) -> Victim:
    """Return what stands behind a policy with an ensemble: the shards' mean, or the shares of their votes.

    Raises:
        KeyError: as for `shards`; or no such aggregate.
    """
    if aggregate not in get_args(Aggregate):
        raise KeyError(aggregate)
    members = shards(name, seed, count)
    return replace(victim(name, seed), predict=_together(members, aggregate), extras=None, training=None)


def _together(members: Sequence[Victim], aggregate: Aggregate) -> Callable[[Rows], Floats]:
    def predict(rows: Rows) -> Floats:
        scores = [member.predict(rows) for member in members]
        if aggregate != "mean":
            scores = [np.eye(p.shape[1])[p.argmax(axis=1)] for p in scores]
        return np.mean(scores, axis=0)

    return predict
