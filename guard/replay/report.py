"""A replay in words and tables; what every format is written from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from guard.replay.compare import Client, Comparison, Scope, Side
from guard.replay.run import Result
from guard.replay.seen import WORDS
from guard.replay.sketched import MISSING

MOST_CLIENTS = 10
MOST_OUT = 5
Row = tuple[str, ...]


class Section(NamedTuple):
    """A part of the report.

    Args:
        title: of it.
        said: sentences.
        columns: of its table; empty for none.
        rows: likewise.
    """

    title: str
    said: tuple[str, ...] = ()
    columns: Row = ()
    rows: tuple[Row, ...] = ()


def headline(result: Result) -> str:
    """Return what was compared, in a line."""
    old, new = result.comparison.old.name, result.comparison.new.name
    return f"Replay under {new}, beside {old}"


def sections(result: Result) -> list[Section]:
    """Return the whole report."""
    made = [_about(result), _verdicts(result.comparison), _refusals(result.comparison), _clients(result.comparison)]
    made += [_shift(result.comparison), _budgets(result.comparison), _ladder(result.comparison), limits(result)]
    return [section for section in made if section.said or section.rows]


def _about(result: Result) -> Section:
    c = result.comparison
    said = [
        f"{c.requests:,} requests, {c.rows:,} rows, {len(c.clients):,} clients, from {moment(c.first_s)} to"
        f" {moment(c.last_s)}, replayed from {result.source.kind} in {result.seconds:.1f} s"
        f" ({c.requests / max(result.seconds, 1e-9):,.0f} requests a second)."
    ]
    if result.partial:
        said.insert(0, f"Interrupted after {c.requests:,} of {result.total:,} requests: these are their figures.")
    old, new = result.plans
    digests = [f"{c.new.name} has digest {new.digest[:12]}"]
    if old is None:
        said.append(
            "Recorded means: what the model said, to everybody, as under a policy in shadow."
            if not result.enforced
            else f"{result.enforced:,} were recorded under a policy that enforced: what it refused is not here."
        )
    else:
        digests.insert(0, f"{c.old.name} has digest {old.digest[:12]}")
    said.append("; ".join(digests) + ".")
    said += [
        f"{name} is in shadow, or a route of it is: what it would do is counted, and it would do none of it."
        for name, plan in ((c.old.name, old), (c.new.name, new))
        if plan is not None and any(route.mode == "shadow" for route in plan.routes)
    ]
    if 2 * c.new.reasons["closed"] > c.requests:
        said.append(
            f"Most of it is closed under {c.new.name}: is --api what was recorded, and does a route open its paths?"
        )
    return Section("What was replayed", tuple(said))


def _verdicts(c: Comparison) -> Section:
    olds = [word for word in WORDS if c.old.words[word]]
    news = [word for word in WORDS if c.new.words[word]]
    rows = [(old, *(_count(c.moved[old, new]) for new in news), f"{c.old.words[old]:,}") for old in olds]
    rows.append((f"{c.new.name}, all", *(f"{c.new.words[new]:,}" for new in news), f"{c.requests:,}"))
    changed = sum(n for (old, new), n in c.moved.items() if old != new)
    said = (f"{changed:,} of {c.requests:,} requests ({_share(changed, c.requests)}) get another verdict.",)
    return Section("Verdicts, from a row's to a column's", said, (c.old.name, *news, "all"), tuple(rows))


def _refusals(c: Comparison) -> Section:
    reasons = sorted({*c.old.reasons, *c.new.reasons}, key=lambda r: (-c.new.reasons[r], r))
    rows = [(r, f"{c.old.reasons[r]:,}", f"{c.new.reasons[r]:,}") for r in reasons]
    said = (
        f"Refused: {c.old.refused:,} ({_share(c.old.refused, c.requests)}) under {c.old.name}, {c.new.refused:,}"
        f" ({_share(c.new.refused, c.requests)}) under {c.new.name}.",
    )
    columns = ("refused, or answered with labels, because of", c.old.name, c.new.name)
    return Section("Refusals and labels", said, columns if rows else (), tuple(rows))


def _clients(c: Comparison) -> Section:
    everybody = c.clients
    changed = sum(client.changed > 0 for client in everybody.values())
    refused = sum(client.refused[1] > 0 for client in everybody.values())
    denied = sum(client.denied > 0 for client in everybody.values())
    said = (
        f"{changed:,} of {len(everybody):,} clients ({_share(changed, len(everybody))}) get another verdict at least"
        f" once; refused at least once: {refused:,}, by a budget or the ladder: {denied:,}. Clients are pseudonyms.",
    )
    most = sorted(everybody.items(), key=lambda pair: (-pair[1].refused[1], -pair[1].changed, pair[0]))[:MOST_CLIENTS]
    rows = tuple(_client(name, client) for name, client in most if client.changed)
    columns = ("client", "requests", "rows", "changed", "refused, old", "new", "cut down, old", "new")
    return Section("Clients", said, columns if rows else (), rows)


def _client(name: str, client: Client) -> Row:
    counts = (client.requests, client.rows, client.changed, *client.refused, *client.cut)
    return (name, *(f"{count:,}" for count in counts))


def _shift(c: Comparison) -> Section:
    columns = ("", "rows with scores", "mean L1", "p50", "p95", "labels changed")
    rows = [_shift_row(side) for side in (c.old, c.new)]
    said = tuple(
        f"{side.name}, by step: " + ", ".join(f"{kind} {total / max(side.shifts.rows, 1):.4f}" for kind, total in steps)
        for side in (c.old, c.new)
        if (steps := tuple(side.steps.items()))
    )
    lead = "How far a row's released scores are from the model's: L1, mean over a request's rows."
    return Section("Score shift", (lead, *said), columns, tuple(rows))


def _shift_row(side: Side) -> Row:
    s = side.shifts
    return (side.name, f"{s.rows:,}", f"{s.mean:.4f}", f"{s.p50:.4f}", f"{s.p95:.4f}", f"{side.top1_changed:,}")


def _budgets(c: Comparison) -> Section:
    rows: list[Row] = []
    out: list[str] = []
    for side in (c.old, c.new):
        for budget, scopes in sorted(side.budgets.items()):
            shares = [scope.share for scope in scopes.values()]
            p50, p95, most = (float(np.quantile(shares, q)) for q in (0.5, 0.95, 1.0))
            spent = sum(scope.stopped > 0 for scope in scopes.values())
            words = (f"{len(scopes):,}", f"{p50:.0%}", f"{p95:.0%}", f"{most:.0%}", f"{spent:,}")
            rows.append((side.name, budget, *words))
            out += _first_out(side.name, budget, scopes)
    columns = ("", "budget", "scopes", "spent, p50", "p95", "most", "ran out")
    lead = ("Of each scope the fullest window counts; it ran out where it refused a request or left it labels only.",)
    return Section("Budgets", (*lead, *out) if rows else (), columns if rows else (), tuple(rows))


def _first_out(name: str, budget: str, scopes: dict[str, Scope]) -> list[str]:
    out = sorted((s.first_s, scope, s) for scope, s in scopes.items() if s.stopped)
    if not out:
        return []
    shown = "; ".join(f"{scope} from {moment(first)} ({s.stopped:,} requests)" for first, scope, s in out[:MOST_OUT])
    more = f"; and {len(out) - MOST_OUT:,} more" if len(out) > MOST_OUT else ""
    return [f"Ran out under {name}, {budget}: {shown}{more}."]


def _ladder(c: Comparison) -> Section:
    steps = sorted({*c.old.entered, *c.new.entered})
    rows = tuple((step, f"{c.old.entered[step]:,}", f"{c.new.entered[step]:,}") for step in steps)
    said = tuple(
        f"Detectors behind it under {side.name}: "
        + ", ".join(f"{kind} {count:,}" for kind, count in side.spoke.most_common())
        + "."
        for side in (c.old, c.new)
        if side.spoke
    )
    return Section("Ladder: steps reached", said, ("step", c.old.name, c.new.name) if rows else (), rows)


def limits(result: Result) -> Section:
    """Return what the replay cannot know, and what it left out."""
    secret = result.secret
    noise = (
        "Noise is keyed by the deployment's own secret, but for pseudonyms and not for clients' names: another draw of"
        " the same noise. Digests, detectors' draws and salts are the deployment's."
        if secret.real
        else f"Noise, digests and what detectors draw are keyed by seed {secret.seed} and not by the deployment's"
        " secret (--secret-file): other draws of the same distributions."
    )
    said = [
        noise,
        "Budgets and ledgers begin empty and live in memory: no live ledger, of a budget or of differential privacy,"
        " was read or charged. Evidence against clients begins empty, too.",
        "Clients are whom the recording names: a policy that asks for other credentials would refuse or name them"
        " otherwise. What never reached the model (an unknown credential, a request refused while it was recorded, a"
        " path that no scoring endpoint has) is not in recordings. What clients would ask next under another policy"
        " nobody knows: these are what they asked.",
    ]
    if result.unmatched:
        said.append(
            f"{result.unmatched:,} exceptions name clients, which pseudonyms do not match without --secret-file."
        )
    if len(result.source.keys) > 1:
        said.append(f"Recorded under {len(result.source.keys)} secrets: a client that came under two counts as two.")
    if result.source.kind == "sketches":
        said.append(
            "Replayed from sketches: of a vector of at most 64 features these hold the features in single precision, of"
            " anything else keys and a sketch, and of an answer the scores. Groups are not recorded: each client is its"
            " own. Clients whose recording does not say that they are bare addresses are taken for named ones."
        )
    said += result.source.doubts
    rows = tuple((MISSING[what], f"{count:,}") for what, count in sorted(result.missing.items()) if count)
    rows += tuple((f"requests left out: {why}", f"{count:,}") for why, count in sorted(result.skipped.items()))
    return Section("What this does not tell", tuple(said), ("what could not be replayed", "") if rows else (), rows)


def moment(seconds: float) -> str:
    """Return a time as the report says it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"


def _count(count: int) -> str:
    return f"{count:,}" if count else "."
