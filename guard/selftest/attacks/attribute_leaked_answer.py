"""Attribute inference from an answer that leaked: which candidate would have been answered the same?"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.attribute import Targets, ask_candidates, ask_few
from guard.selftest.attacks.candidates import Bools
from guard.selftest.attacks.guesses import distance, guessed, likelihood, said, tried
from guard.selftest.base import Api, Attack, Criterion, Outcome, Refused, Threat, World
from guard.selftest.measures import Floats, Ints

OTHERS = range(16, 32)
"""Accounts of the targets' own clients: each a customer of its own, none of them the attacker's."""
TOGETHER = 8
"""Records that such a client sends in one request: few, since a budget cuts a request as a whole."""
PLAIN = 0.002
IN_VAIN = 64
"""Refusals in a row after which nothing seems to be remembered."""
SURE = 100.0
"""Log-likelihood that outweighs any prior."""
TOLERANCES = (PLAIN, 0.02, 0.1, 0.3)


@dataclass(frozen=True)
class LeakedAnswer:
    """Compares the answer that a target's own client got for the true record with the answers to all candidates.

    Score: log prior(v) - |answer(v) - leaked| / tolerance. The targets' clients have accounts of their own behind the
    same defence, so that what differs between accounts (salts, budgets) lies between the two sides. The attacker who
    knows the policy allows for noise, and weighs in the target's true label; and where a budget is spent asks each
    candidate alone: one that is answered all the same is remembered, so somebody has asked about that person.

    Args:
        tolerances: L1 distances that count as likely, in standard deviations of the attacker's values for a regression.

    Source: Wu, Fredrikson, Jha, Naughton, CSF 2016, section III (an adversary who holds f(x) and asks f); the score is
    Fredrikson et al.'s of 2014 with the model's own answer in place of the true label.
    """

    name: ClassVar[str] = "attribute_leaked_answer"
    title: ClassVar[str] = "infer an affair from an answer about the person that leaked"
    threat: ClassVar[Threat] = "attribute inference"
    atlas: ClassVar[str] = "AML.T0024.001"
    source: ClassVar[str] = (
        "Wu, Fredrikson, Jha, Naughton, A Methodology for Formalizing Model-Inversion Attacks, CSF 2016; Fredrikson et "
        "al., Privacy in Pharmacogenetics, USENIX Security 2014"
    )
    published: ClassVar[str] = (
        "no figure: the paper shows when an answer determines the hidden input, which is how often it moves it"
    )
    victim: ClassVar[str] = "affairs_marriage"
    metric: ClassVar[str] = "accuracy"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("accuracy", 0.80),)
    helps: ClassVar[str] = (
        "answers that do not turn on the sensitive feature: leave it out of the model, or keep answers from leaking"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    tolerances: tuple[float, ...] = TOLERANCES

    def run(self, world: World) -> Outcome:
        """Overhear, ask about every candidate, then compare."""
        targets = Targets.of(world)
        leaked = overhear(world, targets)
        try:
            answers = ask_candidates(world, targets)
        except Refused:
            if np.isnan(leaked).all():
                raise
            answers = np.full((len(leaked), len(targets.values), leaked.shape[1]), np.nan)
        tries = tried(
            world, targets, self.guesses(world, targets, answers, leaked), frozenset({f"tolerance {PLAIN:g}"})
        )
        if np.isnan(answers).any():
            guess = guessed(targets, np.where(remembered(world.api, targets), SURE, 0.0))
            tries += tried(world, targets, {"who is answered though a budget is spent": guess}, frozenset())
        few = ask_few(world, targets, answers)
        further = 0 if few is None else few[1].shape[0] * few[1].shape[1]
        if few is not None:
            guesses = self.guesses(world, *few, leaked[few[0].rows])
            named = {f"{how}, few people an account": guess for how, guess in guesses.items()}
            tries += tried(world, few[0], named, frozenset())
        return Outcome(tries, world.api.asked + further, notes=[said(world, targets)])

    def guesses(self, world: World, targets: Targets, answers: Floats, leaked: Floats) -> dict[str, Ints]:
        """Guess with every tolerance, without and with the true label."""
        far = distance(answers, leaked) / self.unit(world)
        guesses = {f"tolerance {t:g}": guessed(targets, -far / t) for t in self.tolerances}
        if world.knows.classes > 1:
            known = likelihood(answers, targets.y.astype(np.int64))
            guesses |= {f"tolerance {t:g}, true label": guessed(targets, known - far / t) for t in self.tolerances}
        return guesses

    def unit(self, world: World) -> float:
        """Return what distances are counted in."""
        return 1.0 if world.knows.classes > 1 else float(np.std(cast("Floats", world.knows.own_y)))


def remembered(api: Api, targets: Targets) -> Bools:
    """Say which candidates, shape (n, v), are answered by an API that refuses others; many in vain end it."""
    rows = targets.candidates()
    found = np.zeros(len(rows), dtype=bool)
    for i in range(len(rows)):
        if i >= IN_VAIN and not found.any():
            break
        with contextlib.suppress(Refused):
            api.ask(rows[i : i + 1])
            found[i] = True
    return found.reshape(len(targets.x), -1)


def overhear(world: World, targets: Targets) -> Floats:
    """Return the answers that the targets' clients get for the true records, shape (n, k), NaN where refused.

    The clients are played with the truth from the judge; the attacker sees the answers alone.
    """
    records = targets.x.copy()
    records[:, targets.column] = cast("Floats", world.judge.secret("targets_sensitive"))
    client = world.account if world.others is None else world.others
    leaked = np.full((len(records), max(1, world.knows.classes)), np.nan)
    for i, number in enumerate(OTHERS):
        rows = np.arange(i, len(records), len(OTHERS))
        if not len(rows):
            break
        api = client(number)
        try:
            for j in range(0, len(rows), TOGETHER):
                leaked[rows[j : j + TOGETHER]] = api.ask(records[rows[j : j + TOGETHER]])
        except Refused:  # this client hears no more
            continue
    return leaked


@dataclass(frozen=True)
class OfSex(LeakedAnswer):
    """On a network that tells how fast diabetes progresses."""

    name: ClassVar[str] = "attribute_leaked_answer_sex"
    title: ClassVar[str] = "infer a patient's sex from an answer of a diabetes model that leaked"
    victim: ClassVar[str] = "diabetes_classes"


@dataclass(frozen=True)
class OfRating(LeakedAnswer):
    """On a tree that tells an affair: five candidates a target."""

    name: ClassVar[str] = "attribute_leaked_answer_rating"
    title: ClassVar[str] = "infer how a marriage is rated from an answer of an affairs model that leaked"
    victim: ClassVar[str] = "affairs_rating"


@dataclass(frozen=True)
class OfValue(LeakedAnswer):
    """On a regression."""

    name: ClassVar[str] = "attribute_leaked_answer_value"
    title: ClassVar[str] = "infer a patient's sex from an answer of a diabetes regression that leaked"
    victim: ClassVar[str] = "diabetes"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "value", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query",)


ATTACKS: tuple[Attack, ...] = (LeakedAnswer(), OfSex(), OfRating(), OfValue())
