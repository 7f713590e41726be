"""The policy's words on detection: which detectors run, what their evidence leads to, and who is excepted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from guard.budgets.base import Budget, Window
from guard.defences.base import Defence
from guard.detectors.profile import Profile
from guard.detectors.setup import Setup
from guard.evidence.levels import Level
from guard.policy.unions import AnyBudget, AnyDefence

_FROZEN = ConfigDict(frozen=True, extra="forbid")
RungAction = Literal["alert", "degrade", "throttle", "deny"]
Over = Literal["client", "group", "all"]


class Rung(BaseModel):
    """One step of the ladder: evidence of this strength leads to this action.

    Args:
        tier: whose evidence: `any` signal's, or the `structure` tier's alone; `protocol` counts offences.
        over: one client's evidence, or that of all accounts of its group, or of everybody, together (a level a day).
            `all` can only alert: nobody is degraded for what others ask.
        false_alarm: bound on the chance that an honest client ever reaches it.
        count: of tier `protocol`: offences in an hour that lead here.
        action: `alert`: metrics and the audit log; `degrade`: silently, other defences and budgets; `throttle`: 429
            above `rows_per_minute`; `deny`: 403. Only the structure tier and `protocol` may deny.
        hold: how long it lasts after it was last reached; then the client begins anew, without evidence.
        defences: of `degrade`: applied behind the route's own.
        budgets: of `degrade`: charged beside the route's own.
        rows_per_minute: of `throttle`.
    """

    model_config = _FROZEN
    tier: Literal["any", "structure", "protocol"] = "any"
    over: Over = "client"
    false_alarm: float | None = Field(default=None, gt=0, lt=1)
    count: int | None = Field(default=None, ge=1)
    action: RungAction = "alert"
    hold: Window = 86400
    defences: tuple[AnyDefence, ...] = ()
    budgets: tuple[AnyBudget, ...] = ()
    rows_per_minute: int | None = Field(default=None, ge=1)


class Exempt(BaseModel):
    """A client whose evidence leaves some detectors out, for a while and for a reason.

    Args:
        client: its name.
        skip: kinds of detectors; empty for all of them.
        until: last day, UTC, that it holds.
        reason: why; goes to the audit log.
    """

    model_config = _FROZEN
    client: str = Field(min_length=1, max_length=256)
    skip: tuple[str, ...] = ()
    until: date
    reason: str = Field(min_length=1, max_length=500)


@dataclass(frozen=True, slots=True)
class Step:
    """A compiled rung.

    Args:
        rung: as the policy has it.
        level: its threshold and what stands behind it; None for tier `protocol`.
        defences: of `degrade`, ready to run.
        budgets: likewise.
    """

    rung: Rung
    level: Level | None
    defences: tuple[Defence, ...]
    budgets: tuple[Budget, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A route's compiled detection.

    Args:
        setup: its detectors and null; bound with a salt of the deployment by `bind`.
        ladder: steps in the order of the policy.
        exempt: by client: (signals left out, last second since the epoch that it holds, reason).
        profile: or None.
        clip_mean: nu of the pools.
        off: detectors of the policy that are off, and why: `("mahalanobis", "needs a profile")`.
    """

    setup: Setup
    ladder: tuple[Step, ...]
    exempt: dict[str, tuple[frozenset[int], float, str]]
    profile: Profile | None
    clip_mean: float
    off: tuple[tuple[str, str], ...]
