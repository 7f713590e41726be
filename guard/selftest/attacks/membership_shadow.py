"""Membership by shadow models: an attack model learns from models whose members the attacker chose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from guard.selftest.attacks.candidates import Asked, Bools, as_labels, ask_each, candidates, grouped, tried
from guard.selftest.attacks.fit import completed
from guard.selftest.base import Api, Attack, Criterion, Outcome, Refused, Rows, Threat, Unresolved, World
from guard.selftest.lab.data import untyped
from guard.selftest.measures import Floats, Ints


@dataclass(frozen=True)
class MembershipShadow:
    """Trains one attack model for each class, on shadow models' answers about their own members and others.

    Args:
        shadows: how many shadow models are asked.

    Source: Shokri, Stronati, Song, Shmatikov, S&P 2017, section V. Differs: shadows are trained on halves of the
    candidates rather than on other data, answer through the same defence as the target, and the attack models are
    logistic regressions, with squares, on the scores, the label's logit and rank, and the sorted scores.
    """

    name: ClassVar[str] = "membership_shadow"
    title: ClassVar[str] = "tell training data with an attack model that shadow models taught"
    threat: ClassVar[Threat] = "membership inference"
    atlas: ClassVar[str] = "AML.T0024.000"
    source: ClassVar[str] = (
        "Shokri et al., Membership Inference Attacks Against Machine Learning Models, S&P 2017, section V"
    )
    published: ClassVar[str] = "median accuracy .94 (Google's service) and .74 (Amazon's) on retail purchases"
    victim: ClassVar[str] = "digits_forest"
    metric: ClassVar[str] = "auc"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("auc", 0.88),)
    helps: ClassVar[str] = "labels instead of scores, and a model that does not learn its training data by heart"
    needs: ClassVar[frozenset[str]] = frozenset({"scores", "members", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    shadows: int = 8

    def run(self, world: World) -> Outcome:
        """Ask the target, ask the shadows, learn."""
        known, classes = candidates(world), world.knows.classes
        asked = ask_each(world.api, known.x, classes)
        if not asked.answered.any():
            raise Refused(429, "no candidate was answered")
        own, y = shadow_models(world, self.shadows), known.y.astype(np.int64)
        answers = own.answers(known.x, asked)

        def scored(group: Bools) -> Floats:
            return learnt(asked.scores[group], answers[:, group], own.inside[:, group], y[group])

        scores = grouped(kinds(asked), scored)
        tries, artefacts = tried(world, {"attack models": scores}, asked.answered, {"attack models"})
        return Outcome(tries, world.api.asked, artefacts=artefacts)


@dataclass(frozen=True)
class Shadows:
    """The attacker's own models.

    Args:
        apis: one for each.
        inside: which candidates trained each, shape (s, n).
    """

    apis: Sequence[Api]
    inside: Bools

    def answers(self, x: Rows, asked: Asked) -> Floats:
        """Return all shadows' answers, shape (s, n, k), cut down to labels wherever the target's are."""
        classes = asked.scores.shape[1]
        return as_labels(np.array([ask_each(api, x, classes).scores for api in self.apis]), asked.reduced)


def shadow_models(world: World, most: int) -> Shadows:
    """Return the attacker's own models, at most so many.

    Raises:
        Unresolved: the attacker has none.
    """
    extra = world.knows.extra
    if "shadows" not in extra:
        raise Unresolved("there are no shadow models of this target")
    names = cast("Sequence[str]", extra["shadows"])[:most]
    return Shadows([world.shadow(name) for name in names], cast("Bools", extra["shadow_members"])[:most])


def kinds(asked: Asked) -> tuple[Bools, Bools]:
    """Return which rows have graded answers and which have labels."""
    return asked.answered & ~asked.reduced, asked.reduced


def learnt(target: Floats, answers: Floats, inside: Bools, y: Ints) -> Floats:
    """Return log-odds of membership, shape (n,), from one attack model for each class.

    Args:
        target: the target's answers, shape (n, k).
        answers: the shadows', shape (s, n, k).
        inside: which records trained each shadow, shape (s, n).
        y: recorded labels, shape (n,).
    """
    found = np.zeros(len(target))
    for c in np.unique(y):
        rows = y == c
        x = np.concatenate([_features(shadow[rows], int(c)) for shadow in answers])
        found[rows] = log_odds(x, inside[:, rows].ravel(), _features(target[rows], int(c)))
    return found


def _features(scores: Floats, c: int) -> Floats:
    p = completed(scores)
    own = np.clip(p[:, [c]], 1e-3, 1 - 1e-3)
    return np.concatenate(
        (p, np.log(own / (1 - own)), p.argmax(axis=1)[:, None] == c, np.sort(p, axis=1)[:, ::-1]), axis=1
    )


def judged_by_others(inside: Bools, rng: np.random.Generator) -> Iterator[tuple[int, Bools]]:
    """Yield each shadow's number and which shadows judge it for each record, shape (s, n).

    A shadow that is judged leaves with another that is its opposite for the record, drawn at random: else the number of
    shadows that are left would tell whether the record was in it.

    Args:
        inside: which records trained each shadow, shape (s, n).
        rng: draws the others.
    """
    for k in range(len(inside)):
        other = np.where(inside != inside[k], rng.random(inside.shape), -1.0).argmax(axis=0)
        kept = np.ones(inside.shape, dtype=bool)
        kept[k] = False
        kept[other, np.arange(inside.shape[1])] = False
        yield k, kept


def log_odds(x: Floats, inside: Bools, asked: Floats) -> Floats:
    """Return log-odds of membership, shape (m,), of a logistic regression with squares.

    Args:
        x: what is known of the shadows' records, shape (n, f).
        inside: whether each was a member, shape (n,).
        asked: the same of the target's, shape (m, f).
    """
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    if inside.min() == inside.max():
        return np.zeros(len(asked))

    def squared(rows: Floats) -> Floats:
        z = (rows - mean) / spread
        return np.concatenate((z, z**2), axis=1)

    model: Any = untyped("sklearn.linear_model").LogisticRegression(max_iter=5000)
    return np.asarray(model.fit(squared(x), inside).decision_function(squared(asked)), dtype=np.float64)


ATTACKS: tuple[Attack, ...] = (MembershipShadow(),)
