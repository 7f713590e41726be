"""Averaging: ask the same, or nearly the same, many times, and see what is left of a defence's noise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.api import is_label
from guard.selftest.attacks.asking import Asker, Spent
from guard.selftest.attacks.harvest import harvest
from guard.selftest.base import Api, Attack, Criterion, Outcome, Refused, Rows, Threat, Try, Unresolved, World
from guard.selftest.lab.noisy import KINDS, Noise
from guard.selftest.measures import Floats, Measure, bootstrap, exact, mean_of
from guard.selftest.wrappers import Wrapped

_SURE = 8
_ALIKE = 1e-4
REPEATS = "repeats"
ESTIMATES: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda answers: answers.mean(axis=0),
    "median": lambda answers: np.median(answers, axis=0),
}
"""How answers, shape (r, n, k), become one: the mean sees through rounding, the median through clipped noise."""


@dataclass(frozen=True)
class Averaging:
    """Estimates the clean scores of unsure rows from many answers: repeats, and jitters in pairs of either sign.

    Args:
        rows: how many rows are estimated: those of the attacker's own of which the model is least certain.
        repeats: answers for each.
        small: jitter far below any step of a domain, in standard deviations.
        large: jitter across cells, likewise.

    What is measured is `residual_l1`, the mean L1 between the best estimate and the model's own scores: 0 says that the
    attacker has the exact score. The plain try is a single answer. `residual_repeats` is the same for repeats and small
    jitters alone, which a defence that is keyed by snapped query must not be moved by. What remembered releases
    must show: `fresh_repeats`, the share of repeats that were answered otherwise than before, and `distinct_answers`,
    how many different queries were answered before a budget was spent, jitters among them. Where one answer is already
    exact, three naive noises on the same model are averaged instead, which shows that the attack works: the control.

    Source: Asghar and Kaafar, PoPETs 2020, who ask one thing in many ways to average keyed noise out of a census tool.
    Differs: on a model's scores, where a jitter is another way of asking; also takes medians, which noise that was
    clipped moves less.
    """

    name: ClassVar[str] = "averaging"
    title: ClassVar[str] = "average a defence's noise out by asking again"
    threat: ClassVar[Threat] = "denoising"
    atlas: ClassVar[str] = "AML.T0024"
    source: ClassVar[str] = (
        "Asghar and Kaafar, Averaging Attacks on Bounded Noise-based Disclosure Control Algorithms, PoPETs 2020"
    )
    published: ClassVar[str] = "the exact counts behind a census tool's keyed noise; no figure for models"
    victim: ClassVar[str] = "breast_cancer"
    metric: ClassVar[str] = "residual_l1"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("residual_ratio", 0.5),)
    helps: ClassVar[str] = "labels only; noise of a coarse secret cell for each client, with inputs that are snapped"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    rows: int = 64
    repeats: int = 64
    small: float = 1e-6
    large: float = 0.05

    def run(self, world: World) -> Outcome:
        """Ask once, then again, and compare."""
        x, single, truth = self._unsure(world)
        before = _distance(single, truth)
        distorted = bool(before.max() > 1e-9)
        rng = world.rng("bootstrap")
        tries: list[Try] = []
        answered: list[str] = []
        told = _measures(before, before, True, distorted, rng)
        queries = {row.tobytes() for row in x}
        for how, small, answers in self._asked(world, world.api, x, single, self.repeats, queries):
            if how == REPEATS:
                told["fresh_repeats"] = exact(float((np.abs(answers - single).max(axis=2) >= _ALIKE).mean()))
            moved = np.abs(answers - single).max() >= _ALIKE
            answered.append(f"{how}: " + (f"{len(answers)} answers" if moved else "always the same answer"))
            for estimate, combine in ESTIMATES.items():
                left = _distance(combine(answers), truth)
                tries.append(Try(f"{how}, {estimate}", _measures(left, before, small, distorted, rng), plain=False))
        told["distinct_answers"] = exact(len(queries))
        tries.insert(0, Try("single answer", told))
        notes = [f"{len(x)} rows; {'; '.join(answered) or 'nothing more was answered'}"]
        if not distorted:
            naive = self._naive(world, x, truth)
            if naive is not None:
                tries.append(Try("three naive noises", {"residual_ratio": naive}))
            notes.append(
                "one answer is exact: nothing to average; to show that the attack works, three naive noises were "
                + ("asked for, and refused" if naive is None else f"averaged: {naive.value:.0%} is left of the worst")
            )
        return Outcome(tries, world.api.asked, notes=notes)

    def _unsure(self, world: World) -> tuple[Floats, Floats, Floats]:
        """Return the least certain rows of the attacker's own that were answered, one answer to each, and the truth.

        The judge ranks them, so that every policy is measured on the same rows. The least certain one comes last.
        """
        own = cast("Floats", world.knows.own_x)
        truth = world.judge.truth(own)
        p = np.clip(truth, 1e-12, 1.0)
        order = np.argsort(-(p * np.log(p)).sum(axis=1), kind="stable")[-self.rows :]
        asked, y = harvest(world.api, own[order], world.knows.classes)
        return cast("Floats", asked), y, truth[order][: len(y)]

    def _asked(
        self, world: World, api: Api, x: Floats, single: Floats, repeats: int, queries: set[bytes]
    ) -> Iterator[tuple[str, bool, Floats]]:
        """Yield for each way of asking again: its name, whether it stays below any step, answers of shape (r, n, k).

        What was asked and answered goes into `queries`.
        """
        for number, (how, jitter) in enumerate(
            ((REPEATS, 0.0), (f"jitter {self.small:g} sd", self.small), (f"jitter {self.large:g} sd", self.large))
        ):
            world.progress(0.1 + 0.3 * number, how)
            rng = world.rng(f"jitter {jitter:g}")
            asker = Asker(api, 10**9)
            found = self._again(world, asker, x, single, jitter, repeats, rng)
            with contextlib.suppress(Refused):
                queries.update(row.tobytes() for row in asker.kept()[0])
            if len(found):
                yield how, jitter <= self.small, found

    def _again(
        self,
        world: World,
        asker: Asker,
        x: Floats,
        single: Floats,
        jitter: float,
        repeats: int,
        rng: np.random.Generator,
    ) -> Floats:
        """Ask pairs of opposite jitters until enough, refused, answered by labels, or two pairs say nothing new."""
        found: list[Floats] = []
        graded = not is_label(single)[-_SURE:].all() if single.shape[1] > 1 else False
        for pair in range(repeats // 2):
            offset = rng.normal(size=x.shape) * world.knows.std * jitter
            both = np.clip(np.concatenate((x + offset, x - offset)), world.knows.low, world.knows.high)
            try:
                answers = np.split(asker.ask(both), 2)
            except Spent:
                break
            if graded and any(is_label(half)[-_SURE:].all() for half in answers):
                break  # a budget of graded answers is spent: these rows are not sure by themselves
            found += answers
            if pair == 1 and jitter <= self.small and np.abs(np.array(found) - single).max() < _ALIKE:
                break
        return np.array(found)

    def _naive(self, world: World, x: Floats, truth: Floats) -> Measure | None:
        """Return what averaging leaves of three naive noises, as a share, the worst of them; None when refused."""
        worst = exact(0.0)
        for kind in KINDS:
            answered = _with_noise(world, kind, x)
            if answered is None:
                return None
            api, single = answered
            before = _distance(single, truth)
            ratios = [
                _ratio(_distance(combine(answers), truth), before, world.rng("bootstrap"))
                for _, _, answers in self._asked(world, api, x, single, self.repeats // 2, set())
                for combine in ESTIMATES.values()
            ]
            worst = max(worst, min(ratios, key=lambda m: m.value, default=exact(1.0)), key=lambda m: m.value)
        return worst


class Noised(Wrapped):
    """An API whose answers carry naive noise.

    Args:
        inner: the API.
        noise: what is added.
    """

    def __init__(self, inner: Api, noise: Noise) -> None:
        super().__init__(inner)
        self.noise = noise

    def ask(self, x: Rows) -> Floats:
        """Return noisy scores."""
        return self.noise(cast("Floats", x), self.inner.ask(x))


def _with_noise(world: World, kind: str, x: Floats) -> tuple[Api, Floats] | None:
    """Return the lab's model with a naive noise, or else the API with that noise added here, and one answer to `x`."""
    here = Noised(world.api, Noise(kind, world.knows.std, world.seed))
    for find in (lambda: world.shadow(f"{world.knows.name}.{kind}"), lambda: here):
        with contextlib.suppress(KeyError, Refused, Unresolved):
            api = find()
            return api, api.ask(x)
    return None


def _distance(one: Floats, other: Floats) -> Floats:
    return np.abs(one - other).sum(axis=1)


def _ratio(left: Floats, before: Floats, rng: np.random.Generator) -> Measure:
    return bootstrap(lambda rows: float(left[rows].mean() / max(before[rows].mean(), 1e-12)), len(left), rng)


def _measures(
    left: Floats, before: Floats, small: bool, distorted: bool, rng: np.random.Generator
) -> dict[str, Measure]:
    found = {"residual_l1": mean_of(left, rng)}
    if small:
        found["residual_repeats"] = found["residual_l1"]
    if distorted:
        found["residual_ratio"] = _ratio(left, before, rng)
    return found


ATTACKS: tuple[Attack, ...] = (Averaging(),)
