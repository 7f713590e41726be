"""Pieces of HTML that the report's sections share. Text that comes in as `text` is escaped here; cells are markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from guard.selftest.report.words import MARKS, measured, plain
from guard.selftest.results import Figure


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column heads its rows, in a region that scrolls by keyboard too.

    Args:
        caption: what it holds, text.
        columns: their names, text.
        rows: cells, markup.
    """
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    inner = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return region(caption, inner)


def region(label: str, content: str) -> str:
    """Return content that may be wider than the screen."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def chip(class_: str, text: str) -> str:
    """Return a word that stands out."""
    return f'<span class="chip {escape(class_)}">{escape(plain(text))}</span>'


def verdict_cell(word: str, reason: str = "") -> str:
    """Return a verdict with its sign, and why where that is known."""
    shown = chip(f"v-{word.replace(' ', '-')}", f"{MARKS.get(word, '')} {word}".strip())
    return f'{shown}<span class="sub">{escape(plain(reason))}</span>' if reason else shown


def stacked(figure: Figure | None, below: str = "") -> str:
    """Return a figure with its interval under it, and a word under that."""
    value, _, interval = measured(figure).partition(" ")
    return value + "".join(f'<span class="sub">{escape(plain(line))}</span>' for line in (interval, below) if line)


def nowrap(text: str) -> str:
    """Return text that stays on one line."""
    return f'<span class="nowrap">{escape(plain(text))}</span>'


def sentence_list(sentences: Iterable[str]) -> str:
    """Return sentences as a list."""
    return "<ul>" + "".join(f"<li>{escape(plain(sentence))}</li>" for sentence in sentences) + "</ul>"
