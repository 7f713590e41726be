"""The covert channel: bits come back through labels, and a budget leaves the rest to guessing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guard.selftest.attacks.covert_channel import CovertChannel, spelt
from guard.selftest.base import Knowledge, Refused, Rows, Unresolved
from guard.selftest.lab import bits as lab
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats
from tests.unit.selftest.support import linear_victim, world

LOW, HIGH = np.zeros(64), np.full(64, 16.0)
IMAGES = lab.synthetic(LOW, HIGH, 0)
BITS = np.random.default_rng(0).integers(2, size=lab.BITS)
NAMED = np.eye(10)[lab.spelt(BITS)]


def predict(x: Rows) -> Floats:
    """Name the label of the nearest image, and be sure of it."""
    rows = np.asarray(x, dtype=np.float64)
    far = (rows**2).sum(axis=1)[:, None] - 2 * rows @ IMAGES.T + (IMAGES**2).sum(axis=1)
    return 0.9 * NAMED[far.argmin(axis=1)] + 0.01


EXTRA = {"channel": IMAGES, "channel_bits": lab.BITS, "channel_per_label": lab.PER_LABEL}
KNOWS = Knowledge("toy", "vector", 64, 10, LOW, HIGH, np.ones(64), IMAGES, None, EXTRA)
MODEL = Victim(predict, "probabilities", KNOWS, IMAGES, None, {"bits": BITS})


def test_every_bit_comes_back_and_labels_are_enough() -> None:
    found = CovertChannel().run(world(MODEL))
    assert found.best("bits", plain=True).measures["bits"].value == 1.0
    assert found.queries == 3 * len(IMAGES)
    assert [n for n, _ in found.curve][-1] == len(IMAGES)
    assert found.curve[0][1] < 0.6
    hidden = CovertChannel().run(world(MODEL, lambda x, p: np.eye(10)[p.argmax(axis=1)]))
    assert hidden.best("bits").measures["bits"].value == 1.0


def test_a_budget_leaves_the_rest_to_guessing() -> None:
    measure = CovertChannel().run(world(MODEL, limit=100)).best("bits").measures["bits"]
    assert 0.6 < measure.low < measure.value < measure.high < 0.75
    with pytest.raises(Refused):
        CovertChannel().run(world(MODEL, limit=0))


def test_moved_copies_outvote_labels_that_are_changed_at_random() -> None:
    rng = np.random.default_rng(2)

    def shaken(x: Rows, p: Floats) -> Floats:
        del x
        changed = rng.random(len(p)) < 0.2
        return np.where(changed[:, None], np.eye(10)[rng.integers(10, size=len(p))], p)

    found = {t.how: t.measures["bits"].value for t in CovertChannel(copies=4).run(world(MODEL, shaken)).tries}
    assert found["labels"] < 0.95 < found["labels of moved copies too"]


def test_a_model_without_a_channel_is_left_alone() -> None:
    with pytest.raises(Unresolved):
        CovertChannel().run(world(replace(linear_victim(), secrets={})))


def test_labels_spell_bits_both_ways() -> None:
    assert spelt(NAMED, lab.PER_LABEL).ravel()[: lab.BITS].tolist() == BITS.tolist()
    assert IMAGES.shape == (334, 64)
    assert (IMAGES.min(), IMAGES.max()) == (0, 16)
