"""What was decided on one request: an entry of the audit log, and of the console's list.

No input, no score and no credential: clients are pseudonyms, defences say only roughly how far they moved an answer.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from guard.errors import Denied
from guard.model.ledger import Admission

if TYPE_CHECKING:
    from guard.policy.plan import Plan
    from guard.proxy.exchange import Exchange
    from guard.telemetry.pseudonyms import Pseudonyms

RECENT = 200
DIGEST_SHOWN = 16
_LN10 = math.log(10.0)

Object = dict[str, Any]  # Any: JSON


class Recent(NamedTuple):
    """One of the last decisions, as light as it can be: it is taken for every request.

    Args:
        now_s: seconds since the epoch.
        id: the request's.
        route: its name.
        client: the client's name; empty when nobody was named. Shown as a pseudonym only.
        rows: rows asked.
        verdict: as `verdict_of` says.
        outcome: `ok`, or an error's code.
        status: HTTP status; 0 when the client had gone.
    """

    now_s: float
    id: str
    route: str
    client: str
    rows: int
    verdict: str
    outcome: str
    status: int


class RecentDecisions:
    """The last `RECENT` decisions."""

    def __init__(self) -> None:
        self.latest: deque[Recent] = deque(maxlen=RECENT)

    def note(self, x: Exchange, verdict: str) -> None:
        """Keep what was decided on one request."""
        client = "" if x.client is None else x.client.name
        status = 0 if x.response is None else x.response.status
        self.latest.append(Recent(x.now_s, x.id, x.route.name, client, x.rows, verdict, outcome_of(x), status))


def verdict_of(x: Exchange) -> str:
    """Return `allow`, `alert`, `degrade`, `throttle`, `label_only` or `deny`."""
    if isinstance(x.error, Denied) or (x.receipt is not None and x.receipt.admission is Admission.DENY):
        return "deny"
    return "label_only" if x.labels_only else "allow" if x.action is None else x.action


def outcome_of(x: Exchange) -> str:
    """Return `ok`, an error's code, or `aborted` for a client that had gone."""
    return x.error.code if x.error else "aborted" if x.response is None else "ok"


def decision_of(x: Exchange, verdict: str, pseudonyms: Pseudonyms) -> Object:
    """Return the audit log's entry of one request.

    Members: `time` (UTC), `id`, `route`, `mode`, `client` and `group` (pseudonyms), `source`, `rows`, `verdict`,
    `outcome`, `status`, `policy` (the digest's first digits); `evidence` (log10 of the e-value, by tier) where
    detection looked; `charges` by budget where something was charged, and the `budget` that refused or left labels;
    `changed`, one entry a defence, where an answer went out.
    """
    client, response = x.client, x.response
    made: Object = {
        "kind": "decision",
        "time": _instant(x.now_s),
        "id": x.id,
        "route": x.route.name,
        "mode": x.route.mode,
        "client": None if client is None else pseudonyms.of(client.name),
        "group": None if client is None else pseudonyms.of(client.group),
        "source": None if client is None else client.source,
        "rows": x.rows,
        "verdict": verdict,
        "outcome": outcome_of(x),
        "status": 0 if response is None else response.status,
        "policy": x.active.plan.digest[:DIGEST_SHOWN],
    }
    if x.watched is not None:
        any_, structure = x.watched.strength
        made["evidence"] = {
            "any": round(any_ / _LN10, 2) if any_ else 0.0,
            "structure": round(structure / _LN10, 2) if structure else 0.0,
        }
    receipt = x.receipt
    if receipt is not None:
        made["charges"] = {
            charge.budget: charged.spent if charge.event is None else charge.rows
            for charge, charged in zip(x.charges, receipt.charged, strict=True)
        }
        if receipt.binding is not None:
            made["budget"] = x.charges[receipt.binding].budget
    if x.report is not None:
        # Whoever reads both this and a release must not learn the score that lies between: a mechanism of differential
        # privacy says nothing of its noise, everything else says it to a power of ten.
        private = x.route.private is not None
        made["changed"] = [
            {"defence": s.kind, "mode": s.mode}
            if private
            else {"defence": s.kind, "mode": s.mode, "redacted": s.redacted}
            if s.redacted is not None
            else {"defence": s.kind, "mode": s.mode, "l1_below": coarse(s.score_shift_l1), "labels": s.top1_changed}
            for s in x.report.steps
        ]
    return made


def policy_of(plan: Plan, now_s: float) -> Object:
    """Return the audit log's entry of a policy that has come into force."""
    return {"kind": "policy", "time": _instant(now_s), "name": plan.name, "mode": plan.mode, "policy": plan.digest}


def coarse(shift: float) -> float:
    """Return the least power of ten, from 0.001 on, that a shift is below; 0 for none."""
    if shift == 0.0:
        return 0.0
    if shift < 0.01:
        return 0.001 if shift < 0.001 else 0.01
    return 0.1 if shift < 0.1 else 1.0 if shift < 1.0 else 10.0


def _instant(now_s: float) -> str:
    """Return a time as ISO 8601 in UTC, with milliseconds."""
    second = int(now_s)
    return f"{_second(second)}.{int((now_s - second) * 1000.0):03}+00:00"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
