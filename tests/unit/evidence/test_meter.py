from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from guard.evidence.meter import BLOCK, CODES, FADE, FEATURES, MARGIN, Meter, MeterBase
from guard.model.arrays import Floats, Ints

SALT = b"0123456789abcdef"


class Victim:
    """A softmax regression on standard normal queries, and held-out queries of it."""

    def __init__(self, width: int, classes: int, seed: int = 1, sharpness: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.width, self.classes = width, classes
        self.weights: Floats = sharpness * rng.standard_normal((width, classes))
        self.held_out: Floats = rng.standard_normal((400, width))
        self.rng = rng

    def answers(self, x: Floats) -> Floats:
        """Return probabilities, shape (n, K)."""
        z = np.clip(x, -1e6, 1e6) @ self.weights
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def top(self) -> Ints:
        """Return the labels of the held-out queries."""
        return np.asarray(self.answers(self.held_out).argmax(axis=1), dtype=np.int64)

    def base(self) -> MeterBase:
        """Return what meters share."""
        return MeterBase(self.held_out, self.top(), self.classes, SALT)

    def queries(self, n: int) -> Floats:
        """Return queries of the distribution, shape (n, m)."""
        return self.rng.standard_normal((n, self.width))


def read(victim: Victim, x: Floats, base: MeterBase | None = None) -> Meter:
    """Return a meter that has seen the answers to `x`, row by row."""
    meter = Meter(base or victim.base())
    for row in x:
        meter.add(row[None], victim.answers(row[None]))
    return meter


def arrays(meter: Meter) -> list[Floats]:
    """Return a meter's arrays."""
    held = (getattr(meter, name) for name in Meter.__slots__)
    return [cast("Floats", value) for value in held if isinstance(value, np.ndarray)]


def size(meter: Meter) -> int:
    """Return the bytes of a meter's arrays."""
    return sum(array.nbytes for array in arrays(meter))


def test_answers_that_determine_the_model_are_read_as_a_copy() -> None:
    victim = Victim(8, 3)
    assert read(victim, victim.queries(200)).reading > 0.9


def test_one_answer_over_and_over_tells_nothing() -> None:
    victim = Victim(8, 3)
    base = victim.base()
    meter = read(victim, np.repeat(victim.queries(1), 200, axis=0), base)
    assert meter.reading < base.floor + MARGIN


def test_more_answers_are_never_read_as_less() -> None:
    victim = Victim(12, 4)
    meter = Meter(victim.base())
    readings: list[float] = []
    for row in np.concatenate((victim.queries(100), 50.0 * victim.queries(300))):
        if meter.add(row[None], victim.answers(row[None])):
            readings.append(meter.reading)
    assert readings == sorted(readings)
    assert len(readings) > 10


def test_before_a_block_there_is_no_reading_and_then_at_least_the_commonest_label() -> None:
    victim = Victim(5, 2)
    base = victim.base()
    x = victim.queries(BLOCK)
    meter = read(victim, x[:-1], base)
    assert meter.reading == 0.0
    assert meter.add(x[-1:], victim.answers(x[-1:]))
    assert meter.reading >= base.floor >= 0.5


def test_readings_are_seldom() -> None:
    victim = Victim(5, 2)
    meter = Meter(victim.base())
    count = sum(meter.add(row[None], victim.answers(row[None])) for row in victim.queries(5000))
    assert 10 < count < 60


def test_batches_are_read_like_single_rows() -> None:
    victim = Victim(6, 3)
    base = victim.base()
    x = victim.queries(64)
    single, batched = read(victim, x, base), Meter(base)
    for start, end in ((0, 3), (3, 3), (3, 20), (20, 21), (21, 64)):
        batched.add(x[start:end], victim.answers(x[start:end]))
    assert batched.answers == single.answers == 64
    single.add(x, victim.answers(x))
    batched.add(x, victim.answers(x))
    assert batched.reading == pytest.approx(single.reading, abs=0.01)


@pytest.mark.parametrize(("width", "classes"), [(1, 2), (15, 2), (64, 10), (64, CODES), (64, 64), (64, 1000)])
def test_its_size_is_bounded_and_does_not_grow(width: int, classes: int) -> None:
    victim = Victim(width, classes)
    meter = Meter(victim.base())
    before = size(meter)
    x = victim.queries(300)
    meter.add(x, victim.answers(x))
    assert size(meter) == before <= 12 * 1024
    assert 0.0 < meter.reading <= 1.0


def test_more_classes_than_codes_are_still_told_apart() -> None:
    victim = Victim(4, 64, sharpness=3.0)
    base = victim.base()
    assert read(victim, victim.queries(400), base).reading > 3 * base.floor


@pytest.mark.parametrize("kind", ["constant", "equal", "huge", "not a number", "infinite", "two rows"])
def test_odd_queries_leave_a_finite_reading(kind: str) -> None:
    victim = Victim(10, 2)
    held_out = victim.held_out.copy()
    x = victim.queries(100)
    if kind == "constant":
        held_out[:, :9] = x[:, :9] = 0.0
    elif kind == "equal":
        held_out[:] = held_out[0]
    elif kind == "two rows":
        held_out = held_out[:2]
    base = MeterBase(held_out, np.asarray(victim.answers(held_out).argmax(axis=1)), 2, SALT)
    released = victim.answers(x)
    x[::3] = {"huge": 1e300, "not a number": np.nan, "infinite": np.inf}.get(kind, x[::3])
    meter = Meter(base)
    for row, scores in zip(x, released, strict=True):
        meter.add(row[None], scores[None])
    meter.add(x, released)
    assert base.floor <= meter.reading <= 1.0
    # What was odd does not outlast it.
    meter.add(victim.queries(2000), released[np.zeros(2000, dtype=int)])
    assert np.isfinite(meter.reading)


def test_scores_of_nought_and_lost_scores_are_read() -> None:
    victim = Victim(6, 3)
    x = victim.queries(100)
    rounded = np.round(victim.answers(x), 0)
    rounded[::5] = np.nan
    meter = Meter(victim.base())
    meter.add(x, rounded)
    assert meter.reading > 0.5


def test_answers_with_more_or_fewer_classes_are_read() -> None:
    victim = Victim(6, 3)
    base = victim.base()
    x = victim.queries(200)
    scores = victim.answers(x)
    whole, more, fewer = Meter(base), Meter(base), Meter(base)
    whole.add(x, scores)
    more.add(x, np.concatenate((scores, np.zeros((200, 2))), axis=1))
    fewer.add(x, scores[:, :2])
    assert more.reading == whole.reading > 0.9
    assert base.floor <= fewer.reading < whole.reading


def test_far_queries_do_not_blind_it() -> None:
    victim = Victim(8, 3)
    base = victim.base()
    near = victim.queries(300)
    far = 1e6 * victim.queries(30)
    meter = Meter(base)
    # Far from what it was trained on, a model may answer anything: here, the opposite.
    meter.add(far, victim.answers(-far))
    meter.add(near, victim.answers(near))
    assert meter.reading > read(victim, near, base).reading - MARGIN


def test_repeats_neither_outweigh_nor_put_off_what_comes_after_them() -> None:
    victim = Victim(8, 3)
    base = victim.base()
    meter = Meter(base)
    again = np.repeat(victim.queries(1), 2**13, axis=0)
    scores = victim.answers(again)
    for _ in range(12):
        meter.add(again, scores)
    # However often it is asked, a query weighs no more than so many answers, each of at most 3 x 3 along a direction.
    assert max(float(np.abs(array).max()) for array in arrays(meter)) <= 9 * (2 * FADE + 2**13)
    assert meter.reading < base.floor + MARGIN
    for row in victim.queries(300):
        meter.add(row[None], victim.answers(row[None]))
    assert meter.reading > 0.9


def test_equal_answers_lead_to_equal_readings() -> None:
    victim = Victim(70 - FEATURES, 3)
    x = victim.queries(64)
    assert read(victim, x).reading == read(victim, x).reading


def test_held_out_queries_need_labels() -> None:
    with pytest.raises(ValueError, match="held-out"):
        MeterBase(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), 2, SALT)
    with pytest.raises(ValueError, match="held-out"):
        MeterBase(np.zeros((2, 3)), np.zeros(1, dtype=np.int64), 2, SALT)
