"""Membership from labels alone: a record was in the training data when noise does not change its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.candidates import Bools, ask_each, candidates, tried
from guard.selftest.attacks.membership_threshold import with_prior
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, Unresolved, World
from guard.selftest.measures import Floats


@dataclass(frozen=True)
class MembershipLabelOnly:
    """Counts how many noisy copies of a record the model names as the record is labelled.

    Args:
        copies: noisy copies of each record.
        noise: standard deviation of the noise, as a share of each feature's range.

    Source: Choquette-Choo, Tramèr, Carlini, Papernot, ICML 2021, section 4 (noise robustness). Differs: the record
    itself comes first (a right label outranks every wrong one), and all thresholds are measured instead of one that
    shadow models choose. Two more scores know that a record which is right although its copies are not was learnt by
    heart. Copies are asked one of each record at a time, so that a budget cuts all records short alike.
    """

    name: ClassVar[str] = "membership_label_only"
    title: ClassVar[str] = "tell training data by how well their labels stand noise"
    threat: ClassVar[Threat] = "membership inference"
    atlas: ClassVar[str] = "AML.T0024.000"
    source: ClassVar[str] = "Choquette-Choo et al., Label-Only Membership Inference Attacks, ICML 2021, section 4"
    published: ClassVar[str] = "on a par with attacks on confidences, which hiding confidences therefore does not stop"
    victim: ClassVar[str] = "digits_forest"
    metric: ClassVar[str] = "auc"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("auc", 0.57),)
    helps: ClassVar[str] = "a budget of rows below the records times the copies, and a model that overfits less"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "members"})
    floors: ClassVar[tuple[str, ...]] = ()

    copies: int = 16
    noise: float = 0.15

    def run(self, world: World) -> Outcome:
        """Ask the records, then noisy copies of all of them, again and again."""
        known, knows = candidates(world), world.knows
        if knows.classes < 2:
            raise Unresolved("this model answers values, not classes")
        first = ask_each(world.api, known.x, knows.classes)
        if not first.answered.any():
            raise Refused(429, "no candidate was answered")
        right = (first.scores.argmax(axis=1) == known.y) & first.answered
        held, copies = self.robust(world, cast("Floats", known.x), known.y)
        found = {"its label alone": right.astype(np.float64)} | scored(right, held, copies)
        found = {how: with_prior(scores, first.answered) for how, scores in found.items()}
        tries, artefacts = tried(world, found, first.answered, {"its label alone", "noise robustness"})
        notes = [f"{copies.mean():.1f} of {self.copies} noisy copies of a record were answered"]
        return Outcome(tries, world.api.asked, artefacts=artefacts, notes=notes)

    def robust(self, world: World, x: Floats, y: Floats | np.ndarray) -> tuple[Floats, Floats]:
        """Return how many noisy copies of each record kept its label, and how many were answered, shape (n,) each."""
        rng, knows = world.rng("noise"), world.knows
        held, copies = np.zeros(len(x)), np.zeros(len(x))
        for i in range(self.copies):
            world.progress(i / self.copies, "noisy copies")
            rows = jittered(x, self.noise, knows.low, knows.high, rng)
            told = ask_each(world.api, rows, knows.classes)
            held += (told.scores.argmax(axis=1) == y) & told.answered
            copies += told.answered
            if not told.answered.any():
                break
        return held, copies


def scored(right: Bools, held: Floats, copies: Floats) -> dict[str, Floats]:
    """Return scores of records by name: the paper's, and two that know what learning wrong labels by heart looks like.

    Args:
        right: whether the model names the record as it is labelled, shape (n,).
        held: noisy copies that it names so.
        copies: noisy copies that were answered; without any, half of them count as held.
    """
    share = np.where(copies > 0, held / np.maximum(copies, 1), 0.5)
    return {
        "noise robustness": right.astype(np.float64) + share,
        "right against its copies": np.where(right, 2 - share, 0.0),
        "right, and its copies agree or differ": np.where(right, 1 + np.abs(share - 0.5), share / 2),
    }


def jittered(x: Floats, noise: float, low: Floats, high: Floats, rng: np.random.Generator) -> Floats:
    """Return a noisy copy of rows, shape (n, d), inside the features' ranges; constant features stay."""
    return np.clip(x + rng.normal(size=x.shape) * noise * (high - low), low, high)


ATTACKS: tuple[Attack, ...] = (MembershipLabelOnly(),)
