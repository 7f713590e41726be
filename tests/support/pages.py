"""The documentation as tests read it: pages, their fenced blocks, links, and the policies and commands in them.

What a page shows is what a reader copies. A fence's info string says what it is: ```yaml is a policy or a part of one,
```sh is commands, a `title` names the file that it is. An HTML comment in the line before a fence speaks to the tests:
`<!-- not a policy -->`, `<!-- recorded: triton/infer-single -->`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.processes import ROOT

DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"(?:^[ ]*<!--\s*(?P<note>[^\n]*?)\s*-->\n)?"
    r"^(?P<indent>[ ]*)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]*)"')
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Args:
        page: its file, relative to the repository.
        line: the number of the opening fence's line.
        language: the first word of the info string.
        title: of the info string; empty without.
        text: what stands in it, its indentation taken off.
        note: the HTML comment in the line before.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    note: str

    def __str__(self) -> str:
        """Name it as an editor would find it."""
        return f"{self.page}:{self.line}"


@cache
def pages() -> tuple[Path, ...]:
    """Return every page, and the README."""
    return (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """Return a page's fenced blocks in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        info, indent = match["info"].strip(), len(match["indent"])
        body = "".join(line[indent:] if line.strip() else line for line in match["text"].splitlines(keepends=True))
        line = text.count("\n", 0, match.end("indent")) + 1
        title = _TITLE.search(info)
        language = info.split(" ")[0].split("{")[0]
        found.append(Block(name(page), line, language, title[1] if title else "", body, match["note"] or ""))
    return tuple(found)


def all_blocks() -> Iterator[Block]:
    """Yield the blocks of all pages."""
    for page in pages():
        yield from blocks(page)


def name(page: Path) -> str:
    """Return a page's path, relative to the repository."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and images."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page)))


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield the `guard ...` command lines of a block: the line, and its words after `guard`.

    A prompt, variables before the command, a pipe before it, whatever comes after a pipe, a redirection or a comment,
    and dots that stand for more, are left out.
    """
    text = re.sub(r"\\\n\s*", " ", block.text)
    for line in text.splitlines():
        for part in re.split(r"\s\|\|?\s|&&|;", line):
            words = _words(part.strip().removeprefix("$ "))
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if len(words) > 1 and words[0] == "guard":
                yield line.strip(), words[1:]


def variables(policy: str) -> dict[str, str]:
    """Return a value for every `{env: NAME}` of a policy."""
    return dict.fromkeys(re.findall(r"\{env: (\w+)\}", policy), "a value of thirty-two characters!")


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return []
    end = next((i for i, word in enumerate(words) if re.fullmatch(r"[0-9]?>.*|&|<.*", word)), len(words))
    return [word for word in words[:end] if word not in ("...", "…")]
