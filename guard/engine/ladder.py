"""From evidence to an action: which steps of the ladder a client stands on. Pure.

A step that evidence reaches holds until `hold` has passed without it being reached again (marks, below); of the steps
that hold, the strictest action counts. When the last one ends, the client begins anew: its epoch grows by one, and
counts of the old epoch are not looked at again. Marks are integers of which the greatest wins, so replicas agree:

* 0: the epoch;
* 1 to 4: until when (seconds since the epoch, UTC) the client is alerted, degraded, throttled, denied;
* 5: the information meter, in thousandths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from guard.evidence.values import Strength
from guard.policy.detection import Detection, RungAction, Step

EPOCH, METER = 0, 5
ACTIONS: tuple[RungAction, ...] = ("alert", "degrade", "throttle", "deny")
"""From mild to strict; action i is mark i + 1."""


class Verdict(NamedTuple):
    """What a client's standing means for its request.

    Args:
        action: the strictest that holds; None for allow.
        step: the step that it comes from; None when it was reached under a policy that had another ladder.
        entered: steps that this request's evidence reached for the first time in their hold: what is audited.
        marks: what changes, to be merged.
    """

    action: RungAction | None
    step: Step | None
    entered: tuple[Step, ...]
    marks: Mapping[int, int]


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

    Args:
        detection: the route's.
        strengths: evidence by whom it is over: `client`, `group`, `all`.
        marks: the client's, as last merged.
        offences: protocol offences of the last hour.
        now_s: wall clock.
        deniable: False for a bare address, which many may share: it is degraded where others are denied.
    """
    raise NotImplementedError
