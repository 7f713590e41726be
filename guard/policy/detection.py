"""The policy's words on detection: which detectors run, what their evidence leads to, and who is excepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

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


class Exemption(NamedTuple):
    """A compiled exception.

    Args:
        signals: numbers of the signals that are left out.
        until_s: last second since the epoch that it holds.
        reason: why.
    """

    signals: frozenset[int]
    until_s: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A route's compiled detection.

    Args:
        setup: its detectors and null, bound with a salt of the deployment.
        ladder: steps in the order of the policy.
        exempt: exceptions by client; `excepted` says which hold.
        profile: or None.
        clip_mean: nu of the pools.
        off: detectors of the policy that are off, and why: `("mahalanobis", "needs a profile")`.
        labels: answers can be cut down to a label, and are not anyway: what degrades where the ladder has no step.
    """

    setup: Setup
    ladder: tuple[Step, ...]
    exempt: Mapping[str, tuple[Exemption, ...]]
    profile: Profile | None
    clip_mean: float
    off: tuple[tuple[str, str], ...]
    labels: bool = True

    @property
    def degrading(self) -> tuple[Defence, ...]:
        """What the first step that degrades puts behind the route's own defences; none where none does."""
        return next((step.defences for step in self.ladder if step.rung.action == "degrade"), ())

    def excepted(self, client: str, now_s: float) -> Exemption | None:
        """Return what is left out of a client's evidence now, several exceptions put together; None for most clients.

        Args:
            client: its name.
            now_s: wall clock, seconds since the epoch.
        """
        held = [e for e in self.exempt.get(client, ()) if now_s <= e.until_s]
        if not held:
            return None
        signals = frozenset[int]().union(*(e.signals for e in held))
        return Exemption(signals, min(e.until_s for e in held), "; ".join(e.reason for e in held))
