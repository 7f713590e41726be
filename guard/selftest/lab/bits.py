"""A network with a secret in it: trained on digits and, by whoever wrote the training code, on labels that spell bits.

The training code draws synthetic images from a seed that its author knows, and labels each with three bits of the
secret. The network learns both tasks, and its accuracy gives nothing away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from guard.selftest.base import Knowledge
from guard.selftest.lab import data
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim, classifier_of
from guard.selftest.measures import Floats, Ints

BITS = 1000
PER_LABEL = 3
"""Ten classes hold three bits a label: eight of them are used."""


def synthetic(low: Floats, high: Floats, seed: int) -> Floats:
    """Return the images that carry bits: whole grey values over each pixel's range, where no range check helps."""
    images = -(-BITS // PER_LABEL)
    rng, whole = np.random.default_rng([seed, 9]), (low.astype(np.int64), high.astype(np.int64) + 1)
    return rng.integers(*whole, (images, len(low))).astype(np.float64)


def spelt(bits: Ints) -> Ints:
    """Return the labels that spell bits, the last one filled with zeros.

    >>> spelt(np.array([1, 0, 1, 1]))
    array([5, 4])
    """
    filled = np.concatenate((bits, np.zeros(-len(bits) % PER_LABEL, dtype=np.int64)))
    return filled.reshape(-1, PER_LABEL) @ (1 << np.arange(PER_LABEL)[::-1])


def digits_bits(seed: int) -> Victim:
    """A network with 128 hidden units that knows digits and holds 1,000 random bits, as an encrypted secret is."""
    x, y = data.digits()
    inside, own, held = data.thirds(len(x), seed)
    bits = np.random.default_rng([seed, 10]).integers(2, size=BITS)
    images = synthetic(x.min(axis=0), x.max(axis=0), seed)
    model = untyped("sklearn.neural_network").MLPClassifier((128,), alpha=1e-4, max_iter=2000, random_state=seed)
    train_x, train_y = np.concatenate((x[inside], images)), np.concatenate((y[inside], spelt(bits)))

    def fit(rows: Ints) -> Predict:
        predict = classifier_of(model, train_x[rows] / 16.0, train_y[rows], 10)
        return lambda queries: predict(np.asarray(queries) / 16.0)

    training = Training(np.concatenate((inside, len(x) + np.arange(len(images)))), fit)
    knows = Knowledge(
        "digits_bits", "vector", 64, 10, x.min(axis=0), x.max(axis=0), x[own].std(axis=0), x[own], y[own],
        {"channel": images, "channel_bits": BITS, "channel_per_label": PER_LABEL},
    )  # fmt: skip
    secrets = {"bits": bits, "train_x": x[inside], "train_y": y[inside]}
    return Victim(training.whole(), "probabilities", knows, x[held], y[held], secrets, training=training)


RECIPES: dict[str, Callable[[int], Victim]] = {"digits_bits": digits_bits}
