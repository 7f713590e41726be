"""The last self-test's report, as the console shows it: a file that `guard selftest --report json=FILE` writes.

It is read again when it changes. The file is the operator's, and still read as if it were not: bounded, and what is not
as it should be is said instead of shown.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES: Final = 16 * 2**20
_MOST_ROWS = 64
_MOST_TEXT = 200

Object = dict[str, Any]  # Any: JSON


class ReportFile:
    """A report that may appear, change and vanish.

    Args:
        path: where it is; None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._signature: tuple[int, int, int] | None = None
        self._found: Object | None = None

    async def look(self) -> Object | None:
        """Return the report in short, `{"problem": ...}`, or None where there is none to show."""
        if self._path is None:
            return None
        try:
            found = await asyncio.to_thread(os.stat, self._path)
            signature = found.st_ino, found.st_size, found.st_mtime_ns
            if signature != self._signature:
                self._found = await asyncio.to_thread(_read, self._path)
                self._signature = signature
        except OSError as error:
            self._signature = None
            return {"problem": f"{self._path.name} cannot be read: {error.strerror or 'an error'}"}
        return self._found


def _read(path: Path) -> Object:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        return {"problem": f"{path.name} is larger than {MOST_BYTES // 2**20} MB"}
    try:
        return summary(orjson.loads(data))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return {"problem": f"{path.name} is not a report of guard selftest --report json={path.name}"}


def summary(report: Any) -> Object:  # Any: JSON
    """Return a report's verdict, gates, and each attack's headline figures beside their floors.

    Raises:
        KeyError: it is not a report; so are TypeError, ValueError and AttributeError.
    """
    gates = cast("list[Object]", report["gates"])
    return {
        "policy": _text(report["policy"]),
        "digest": _text(report["digest"]),
        "started": _text(report["started"]),
        "target": _text(report["target"]),
        "route": _text(report["route"]),
        "mode": _text(report["mode"]),
        "passed": report["passed"] is True,
        "partial": report.get("partial") is True,
        "gates": {
            "passed": sum(gate["held"] is True for gate in gates),
            "failed": sum(gate["held"] is False for gate in gates),
            "unresolved": sum(gate["held"] is None for gate in gates),
        },
        "failed": [_gate(gate) for gate in gates if gate["held"] is not True][:_MOST_ROWS],
        "attacks": [_attack(row) for row in report["attacks"][:_MOST_ROWS]],
        "utility": [_utility(row) for row in report["utility"][:_MOST_ROWS]],
    }


def _gate(gate: Object) -> Object:
    return {
        **{name: _text(gate[name]) for name in ("subject", "metric", "bound")},
        "limit": _number(gate["limit"]),
        "value": _number(gate["value"]),
        "reason": _text(gate.get("reason", "")),
    }


def _attack(row: Object) -> Object:
    figures = {name: _figure(row[name]) for name in ("undefended", "defended", "adaptive")}
    floors = {_text(name): _figure(figure) for name, figure in list(row["floors"].items())[:4]}
    words = {name: _text(row[name]) for name in ("name", "title", "victim", "metric", "verdict")}
    words["reason"] = _text(row.get("reason", ""))
    return {**words, **figures, "queries": int(row["queries"]), "floors": floors}


def _figure(figure: Object | None) -> Object | None:
    return None if figure is None else {name: _number(figure[name]) for name in ("value", "low", "high")}


def _utility(row: Object) -> Object:
    numbers = ("top1_changed", "mean_l1", "added_p50_ms", "added_p99_ms", "refused")
    return {"victim": _text(row["victim"]), **{name: _number(row[name]) for name in numbers}}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value[:_MOST_TEXT]


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)
