"""Releases tokens' log-probabilities: a row a token, through the route's score defences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan, nan

import numpy as np

from guard.defences.base import DROPPED_LOGPROB, Defence
from guard.engine.randomness import QueryNoise
from guard.engine.release import Report, Step, release
from guard.engine.token_noise import Place, TokenNoise
from guard.model.outputs import Outputs
from guard.model.prediction import Answer, Prediction, Release
from guard.model.text import Token

_LOGPROBS = Outputs(kind="logprobs")
_SEED_BYTES = 32
Row = dict[str, float]


@dataclass(slots=True)
class Placed:
    """A token on its way out.

    Args:
        token: what the codec read.
        index: its number among the tokens of its text.
        place: names its noise.
        start: first character of the text that it covers, counted as the text was fed.
        end: the character behind its last.
        barred: candidates that would have completed what must not leave.
    """

    token: Token
    index: int
    place: Place
    start: int = 0
    end: int = 0
    barred: frozenset[str] = frozenset()


@dataclass(slots=True)
class Sums:
    """What defences did to all rows so far; shifts are sums, not means."""

    rows: int = 0
    shift: float = 0.0
    changed: int = 0
    shadow_shift: float = 0.0
    shadow_changed: int = 0
    steps: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def add(self, report: Report, rows: int) -> None:
        """Take the report on so many rows."""
        self.rows += rows
        self.shift += report.score_shift_l1 * rows
        self.changed += report.top1_changed
        self.shadow_shift += report.shadow_shift_l1 * rows
        self.shadow_changed += report.shadow_top1_changed
        more = [(step.score_shift_l1 * rows, step.top1_changed) for step in report.steps]
        self.steps = [(a + c, b + d) for (a, b), (c, d) in zip(self.steps or [(0.0, 0)] * len(more), more, strict=True)]


class TokenScores:
    """One request's log-probabilities.

    Args:
        defences: those that look at scores, in order.
        noise: of the request's queries.
        trace: report every step.
    """

    def __init__(self, defences: tuple[Defence, ...], noise: QueryNoise, *, trace: bool) -> None:
        self.random = any(defence.random for defence in defences)
        self.sums = Sums()
        self._defences = defences
        self._enforced = any(defence.mode == "enforce" for defence in defences)
        self._noise = noise
        self._trace = trace
        self._seed = noise.fresh(_SEED_BYTES) if self.random else b""

    def release(self, placed: Sequence[Placed], *, again: bool = False) -> int:
        """Write what may leave of the tokens' log-probabilities into them.

        Args:
            placed: tokens that leave.
            again: they have left before, so they are not counted once more.

        Returns:
            How many numbers leave.
        """
        groups: dict[int, list[tuple[Placed, Row]]] = {}
        count = 0
        for one in placed:
            row = _row(one)
            count += len(row)
            if row and self._defences:
                groups.setdefault(len(row), []).append((one, row))
            elif one.barred:
                _write(one, row, row)
        for width, group in groups.items():
            count -= self._group(width, group, again=again)
        return count

    def _group(self, width: int, group: list[tuple[Placed, Row]], *, again: bool) -> int:
        """Release tokens with equally many candidates; returns how many of these were dropped."""
        rows = [row for _, row in group]
        scores = np.array([list(row.values()) for row in rows], dtype=np.float64)
        labels = [list(row) for row in rows]
        rng = TokenNoise(self._noise, self._seed, [one.place for one, _ in group], labels)
        written: list[Release] = []
        prediction = Prediction("tokens", scores, written.append, complete=False)
        answer = Answer(len(group), None, [prediction])
        report = release(self._defences, _LOGPROBS, answer, rng, labels_only=False, trace=self._trace)
        if not again:
            self.sums.add(report, len(group))
        if not written:
            for one, row in group:
                if one.barred:
                    _write(one, row, row)
            return 0
        released = written[0]
        kept = np.ones_like(scores, dtype=np.bool_) if released.kept is None else released.kept
        for (one, row), names, values, stays in zip(
            group, labels, released.scores.tolist(), kept.tolist(), strict=True
        ):
            left = {name: value for name, value, stay in zip(names, values, stays, strict=True) if stay}
            _write(one, row, left)
        return kept.size - int(np.count_nonzero(kept))

    def report(self) -> Report:
        """Return what was done so far, without steps."""
        sums, rows = self.sums, max(self.sums.rows, 1)
        return Report(sums.shift / rows, sums.changed, sums.shadow_shift / rows, sums.shadow_changed)

    def steps(self) -> list[Step]:
        """Return one step a defence."""
        rows = max(self.sums.rows, 1)
        sums = self.sums.steps or [(0.0, 0)] * len(self._defences)
        return [Step(d.kind, d.mode, shift / rows, n) for d, (shift, n) in zip(self._defences, sums, strict=True)]


def _row(one: Placed) -> Row:
    """Return the candidates that a number was said of, each once, between the floor and 0."""
    row: Row = {}
    for label, score in zip(one.token.labels, one.token.scores, strict=True):
        if label not in row and label not in one.barred and not isnan(score):
            row[label] = max(min(score, 0.0), DROPPED_LOGPROB)
    return row


def _write(one: Placed, row: Row, left: Row) -> None:
    """Write what is left of a row into its token; a candidate that no number was said of stays as it is."""
    labels = one.token.labels
    gone = [label in one.barred or (label in row and label not in left) for label in labels]
    scores = [DROPPED_LOGPROB if dropped else left.get(label, nan) for label, dropped in zip(labels, gone, strict=True)]
    one.token.write(scores, [not dropped for dropped in gone])
