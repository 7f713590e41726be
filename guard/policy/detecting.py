"""From a route's words on detection, and its profile, to what it runs on. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, time

import numpy as np

from guard.budgets.base import Budget
from guard.defences.base import Defence
from guard.detectors import DETECTORS
from guard.detectors.base import Detector
from guard.detectors.profile import Profile
from guard.detectors.setup import DEFAULT, Setup, make_setup, unavailable
from guard.errors import Problem
from guard.evidence.levels import Level, level
from guard.evidence.values import Tier
from guard.model.arrays import Floats
from guard.policy.detection import Detection, Exempt, Exemption, Rung, Step
from guard.policy.schema import Route

DEFAULT_LADDER: tuple[Rung, ...] = (Rung(false_alarm=1e-2),)
"""What detection does where the policy names no ladder."""
_NO_SUPS: Floats = np.zeros(0)


def calibrate(route: Route, profile: Profile | None, at: str) -> tuple[Route, list[Problem]]:
    """Return the route with defences, its own and its ladder's, as the profile's answers make them."""
    problems: list[Problem] = []
    answers = np.zeros((0, 0)) if profile is None else profile.answers
    own = _calibrated(route.defences, answers, f"{at}.defences", problems)
    ladder: list[Rung] = []
    for i, rung in enumerate(route.ladder):
        made = _calibrated(rung.defences, answers, f"{at}.ladder[{i}].defences", problems)
        ladder.append(rung if made == rung.defences else rung.model_copy(update={"defences": made}))
    return route.model_copy(update={"defences": own, "ladder": tuple(ladder)}), problems


def _calibrated(
    defences: tuple[Defence, ...], answers: Floats, at: str, problems: list[Problem]
) -> tuple[Defence, ...]:
    made: list[Defence] = []
    for i, defence in enumerate(defences):
        try:
            made.append(defence.calibrated(answers) if defence.calibrates else defence)
        except ValueError as error:
            hint = "profile: FILE, which guard calibrate makes"
            problems.append(Problem(f"{defence.kind}: {error}", f"{at}[{i}]", hint=hint))
    return tuple(made)


def chosen(route: Route, profile: Profile | None) -> tuple[tuple[Detector, ...], tuple[tuple[str, str], ...]]:
    """Return the detectors that a route runs, and those of the policy that are off, with why.

    A list is taken as it stands. Otherwise all run that can: with a profile those that it was made with, since nobody
    knows what honest clients look like to others.
    """
    if isinstance(route.detectors, tuple):
        return route.detectors, ()
    off = unavailable(DEFAULT, profile, route.inputs)
    return tuple(detector for detector in DEFAULT if detector.kind not in dict(off)), off


def detection_of(route: Route, profile: Profile | None, salt: bytes, *, grades: bool) -> Detection | None:
    """Compile a route's detection; None where it is off.

    Args:
        route: it has passed `check_detection`, and its defences are calibrated.
        profile: its profile, or None.
        salt: secret for the keys of queries.
        grades: answers carry more than a label.

    Raises:
        ValueError: the profile does not fit; the message says why.
    """
    if not route.detects:
        return None
    detectors, off = chosen(route, profile)
    setup = make_setup(detectors, profile, route.inputs, salt)
    why = {tier: _nominal(tier, detectors, profile) for tier in ("any", "structure")}
    ladder = tuple(_step(rung, route, profile, why, grades=grades) for rung in route.ladder or DEFAULT_LADDER)
    exempt: dict[str, tuple[Exemption, ...]] = {}
    for entry in route.exceptions:
        exempt[entry.client] = (*exempt.get(entry.client, ()), _exemption(entry, setup))
    return Detection(
        setup=setup,
        ladder=ladder,
        exempt=exempt,
        profile=profile,
        clip_mean=1.0 if profile is None else profile.clip_mean,
        off=off,
        labels=grades and route.outputs.kind == "probabilities",
    )


def _nominal(tier: str, detectors: tuple[Detector, ...], profile: Profile | None) -> str:
    """Return why a tier's levels can only be nominal, empty when they need not be."""
    if profile is None:
        return "no profile"
    made = {kind for kind in profile.references if kind in DETECTORS and _in(DETECTORS[kind].tier, tier)}
    runs = {detector.kind for detector in detectors if _in(detector.tier, tier)}
    if made != runs:
        return "the profile was calibrated with other detectors"
    if any(_in(d.tier, tier) and d != type(d)(kind=d.kind) for d in detectors):
        return "the profile was calibrated with other parameters"
    return ""


def _in(tier: Tier, of: str) -> bool:
    return of in ("any", tier)


def _step(rung: Rung, route: Route, profile: Profile | None, why: dict[str, str], *, grades: bool) -> Step:
    found: Level | None = None
    if rung.tier != "protocol" and rung.false_alarm is not None:
        if rung.over != "client":
            reason = "pools are not calibrated" if profile is not None else "no profile"
            found = level(rung.false_alarm, _NO_SUPS, 0, why=reason)
        else:
            sups, horizon = (_NO_SUPS, 0) if profile is None else (profile.sups[rung.tier], profile.horizon)
            reason = why[rung.tier] or ("" if len(sups) else "the profile holds no held-out clients")
            found = level(rung.false_alarm, sups, horizon, why=reason)
    grades = grades and not any(d.leaves_labels and d.mode == "enforce" for d in rung.defences)
    budgets: tuple[Budget, ...] = tuple(b.on(route.outputs) for b in rung.budgets if grades or not b.distinct)
    return Step(rung, found, rung.defences, budgets)


def _exemption(entry: Exempt, setup: Setup) -> Exemption:
    signals = frozenset(
        i for i, signal in enumerate(setup.null.signals) if not entry.skip or signal.detector in entry.skip
    )
    return Exemption(signals, datetime.combine(entry.until, time.max, UTC).timestamp(), entry.reason)
