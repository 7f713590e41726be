"""What a policy must not say of detection, and what `check` warns of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import numpy as np

from guard.budgets.information import Information
from guard.budgets.privacy import Privacy
from guard.defences.base import Defence
from guard.defences.mechanism import Mechanism
from guard.detectors import DETECTORS
from guard.detectors.profile import Profile
from guard.detectors.setup import unavailable
from guard.errors import Problem
from guard.evidence.meter import MARGIN
from guard.policy.contradictions import below, check_steps
from guard.policy.detection import Exempt, Rung
from guard.policy.plan import RoutePlan
from guard.policy.schema import AnyIdentity, Route
from guard.policy.suggest import did_you_mean

_CALIBRATE = "guard calibrate makes a profile of what guard serve --record wrote on this route"
_STRICTNESS = {"alert": 0, "degrade": 1, "throttle": 2, "deny": 3}


def check_detection(route: Route, profile: Profile | None, at: str) -> list[Problem]:
    """Return what is wrong with a route's profile, detectors, ladder and exceptions."""
    problems: list[Problem] = []
    if profile is not None:
        problems += [Problem(message, f"{at}.profile", hint=_CALIBRATE) for message in misfits(profile, route)]
    problems += _check_detectors(route, profile, f"{at}.detectors")
    seen: dict[tuple[str, str, str], int] = {}
    for i, rung in enumerate(route.ladder):
        here = f"{at}.ladder[{i}]"
        problems += _check_rung(rung, here) + _check_means(rung, route, here)
        first = seen.setdefault((rung.tier, rung.over, rung.action), i)
        if first != i:
            message = f"ladder[{first}] has the same tier, reach and action"
            problems.append(Problem(message, here, hint="keep one"))
    if route.exceptions and not route.detects:
        hint = "detectors: default, or drop exceptions"
        problems.append(Problem("detection is off, so there is nothing to except from", f"{at}.exceptions", hint=hint))
    return problems + _check_exceptions(route.exceptions, f"{at}.exceptions")


def misfits(profile: Profile, route: Route) -> list[str]:
    """Return what of a profile does not fit a route's inputs and outputs."""
    found: list[str] = []
    sketch, inputs, classes = profile.sketch, route.inputs, route.outputs.classes
    of = f"the profile is of {sketch.kind} queries"
    if inputs is not None:
        if inputs.size is not None and sketch.kind == "text":
            found.append(f"{of}, and inputs.size is {inputs.size}")
        elif None not in (inputs.size, sketch.size) and sketch.size != inputs.size:
            found.append(f"the profile is of {sketch.size} features, and inputs.size is {inputs.size}")
        elif inputs.kind == "text" and sketch.kind != "text":
            found.append(f"{of}, and inputs.kind is text")
        elif inputs.kind == "vector" and sketch.kind == "text":
            found.append(f"{of}, and inputs.kind is vector")
    if classes is None:
        return found
    if profile.answers.size and profile.answers.shape[1] != len(classes):
        found.append(f"the profile's answers have {profile.answers.shape[1]} classes, and outputs has {len(classes)}")
    elif profile.held_out_top.size and int(profile.held_out_top.max()) >= len(classes):
        top = int(profile.held_out_top.max())
        found.append(f"the profile knows labels up to column {top}, and outputs has {len(classes)} classes")
    return found


def check_meters(route: Route, profile: Profile | None, at: str) -> list[Problem]:
    """Return what information meters lack: held-out queries to read them on, and room above the commonest label."""
    if profile is not None and len(profile.held_out) and len(profile.held_out_top):
        floor = float(np.bincount(profile.held_out_top).max() / len(profile.held_out_top))
        hint = (
            f"above {floor + MARGIN:.2f}, or without meter" if floor + MARGIN < 1 else "drop meter; parameters bounds"
        )
        said = f"closes at its first reading: the commonest label alone agrees {floor:.2f}, and the margin is {MARGIN}"
        return [
            Problem(said, f"{at}.budgets[{i}].meter", hint=hint)
            for i, budget in enumerate(route.budgets)
            if isinstance(budget, Information) and budget.meter is not None and budget.meter <= floor + MARGIN
        ]
    lacks = "and there is none" if profile is None else "and this one holds none that were answered"
    message = f"the meter is read on a profile's held-out queries, {lacks}"
    return [
        Problem(message, f"{at}.budgets[{i}]", hint=_CALIBRATE)
        for i, budget in enumerate(route.budgets)
        if budget.needs_profile
    ]


def _check_detectors(route: Route, profile: Profile | None, at: str) -> list[Problem]:
    if not isinstance(route.detectors, tuple):
        return []
    problems: list[Problem] = []
    lacks = dict(unavailable(route.detectors, profile, route.inputs))
    seen: dict[str, int] = {}
    for i, detector in enumerate(route.detectors):
        first = seen.setdefault(detector.kind, i)
        if first != i:
            problems.append(Problem(f"detectors[{first}] is {detector.kind} already", f"{at}[{i}]", hint="keep one"))
        elif why := lacks.get(detector.kind):
            hint = "drop it" if profile is not None else f"{_CALIBRATE}; or detectors: default, which leaves it out"
            problems.append(Problem(f"{detector.kind}: {why}", f"{at}[{i}]", hint=hint))
    return problems


def _check_rung(rung: Rung, at: str) -> list[Problem]:
    """Return what is wrong with a step by itself: keys that are missing, or that belong to another tier or action."""
    denies = rung.action == "deny"
    degrades, throttles, counts = rung.action == "degrade", rung.action == "throttle", rung.tier == "protocol"
    rules: list[tuple[bool, str, str, str]] = [
        (
            denies and rung.tier == "any",
            "action",
            "only the structure tier and protocol may deny",
            "tier: structure, or action: degrade",
        ),
        (
            rung.over == "all" and rung.action != "alert",
            "action",
            "nobody is held to account for what everybody asks",
            "action: alert",
        ),
        (counts and rung.over != "client", "over", "offences against the protocol are one client's", "over: client"),
        (counts and rung.count is None, "count", "tier: protocol needs a count", "count: 20"),
        (not counts and rung.count is not None, "count", "count is for tier: protocol", "drop count"),
        (
            not counts and rung.false_alarm is None,
            "false_alarm",
            "false_alarm is missing",
            "false_alarm: 1e-3",
        ),
        (
            counts and rung.false_alarm is not None,
            "false_alarm",
            "what counts offences has no false alarms to bound",
            "drop false_alarm",
        ),
        (
            degrades and not rung.defences and not rung.budgets,
            "action",
            "degrade needs defences or budgets",
            "defences: [{kind: label_only}]",
        ),
        (not degrades and bool(rung.defences), "defences", "defences are for action: degrade", "drop defences"),
        (not degrades and bool(rung.budgets), "budgets", "budgets are for action: degrade", "drop budgets"),
        (
            throttles and rung.rows_per_minute is None,
            "rows_per_minute",
            "action: throttle needs rows_per_minute",
            "rows_per_minute: 60",
        ),
        (
            not throttles and rung.rows_per_minute is not None,
            "rows_per_minute",
            "rows_per_minute is for action: throttle",
            "drop rows_per_minute",
        ),
    ]
    return [Problem(message, f"{at}.{key}", hint=hint) for wrong, key, message, hint in rules if wrong]


def _check_means(rung: Rung, route: Route, at: str) -> list[Problem]:
    """Return what is wrong with the defences and budgets of a step, which come behind the route's own."""
    problems: list[Problem] = []
    for i, defence in enumerate(rung.defences):
        if isinstance(defence, Mechanism):
            message = f"{defence.kind} cannot come and go: what it spends is worked out for every answer"
            problems.append(Problem(message, f"{at}.defences[{i}]", hint="put it first in the route's defences"))
    if not problems:
        coarse = _coarse(route.defences)
        problems += check_steps(rung.defences, route.outputs, route.inputs, f"{at}.defences", coarse)
    own = {budget.name: i for i, budget in enumerate(route.budgets)}
    seen: dict[str, int] = {}
    for i, budget in enumerate(rung.budgets):
        here = f"{at}.budgets[{i}]"
        problems += [below(here, problem) for problem in budget.check(route.outputs)]
        first = seen.setdefault(budget.name, i)
        if isinstance(budget, Privacy):
            message = "a privacy budget cannot come and go"
            problems.append(Problem(message, here, hint="put it in the route's budgets"))
        elif budget.needs_profile:
            message = "a meter reads everything that is answered, and cannot come and go"
            problems.append(Problem(message, here, hint="put it in the route's budgets"))
        elif budget.name in own:
            message = f"the route's budgets[{own[budget.name]}] counts {budget.name} already"
            problems.append(Problem(message, here, hint="give it another window, such as 1h"))
        elif first != i:
            problems.append(Problem(f"budgets[{first}] already counts {budget.name}", here, hint="keep one"))
    return problems


def _coarse(defences: Iterable[Defence]) -> Defence | None:
    return next((d for d in defences if d.coarsens and d.mode == "enforce"), None)


def _check_exceptions(exceptions: tuple[Exempt, ...], at: str) -> list[Problem]:
    problems: list[Problem] = []
    by_client: dict[str, list[tuple[int, Exempt]]] = {}
    for i, entry in enumerate(exceptions):
        for j, kind in enumerate(entry.skip):
            if kind not in DETECTORS:
                hint = did_you_mean(kind, DETECTORS)
                problems.append(Problem(f"there is no detector {kind}", f"{at}[{i}].skip[{j}]", hint=hint))
        others = by_client.setdefault(entry.client, [])
        for first, other in others:
            if not entry.skip or not other.skip or set(entry.skip) & set(other.skip):
                message = f"exceptions[{first}] excepts this client from the same"
                problems.append(Problem(message, f"{at}[{i}]", hint="make one of them"))
                break
        others.append((i, entry))
    return problems


def warn_detection(
    route: Route, plan: RoutePlan, identity: tuple[AnyIdentity, ...], at: str, today: date | None
) -> list[Problem]:
    """Return what an operator would regret about detection."""
    detection = plan.detection
    if detection is None:
        return []
    warnings: list[Problem] = []
    if detection.profile is None:
        off = _by_reason(detection.off)
        message = "without a profile signals of what honest clients ask are off" + (f": {off}" if off else "")
        warnings.append(Problem(message, f"{at}.{_given(route)}", hint=_CALIBRATE))
    elif detection.off:
        warnings.append(
            Problem(
                f"detectors are off: {_by_reason(detection.off)}",
                f"{at}.profile",
                hint="guard calibrate makes a new one",
            )
        )
    for i, step in enumerate(detection.ladder):
        if detection.profile is not None and step.level is not None and step.rung.over == "client" and step.level.why:
            hint = "more honest clients in guard calibrate, or a larger false_alarm"
            place = f"{at}.ladder[{i}]" if route.ladder else f"{at}.profile"
            warnings.append(Problem(f"the level is {step.level}", place, hint=hint))
    warnings += _warn_ladder(route.ladder, identity, at)
    for i, entry in enumerate(route.exceptions):
        if today is not None and entry.until < today:
            message = f"the exception of {entry.client} has ended on {entry.until}"
            warnings.append(Problem(message, f"{at}.exceptions[{i}].until", hint="drop it, or set a new date"))
    return warnings


def _by_reason(off: tuple[tuple[str, str], ...]) -> str:
    reasons = dict.fromkeys(why for _, why in off)
    return "; ".join(f"{', '.join(kind for kind, of in off if of == why)} ({why})" for why in reasons)


def _given(route: Route) -> str:
    return "detectors" if route.detectors is not None else "ladder"


def _warn_ladder(ladder: tuple[Rung, ...], identity: tuple[AnyIdentity, ...], at: str) -> list[Problem]:
    warnings: list[Problem] = []
    for i, rung in enumerate(ladder):
        for j, other in enumerate(ladder):
            if (rung.tier, rung.over) != (other.tier, other.over) or not _stricter_level(rung, other):
                continue
            if _STRICTNESS[rung.action] < _STRICTNESS[other.action]:
                message = (
                    f"{rung.action} asks for more evidence than ladder[{j}], which already leads to {other.action}"
                )
                hint = "let stricter steps ask for more evidence"
                warnings.append(Problem(message, f"{at}.ladder[{i}]", hint=hint))
                break
    by_address = not any(source.kind != "address" for source in identity)
    acting = [i for i, rung in enumerate(ladder) if rung.action != "alert"]
    if by_address and acting:
        denies = any(rung.action == "deny" for rung in ladder)
        message = "clients are told apart by address only, which many may share" + (
            ": they are degraded where others would be denied" if denies else ": all of them are held to it"
        )
        warnings.append(Problem(message, f"{at}.ladder[{acting[0]}]", hint="add identity: [{kind: api_key, ...}]"))
    return warnings


def _stricter_level(rung: Rung, other: Rung) -> bool:
    """Say whether a step asks for more than another of the same tier."""
    if rung.count is not None and other.count is not None:
        return rung.count > other.count
    if rung.false_alarm is None or other.false_alarm is None:
        return False
    return rung.false_alarm < other.false_alarm
