"""Makes a profile of honest clients' logs.

Theory of operation. Clients are parted (`split`): detectors learn from the first part, the null is of the windows of
the second and of shifted copies of half of it (`augment`), and the third is held out: its evidence, run through the
very tracker that serves, gives the conformal thresholds, what pools divide by, and the information meter's queries.
Before that, clients that look like thieves are looked for (`poison`). Pure: the same logs and seed lead to the same
profile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from guard.calibrate import samples
from guard.calibrate.augment import Shifts, Way
from guard.calibrate.courses import Course, clip_mean, course, horizon
from guard.calibrate.findings import LEVELS, Findings, LevelOf, PoisonedLogs, Settings
from guard.calibrate.learn import Fitted, chosen, learn
from guard.calibrate.poison import Suspect, suspects
from guard.calibrate.read import CalibrationError, ClientLog
from guard.calibrate.split import FEWEST, Parts, split
from guard.calibrate.windows import view
from guard.detectors.profile import Profile
from guard.detectors.setup import Setup, make_setup
from guard.detectors.sketch import Sketch, Sketcher
from guard.evidence.fit import fit_null
from guard.evidence.levels import level
from guard.evidence.values import WINDOW
from guard.model.arrays import Floats

__all__ = ["Findings", "PoisonedLogs", "Settings", "levels_of", "make_profile"]
_CURVES = 200


def make_profile(
    name: str, sketch: Sketch, clients: Sequence[ClientLog], settings: Settings | None = None
) -> tuple[Profile, Findings]:
    """Make a profile.

    Args:
        name: the route's.
        sketch: how queries became vectors.
        clients: their logs.
        settings: how; None for the defaults.

    Raises:
        PoisonedLogs: clients look like thieves, and the settings do not say what becomes of them.
        CalibrationError: fewer than 20 clients of a window or more, or no detector that can be fitted.
    """
    how = settings or Settings()
    usable = [log for log in clients if len(log) >= WINDOW]
    short = len(clients) - len(usable)
    _enough(usable, short)
    found = _poisoned(sketch, usable, how)
    if found and how.poisoned == "refuse":
        raise PoisonedLogs(found)
    if found and how.poisoned == "leave_out":
        named = {suspect.client for suspect in found}
        usable = [log for log in usable if log.pseudonym not in named]
        _enough(usable, short)
    left_out = len(found) if how.poisoned == "leave_out" else 0
    profile, fitted, runs, parts = _fit(name, sketch, usable, how, left_out)
    lengths = np.quantile([len(log) for log in usable], [0.05, 0.25, 0.5, 0.75, 0.95])
    furthest = sorted(runs, key=lambda run: -float(run.any.max()))
    return profile, Findings(
        suspects=tuple(found),
        left_out=how.poisoned == "leave_out",
        short=short,
        lengths=tuple(int(length) for length in lengths),
        parts=(len(parts.fit), len(parts.null), len(parts.held)),
        on=tuple(detector.kind for detector in fitted.detectors),
        off=tuple(fitted.off),
        levels=tuple(levels_of(profile)),
        curves=tuple(furthest[:_CURVES]),
    )


def levels_of(profile: Profile) -> list[LevelOf]:
    """Return the levels of the usual ladder that a profile gives."""
    return [LevelOf(tier, level(alpha, profile.sups[tier], profile.horizon)) for tier, alpha in LEVELS]


def _enough(usable: Sequence[ClientLog], short: int) -> None:
    if len(usable) < FEWEST:
        beside = f", beside {short} of fewer" if short else ""
        raise CalibrationError(
            f"{len(usable)} clients of {WINDOW} queries or more{beside}: a profile needs {FEWEST}; record for longer"
        )


def _alike(sketch: Sketch) -> bool:
    return sketch.kind != "vector"


def _poisoned(sketch: Sketch, usable: Sequence[ClientLog], how: Settings) -> list[Suspect]:
    mean, scale = samples.standard(usable, np.random.default_rng([how.seed, 1]), alike=_alike(sketch))
    views = [view(log, mean, scale) for log in usable]
    structure = [
        detector
        for detector in chosen(how)
        if detector.tier == "structure" and detector.side == "query" and (len(mean) or not detector.scaled)
    ]
    if not structure:
        return []
    bound = tuple(detector.bind({}, len(mean), sketch.key) for detector in structure)
    signals = [signal for detector in structure for signal in detector.signals()]
    null = fit_null(signals, [], how.seed)
    setup = Setup(Sketcher(sketch, sketch.key), bound, (), null, len(signals), "0" * 12)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        how.progress("looking for thieves in the logs", min(1.0, done / (2.0 * len(usable))))

    return suspects(setup, [log.pseudonym for log in usable], views, how.seed, tick)


def _fit(
    name: str, sketch: Sketch, usable: Sequence[ClientLog], how: Settings, left_out: int
) -> tuple[Profile, Fitted, list[Course], Parts]:
    rng = np.random.default_rng([how.seed, 2])
    parts = split(len(usable), rng)
    mean, scale = samples.standard([usable[i] for i in parts.fit], rng, alike=_alike(sketch))
    fitted = learn([view(usable[i], mean, scale) for i in parts.fit], len(mean), sketch.key, how)
    copies = _copies([usable[i] for i in parts.null], sketch, mean, scale, how, rng)
    logs = [*(usable[i] for i in parts.null), *copies]
    streams: list[list[Floats]] = []
    for number, log in enumerate(logs):
        streams.append(fitted.windows(view(log, mean, scale)))
        how.progress("what honest clients look like", (number + 1) / len(logs))
    signals = [signal for detector in fitted.detectors for signal in detector.signals()]
    held = [usable[i] for i in parts.held]
    views = [view(log, mean, scale) for log in held]
    vectors, tops = samples.held_out(views, held, rng)
    draft = Profile(
        name=name,
        made=how.made,
        sketch=sketch,
        mean=mean,
        scale=scale,
        references=fitted.references,
        null=fit_null(signals, streams, how.seed),
        sups={"any": np.zeros(0), "structure": np.zeros(0)},
        horizon=0,
        clients=len(parts.null),
        augmented=len(copies),
        queries=sum(map(len, usable)),
        left_out=left_out,
        clip_mean=1.0,
        held_out=vectors,
        held_out_top=tops,
        answers=samples.answers([usable[i] for i in sorted({*parts.fit, *parts.null})], rng),
    )
    setup = make_setup(tuple(fitted.detectors), draft, None, sketch.key)
    runs: list[Course] = []
    for number, client in enumerate(views):
        runs.append(course(setup, client))
        how.progress("evidence against held-out clients", (number + 1) / len(views))
    return _with_thresholds(draft, runs), fitted, runs, parts


def _with_thresholds(draft: Profile, runs: Sequence[Course]) -> Profile:
    sups = {
        "any": np.sort(np.array([run.any.max() for run in runs])),
        "structure": np.sort(np.array([run.structure.max() for run in runs])),
    }
    return dataclasses.replace(draft, sups=sups, horizon=horizon(runs), clip_mean=clip_mean(runs))


def _copies(
    logs: Sequence[ClientLog], sketch: Sketch, mean: Floats, scale: Floats, how: Settings, rng: np.random.Generator
) -> list[ClientLog]:
    """Return shifted copies of half of the clients; none without vectors."""
    if not len(mean):
        return []
    way: Way = "image" if how.image else "vector"
    match sketch.kind:
        case "image":
            way = "image"
        case "text" | "tokens":
            way = "text"
        case "vector":
            pass
    shifts = Shifts(way, logs, mean, scale)
    half: list[int] = rng.permutation(len(logs))[: len(logs) // 2].tolist()
    return [shifts.shifted(logs[i], rng) for i in half]
