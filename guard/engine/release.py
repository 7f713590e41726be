"""Runs a route's defences over an answer and writes what they let out.

Theory of operation. Each score matrix goes through the enforced defences in order; steps in shadow see what the
enforced ones before them left, are counted, and change nothing. What keeps an answer's parts in agreement:

* a copy of an earlier matrix gets that one's release, so that two independent noises cannot be compared;
* a number that repeats the top score takes the released one;
* labels are rewritten where a release's argmax is no longer the model's.

Noise is salted by the step and by how many matrices before this one answer the same rows, so that a row gets the same
noise alone and in a batch. Rows with a score that is not finite cannot be defended and are let out as NaN only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

import numpy as np

from guard.defences.base import Batch, Defence, Mode, Randomness, Reuse, has_classes, same_columns
from guard.defences.label_only import LabelOnly
from guard.engine.memo import Memo, only_prediction
from guard.errors import InvariantError
from guard.model.arrays import Bools, Floats, Ints, Words
from guard.model.outputs import Kind, Outputs
from guard.model.prediction import Answer, Prediction, Release
from guard.privacy.measurement import Bounds

_COPY_TOLERANCE = 1e-6
_SUM_TOLERANCE = 0.02
"""How far a distribution's sum may be from 1; rows further off score several labels, and nothing renormalises them."""
_LABEL_ONLY = LabelOnly()


class Step(NamedTuple):
    """What one defence did to an answer, for `explain`.

    Args:
        kind: the defence's.
        mode: steps in shadow changed nothing; these are the changes that they would have made.
        score_shift_l1: mean L1 distance a row between what it got and what it left.
        top1_changed: rows whose argmax it changed.
        redacted: of a defence that looks at text: how often it took something out of it; None for others.
    """

    kind: str
    mode: Mode
    score_shift_l1: float
    top1_changed: int
    redacted: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What all defences did to an answer.

    Args:
        score_shift_l1: mean L1 distance a row between prediction and release; rows that are not finite do not count.
        top1_changed: rows whose argmax changed.
        shadow_shift_l1: the same for the steps in shadow, summed over them.
        shadow_top1_changed: likewise.
        steps: one a defence, when traced.
        released: the principal matrix as it was let out, shape (n, k), and whether it carries labels alone; None when
            there was none.
        redacted: how often something was taken out of generated text.
        shadow_redacted: how often the steps in shadow would have.
    """

    score_shift_l1: float = 0.0
    top1_changed: int = 0
    shadow_shift_l1: float = 0.0
    shadow_top1_changed: int = 0
    steps: tuple[Step, ...] = ()
    released: Release | None = field(default=None, compare=False, repr=False)
    redacted: int = 0
    shadow_redacted: int = 0


def release(
    defences: tuple[Defence, ...],
    outputs: Outputs,
    answer: Answer,
    rng: Randomness,
    *,
    labels_only: bool,
    trace: bool = False,
    private: PrivateRun | None = None,
    extra: tuple[Defence, ...] = (),
    idle: tuple[Defence, ...] = (),
) -> Report:
    """Run the defences over every prediction of an answer, and write the releases and changed labels into it.

    Args:
        defences: in order.
        outputs: what the scores are.
        answer: changed through its places; left as it is when no defence is enforced and `labels_only` is False.
        rng: randomness for the request's rows.
        labels_only: a budget leaves only labels: every row is reduced to its label behind the other defences.
        trace: report every step.
        private: what a route whose first defence is a mechanism of differential privacy needs.
        extra: what the ladder puts behind the defences for this client; what is remembered is as it was before them.
        idle: what it puts there for others: the work is done and thrown away, so that time tells nobody who it is.

    Raises:
        UpstreamError: an answer that the mechanism cannot make private, or outside the domain.
        InvariantError: `labels_only` on outputs that have no labels; a matrix that answers other rows than the answer
        has.
    """
    if labels_only and outputs.kind not in LabelOnly.suits:
        raise InvariantError(f"{outputs.kind} cannot be reduced to labels")
    own = len(defences)
    defences = (*defences, *extra)
    if labels_only:
        defences = (*defences, _LABEL_ONLY)
    if private is None and (not answer.predictions or not (defences or idle or answer.relabel)):
        first = answer.predictions[0] if answer.predictions else None
        return Report(released=None if first is None else Release(first.scores))
    if private is not None:
        only_prediction(answer, len(private.memo.keys), private.columns)
    return _Run(defences, outputs.kind, answer, rng, own=own, trace=trace, private=private, idle=idle).all()


class PrivateRun(NamedTuple):
    """What a mechanism of differential privacy needs beside its answer.

    Args:
        bounds: the domain that scores are fitted into first; None for an ensemble's, whose every model's were.
        columns: most scores a row.
        memo: what is known of the request's releases; gets those that are drawn.
    """

    bounds: Bounds | None
    columns: int
    memo: Memo


@dataclass(slots=True)
class _Done:
    """A prediction and its release; `top` is what the model's argmax was, `released` what it is now, shape (n,)."""

    prediction: Prediction
    release: Release
    top: Ints
    released: Ints


class _Run:
    """One answer on its way through the defences."""

    __slots__ = (
        "answer",
        "counts",
        "covered",
        "defences",
        "done",
        "idle",
        "kind",
        "known",
        "own",
        "private",
        "rng",
        "rows",
        "shadow",
        "total",
        "trace",
    )

    def __init__(
        self,
        defences: tuple[Defence, ...],
        kind: Kind,
        answer: Answer,
        rng: Randomness,
        *,
        own: int,
        trace: bool,
        private: PrivateRun | None,
        idle: tuple[Defence, ...] = (),
    ) -> None:
        self.own = own
        self.idle = idle
        self.private = private
        self.defences = defences
        self.kind: Kind = kind
        self.answer = answer
        self.rng = rng
        self.done: list[_Done] = []
        self.known: dict[tuple[bytes | None, tuple[int, ...]], list[_Done]] = {}
        self.covered: Ints | None = None
        self.trace = trace
        # What a single defence did is what all of them did.
        self.counts = [_Count() for _ in defences] if trace and (len(defences) > 1 or private is not None) else None
        self.total = _Count()
        self.shadow = _Count()
        self.rows = 0

    def all(self) -> Report:
        """Release every prediction, then what repeats them."""
        repeats: list[Prediction] = []
        for prediction in self.answer.predictions:
            if prediction.shape == "top_score":
                repeats.append(prediction)
            else:
                self._take(prediction)
        if not self.done:
            for prediction in repeats:
                self._take(prediction)
            repeats = []
        if self.answer.relabel or any(defence.mode == "enforce" for defence in self.defences):
            self._write(repeats)
        rows = max(self.rows, 1)
        steps: tuple[Step, ...] = ()
        if self.trace:
            counts = self.counts
            if counts is None:
                counts = [self.total if defence.mode == "enforce" else self.shadow for defence in self.defences]
            pairs = zip(self.defences, counts, strict=True)
            steps = tuple(Step(d.kind, d.mode, c.shift / rows, c.changed) for d, c in pairs)
        released = self.done[0].release if self.done else None
        return Report(
            self.total.shift / rows, self.total.changed, self.shadow.shift / rows, self.shadow.changed, steps, released
        )

    def _take(self, prediction: Prediction) -> None:
        """Release one score matrix, or give a copy of an earlier one that one's release."""
        if prediction.rows is None and len(prediction.scores) != self.answer.rows:
            raise InvariantError("a matrix answers other rows than its answer has")
        if len(self.answer.predictions) == 1:
            self.done.append(self._one(prediction, 0))
            return
        where = slice(None) if prediction.rows is None else prediction.rows
        key = (None if prediction.rows is None else prediction.rows.tobytes(), prediction.scores.shape)
        alike = self.known.setdefault(key, [])
        for item in alike:
            if np.allclose(item.prediction.scores, prediction.scores, rtol=0.0, atol=_COPY_TOLERANCE, equal_nan=True):
                self.done.append(_Done(prediction, item.release, item.top, item.released))
                return
        if self.covered is None:
            self.covered = np.zeros(self.answer.rows, dtype=np.int64)
        done = self._one(prediction, int(self.covered[where].max(initial=0)))
        self.covered[where] += 1
        alike.append(done)
        self.done.append(done)

    def _one(self, prediction: Prediction, number: int) -> _Done:
        """Run the defences over one score matrix; `number` tells matrices for the same rows apart."""
        scores, rows = prediction.scores, prediction.rows
        if self.private is not None and self.private.bounds is not None:
            scores = self.private.bounds.fit(scores)
        finite: Ints | None = None
        # Not a number is both the least and the greatest.
        least = scores.item(scores.argmin()) if scores.size else 0.0
        if not isfinite(least) or (scores.size and not isfinite(scores.item(scores.argmax()))):
            finite = np.flatnonzero(np.isfinite(scores).all(axis=1))
            scores = scores[finite]
            rows = finite if rows is None else rows[finite]
            least = scores.min(initial=0.0)
        complete = prediction.complete and scores.shape[1] > 1
        if self.kind == "probabilities":
            if least < 0.0:
                scores = np.maximum(scores, 0.0)
            if complete:
                low, high = 1.0 - _SUM_TOLERANCE, 1.0 + _SUM_TOLERANCE
                complete = all(low <= total <= high for total in np.add.reduce(scores, axis=1).tolist())
        before = Batch(scores, scores.argmax(axis=1), self.kind, complete)
        after = self._steps(before, self.rng if rows is None else _Picked(self.rng, rows), number)
        self.rows += len(scores)
        self.total.add(before, after)
        done = _Done(prediction, Release(after.scores, after.kept, after.labels_only), before.top, after.top)
        return done if finite is None else _spread(done, finite)

    def _steps(self, batch: Batch, rng: Randomness, number: int) -> Batch:
        for index, defence in enumerate(self.defences):
            # Before the label that another budget leaves today, so that what is remembered is whole.
            if index == self.own and self.private is not None:
                batch = self.private.memo.merge(batch)
            if batch.labels_only:
                continue
            after = defence.apply(batch, rng, b"%d.%d" % (index, number))
            if self.counts is not None:
                self.counts[index].add(batch, after)
            if defence.mode == "enforce":
                batch = after
            else:
                self.shadow.add(batch, after)
        if self.private is not None and self.own == len(self.defences):
            batch = self.private.memo.merge(batch)
        for index, defence in enumerate(self.idle):
            defence.apply(batch, rng, b"idle %d" % index)
        return batch

    def _write(self, repeats: list[Prediction]) -> None:
        for item in self.done:
            item.prediction.write(item.release)
        if repeats:
            best = self._by_row([d.release.scores[np.arange(len(d.released)), d.released] for d in self.done])
            labels_only = self.done[0].release.labels_only
            for prediction in repeats:
                chosen = best if prediction.rows is None else best[prediction.rows]
                prediction.write(Release(chosen[:, None], None, labels_only))
        if (
            self.answer.labels
            and has_classes(self.kind)
            and (self.answer.relabel or not all(same_columns(d.released, d.top) for d in self.done))
        ):
            columns = self._by_row([item.released.astype(np.float64) for item in self.done])
            if np.isnan(columns).any():
                raise InvariantError("labels changed, and some rows have no scores to take them from")
            for slot in self.answer.labels:
                slot.write(columns.astype(np.int64))

    def _by_row(self, values: list[Floats]) -> Floats:
        """Line up values by the answer's rows: each takes the first prediction that covers it; NaN when none does."""
        if self.done[0].prediction.rows is None:
            return values[0]
        result = np.full(self.answer.rows, np.nan)
        # Backwards, so that the first one is written last.
        for item, value in zip(reversed(self.done), reversed(values), strict=True):
            result[slice(None) if item.prediction.rows is None else item.prediction.rows] = value
        return result


def _spread(done: _Done, finite: Ints) -> _Done:
    """Put the released rows back among those that were not finite, which are NaN throughout."""
    model = done.prediction.scores
    scores = np.full(model.shape, np.nan)
    scores[finite] = done.release.scores
    kept: Bools | None = None
    if done.release.kept is not None:
        kept = np.ones(model.shape, dtype=np.bool_)
        kept[finite] = done.release.kept
    top = np.where(np.isnan(model), -np.inf, model).argmax(axis=1)
    released = top.copy()
    released[finite] = done.released
    return _Done(done.prediction, Release(scores, kept, done.release.labels_only), top, released)


@dataclass(slots=True)
class _Count:
    """L1 shift summed over rows, and rows whose argmax changed."""

    shift: float = 0.0
    changed: int = 0

    def add(self, before: Batch, after: Batch) -> None:
        if after is before:
            return
        difference = np.subtract(after.scores, before.scores)
        np.abs(difference, out=difference)
        if after.kept is not None and after.kind == "logprobs":
            difference *= after.kept  # the floor that stands for a dropped one is no distance
        self.shift += float(np.add.reduce(difference, axis=None))
        if has_classes(before.kind) and not same_columns(after.top, before.top):
            self.changed += int(np.count_nonzero(after.top != before.top))


class _Picked:
    """`Randomness` for some of the request's rows."""

    __slots__ = ("_rng", "_rows")

    def __init__(self, rng: Randomness, rows: Ints) -> None:
        self._rng = rng
        self._rows = rows

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        return self._rng.words(reuse, width, salt)[self._rows]

    def fresh(self, size: int) -> bytes:
        return self._rng.fresh(size)

    def constant(self, name: bytes) -> float:
        return self._rng.constant(name)

    def own(self, name: bytes, size: int) -> bytes:
        return self._rng.own(name, size)
