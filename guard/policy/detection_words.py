"""A compiled detection as plain values, for whoever shows it: `guard explain`, `guard check`, the admin listener."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel

from guard.policy.detection import Detection, Step
from guard.policy.guarantee import MEANING, UNSEEN, WHERE_IT_ENDS


@dataclass(frozen=True, slots=True)
class Rule:
    """A step of the ladder.

    Args:
        when: what reaches it, such as `one client's evidence of structure`.
        level: as it is published, `calibrated(...)` or `nominal(...)`, or a count of offences.
        threshold: on the natural logarithm of the evidence; None for offences.
        action: what it leads to.
        hold_s: how long that lasts after it was last reached, in seconds.
        means: defences and budgets of a degradation.
        rows_per_minute: of a throttle; None otherwise.
    """

    when: str
    level: str
    threshold: float | None
    action: str
    hold_s: int
    means: tuple[BaseModel, ...]
    rows_per_minute: int | None


@dataclass(frozen=True, slots=True)
class Words:
    """What detection does on a route.

    Args:
        profile: where its knowledge of honest traffic comes from, in one line.
        on: detectors that run, with their tier.
        off: detectors of the policy that do not, and why.
        ladder: its steps.
        exceptions: clients that are excepted, until when and why.
    """

    profile: str
    on: tuple[tuple[str, str], ...]
    off: tuple[tuple[str, str], ...]
    ladder: tuple[Rule, ...]
    exceptions: tuple[str, ...]


_WHOSE = {"client": "one client's", "group": "a group's", "all": "everybody's"}
_WHAT = {"any": "evidence", "structure": "evidence of structure"}


def in_words(detection: Detection) -> Words:
    """Return a route's detection as plain values."""
    signals = detection.setup.null.signals
    on = tuple(dict.fromkeys((signal.detector, str(signal.tier)) for signal in signals))
    exceptions: list[str] = []
    for client, entries in detection.exempt.items():
        for entry in entries:
            left_out = list(dict.fromkeys(signals[i].detector for i in sorted(entry.signals)))
            which = "all detectors" if len(left_out) == len(on) else ", ".join(left_out) or "nothing that runs here"
            day = datetime.fromtimestamp(entry.until_s, UTC).date()
            exceptions.append(f"{client}: without {which} until {day}: {entry.reason}")
    return Words(_profile(detection), on, detection.off, tuple(map(_rule, detection.ladder)), tuple(exceptions))


def as_data(words: Words, ladder: Sequence[object]) -> dict[str, object]:
    """Return it for machines, beside what levels mean, where they end and what no detector sees.

    Args:
        words: what is said of a route.
        ladder: its rules, as whoever asks writes them.
    """
    return {
        "profile": words.profile,
        "on": [{"detector": kind, "tier": tier} for kind, tier in words.on],
        "off": [{"detector": kind, "why": why} for kind, why in words.off],
        "ladder": ladder,
        "exceptions": list(words.exceptions),
        "levels_mean": MEANING,
        "levels_end": list(WHERE_IT_ENDS),
        "unseen": UNSEEN,
    }


def _profile(detection: Detection) -> str:
    profile = detection.profile
    if profile is None:
        return "no profile: what Guard ships on honest clients, for the structure tier"
    return (
        f"profile of {profile.name}, {profile.made[:10]}, digest {profile.digest[:12]}: {profile.clients} clients and"
        f" {profile.augmented} augmented ones, {len(profile.sups['any'])} held out, {profile.queries:,} queries"
    )


def _rule(step: Step) -> Rule:
    rung = step.rung
    if step.level is None:
        when, level = "offences against the protocol", f"{rung.count} in an hour"
    else:
        when, level = f"{_WHOSE[rung.over]} {_WHAT[rung.tier]}", str(step.level)
    threshold = None if step.level is None else step.level.threshold
    means = (*step.defences, *step.budgets)
    return Rule(when, level, threshold, rung.action, rung.hold, means, rung.rows_per_minute)


def duration(seconds: int) -> str:
    """Return seconds as a policy writes them.

    >>> duration(86400), duration(5400), duration(61)
    ('1d', '90m', '61s')
    """
    unit, size = next((u, s) for u, s in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if seconds % s == 0)
    return f"{seconds // size}{unit}"
