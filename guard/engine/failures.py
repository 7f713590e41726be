"""What fails how: one table from (phase, kind of error) to an outcome. Nothing else decides it.

In `enforce` the table fails closed: no phase lets an answer out that it could not deal with. In `shadow` Guard is a
guest: what it cannot identify, read, charge or work on goes through as it came, and is counted; only transport bounds
and the model's own failures refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from guard.defences.base import Mode
from guard.errors import ClientError, Denied, GuardError, InvariantError, StateError, UpstreamError

Phase = Literal[
    "identify", "read", "inspect", "decide", "admit", "forward", "read_answer", "release", "observe", "render"
]
Kind = Literal["client", "denied", "upstream", "state", "bug"]
Action = Literal["refuse", "pass"]

PHASES: tuple[Phase, ...] = (
    "identify",
    "read",
    "inspect",
    "decide",
    "admit",
    "forward",
    "read_answer",
    "release",
    "observe",
    "render",
)
"""The way of one request, in order; `record` comes last and always."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a failure leads to.

    Args:
        enforce: always `refuse`: the client gets the error.
        shadow: `refuse`, or `pass`: the request goes on as if this phase were not there.
        status: overrides the error's own status, or None.
    """

    enforce: Action
    shadow: Action
    status: int | None = None


_REFUSE = Outcome("refuse", "refuse")
_GUEST = Outcome("refuse", "pass")
_BUG = Outcome("refuse", "pass", 500)
_WITHHELD = Outcome("refuse", "pass", 502)

FAILURES: dict[tuple[Phase, Kind], Outcome] = {
    ("identify", "denied"): _GUEST,  # unknown credential: 401; shadow: the peer's address
    ("identify", "bug"): _BUG,
    ("read", "client"): _GUEST,  # unreadable: 400, 413, 415; shadow: one opaque row
    ("read", "bug"): _BUG,
    ("inspect", "client"): _GUEST,  # outside the domain: 422; shadow: never snapped, never refused
    ("inspect", "bug"): _BUG,
    ("decide", "denied"): _GUEST,  # the ladder: 403, 429
    ("decide", "state"): _GUEST,  # a client's standing cannot be read, and the ladder does more than alert: 503
    ("decide", "bug"): _BUG,
    ("admit", "client"): _GUEST,  # a batch larger than the limit itself: 413
    ("admit", "denied"): _GUEST,  # budget spent: 429
    ("admit", "state"): _GUEST,  # state lost: 503
    ("admit", "bug"): _BUG,
    ("forward", "upstream"): _REFUSE,  # 502, 504, or the model's own refusal
    ("forward", "bug"): Outcome("refuse", "refuse", 502),
    ("read_answer", "upstream"): _WITHHELD,  # unreadable answer, or more predictions than rows charged
    ("read_answer", "bug"): _WITHHELD,
    ("release", "client"): _GUEST,  # the models do not agree (a mechanism's threshold): 422
    ("release", "upstream"): _WITHHELD,  # outside the declared outputs, or more than a mechanism makes private
    ("release", "bug"): _BUG,
    ("observe", "bug"): _BUG,
    ("render", "bug"): _BUG,
}
"""Every pair that is not listed is treated as a bug of its phase."""


def kind_of(error: Exception) -> Kind:
    """Return the kind of an error, which is all the table looks at.

    >>> kind_of(Denied("no")), kind_of(ValueError("?"))
    ('denied', 'bug')
    """
    match error:
        case ClientError():
            return "client"
        case Denied():
            return "denied"
        case UpstreamError():
            return "upstream"
        case StateError():
            return "state"
        case _:
            return "bug"


def outcome(phase: Phase, error: Exception, mode: Mode) -> tuple[Action, GuardError]:
    """Look up what `error` in `phase` leads to.

    Returns:
        (`refuse` or `pass`, the error to show: the one given, or a clean internal error for what was not meant to be
        raised).
    """
    kind = kind_of(error)
    row = FAILURES.get((phase, kind)) or FAILURES[phase, "bug"]
    shown = error if isinstance(error, GuardError) and kind != "bug" else InvariantError("internal error")
    if (row.status is not None and shown.status < 500) or (row.status is not None and kind == "bug"):
        shown.status = row.status
    return (row.enforce if mode == "enforce" else row.shadow), shown


def as_markdown() -> str:
    """Return the table for the docs, which holds a copy that a test compares."""
    lines = ["| phase | what failed | enforce | shadow | status |", "|---|---|---|---|---|"]
    for (phase, kind), row in FAILURES.items():
        status = "the error's own" if row.status is None else str(row.status)
        lines.append(f"| {phase} | {kind} | {row.enforce} | {row.shadow} | {status} |")
    return "\n".join(lines) + "\n"
