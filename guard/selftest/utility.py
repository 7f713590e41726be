"""What honest users pay: every held-out row asked once, by users who ask little, with and without Guard."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from guard.selftest.base import Api, Refused, Rows
from guard.selftest.measures import Floats, Ints
from guard.selftest.results import Utility

BINS = 15
TIMED = 200
MANY = 8
"""Users, from which on one is spared to ask everything."""


def measure_utility(victim: str, users: list[Api], direct: Api, x: Rows, truth: Floats, y: Ints | None) -> Utility:
    """Ask held-out rows through Guard, spread over users, and time single rows on both ways in turns.

    Nobody of these users asks enough for a detector to say anything. So where there are some to spare one more asks all
    rows, in order, and what a ladder denies it (403) counts as refused, if that is the larger share; what a budget
    makes of so many rows is what the policy wants.

    Args:
        victim: the model's name.
        users: honest users; the last one asks for the timing, since its answers do not count, and of `MANY` and more
            the last but one asks everything.
        direct: the model itself.
        x: held-out rows.
        truth: the undefended model's own scores, shape (n, k).
        y: true labels, shape (n,); None when unknown.
    """
    answered: list[int] = []
    parts: list[Floats] = []
    busy = users[-2] if len(users) >= MANY else None
    asking = users[: -1 if busy is None else -2] or users
    share = -(-len(x) // len(asking))
    for number, user in enumerate(asking):
        rows = range(number * share, min(len(x), (number + 1) * share))
        if not rows:
            continue
        answers = _answers(user, x[rows.start : rows.stop], truth.shape[1])
        parts.append(answers)
        answered += list(rows)[: len(answers)]
    released = np.concatenate(parts) if parts else np.empty((0, truth.shape[1]))
    true = truth[answered]
    labels = None if y is None or truth.shape[1] < 2 or not answered else y[answered]
    p50, p99 = added_latency(users[-1], direct, x)
    return Utility(
        victim=victim,
        top1_changed=float((released.argmax(axis=1) != true.argmax(axis=1)).mean()) if len(true) else 0.0,
        mean_l1=float(np.abs(released - true).sum(axis=1).mean()) if len(true) else 0.0,
        calibration_error=None if labels is None else calibration_error(released, labels),
        calibration_error_before=None if labels is None else calibration_error(true, labels),
        added_p50_ms=p50,
        added_p99_ms=p99,
        refused=max(1.0 - len(answered) / len(x), 0.0 if busy is None else denied(busy, x)),
        rows=len(x),
        accuracy=None if labels is None else float((released.argmax(axis=1) == labels).mean()),
        accuracy_before=None if labels is None else float((true.argmax(axis=1) == labels).mean()),
    )


def _answers(user: Api, x: Rows, classes: int) -> Floats:
    try:
        return user.ask(x)
    except Refused as error:
        return error.answers if error.answers is not None else np.empty((0, classes))


def denied(user: Api, x: Rows) -> float:
    """Return the share of all rows that is denied (403) to a user who asks them in order."""
    try:
        user.ask(x)
    except Refused as error:
        if error.status == 403:
            return 1.0 - (0 if error.answers is None else len(error.answers)) / len(x)
    return 0.0


def calibration_error(scores: Floats, labels: Ints) -> float:
    """Return the expected calibration error over 15 equal bins of the top score (Guo et al. 2017).

    Args:
        scores: shape (n, k).
        labels: shape (n,).
    """
    if not len(scores):
        return 0.0
    top, right = scores.max(axis=1), (scores.argmax(axis=1) == labels).astype(np.float64)
    bins = np.minimum((top * BINS).astype(int), BINS - 1)
    gaps = [abs(top[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def added_latency(guarded: Api, direct: Api, x: Rows) -> tuple[float, float]:
    """Return (p50, p99) in milliseconds that Guard adds to single rows, asked in turns over one connection each."""
    taken: list[tuple[float, float]] = []
    for i in range(min(TIMED, 4 * len(x))):
        row = x[i % len(x) : i % len(x) + 1]
        try:
            taken.append((_timed(lambda row=row: guarded.ask(row)), _timed(lambda row=row: direct.ask(row))))
        except Refused:
            break
    if not taken:
        return float("nan"), float("nan")
    through, bare = (np.array(side) * 1e3 for side in zip(*taken[5:] or taken, strict=True))
    return (
        float(np.median(through) - np.median(bare)),
        float(np.percentile(through, 99) - np.percentile(bare, 99)),
    )


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def held_labels(y: object) -> Ints | None:
    """Return held-out labels when they are classes."""
    labels = np.asarray(y) if y is not None else None
    return None if labels is None or labels.dtype.kind != "i" else labels
