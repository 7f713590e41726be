"""A replay's report as text, Markdown, HTML and JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

from guard.policy.suggest import did_you_mean
from guard.replay.report import Section, headline, sections
from guard.replay.report_json import as_json
from guard.replay.run import Result
from guard.selftest.report.html import page
from guard.selftest.report.markup import sentence_list, table


def text(result: Result) -> str:
    """Return the report to read in a terminal."""
    lines = [headline(result)]
    for section in sections(result):
        lines += ["", section.title, *(line for sentence in section.said for line in _wrapped(sentence))]
        lines += _aligned(section)
    return "\n".join(lines) + "\n"


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, 118, initial_indent="  ", subsequent_indent="    ")


def _aligned(section: Section) -> Iterable[str]:
    if not section.rows:
        return
    cells = [section.columns, *section.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(section.columns))]
    for row in cells:
        first, *rest = (
            cell.ljust(width) if i == 0 or not _numeric(section, i) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield ("  " + "  ".join([first, *rest])).rstrip()


def _numeric(section: Section, column: int) -> bool:
    return all(row[column][:1].isdigit() or row[column] in (".", "") for row in section.rows)


def markdown(result: Result) -> str:
    """Return the report for a pull request."""
    lines = [f"# {_cell(headline(result))}"]
    for section in sections(result):
        lines += ["", f"## {_cell(section.title)}", *(line for said in section.said for line in ("", _cell(said)))]
        if section.rows:
            lines += ["", _row(section.columns), _row(["---"] * len(section.columns)), *map(_row, section.rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(said: str) -> str:
    """Return text that Markdown takes for nothing else."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in said.replace("\n", " "))


def html(result: Result) -> str:
    """Return the report as one page that loads nothing and runs nothing."""
    parts = [f"<h1>{escape(headline(result))}</h1>"]
    for section in sections(result):
        said = section.said
        lead = "".join(f"<p>{escape(sentence)}</p>" for sentence in said) if len(said) < 3 else sentence_list(said)
        rows = [[escape(cell) for cell in row] for row in section.rows]
        shown = table(section.title, section.columns, rows) if rows else ""
        parts.append(f"<section><h2>{escape(section.title)}</h2>{lead}{shown}</section>")
    header = '<header><p class="kicker">Guard replay</p></header>'
    return page(f"Guard: {headline(result)}", f'{header}<main id="main">{"".join(parts)}</main>')


def as_text(result: Result) -> str:
    """Return the report as JSON."""
    return json.dumps(as_json(result), indent=2) + "\n"


FORMATS: dict[str, Callable[[Result], str]] = {"html": html, "json": as_text, "markdown": markdown, "text": text}


def target(given: str) -> tuple[str, Path]:
    """Return the format and the file that `json=path` names.

    >>> target("json=out/replay.json")
    ('json', PosixPath('out/replay.json'))

    Raises:
        ValueError: no such format, or no path.
    """
    name, equals, path = given.partition("=")
    if name not in FORMATS:
        raise ValueError(f"there is no report format {name!r}; {did_you_mean(name, FORMATS)}")
    if not equals or not path:
        raise ValueError(f"{given} names no file; write {name}=FILE")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a directory; name a file in it")
    return name, Path(path)
