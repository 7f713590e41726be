"""The log: lines for people or JSON for machines, each with the request that it belongs to.

Every library logs through Python's own logging; structlog's formatter makes its records look alike. What holds for
every line:

* It names the request, and the trace where one is taken, that the running task serves.
* A client cannot forge one: what does not print is escaped, and what follows a line break is indented.
* An exception shows its type and where it was raised, not its text: see `guard.telemetry.tracebacks`.
* A library whose peer is away does not fill the log: one line a minute from each place.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TextIO

import orjson

from guard.telemetry.tracebacks import chain_of, plain, shown

if TYPE_CHECKING:
    from collections.abc import Callable

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the running task serves; empty outside of one."""
trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace of that request; empty where none is taken."""

_MOST_CHARACTERS = 16384
_QUIET = ("opentelemetry", "urllib3", "requests")
"""Loggers of what exports traces."""

Entry = MutableMapping[str, Any]  # Any: structlog's event dictionaries


def configure(level: str, form: Format) -> None:
    """Send every logger's lines to stderr.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: how lines look.
    """
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler_of(form, sys.stderr))
    root.setLevel(level.upper())
    # A record that cannot be formatted would be printed with its arguments.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    # Its warnings are one line for every malformed request: a client must not fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def handler_of(form: Format, stream: TextIO) -> logging.Handler:
    """Return what writes lines.

    Args:
        form: how they look.
        stream: where they go.
    """
    # Only what serves pays for the import: 110 ms.
    from structlog.stdlib import ProcessorFormatter  # noqa: PLC0415

    render = as_json if form == "json" else as_text
    made = logging.StreamHandler(stream)
    made.setFormatter(
        ProcessorFormatter(foreign_pre_chain=[describe], processors=[ProcessorFormatter.remove_processors_meta, render])
    )
    made.addFilter(Sparse(_QUIET))
    return made


def describe(_logger: object, _method: str, entry: Entry) -> Entry:
    """Put together what a line holds, as a processor of structlog."""
    record: logging.LogRecord = entry["_record"]
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    event = str(entry["event"])
    if record.name == "asyncio":
        # What follows shows tasks and handles with the exceptions in them.
        event = event.partition("\n")[0]
    made: dict[str, Any] = {  # Any: JSON
        "time": f"{seconds}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": event[:_MOST_CHARACTERS].rstrip(),
    }
    for name, variable in (("request_id", request_id), ("trace_id", trace_id)):
        value = variable.get()
        if value:
            made[name] = value
    error = entry["exc_info"][1] if entry.get("exc_info") else None
    if error is not None:
        made["exception"] = chain_of(error)
    return made | {"_record": record, "_from_structlog": False}


def as_json(_logger: object, _method: str, entry: Entry) -> str:
    """Render a line as JSON."""
    try:
        return orjson.dumps(entry).decode()
    except orjson.JSONEncodeError:  # a lone surrogate
        return orjson.dumps({**entry, "event": plain(entry["event"])}).decode()


def as_text(_logger: object, _method: str, entry: Entry) -> str:
    """Render a line for people: time, level, logger, what happened; then what it belongs to."""
    line = f"{entry['time']} {entry['level'].upper()} {entry['logger']}: {plain(entry['event'])}"
    line += "".join(f" {name}={entry[name]}" for name in ("request_id", "trace_id") if name in entry)
    return f"{line}\n{shown(entry['exception'])}" if "exception" in entry else line


class Sparse(logging.Filter):
    """Lets one line a minute through from each place in the named loggers, and every line of others.

    Args:
        names: of loggers; those below them are meant too.
        monotonic_s: the clock.
    """

    def __init__(self, names: tuple[str, ...], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._names = names
        self._monotonic_s = monotonic_s
        self._last_s: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record goes through."""
        if record.name.partition(".")[0] not in self._names:
            return True
        place, now_s = (record.name, record.lineno), self._monotonic_s()
        if now_s - self._last_s.get(place, -60.0) < 60.0:
            return False
        self._last_s[place] = now_s
        return True
