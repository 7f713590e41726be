"""Membership by likelihood ratio: is an answer more like models that saw the record, or like those that did not?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.candidates import Bools, ask_each, candidates, grouped, tried
from guard.selftest.attacks.crossing import Heard, crossed
from guard.selftest.attacks.fit import completed
from guard.selftest.attacks.membership_label_only import jittered
from guard.selftest.attacks.membership_shadow import Shadows, judged_by_others, kinds, log_odds, shadow_models
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, World
from guard.selftest.measures import Floats, Ints

ONLINE, OFFLINE = "both Gaussians", "the Gaussian of models that never saw it"
CALIBRATED, JITTERED = "calibrated on shadows", "calibrated on shadows, noisy copies too"
CROSSED = "calibrated on shadows, records crossed with own data"
SPREAD = 0.03


@dataclass(frozen=True)
class Evidence:
    """What the target and the shadows said about the same records, in the same way.

    Args:
        target: shape (n, k).
        shadows: shape (s, n, k).
    """

    target: Floats
    shadows: Floats

    def of(self, rows: Bools) -> Evidence:
        """Return the evidence about some records."""
        return Evidence(self.target[rows], self.shadows[:, rows])


@dataclass(frozen=True)
class MembershipLira:
    """Compares the target's confidence in a record with that of shadow models which were, or were not, trained on it.

    The shadows answer through the same defence, on the attacker's own Guard; where a budget left the target's answer a
    label, the shadows' answers are cut down to labels as well. Beyond the paper, a logistic regression learns from
    shadows, each judged by the others, what a confidence and the two Gaussians say about membership; and noisy copies
    of each record, whose answers are averaged, undo rounding and labels. Copies come after the records, one of each
    at a time and from the same account, so that the plain attack has asked exactly what it would have asked alone.
    Mixtures of each record with own data come last (`crossing`), where the lab attacks an ensemble.

    Args:
        shadows: how many shadow models are asked; each record is in half of those that the lab has.
        copies: noisy copies of each record.
        mixtures: of each record with the attacker's own data.
        noise: standard deviation of the noise, as a share of each feature's range.
        clip: how far from 0 and 1 a confidence is kept before its logit is taken.

    Source: Carlini, Chien, Nasr, Song, Terzis, Tramèr, S&P 2022, algorithm 1 and section VI. Differs: one variance for
    all records (as the paper does with few shadows) and means drawn to the overall mean by one pseudo-observation.
    """

    name: ClassVar[str] = "membership_lira"
    title: ClassVar[str] = "tell training data by likelihood ratio against shadow models"
    threat: ClassVar[Threat] = "membership inference"
    atlas: ClassVar[str] = "AML.T0024.000"
    source: ClassVar[str] = "Carlini et al., Membership Inference Attacks From First Principles, S&P 2022, algorithm 1"
    published: ClassVar[str] = "ten times the true positives of earlier attacks at low false positive rates"
    victim: ClassVar[str] = "digits_forest"
    metric: ClassVar[str] = "auc"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("auc", 0.90),)
    helps: ClassVar[str] = (
        "labels lower it; what holds is training: fewer records by heart, differential privacy, or an ensemble on "
        "disjoint shards behind coarse answers"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"scores", "members", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    shadows: int = 12
    copies: int = 3
    mixtures: int = 0
    noise: float = 0.15
    clip: float = 0.01

    def run(self, world: World) -> Outcome:
        """Ask about all records, then about noisy copies."""
        known, classes = candidates(world), world.knows.classes
        x, y = cast("Floats", known.x), known.y.astype(np.int64)
        asked = ask_each(world.api, x, classes)
        if not asked.answered.any():
            raise Refused(429, "no candidate was answered")
        own = shadow_models(world, self.shadows)
        clean = Evidence(asked.scores, own.answers(x, asked))
        plain = [self.gaussians(clean, own.inside, y, group) for group in kinds(asked)]
        found = {how: plain[0][how] + plain[1][how] for how in (ONLINE, OFFLINE)}
        averaged, copies = self.averaged(world, x, clean, own)
        views = {CALIBRATED: (clean,)} | ({JITTERED: (clean, averaged)} if copies else {})
        for how, view in views.items():

            def scored(group: Bools, view: Sequence[Evidence] = view) -> Floats:
                parts = [evidence.of(group) for evidence in view]
                return self.calibrated(parts, own.inside[:, group], y[group], world.rng("pairs"))

            found[how] = grouped(kinds(asked), scored)
        notes = [f"{copies:.1f} of {self.copies} noisy copies of a record were answered"] if self.copies else []
        if self.mixtures:
            heard = self.crossings(world, x, y, clean, own, asked.answered)
            found[CROSSED] = np.where(asked.answered, heard.log_odds(own.inside, world.rng("crossed pairs")), 0.0)
            mean = heard.answered[1:].sum(axis=0).mean()
            notes.append(f"{mean:.1f} of {self.mixtures} mixtures of a record with own data were answered")
        tries, artefacts = tried(world, found, asked.answered, {ONLINE, OFFLINE})
        return Outcome(tries, world.api.asked, artefacts=artefacts, notes=notes)

    def averaged(self, world: World, x: Floats, clean: Evidence, own: Shadows) -> tuple[Evidence, float]:
        """Return answers averaged over the records and their noisy copies, and how many copies were answered."""
        rng, knows = world.rng("noise"), world.knows
        target, shadows, weight = clean.target.copy(), clean.shadows.copy(), np.ones(len(x))
        for i in range(self.copies):
            world.progress(i / self.copies, "noisy copies")
            rows = jittered(x, self.noise, knows.low, knows.high, rng)
            told = ask_each(world.api, rows, knows.classes)
            heard = told.answered
            if not heard.any():
                break
            target += told.scores
            weight += heard
            shadows[:, heard] += own.answers(rows[heard], told.of(heard))
        return Evidence(target / weight[:, None], shadows / weight[:, None]), float(weight.mean() - 1)

    def crossings(self, world: World, x: Floats, y: Ints, clean: Evidence, own: Shadows, answered: Bools) -> Heard:
        """Return what was said to the records and to their mixtures with own data."""
        rng, knows = world.rng("crossings"), world.knows
        target, shadows = [logits(clean.target, y, self.clip)], [logits(clean.shadows, y, self.clip)]
        heard = [answered]
        for i in range(self.mixtures):
            world.progress(i / self.mixtures, "mixtures with own data")
            rows = crossed(x, cast("Floats", knows.own_x), rng)
            told = ask_each(world.api, rows, knows.classes)
            if not told.answered.any():
                break
            said = np.zeros((len(own.inside), len(x), knows.classes))
            said[:, told.answered] = own.answers(rows[told.answered], told.of(told.answered))
            target.append(logits(told.scores, y, self.clip))
            shadows.append(logits(said, y, self.clip))
            heard.append(told.answered)
        return Heard(np.array(target), np.array(shadows), np.array(heard))

    def gaussians(self, evidence: Evidence, inside: Bools, y: Ints, group: Bools) -> dict[str, Floats]:
        """Return the paper's two scores for the records of a group, 0 for the others."""
        found = {ONLINE: np.zeros(len(y)), OFFLINE: np.zeros(len(y))}
        if group.any():
            part = evidence.of(group)
            x, seen = logits(part.target, y[group], self.clip), inside[:, group]
            fitted = Gaussians.fit(logits(part.shadows, y[group], self.clip), seen, ~seen)
            found[ONLINE][group] = fitted.ratio(x)
            found[OFFLINE][group] = (x - fitted.out_mean) / fitted.out_spread
        return found

    def calibrated(self, views: Sequence[Evidence], inside: Bools, y: Ints, rng: np.random.Generator) -> Floats:
        """Return log-odds of membership, shape (n,), learnt from shadows that are each judged by the others."""
        phis = [logits(view.shadows, y, self.clip) for view in views]
        told: list[Floats] = []
        for k, kept in judged_by_others(inside, rng):
            judged = [Gaussians.fit(phi, inside & kept, ~inside & kept) for phi in phis]
            told.append(_features([view.shadows[k] for view in views], [phi[k] for phi in phis], y, judged))
        fitted = [Gaussians.fit(phi, inside, ~inside) for phi in phis]
        target = [logits(view.target, y, self.clip) for view in views]
        asked = _features([view.target for view in views], target, y, fitted)
        return log_odds(np.concatenate(told), inside.ravel(), asked)


@dataclass(frozen=True)
class Gaussians:
    """What models say about each record that were, and were not, trained on it.

    Args:
        in_mean: shape (n,).
        out_mean: shape (n,).
        in_spread: standard deviation, of all records together.
        out_spread: the same of models that never saw them.
    """

    in_mean: Floats
    out_mean: Floats
    in_spread: float
    out_spread: float

    @classmethod
    def fit(cls, phis: Floats, inside: Bools, outside: Bools) -> Gaussians:
        """Fit to logits of shadows, shape (s, n), of which `inside` saw the record and `outside` did not."""
        (in_mean, in_spread), (out_mean, out_spread) = _moments(phis, inside), _moments(phis, outside)
        return cls(in_mean, out_mean, in_spread, out_spread)

    def ratio(self, x: Floats) -> Floats:
        """Return the log-likelihood ratio of logits, shape (n,)."""
        inside, outside = (x - self.in_mean) / self.in_spread, (x - self.out_mean) / self.out_spread
        return (outside**2 - inside**2) / 2 + np.log(self.out_spread / self.in_spread)


def _moments(phis: Floats, which: Bools) -> tuple[Floats, float]:
    overall = phis[which].mean() if which.any() else 0.0
    mean = (np.where(which, phis, 0.0).sum(axis=0) + overall) / (which.sum(axis=0) + 1)
    spread = (phis - mean)[which].std() if which.any() else 1.0
    return mean, float(max(spread, SPREAD))


def logits(scores: Floats, y: Ints, clip: float) -> Floats:
    """Return log(p / (1 - p)) of the recorded label's score, shape (..., n), for scores of shape (..., n, k)."""
    flat = completed(scores.reshape(-1, scores.shape[-1])).reshape(scores.shape)
    p = np.clip(flat[..., np.arange(len(y)), y], clip, 1 - clip)
    return np.log(p / (1 - p))


def _features(scores: Sequence[Floats], phis: Sequence[Floats], y: Ints, fitted: Sequence[Gaussians]) -> Floats:
    """Return what is known of each record, shape (n, f): its logit beside both means, and the scores at the top."""
    columns: list[Floats] = []
    for p, x, g in zip(scores, phis, fitted, strict=True):
        near = (x - g.out_mean) ** 2 - (x - g.in_mean) ** 2
        moved = (x, g.in_mean, g.out_mean, x - g.in_mean, x - g.out_mean, g.in_mean - g.out_mean, near, g.ratio(x))
        top = np.sort(completed(p), axis=1)[:, ::-1][:, :3]
        columns += [*moved, *top.T, (p.argmax(axis=1) == y).astype(np.float64)]
    return np.array(columns).T


@dataclass(frozen=True)
class MembershipLiraMlp(MembershipLira):
    """On a network, which overfits less than a forest does."""

    name: ClassVar[str] = "membership_lira_mlp"
    title: ClassVar[str] = "tell a network's training data by likelihood ratio"
    victim: ClassVar[str] = "digits_overfit_mlp"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("auc", 0.80),)

    shadows: int = 8
    clip: float = 0.001


ATTACKS: tuple[Attack, ...] = (MembershipLira(), MembershipLiraMlp())
