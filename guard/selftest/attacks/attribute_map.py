"""Attribute inference from the model and what is known of a person: the most probable sensitive answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.attribute import Targets, ask_candidates, ask_counts, ask_few
from guard.selftest.attacks.guesses import guessed, imputed, likelihood, said, tried
from guard.selftest.base import Attack, Criterion, Outcome, Threat, Try, World
from guard.selftest.measures import Floats

FEW_SAID = "few people an account"
PUBLISHED = frozenset({"confusion matrix", "leaf counts", "confidence", "error model"})


@dataclass(frozen=True)
class AttributeMap:
    """Guesses the candidate v that maximises prior(v) * err(y, f(x with v)), y the target's true label.

    err is the model's confusion matrix (the published attack on classifiers), the count of training records of class y
    in the leaf that v leads to, where answers hold it, or the confidence in y.

    Source: Fredrikson et al., USENIX Security 2014, section 3 (error model); Fredrikson, Jha, Ristenpart, CCS 2015,
    section 4 (confusion matrix; leaf counts); Mehnaz et al., USENIX Security 2022 (confidence). Differs: the counts of
    2015 are known for all paths of a published tree, here for the leaves that an answer names, and by class. The
    attackers with an imputed prior take it from own records that resemble the target; their `advantage` is above what
    that prior alone gives.
    """

    name: ClassVar[str] = "attribute_map"
    title: ClassVar[str] = "infer an affair from a model of marriages and the person's other answers"
    threat: ClassVar[Threat] = "attribute inference"
    atlas: ClassVar[str] = "AML.T0024.001"
    source: ClassVar[str] = (
        "Fredrikson et al., Privacy in Pharmacogenetics, USENIX Security 2014, section 3; Fredrikson, Jha, Ristenpart, "
        "Model Inversion Attacks that Exploit Confidence Information, CCS 2015, section 4"
    )
    published: ClassVar[str] = (
        "a survey's trees: precision about 86% black box, for training records; far less for others"
    )
    victim: ClassVar[str] = "affairs_marriage"
    metric: ClassVar[str] = "accuracy"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("accuracy", 0.74), Criterion("advantage", 0.06))
    helps: ClassVar[str] = (
        "a model that memorises less: larger leaves, regularisation, training with differential privacy"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    def run(self, world: World) -> Outcome:
        """Ask about every candidate of every target, then guess in every way."""
        targets = Targets.of(world)
        answers = ask_candidates(world, targets)
        evidence = dict(self.evidence(world, targets, answers))
        counts = ask_counts(world.api, targets)
        if counts is not None:
            evidence["leaf counts"] = _of_counts(counts, targets)
        tries = self.guesses(world, targets, evidence)
        few = ask_few(world, targets, answers)
        further = 0 if few is None else few[1].shape[0] * few[1].shape[1]
        if few is not None:
            found = self.guesses(world, few[0], dict(self.evidence(world, *few)))
            tries += [replace(t, how=f"{t.how}, {FEW_SAID}", plain=False) for t in found]
        return Outcome(tries, world.api.asked + further, notes=[said(world, targets)])

    def guesses(self, world: World, targets: Targets, evidence: dict[str, Floats]) -> list[Try]:
        """Guess in every way, with the prior and with an imputed one."""
        tries = tried(world, targets, {how: guessed(targets, found) for how, found in evidence.items()}, PUBLISHED)
        prior = imputed(world, targets)
        more = {f"{how}, imputed prior": guessed(targets, found, prior) for how, found in evidence.items()}
        return tries + tried(world, targets, more, frozenset(), np.asarray(prior.argmax(axis=1), dtype=np.int64))

    def evidence(self, world: World, targets: Targets, answers: Floats) -> Iterator[tuple[str, Floats]]:
        """Yield how well each candidate explains a target's true label, log-likelihoods of shape (n, v), by how."""
        y, gone = targets.y.astype(np.int64), np.isnan(answers).any(axis=2)
        confusion = np.log(cast("Floats", world.knows.extra["confusion"]))
        yield "confusion matrix", np.where(gone, np.nan, confusion[y[:, None], np.nan_to_num(answers).argmax(axis=2)])
        yield "confidence", likelihood(answers, y)


@dataclass(frozen=True)
class OfSex(AttributeMap):
    """On a network that tells how fast diabetes progresses."""

    name: ClassVar[str] = "attribute_map_sex"
    title: ClassVar[str] = "infer the sex from a model of diabetes and the patient's other measurements"
    victim: ClassVar[str] = "diabetes_classes"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("advantage", 0.08),)


@dataclass(frozen=True)
class OfValue(AttributeMap):
    """On a regression: err is a Gaussian as wide as the model's errors."""

    name: ClassVar[str] = "attribute_map_value"
    title: ClassVar[str] = "infer the sex from a regression of diabetes and the patient's other measurements"
    published: ClassVar[str] = "warfarin doses: a genetic marker guessed about 22% more often than without the model"
    victim: ClassVar[str] = "diabetes"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("advantage", 0.04),)
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "value", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query",)

    def evidence(self, world: World, targets: Targets, answers: Floats) -> Iterator[tuple[str, Floats]]:
        """Yield the Gaussian's log-density."""
        std = cast("float", world.knows.extra["error_std"])
        yield "error model", -0.5 * ((targets.y[:, None] - answers[:, :, 0]) / std) ** 2


def _of_counts(counts: Floats, targets: Targets) -> Floats:
    """Return the log of each candidate's count of class y over its prior, which the count holds already.

    Candidates that lead to one leaf share its count by their priors.
    """
    own = np.take_along_axis(counts, targets.y.astype(np.int64)[:, None, None], axis=2)[:, :, 0]
    same = (counts[:, :, None, :] == counts[:, None, :, :]).all(axis=3)
    return np.log(own + 1e-3) - np.log(same @ np.exp(targets.log_prior))


ATTACKS: tuple[Attack, ...] = (AttributeMap(), OfSex(), OfValue())
