"""From evidence to an action: which steps of the ladder a client stands on. Pure.

A step that evidence reaches holds until `hold` has passed without it being reached again (marks, below); of the actions
that hold, the strictest counts. When the last one ends, the client begins anew: a new epoch, and counts of the old one
are not looked at again. Marks are integers of which the greatest wins, so replicas agree:

* 0: the epoch: when the last hold that has ended did, in seconds (UTC); 0 before the first. Two replicas that see a
  hold end name the new epoch alike, however late either of them looks;
* 1 to 4: until when (seconds since the epoch, UTC) the client is alerted, degraded, throttled, denied;
* 5: the information meter, in thousandths.

A mark says which action holds and not which step was reached. Where several steps have one action, the last of those
that are reached now counts, or else the first: later steps are for stronger evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import NamedTuple

from guard.evidence.values import Strength
from guard.model.evidence import NOTHING
from guard.policy.detection import Detection, RungAction, Step

EPOCH, METER = 0, 5
ACTIONS: tuple[RungAction, ...] = ("alert", "degrade", "throttle", "deny")
"""From mild to strict; action i is mark i + 1."""


class Verdict(NamedTuple):
    """What a client's standing means for its request.

    Args:
        action: the strictest that holds; None for allow.
        step: the step that it comes from. None for a degradation to labels alone, where the ladder has no step for it;
            and for an alert or a denial that was reached under a policy that had another ladder.
        entered: steps that this request's evidence reached for the first time in their hold: what is audited.
        marks: what changes, to be merged.
    """

    action: RungAction | None
    step: Step | None
    entered: tuple[Step, ...]
    marks: Mapping[int, int]


_UNKNOWN = Strength()
_ALLOWED = Verdict(None, None, (), NOTHING)


def epoch(marks: Mapping[int, int], now_s: float) -> int:
    """Return the epoch that a client is in: evidence of an older one does not count.

    >>> epoch({}, 1000.0), epoch({1: 900, 2: 950}, 1000.0), epoch({1: 900, 2: 1200}, 1000.0)
    (0, 950, 0)
    """
    began = marks.get(EPOCH, 0)
    last = max(marks.get(mark, 0) for mark in range(1, len(ACTIONS) + 1))
    return max(began, last) if last <= now_s else began


def decide(
    detection: Detection,
    strengths: Mapping[str, Strength],
    marks: Mapping[int, int],
    offences: int,
    now_s: float,
    *,
    deniable: bool,
) -> Verdict:
    """Place a client on the ladder.

    On the request that begins a new epoch the client's own evidence is that of the old one, and does not count.

    Args:
        detection: the route's.
        strengths: evidence by whom it is over: `client`, `group`, `all`; what is missing knows nothing.
        marks: the client's, as last merged.
        offences: protocol offences of the last hour.
        now_s: wall clock, seconds since the epoch.
        deniable: False for a bare address, which many may share: it is degraded where others are denied.
    """
    changed: dict[int, int] = {}
    begun = epoch(marks, now_s) if marks else 0
    if begun > marks.get(EPOCH, 0):
        changed[EPOCH] = begun
        strengths = {over: strength for over, strength in strengths.items() if over != "client"}
    reached = [step for step in detection.ladder if _reaches(step, strengths, offences)]
    if not reached and not marks:
        return _ALLOWED
    until = {action: marks.get(mark, 0) for mark, action in enumerate(ACTIONS, 1)}
    entered = tuple(step for step in reached if until[step.rung.action] <= now_s)
    for step in reached:
        mark = ACTIONS.index(step.rung.action) + 1
        end = ceil(now_s + step.rung.hold)
        if end > until[step.rung.action]:
            changed[mark] = until[step.rung.action] = end
    held = [_carried_out(detection, action, reached, deniable) for action in ACTIONS if until[action] > now_s]
    action, step = max(held, key=lambda pair: ACTIONS.index(pair[0])) if held else (None, None)
    return Verdict(action, step, entered, changed)


def _reaches(step: Step, strengths: Mapping[str, Strength], offences: int) -> bool:
    rung = step.rung
    if step.level is None:
        return rung.count is not None and offences >= rung.count
    strength = strengths.get(rung.over, _UNKNOWN)
    return (strength.structure if rung.tier == "structure" else strength.any) >= step.level.threshold


def _carried_out(
    detection: Detection, action: RungAction, reached: list[Step], deniable: bool
) -> tuple[RungAction, Step | None]:
    """Return what an action that holds comes to, with its step: what cannot be done gives way to what can.

    The first of degrade (by a step or to labels), throttle and alert that is possible stands for a denial of an
    address; a throttle whose step has left the policy becomes a degradation.
    """
    if action == "deny" and deniable:
        return action, _step(detection, action, reached)
    if action == "throttle" and (step := _step(detection, action, reached)) is not None:
        return action, step
    if action != "alert":
        step = _step(detection, "degrade", reached)
        if step is not None or detection.labels:
            return "degrade", step
        if action == "deny" and (step := _step(detection, "throttle", reached)) is not None:
            return "throttle", step
    return "alert", _step(detection, "alert", reached)


def _step(detection: Detection, action: RungAction, reached: list[Step]) -> Step | None:
    now = [step for step in reached if step.rung.action == action]
    return now[-1] if now else next((step for step in detection.ladder if step.rung.action == action), None)
