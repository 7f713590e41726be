"""The self-test's reports: one module a format, and `write`, which writes any of them to files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from guard.policy.suggest import did_you_mean
from guard.selftest.report import html, json_report, junit, markdown
from guard.selftest.report.words import public
from guard.selftest.results import Report

FORMATS: dict[str, Callable[[Report], str]] = {
    "html": html.render,
    "json": json_report.render,
    "junit": junit.render,
    "markdown": markdown.render,
}


def target(text: str) -> tuple[str, Path]:
    """Return the format and the file that `json=path` names, as `--report` takes it.

    >>> target("json=out/report.json")
    ('json', PosixPath('out/report.json'))

    Raises:
        ValueError: no such format, or no path.
    """
    name, equals, path = text.partition("=")
    _known(name)
    if not equals or not path:
        raise ValueError(f"{text} names no file; write {name}=FILE")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a directory; name a file in it")
    return name, Path(path)


def write(report: Report, targets: Sequence[tuple[str, str | Path]]) -> None:
    """Write a report to files, each whole or not at all; folders that are missing are made.

    Args:
        report: the results.
        targets: (format, path) pairs.

    Raises:
        ValueError: no such format; nothing is written then.
        OSError: a file cannot be written.
    """
    for name, _ in targets:
        _known(name)
    shown = public(report)
    for name, path in targets:
        write_file(Path(path), FORMATS[name](shown))


def _known(name: str) -> None:
    if name not in FORMATS:
        raise ValueError(f"there is no report format {name!r}; {did_you_mean(name, FORMATS)}")


def write_file(path: Path, text: str) -> None:
    """Write a file, whole or not at all; folders that are missing are made.

    Raises:
        OSError: it cannot be written.
    """
    # Lone surrogates, which no UTF-8 holds, become the escapes that JSON reads.
    data = text.encode("utf-8", "backslashreplace")
    if path.exists() and not path.is_file():
        path.write_bytes(data)  # a pipe or /dev/stdout
        return
    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, half = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(half).chmod(_mode(path))
        Path(half).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(half).unlink()
        raise


def _mode(path: Path) -> int:
    """Return the permissions of the file that is replaced, otherwise those that a new file gets."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
