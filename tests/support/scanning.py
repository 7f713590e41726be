"""The laws of scanners, held against any text defence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from guard.defences.base import Cleared, TextDefence

SAID = (
    "Pay with 4111 1111 1111 1111, or to DE89 3704 0044 0532 0130 00.\n"
    "Write to ann.smith@example.com \N{EM DASH} the key is AKIAIOSFODNN7EXAMPLE, and the"
    " caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SLIGHTLY SMILING FACE} closes at 10."
)
"""Text that holds what most text defences look for, and much that they must leave."""
_MOST_WAITING = 1024


def keep_laws(spec: TextDefence, said: str, before: str) -> None:
    """Check that a defence's scanners keep their promises on one text, however it is split."""
    whole = _scan(spec, [said], before)
    for pieces in _splits(said):
        steps = _scan(spec, pieces, before)
        assert _joined(steps) == _joined(whole), pieces
        assert _touched(steps) == _touched(whole), pieces
        assert steps[-1].ends == whole[-1].ends, pieces
    _ask(spec, said, before, secret=bool(_touched(whole)))


def _splits(said: str) -> list[list[str]]:
    """Return ways to split a text: single characters, halves, words, and with empty pieces between."""
    halves = [[said[:i], said[i:]] for i in range(len(said) + 1)]
    words = said.replace(" ", " \0").split("\0")
    return [[*said], *halves, words, [piece for word in words for piece in (word, "")]]


def _scan(spec: TextDefence, pieces: Sequence[str], before: str) -> list[Cleared]:
    """Feed pieces, the last one as such, and check each step by itself."""
    scanner, said = spec.scanner(before), "".join(pieces)
    steps: list[Cleared] = []
    fed = upto = 0
    for i, piece in enumerate(pieces):
        last = i == len(pieces) - 1
        step = scanner.feed(piece, last=last)
        fed += len(piece)
        assert upto <= step.upto <= fed
        assert fed - step.upto <= _MOST_WAITING
        spans = step.redacted
        assert all(upto <= a < b <= step.upto for a, b in spans), spans
        assert all(b < c for (_, b), (c, _) in pairwise(spans)), spans
        if not spans and not step.ends:
            assert step.text == said[upto : step.upto]
        upto = step.upto
        steps.append(step)
        if step.ends:
            break
        assert not last or upto == fed
    return steps


def _joined(steps: Sequence[Cleared]) -> str:
    return "".join(step.text for step in steps)


def _touched(steps: Sequence[Cleared]) -> set[int]:
    """Return the redacted characters; of what ended the answer the first: how far it goes may not be known."""
    spans = [span for step in steps for span in step.redacted]
    if steps[-1].ends and spans:
        spans[-1] = (spans[-1][0], spans[-1][0] + 1)
    return {at for a, b in spans for at in range(a, b)}


def _ask(spec: TextDefence, said: str, before: str, *, secret: bool) -> None:
    """Check that being asked changes nothing, and that some letter completes a secret if there is one."""
    quiet, asked = spec.scanner(before), spec.scanner(before)
    completing = 0
    for letter in said:
        completing += asked.completes(letter)
        one, other = quiet.feed(letter, last=False), asked.feed(letter, last=False)
        assert one == other
        if one.ends:
            break
    else:
        assert quiet.feed("", last=True) == asked.feed("", last=True)
    assert bool(completing) == secret
