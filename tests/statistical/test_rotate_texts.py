"""What a client that holds its own vectors finds in another client's store, on real texts: the figures of the docs.

4,524 distinct SMS messages as tf-idf of words and pairs, by SVD to 384 dimensions, of norm 1. Each attacker guesses the
matrix that takes the one store to the other, and looks up the nearest neighbour by cosine; a figure is the share of 500
texts that it finds.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from guard.defences.rotate import Rotate
from guard.engine.randomness import QueryNoise
from guard.model.arrays import Floats, Ints
from guard.model.queries import Queries
from guard.selftest.lab.data import messages, untyped
from tests.support.randomness import batch_of

pytestmark = pytest.mark.lab
D = 384
LOOKED_UP = 500


@cache
def vectors() -> Floats:
    """Return the texts' vectors, in an order of its own."""
    texts = list(dict.fromkeys(messages()[0]))
    counts = untyped("sklearn.feature_extraction.text").TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
    made = untyped("sklearn.decomposition").TruncatedSVD(D, random_state=0).fit_transform(counts.fit_transform(texts))
    norms: Floats = np.linalg.norm(made, axis=1)
    kept: Floats = made[norms > 0] / norms[norms > 0, None]
    return np.random.default_rng(0).permutation(kept)


def store(client: str, texts: Ints) -> Floats:
    """Return what a client was answered for some of the texts."""
    noise = QueryNoise(bytes(range(32)), "model", client, Queries(1, ["any"]), None)
    return Rotate().apply(batch_of(vectors()[texts], "embedding"), noise, b"").scores


def found(mine: Floats, theirs: Floats) -> float:
    """Return the share of the first texts whose nearest neighbour is the same text."""
    nearest = (mine[:LOOKED_UP] @ theirs.T).argmax(axis=1)
    return float((nearest == np.arange(LOOKED_UP)).mean())


def procrustes(mine: Floats, theirs: Floats) -> Floats:
    u, _, v = np.linalg.svd(mine.T @ theirs)
    return u @ v


def aligned(mine: Floats, theirs: Floats, refinements: int = 5) -> Floats:
    """Guess the matrix without a pair: principal axes, their signs by third moments, then mutual neighbours."""

    def axes(vectors: Floats) -> Floats:
        turned = np.linalg.eigh(np.cov(vectors.T))[1]
        along = vectors @ turned
        return turned * np.sign(((along - along.mean(axis=0)) ** 3).mean(axis=0))

    guess = axes(mine) @ axes(theirs).T
    for _ in range(refinements):
        likeness = (mine @ guess) @ theirs.T
        there, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
        mutual = np.flatnonzero(back[there] == np.arange(len(mine)))
        guess = procrustes(mine[mutual], theirs[there[mutual]])
    return guess


def stores(shared: float) -> tuple[Floats, Floats, int]:
    """Return the stores of two clients that share so much of their texts, those first, and how many those are."""
    n = len(vectors())
    common = max(int(shared * n), LOOKED_UP)
    half = common + (n - common) // 2
    texts = np.arange(n)
    return store("alice", texts[:half]), store("bob", np.concatenate((texts[:common], texts[half:]))), common


def test_plain_vectors_are_found_and_turned_ones_are_not() -> None:
    mine, theirs, _ = stores(0.0)
    plain = vectors()
    assert found(plain, plain) >= 0.99
    assert found(mine, mine) >= 0.99
    assert found(mine, theirs) <= 0.01


def test_known_pairs_open_what_they_span() -> None:
    mine, theirs, _ = stores(0.0)
    shares: list[float] = []
    for pairs in (48, 96, 192, 384):
        known = slice(LOOKED_UP - pairs, LOOKED_UP)
        guess = procrustes(mine[known], theirs[known])
        nearest = (mine[:100] @ guess @ theirs.T).argmax(axis=1)
        shares.append(float((nearest == np.arange(100)).mean()))
    assert shares == sorted(shares)
    assert shares[0] <= 0.2
    assert shares[2] >= 0.8
    assert shares[3] >= 0.97


def test_stores_of_nearly_the_same_texts_open_each_other_without_a_pair() -> None:
    for shared, low, high in ((1.0, 0.97, 1.0), (0.9, 0.9, 1.0)):
        mine, theirs, common = stores(shared)
        # In an order that says nothing: the attacker does not know which is which.
        order = np.random.default_rng(7).permutation(len(theirs))
        place = np.argsort(order)
        nearest = (mine[:LOOKED_UP] @ aligned(mine, theirs[order]) @ theirs[order].T).argmax(axis=1)
        assert low <= float((nearest == place[:LOOKED_UP]).mean()) <= high, (shared, common)


def test_stores_of_other_texts_do_not_open_each_other_this_way() -> None:
    mine, theirs, _ = stores(0.0)
    guess = aligned(mine[LOOKED_UP:], theirs[LOOKED_UP:])
    assert found(mine @ guess, theirs) <= 0.02
