"""Hints for words that nobody knows: "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` was most likely meant to be, or None.

    >>> closest("decimal", ["decimals", "mode"])
    'decimals'
    >>> closest("zzz", ["decimals", "mode"]) is None
    True
    """
    plain = {name.lower().replace("-", "_"): name for name in known}
    found = get_close_matches(word.lower().replace("-", "_")[:64], plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint: the closest known word, and all of them.

    >>> did_you_mean("topk", ["top_k", "round"])
    'did you mean top_k? known: round, top_k'
    >>> did_you_mean("zzz", ["b", "a"])
    'known: a, b'
    """
    words = sorted(known)
    best = closest(word, words)
    return (f"did you mean {best}? " if best else "") + f"known: {', '.join(words)}"
