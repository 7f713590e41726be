"""A replay's report for machines."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from guard.replay.compare import Comparison, Scope, Side
from guard.replay.report import MOST_CLIENTS, MOST_OUT, limits, moment
from guard.replay.run import Result
from guard.replay.seen import WORDS


def as_json(result: Result) -> dict[str, object]:
    """Return the report for machines; `figures` are what gates are about."""
    c, (old, new) = result.comparison, result.plans
    return {
        "version": 1,
        "partial": result.partial,
        "source": {"kind": result.source.kind, "files": [path.name for path in result.source.files]},
        "requests": c.requests,
        "rows": c.rows,
        "clients": len(c.clients),
        "from": moment(c.first_s),
        "to": moment(c.last_s),
        "requests_per_second": round(c.requests / max(result.seconds, 1e-9), 1),
        "secret": {"real": result.secret.real, "seed": None if result.secret.real else result.secret.seed},
        "figures": {name: round(value, 6) for name, value in c.figures().items()},
        "policies": {
            "old": None if old is None else {"name": c.old.name, "digest": old.digest, "mode": old.mode},
            "new": {"name": c.new.name, "digest": new.digest, "mode": new.mode},
        },
        "old": _side_json(c.old),
        "new": _side_json(c.new),
        "moved": [{"old": a, "new": b, "requests": n} for (a, b), n in sorted(c.moved.items())],
        "top_clients": [dict(zip(_CLIENT, row, strict=True)) for row in _top(c)],
        "not_replayed": {
            "rows": dict(sorted(result.missing.items())),
            "requests": dict(sorted(result.skipped.items())),
        },
        "said": list(limits(result).said),
    }


_CLIENT = ("client", "requests", "rows", "changed", "refused_old", "refused_new", "cut_old", "cut_new")


def _top(c: Comparison) -> Iterable[tuple[str | int, ...]]:
    most = sorted(c.clients.items(), key=lambda pair: (-pair[1].refused[1], -pair[1].changed, pair[0]))[:MOST_CLIENTS]
    for name, client in most:
        yield (name, client.requests, client.rows, client.changed, *client.refused, *client.cut)


def _side_json(side: Side) -> dict[str, object]:
    shifts = side.shifts
    return {
        "verdicts": {word: side.words[word] for word in WORDS if side.words[word]},
        "outcomes": dict(sorted(side.codes.items())),
        "reasons": dict(sorted(side.reasons.items())),
        "shift": {"rows": shifts.rows, "mean": shifts.mean, "p50": shifts.p50, "p95": shifts.p95},
        "steps": {kind: total / max(shifts.rows, 1) for kind, total in side.steps.items()},
        "top1_changed": side.top1_changed,
        "ladder": dict(sorted(side.entered.items())),
        "detectors": dict(sorted(side.spoke.items())),
        "budgets": {name: _budget_json(scopes) for name, scopes in sorted(side.budgets.items())},
    }


def _budget_json(scopes: dict[str, Scope]) -> dict[str, object]:
    shares = [scope.share for scope in scopes.values()]
    out = sorted((s.first_s, name) for name, s in scopes.items() if s.stopped)
    return {
        "scopes": len(scopes),
        "spent": {"p50": float(np.quantile(shares, 0.5)), "p95": float(np.quantile(shares, 0.95)), "most": max(shares)},
        "ran_out": len(out),
        "first_out": [{"scope": name, "at": moment(first)} for first, name in out[:MOST_OUT]],
    }
