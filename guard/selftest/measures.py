"""What an attack's success is measured in: one table of metrics, their direction, and 95% intervals.

A metric is safer when it is higher or when it is lower, and everything that compares two attackers asks this table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS: dict[str, tuple[bool, str]] = {
    "surrogate_l1": (True, "mean L1 between the copy's and the model's probabilities on held-out data"),
    "surrogate_l1_uniform": (True, "the same on uniform random inputs"),
    "agreement": (False, "share of held-out data on which the copy names the model's class"),
    "agreement_uniform": (False, "the same on uniform random inputs"),
    "cosine": (False, "cosine between the copy's and the model's weights"),
    "value_error": (
        True,
        "mean error of the copy's values on held-out data, in standard deviations of the model's values",
    ),
    "score_advantage": (False, "by how much scores bring the copy's surrogate_l1 closer than labels do"),
    "correlation": (False, "correlation of the recovered prototype with the class mean of the training data"),
    "accuracy": (False, "share of hidden attribute values guessed right"),
    "accuracy_non_members": (False, "the same of people that the model was not trained on"),
    "advantage": (False, "accuracy above that of guessing from the prior"),
    "auc": (False, "area under the ROC curve of members against non-members"),
    "tpr_at_1_fpr": (False, "members found while 1% of non-members are accused"),
    "success": (False, "share of inputs for which an adversarial example within the stated distance was found"),
    "passed": (False, "share of blocked inputs that pass within the stated effort"),
    "bits": (False, "share of stored bits read back"),
    "residual_l1": (True, "mean L1 that averaging leaves of the noise; what a single answer had is beside it"),
    "residual_repeats": (True, "the same, by repeats and by jitters far below any step alone"),
    "residual_ratio": (True, "share of the noise's L1 that averaging leaves"),
    "fresh_repeats": (False, "share of repeated queries that were answered otherwise than before"),
    "distinct_answers": (False, "distinct queries that were answered, those of jitters too"),
    "partial_answers": (False, "queries with features left out that were answered"),
    "graded_answers": (False, "distinct queries that one account was answered with more than a label"),
    "dimension_error": (True, "error of the hidden dimension that was found, as a share of the true one, 1 at most"),
    "layer_error": (
        True,
        "root mean square error of the recovered last layer, up to an affine map, as a share of its own",
    ),
    "canary_returned": (False, "whether the secret code that was learnt 64 times was returned whole"),
    "canary_digits": (False, "share of that code's digits that the best guess has right"),
    "exposure": (
        False,
        "bits: by how much the code's rank among the attacker's guesses beats guessing blindly (20 of 20)",
    ),
}
"""Name: (a higher value is safer, what it is)."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A value with its 95% interval.

    Args:
        value: the point estimate.
        low: lower end; equals `value` where no interval is meaningful.
        high: upper end.
    """

    value: float
    low: float
    high: float


def safer_higher(metric: str) -> bool:
    """Say whether a higher value of the metric is safer.

    >>> safer_higher("surrogate_l1"), safer_higher("auc")
    (True, False)
    """
    return METRICS[metric][0]


def stronger(metric: str, one: float, other: float) -> bool:
    """Say whether `one` is a stronger attacker's figure than `other`.

    >>> stronger("auc", 0.9, 0.6)
    True
    """
    return one < other if safer_higher(metric) else one > other


def exact(value: float) -> Measure:
    """Return a measure without an interval."""
    return Measure(float(value), float(value), float(value))


def mean_of(samples: Floats, rng: np.random.Generator) -> Measure:
    """Return the mean of one value a row with its 95% interval.

    Of values that are all 0 or 1, a share, the interval is Wilson's, which has a width at 0% and 100% too; of others it
    is the bootstrap's over rows.

    Args:
        samples: shape (n,), at least one row.
        rng: draws the 500 resamples.

    Source: Wilson (1927); percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

    >>> round(mean_of(np.ones(20), np.random.default_rng(0)).low, 3)
    0.839
    """
    if np.isin(samples, (0.0, 1.0)).all():
        return wilson(int(samples.sum()), len(samples))
    return bootstrap(lambda rows: float(samples[rows].mean()), len(samples), rng)


def wilson(hits: int, n: int) -> Measure:
    """Return the share `hits` / `n` with Wilson's 95% interval (1927)."""
    z, share = 1.959964, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Measure(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def bootstrap(statistic: Callable[[Ints], float], n: int, rng: np.random.Generator, resamples: int = 500) -> Measure:
    """Return a statistic of `n` rows with its percentile bootstrap interval.

    Args:
        statistic: takes row numbers, shape (n,), gives the value; NaN resamples are passed over.
        n: how many rows.
        rng: draws the resamples.
        resamples: how many.
    """
    value = statistic(np.arange(n))
    drawn = np.array([statistic(rng.integers(n, size=n)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return exact(value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Measure(float(value), float(min(low, value)), float(max(high, value)))


def fidelity(copy: Floats, truth: Floats, rng: np.random.Generator, suffix: str = "") -> dict[str, Measure]:
    """Return `surrogate_l1` and `agreement` of a copy.

    Args:
        copy: the copy's probabilities, shape (n, k).
        truth: the model's, shape (n, k).
        rng: draws the resamples.
        suffix: such as `_uniform`.
    """
    distance = np.abs(copy - truth).sum(axis=1)
    same = (copy.argmax(axis=1) == truth.argmax(axis=1)).astype(np.float64)
    return {"surrogate_l1" + suffix: mean_of(distance, rng), "agreement" + suffix: mean_of(same, rng)}


def auc(scores: Floats, members: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, ties counted half (Mann and Whitney).

    Args:
        scores: higher means member, shape (n,).
        members: shape (n,).
    """
    inside, outside = int(members.sum()), int((~members).sum())
    if not inside or not outside:
        return float("nan")
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.bincount(inverse, ranks) / counts)[inverse]
    return float((ranks[members].sum() - inside * (inside + 1) / 2) / (inside * outside))


def tpr_at(scores: Floats, members: NDArray[np.bool_], fpr: float = 0.01) -> float:
    """Return the share of members accused at the lowest threshold that accuses at most `fpr` of the non-members.

    Source: Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022.
    """
    inside, outside = scores[members], np.sort(scores[~members])
    if not len(inside) or not len(outside):
        return float("nan")
    allowed = int(fpr * len(outside))
    threshold = outside[len(outside) - 1 - allowed]
    return float((inside > threshold).mean())


def roc(scores: Floats, members: NDArray[np.bool_], points: int = 200) -> list[tuple[float, float]]:
    """Return the ROC curve as (false positive rate, true positive rate), ascending, thinned to about `points`."""
    order = np.argsort(-scores, kind="stable")
    hits, ranked = members[order], scores[order]
    last = np.append(np.diff(ranked) != 0, True)
    tpr = np.cumsum(hits)[last] / max(1, int(members.sum()))
    fpr = np.cumsum(~hits)[last] / max(1, int((~members).sum()))
    keep = np.unique(np.linspace(0, len(fpr) - 1, min(points, len(fpr))).astype(int))
    return [(0.0, 0.0), *((float(f), float(t)) for f, t in zip(fpr[keep], tpr[keep], strict=True))]
