"""Membership by loss: a record on which the model is right and sure was in its training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from guard.selftest.attacks.candidates import Asked, Bools, ask_each, candidates, tried
from guard.selftest.attacks.fit import completed
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, World
from guard.selftest.measures import Floats, Ints


@dataclass(frozen=True)
class MembershipThreshold:
    """Calls a record a member when the loss of its recorded label is low; every threshold is tried.

    A model of values is attacked by its error. Other scores of the same answers are tried: the modified entropy of Song
    and Mittal (USENIX Security 2021), and, where a budget turned answers to labels, one that ranks labels among graded
    answers instead of above them.

    Source: Yeom, Giacomelli, Fredrikson, Jha, CSF 2018, section 3. Differs: the threshold is not the mean training
    loss, which an outsider would have to be told; the whole ROC curve is measured instead.
    """

    name: ClassVar[str] = "membership_threshold"
    title: ClassVar[str] = "tell training data by their loss"
    threat: ClassVar[Threat] = "membership inference"
    atlas: ClassVar[str] = "AML.T0024.000"
    source: ClassVar[str] = (
        "Yeom et al., Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, CSF 2018, section 3"
    )
    published: ClassVar[str] = "advantage equals the gap between training and test loss; the more overfit, the higher"
    victim: ClassVar[str] = "digits_forest"
    metric: ClassVar[str] = "auc"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("auc", 0.85),)
    helps: ClassVar[str] = "labels instead of scores, and a model that does not learn its training data by heart"
    needs: ClassVar[frozenset[str]] = frozenset({"scores", "members"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    def run(self, world: World) -> Outcome:
        """Ask each candidate once."""
        known, classes = candidates(world), world.knows.classes
        asked = ask_each(world.api, known.x, classes)
        if not asked.answered.any():
            raise Refused(429, "no candidate was answered")
        if classes == 1:
            found = {"loss": -np.abs(asked.scores[:, 0] - known.y)}
        else:
            found = graded(asked, known.y.astype(np.int64))
        found = {how: with_prior(scores, asked.answered) for how, scores in found.items()}
        tries, artefacts = tried(world, found, asked.answered, {"loss"})
        return Outcome(tries, world.api.asked, artefacts=artefacts)


def graded(asked: Asked, y: Ints) -> dict[str, Floats]:
    """Return a classifier's scores by name: loss, modified entropy and, where some answers are labels, labels apart."""
    p = completed(asked.scores)
    found = {"loss": p[np.arange(len(y)), y], "modified entropy": -modified_entropy(p, y)}
    whole = asked.answered & ~asked.reduced
    if whole.any() and asked.reduced.any():
        found["labels among scores"] = levelled(found["loss"], p.argmax(axis=1) == y, whole, asked.reduced)
    return found


def modified_entropy(p: Floats, y: Ints) -> Floats:
    """Return -(1 - p_y) log p_y - sum over the others of p_i log(1 - p_i), shape (n,): low for members.

    Source: Song and Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", 2021, section 4.1.
    """
    own = np.eye(p.shape[1], dtype=bool)[y]
    share, rest = np.where(own, 1 - p, p), np.where(own, p, 1 - p)
    return -(share * np.log(np.maximum(rest, 1e-12))).sum(axis=1)


def levelled(loss: Floats, right: Bools, whole: Bools, labels: Bools) -> Floats:
    """Give a label the mean score that graded answers had that were right, or wrong, like it."""
    scores = loss.copy()
    for kind in (right, ~right):
        alike = whole & kind
        scores[labels & kind] = loss[alike].mean() if alike.any() else float(kind is right)
    return scores


def with_prior(scores: Floats, answered: Bools) -> Floats:
    """Give rows without an answer the median of the others: no opinion."""
    return np.where(answered, scores, np.median(scores[answered]))


ATTACKS: tuple[Attack, ...] = (MembershipThreshold(),)
