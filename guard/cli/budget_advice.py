"""Whether a plan is worth serving, in words, and what would make it so."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING, Literal

import numpy as np

from guard.cli.budget_planned import searched
from guard.cli.budget_utility import GOOD, QUICK, USELESS, least, simulate
from guard.defences.base import has_classes
from guard.privacy.planner import price, solve_noise

if TYPE_CHECKING:
    from guard.cli.budget_planned import Planned

Grade = Literal["useless", "poor", "usable"]
MOST_TEACHERS = 4096
WEAK, HOLLOW = 10.0, 50.0
"""Epsilons above which a guarantee promises little, and nothing: odds may grow e^10 = 22,026-fold, and e^50-fold."""
_QUIETEST = 1e6
"""The least noise that is looked at, as a share of the planned."""


def grade(planned: Planned) -> Grade:
    """Return how a plan is called."""
    skill = planned.utility.skill
    if skill < USELESS or planned.priced.epsilon > HOLLOW:
        return "useless"
    return "poor" if skill < GOOD else "usable"


def reasons(planned: Planned) -> list[str]:
    """Return why a plan is called what it is; empty for one that has nothing against it."""
    used, said = planned.utility, list[str]()
    low = used.skill < GOOD
    if planned.priced.epsilon > WEAK:
        little = "nothing" if planned.priced.epsilon > HOLLOW else "little"
        said.append(
            f"epsilon {planned.priced.epsilon:g} promises {little}: what an answer says of a record may make a guess"
            f" e^{planned.priced.epsilon:.3g} times as likely"
        )
    if all(budget.per != "model" for budget in planned.budgets):
        said.append(
            "clients who pool their answers learn more, since what each may learn adds up; --per model is for all"
        )
    if low and used.changed is not None:
        said.append(
            f"{1 - used.changed:.0%} of released labels are the model's; the most frequent one to everybody would be"
            f" right in {1 - used.changed_constant:.0%}"
        )
    scores = used.score_skill
    if scores is not None and scores < (GOOD if used.changed is None else USELESS):
        said.append(
            f"released scores are {used.error:.3g} off in {used.norm}; the same ones to everybody would be"
            f" {used.error_constant:.3g} off" + ("" if low else ": only the labels are worth anything")
        )
    bounds, sigma = planned.mechanism.domain, planned.sigma
    whole = bounds.diameter(planned.measurement.norm)
    if sigma is not None and whole is not None and sigma > whole:
        said.append(f"the noise's scale of {sigma:.3g} is more than two answers can differ by at all ({whole:.3g})")
    if used.withheld > 1 - USELESS:
        said.append(f"{used.withheld:.0%} of answers are withheld by the threshold, and charged")
    return said


def advice(planned: Planned, seed: int) -> list[str]:
    """Return what would leave `GOOD` of what the model knows, each with its figure."""
    said: list[str] = []
    if planned.priced.epsilon > HOLLOW:
        said.append("less epsilon: guard budget plan --epsilon 8, with as many answers, says how much noise that takes")
    if planned.utility.skill < GOOD:
        said += [_teachers(planned, seed), _fewer(planned, seed), _labels(planned, seed)]
    said.append(
        "DP-SGD: a model that was itself trained with differential privacy (opacus does it) answers as often as it"
        " likes at no further cost; declare it as privacy: {trained_privately: {epsilon: .., delta: ..}}"
    )
    return [line for line in said if line]


def _teachers(planned: Planned, seed: int) -> str:
    if planned.mechanism.kind == "randomised_response":
        return "another mechanism: randomised_response is no quieter with more teachers; noisy_vote and exponential are"
    skill, now = searched(planned, seed, QUICK), planned.measurement.quorum
    if now >= MOST_TEACHERS:
        return ""
    found = least(lambda quorum: skill(planned.with_noise(1.0, quorum)) >= GOOD, now, MOST_TEACHERS)
    if found is None:
        return f"more teachers: not even {MOST_TEACHERS:,} would do"
    return (
        f"more teachers: about {_round(found, up=True):,} on disjoint shards would do, for as many answers at the same"
        f" epsilon (each then learns from 1/{_round(found, up=True):,} of the records)"
    )


def _fewer(planned: Planned, seed: int) -> str:
    skill, now = searched(planned, seed, QUICK), planned.priced
    found = least(lambda quieter: skill(planned.with_noise(quieter)) >= GOOD, 1.0, _most_quieter(planned))
    if found is None:
        return ""
    event = planned.event(found)
    answers = price(event, now.epsilon, now.delta, planned.columns).answers
    if answers:
        return f"fewer answers: about {_round(answers, up=False):,} at this epsilon, instead of {now.answers:,}"
    alone = price(event, now.epsilon, now.delta, planned.columns).alone
    return f"fewer answers: not one at this epsilon, since so little noise costs {alone:.3g} each time"


def _most_quieter(planned: Planned) -> float:
    """Return by how much the noise can be divided within what a policy may ask for."""
    name, value = planned.parameter
    return max(1.0, min(_QUIETEST, value / 1e-3 if name == "noise_multiplier" else 1000.0 / value))


def _labels(planned: Planned, seed: int) -> str:
    """Say what a vote of teachers who all agree would leave, which is the best that labels alone can do."""
    from guard.defences.noisy_max import NoisyMax

    private, quorum = planned.route.private, planned.measurement.quorum
    outputs, now = planned.route.outputs, planned.priced
    if private is None or planned.utility.labels_only or not has_classes(outputs.kind) or quorum == 1:
        return ""

    def vote(noise: float) -> NoisyMax:
        return NoisyMax(noise_multiplier=noise).bind(outputs, quorum, planned.columns)

    try:
        noise = solve_noise(lambda noise: vote(noise).event(), now.epsilon, now.delta, now.answers, planned.columns)
    except ValueError:
        return ""
    tops = planned.sample.scores.argmax(axis=1)
    agreed = np.eye(planned.columns)[tops]
    used = simulate((vote(noise),), private.bounds, agreed, seed, QUICK)
    return (
        f"labels alone: noisy_vote of {quorum:,} teachers would keep {1 - (used.changed or 0.0):.0%} of labels at the"
        " same budget, if the teachers agree on them (votes stand further apart than mean scores)"
    )


def _round(value: float, *, up: bool) -> int:
    """Return a whole number of two significant digits.

    >>> _round(1234.5, up=True), _round(1234.5, up=False), _round(7.2, up=True)
    (1300, 1200, 8)
    """
    unit = 10 ** max(0, floor(log10(value)) - 1)
    return (ceil(value / unit) if up else floor(value / unit)) * unit
