"""What became of one request under one policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from guard.evidence.bodies import Asked
from guard.model.ledger import Admission, Charge, Receipt
from guard.proxy.decisions import outcome_of, verdict_of
from guard.proxy.exchange import Exchange
from guard.replay.traffic import Request

MODELS_OWN = frozenset({"upstream_rejected", "upstream_busy", "upstream_failed"})
"""Outcomes that the model is the cause of, under any policy."""
WORDS = ("allow", "alert", "degrade", "throttle", "label_only", "refuse", "deny", "failed")
"""From mild to strict: the handler's verdicts, with `refuse` for what is refused for what it is (unreadable, outside
the domain, too large, a closed endpoint), and `failed` for the model's own failures."""
COUNTED = " (only counted)"
"""Behind the name of a budget in shadow on an enforcing route."""
_DENIED = frozenset({"denied", "throttled", "budget_spent"})
_REFUSED = 300
_CLOSED, _TOO_LARGE = 404, 413


class Charged(NamedTuple):
    """A budget's counter after a request.

    Args:
        budget: its route and stable name.
        scope: whose.
        spent: what counts against the limit.
        limit: greatest `spent`; 0 of one that an information meter has closed.
        stopped: this budget refused the request, or left it labels only.
    """

    budget: str
    scope: str
    spent: int
    limit: int
    stopped: bool


class Step(NamedTuple):
    """A defence's share of what changed: as in the audit log.

    Args:
        defence: its kind, `(counted)` behind it in shadow.
        shift: L1, summed over the request's rows.
    """

    defence: str
    shift: float


class Seen(NamedTuple):
    """What became of a request.

    Args:
        word: one of `WORDS`.
        code: `ok` or an error's code.
        reason: why it was refused or cut down to labels, in a few words; empty when it was not.
        rows: asked.
        answered: rows whose scores were looked at by the defences.
        shift: mean L1 a row between what the model said and what was released.
        top1_changed: rows whose label changed.
        charged: budgets.
        entered: steps of the ladder that this request reached, in words.
        spoke: detectors behind them.
        steps: defences.
        route: that took it.
    """

    word: str
    code: str
    reason: str = ""
    rows: int = 1
    answered: int = 0
    shift: float = 0.0
    top1_changed: int = 0
    charged: tuple[Charged, ...] = ()
    entered: tuple[str, ...] = ()
    spoke: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    route: str = ""

    @property
    def refused(self) -> bool:
        """Whether the policy gave no answer, or in shadow would not have."""
        return self.word in ("refuse", "deny")


def recorded(request: Request) -> Seen:
    """Return what became of a request as it was recorded, where nothing is known of what its policy did to it."""
    if not isinstance(request, Asked):
        return Seen("allow", "ok", rows=len(request.records), route=request.route)
    status = next((said.status for said in request.said if said is not None), 0)
    failed = status >= _REFUSED
    return Seen("failed" if failed else "allow", f"model_{status}" if failed else "ok", route=request.route)


def never_handled(status: int) -> Seen:
    """Return what became of a request that no route took, or whose body was too large to read."""
    code = {_CLOSED: "closed", _TOO_LARGE: "body_too_large"}.get(status)
    return Seen("allow", "ok") if status < _REFUSED else Seen("refuse", code or f"http_{status}", code or "other")


def seen_of(
    x: Exchange,
    failures: tuple[str, ...],
    events: Sequence[Mapping[str, object]],
    made: Sequence[tuple[str, Sequence[Charge], Receipt]],
) -> Seen:
    """Return what became of a request.

    Args:
        x: as the handler left it.
        failures: codes of what it failed on; in shadow these were passed over.
        events: the ladder's, as the audit log gets them.
        made: what was charged: ledger, charges and receipt.
    """
    code, verdict = outcome_of(x), verdict_of(x)
    failed = next((failure for failure in failures if failure not in MODELS_OWN), "")
    if failed:
        word = "deny" if failed in _DENIED else "refuse"
        reason = _why(x, failed)
    elif code in MODELS_OWN or (x.reply is not None and x.reply.status >= _REFUSED):
        word, reason = "failed", ""
    else:
        word, reason = verdict, _binding(x) if verdict == "label_only" else ""
    report, released = x.report, None if x.report is None else x.report.released
    return Seen(
        word,
        code if code != "ok" or not failed else f"{failed} (passed over)",
        reason,
        x.rows,
        0 if released is None else len(released.scores),
        0.0 if report is None else report.score_shift_l1,
        0 if report is None else report.top1_changed,
        tuple(charged for ledger, charges, receipt in made for charged in _charged(x, ledger, charges, receipt)),
        tuple(map(_entered, events)),
        tuple(dict.fromkeys(name for event in events for name in _names(event.get("spoke")))),
        _steps(x),
        x.route.name,
    )


def _why(x: Exchange, failed: str) -> str:
    if failed == "budget_spent":
        return _binding(x) or "budget"
    return {"denied": "ladder: denied", "throttled": "ladder: throttled"}.get(failed, failed)


def _binding(x: Exchange) -> str:
    """Return the budget that refused the request or left it labels; empty when none did."""
    receipt = x.receipt
    if receipt is None or receipt.admission is Admission.ALLOW:
        return ""
    return f"budget {x.charges[receipt.binding or 0].budget}"


def _charged(x: Exchange, ledger: str, charges: Sequence[Charge], receipt: Receipt) -> Iterator[Charged]:
    """Yield budgets; those in shadow on an enforcing route refuse nothing, and are told as that."""
    stopped = None if receipt.admission is Admission.ALLOW else receipt.binding or 0
    counted = COUNTED if x.route.mode == "enforce" and ledger != x.route.ledger else ""
    for i, (charge, spend) in enumerate(zip(charges, receipt.spends, strict=True)):
        name = f"{x.route.name}: {charge.budget}{counted}"
        yield Charged(name, charge.scope, spend.spent, charge.limit, i == stopped)


def _entered(event: Mapping[str, object]) -> str:
    tier, over = event.get("tier"), event.get("over")
    return f"{event.get('route')}: {event.get('action')}, {tier} over {over}, {event.get('level')}"


def _names(spoke: object) -> tuple[str, ...]:
    return tuple(map(str, cast("dict[str, object]", spoke))) if isinstance(spoke, dict) else ()


def _steps(x: Exchange) -> tuple[Step, ...]:
    report = x.report
    if report is None or report.released is None:
        return ()
    rows = len(report.released.scores)
    return tuple(
        Step(s.kind if s.mode == "enforce" else f"{s.kind} (counted)", s.score_shift_l1 * rows) for s in report.steps
    )
