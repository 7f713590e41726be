"""From the answers of several models to one: their mean, or how many vote for each column. Pure.

Theory of operation. Models whose answers have the same form are a group; the greatest is put together, if enough of its
members lie inside the domain. What one model says must move the result by no more than its share, also by failing:

* the mean of m answers moves by at most diameter / m when one of them is another, and likewise when one is left out,
  and m is at least `quorum`; shares of votes are the mean of answers that are 1 in one column;
* where a mechanism follows, no second group may come within one model of the quorum, or one model could decide by its
  form alone which group is heard;
* so whether one model answers, and how, decides about the others' share in nothing but whether there is a quorum.

Labels and other members around the scores are the first good model's. Labels are written anew from what is released;
where a mechanism follows, the models must agree on the rest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import cast

import numpy as np

from guard.engine.memo import only_prediction
from guard.errors import UpstreamError
from guard.model.arrays import Bools, Floats, Ints
from guard.model.prediction import Answer, Prediction
from guard.privacy.measurement import Bounds

_FINE_BITS = 50
"""Means are of whole units of 2^-50 of the greatest score, which add up exactly for up to 8,192 models."""

Form = tuple[object, ...]


def combine(answers: Sequence[Answer | None], aggregate: str, quorum: int, bounds: Bounds | None, rows: int) -> Answer:
    """Put the models' answers together in the first good one, whose scores become the aggregate.

    Args:
        answers: one a model, in the same order at every request; None for a model that failed.
        aggregate: `mean` of the scores; `vote`, `noisy_vote`: the share of good models that have a column for their
            argmax (ties: the first column).
        quorum: least number of models, at least 1.
        bounds: the domain that scores are fitted into where a mechanism of differential privacy follows; a model
            outside it has failed. None: any finite scores will do.
        rows: rows that were asked for.

    Returns:
        An answer with `relabel` set.

    Raises:
        UpstreamError: code `no_quorum`: too few good answers; `models_disagree`: their forms differ; `not_combinable`,
            `not_private`: scores of a form that cannot be put together.
    """
    groups: dict[Form, list[Answer]] = {}
    refusals: list[UpstreamError] = []
    for answer in answers:
        if answer is None or answer.rows > rows:
            continue
        try:
            form = _form(answer, rows, private=bounds is not None)
        except UpstreamError as error:
            refusals.append(error)
        else:
            groups.setdefault(form, []).append(answer)
    sizes = sorted(map(len, groups.values()), reverse=True)
    if not sizes or sizes[0] < quorum or (bounds is not None and sizes[1:] and sizes[1] > quorum - 2):
        raise refusals[0] if len(refusals) > len(answers) - quorum else _missing(disagree=sum(sizes) >= quorum)
    group = max(groups.values(), key=len)
    stacks = _good(group, bounds)
    good = np.logical_and.reduce([fine for _, _, fine in stacks])
    if np.count_nonzero(good) < quorum:
        raise _missing(disagree=False)
    first = group[int(good.argmax())]
    for place, scores, _ in stacks:
        chosen = scores if good.all() else scores[good]
        prediction = first.predictions[place]
        prediction.scores = _mean(chosen, bounds) if aggregate == "mean" else _votes(chosen)
    first.relabel = True
    return first


def check_sound(answer: Answer, rows: int) -> None:
    """Refuse at once what can count for nothing, whatever the other models say.

    Raises:
        UpstreamError: more rows than were asked for, or scores that are not finite.
    """
    if answer.rows > rows:
        raise UpstreamError("the model answered more rows than were asked", code="too_many_predictions")
    if not all(np.isfinite(prediction.scores).all() for prediction in answer.predictions):
        raise UpstreamError("the model's scores are not finite", code="unreadable_answer")


def _missing(*, disagree: bool) -> UpstreamError:
    if disagree:
        return UpstreamError("the models' answers have different forms", code="models_disagree")
    return UpstreamError("too few models answered", code="no_quorum")


def _form(answer: Answer, rows: int, *, private: bool) -> Form:
    """Return what answers must have in common to be put together.

    Raises:
        UpstreamError: nothing can be put together with it.
    """
    if private:
        only_prediction(answer, rows, sys.maxsize)
    parts: list[object] = [answer.rows]
    combined = 0
    for prediction in answer.predictions:
        parts += (prediction.name, prediction.shape, prediction.scores.shape, prediction.complete)
        parts.append(None if prediction.rows is None else prediction.rows.tobytes())
        if prediction.shape == "sparse":
            if prediction.labels is None:
                raise _unlike("the models' answers list scores without saying of what")
            parts += [frozenset(labels) for labels in prediction.labels]
        combined += prediction.shape != "top_score"
    if not combined:
        raise _unlike("the models' answers hold no scores that could be put together")
    parts += [slot.name for slot in answer.labels]
    if private and answer.around is not None:
        parts.append(answer.around())
    return tuple(parts)


def _unlike(message: str) -> UpstreamError:
    return UpstreamError(message, code="not_combinable")


def _good(group: list[Answer], bounds: Bounds | None) -> list[tuple[int, Floats, Bools]]:
    """Return for each prediction its place, all models' scores, shape (m, n, k), and which models' are good, (m,)."""
    found: list[tuple[int, Floats, Bools]] = []
    for place, lead in enumerate(group[0].predictions):
        if lead.shape == "top_score":
            continue
        members = [answer.predictions[place] for answer in group]
        scores = np.concatenate([_aligned(lead, member) for member in members]).reshape(len(group), *lead.scores.shape)
        if bounds is not None:
            found.append((place, *_fitted(scores, bounds)))
        else:
            found.append((place, scores, cast("Bools", np.isfinite(scores).all(axis=(1, 2)))))
    return found


def _aligned(lead: Prediction, member: Prediction) -> Floats:
    """Return a model's scores with the columns in the first one's order, shape (n, k)."""
    if member.labels is None or lead.labels is None or member is lead or member.labels == lead.labels:
        return member.scores
    scores = np.empty_like(member.scores)
    for row, (wanted, given) in enumerate(zip(lead.labels, member.labels, strict=True)):
        places = {label: place for place, label in enumerate(given)}
        scores[row] = member.scores[row, [places[label] for label in wanted]]
    return scores


def _fitted(scores: Floats, bounds: Bounds) -> tuple[Floats, Bools]:
    """Fit every model's scores into the domain; one outside it is not good. Shapes (m, n, k) and (m,)."""
    try:
        fitted = bounds.fit(scores.reshape(-1, scores.shape[2])).reshape(scores.shape)
    except UpstreamError:
        if len(scores) == 1:
            return np.zeros(scores.shape), np.array([False])
        # Rows are fitted each by itself, so halves give what the whole would.
        (left, left_good), (right, right_good) = (_fitted(half, bounds) for half in np.array_split(scores, 2))
        return np.concatenate([left, right]), np.concatenate([left_good, right_good])
    return fitted, np.ones(len(scores), dtype=np.bool_)


def _mean(scores: Floats, bounds: Bounds | None) -> Floats:
    """Return the mean over models, shape (n, k).

    Inside a domain it is exact but for one rounding of each score to 2^-50 of the greatest and two of the result, so
    that no order of adding up can move it further than a sensitivity allows.
    """
    most = None if bounds is None else _greatest(bounds)
    if most is None:
        return cast("Floats", np.add.reduce(scores, axis=0)) / len(scores)
    unit = math.ldexp(1.0, math.frexp(most)[1] - _FINE_BITS)
    return np.add.reduce(np.rint(scores / unit).astype(np.int64), axis=0) / len(scores) * unit


def _greatest(bounds: Bounds) -> float | None:
    match bounds.kind:
        case "probabilities":
            return 1.0
        case "value" if bounds.low is not None and bounds.high is not None:
            return max(abs(bounds.low), abs(bounds.high))
        case _:
            return bounds.norm


def _votes(scores: Floats) -> Floats:
    """Return the share of models that have a column for their argmax, shape (n, k)."""
    count, rows, columns = scores.shape
    tops: Ints = np.argmax(scores.reshape(-1, columns), axis=1)
    starts: Ints = np.tile(np.arange(0, rows * columns, columns, dtype=np.int64), count)
    votes = np.bincount(tops + starts, minlength=rows * columns).reshape(rows, columns)
    return votes / count
