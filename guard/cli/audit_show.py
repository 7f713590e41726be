"""`guard audit show PATH`: what was decided, by client, route and time."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from guard.cli.audit_lines import lines_of
from guard.cli.common import Exit, fail
from guard.cli.ledgers import printable

if TYPE_CHECKING:
    import argparse

_PSEUDONYM = re.compile(r"[0-9a-f]{16}")
_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_HEADER = f"{'time (UTC)':<23} {'verdict':<10} {'status':>6} {'rows':>6} {'client':<16} {'route':<16} {'id':<16} more"

Object = dict[str, Any]  # Any: JSON


def moment(text: str, now: datetime) -> str:
    """Return a time as lines of the log have it: to be compared with theirs.

    Args:
        text: ISO 8601 (UTC where it names no zone), `2h` or `7d` ago, `today`, `yesterday`, or the last `tuesday`.
        now: the time.

    Raises:
        ValueError: it is none of these.

    >>> moment("yesterday", datetime(2027, 1, 31, 15, tzinfo=UTC))
    '2027-01-30T00:00:00.000+00:00'
    >>> moment("sunday", datetime(2027, 1, 31, 15, tzinfo=UTC))
    '2027-01-24T00:00:00.000+00:00'
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    word = text.strip().lower()
    if (ago := _AGO.fullmatch(word)) is not None:
        found = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    elif word in ("now", "today", "yesterday"):
        found = {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}[word]
    elif word in _DAYS:
        found = midnight - timedelta(days=(now.weekday() - _DAYS.index(word) - 1) % 7 + 1)
    else:
        try:
            found = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ValueError(f"{text} is no time: 2027-01-31T10:00, 2h, today, yesterday, tuesday") from None
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return found.isoformat(timespec="milliseconds")


class Wanted:
    """Which entries are shown.

    Args:
        args: the command's.
        client: a pseudonym, or empty for all.
        now: the time.
    """

    def __init__(self, args: argparse.Namespace, client: str, now: datetime) -> None:
        self._equal = {"route": args.route, "verdict": args.verdict, "id": args.id}
        self._equal = {name: value for name, value in self._equal.items() if value is not None}
        self._client = client
        self._since = "" if args.since is None else moment(args.since, now)
        self._until = "~" if args.until is None else moment(args.until, now)
        # A line without these bytes need not be read as JSON.
        self._bytes = [orjson.dumps(value) for value in (*self._equal.values(), *([client] if client else []))]

    def take(self, raw: bytes) -> Object | None:
        """Return the entry on a line if it is wanted."""
        if not all(some in raw for some in self._bytes):
            return None
        try:
            entry = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(entry, dict):
            return None
        entry = cast("Object", entry)
        if self._client and self._client not in (entry.get("client"), entry.get("group")):
            return None
        if any(entry.get(name) != value for name, value in self._equal.items()):
            return None
        return entry if self._since <= str(entry.get("time", "")) < self._until else None


def run_show(args: argparse.Namespace) -> int:
    """Show the entries of a log, print a summary and return the exit code."""
    try:
        wanted = Wanted(args, _pseudonym(args), datetime.now(UTC))
        return _show(args, wanted)
    except ValueError as error:
        return fail(str(error))
    except BrokenPipeError:
        raise  # whoever reads what is shown has seen enough
    except OSError as error:
        return fail(f"{error.filename or args.path} cannot be read: {error.strerror}", code=Exit.UNREACHABLE)


def _show(args: argparse.Namespace, wanted: Wanted) -> int:
    table = args.format == "table"
    verdicts: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    lines = shown = 0
    for _, _, raw in lines_of(args.path):
        lines += 1
        entry = wanted.take(raw)
        if entry is None or (table and entry.get("kind") == "checkpoint"):
            continue
        if table and not shown:
            print(_HEADER)
        shown += 1
        if entry.get("kind") == "decision":
            verdicts[str(entry.get("verdict"))] += 1
            outcomes[str(entry.get("outcome"))] += 1
        print(printable(row(entry)) if table else orjson.dumps(entry).decode())
    if not lines:
        return fail(f"there is no audit log {args.path}", code=Exit.NOTHING_RAN)
    if table:
        print(f"{shown:,} of {lines:,} lines; {verdicts.total():,} decisions")
        print(printable(f"verdicts: {_counted(verdicts)}; outcomes: {_counted(outcomes)}"))
        print("not verified here: guard audit verify")
    return Exit.OK


def row(entry: Object) -> str:
    """Return an entry as one line for people."""
    time = str(entry.get("time", ""))[:23].replace("T", " ")
    kind = entry.get("kind")
    if kind != "decision":
        skip = {"seq", "prev", "kind", "time", "key", "sig", "event", "found"}
        rest = {name: value for name, value in entry.items() if name not in skip} | dict(entry.get("found") or {})
        return f"{time} {kind} {entry.get('event', '')} " + " ".join(f"{n}={v}" for n, v in rest.items())
    more = [] if entry.get("outcome") == "ok" else [str(entry.get("outcome"))]
    if entry.get("budget"):
        more.append(f"by {entry['budget']}")
    if entry.get("mode") != "enforce":
        more.append(str(entry.get("mode")))
    for step in cast("list[Object]", entry.get("changed") or []):
        below = step.get("l1_below")
        more.append(str(step.get("defence")) + ("" if below is None else " 0" if below == 0 else f" <{below:g}"))
    return (
        f"{time} {entry.get('verdict')!s:<10} {entry.get('status')!s:>6} {entry.get('rows')!s:>6} "
        f"{entry.get('client') or '-'!s:<16} {entry.get('route')!s:<16} {entry.get('id')!s:<16} {', '.join(more)}"
    )


def _pseudonym(args: argparse.Namespace) -> str:
    """Return the pseudonym of `--client`, which may be one or a name.

    Raises:
        ValueError: it is a name, and there is no secret to hash it with.
    """
    if not args.client or _PSEUDONYM.fullmatch(args.client):
        return args.client or ""
    from guard.proxy.secret import derived, known_secret
    from guard.telemetry.pseudonyms import Pseudonyms

    found = known_secret(args.state, Path(args.secret_file) if args.secret_file else None)
    if found is None:
        raise ValueError("to find a client by name takes Guard's secret: --secret-file, GUARD_SECRET or --state")
    return Pseudonyms(derived(found[0], b"guard pseudonyms")).of(args.client)


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in found.most_common()) or "none"
