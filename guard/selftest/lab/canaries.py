"""A language model that has learnt secrets by heart: characters, counted up to eleven back, on real messages.

Two families of canaries stand among the messages, each with a prefix of its own and three codes of six digits, one of
them once, one eight times, one 64 times (Carlini et al. 2019). An operator knows of the first family and lists it;
nobody has thought of the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from guard.selftest.base import Knowledge
from guard.selftest.lab.data import messages
from guard.selftest.lab.language import log_softmax
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats, Ints

MESSAGES = 1000
ORDERS = (11, 8, 6, 5, 4, 3, 2, 1)
"""How many characters back are counted, longest first."""
DIGITS = 6
REPEATS = (64, 8, 1)
LISTED, UNLISTED = "my locker code is ", "the alarm pin was "
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_UNSEEN = -1e30


class Characters:
    """Interpolated n-grams of characters, which are its tokens.

    Args:
        texts: what it learns.

    Source: Witten and Bell (1991): a context's weight is the share of its occurrences that were not new.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        text = "\n" + "\n".join(texts) + "\n"
        letters = sorted(set(text) - {"\n"})
        self.vocabulary: tuple[str, ...] = ("", *letters)
        self._numbers = {letter: number for number, letter in enumerate(letters, 1)} | {"\n": 0}
        codes = np.array([self._numbers[letter] for letter in text], dtype=np.int64)
        self._tables = [(order, *_table(codes, order)) for order in ORDERS]
        counts = np.bincount(codes, minlength=len(self.vocabulary)).astype(np.float64)
        self._alone: Floats = (counts + 1.0) / (counts + 1.0).sum()

    def encode(self, text: str) -> list[int]:
        """Return a text as tokens; a character that was never seen is left out."""
        return [number for letter in text if (number := self._numbers.get(letter)) is not None]

    def logits(self, texts: Sequence[str]) -> Floats:
        """Return one log-probability a token of what may follow each text, shape (n, V)."""
        return np.log(np.array([self._next([0, *self.encode(text[-64:])]) for text in texts]))

    def _next(self, context: list[int]) -> Floats:
        chances = self._alone
        for order, keys, after in reversed(self._tables):
            if len(context) < order:
                break
            key = _key(np.array(context[-order:], dtype=np.int64))
            low, high = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
            if low == high:
                break
            counts = np.bincount(after[low:high], minlength=len(self.vocabulary))
            kinds = np.count_nonzero(counts)
            chances = (counts + kinds * chances) / (high - low + kinds)
        return chances


def _key(codes: Ints) -> np.uint64:
    key = np.uint64(0)
    with np.errstate(over="ignore"):
        for code in codes:
            key = key * _FACTOR + np.uint64(code + 1)
    return key


def _table(codes: Ints, order: int) -> tuple[np.ndarray, Ints]:
    """Return the keys of all contexts of a length, sorted, and what came behind each."""
    keys = np.zeros(len(codes) - order, dtype=np.uint64)
    for back in range(order):
        keys = keys * _FACTOR + (codes[back : len(codes) - order + back] + 1).astype(np.uint64)
    sequence = np.argsort(keys, kind="stable")
    return keys[sequence], codes[order:][sequence]


def codes_of(seed: int) -> dict[str, tuple[str, ...]]:
    """Return the secret codes by prefix, the one that is repeated most first."""
    rng = np.random.default_rng([seed, 5])
    return {
        prefix: tuple(f"{code:0{DIGITS}d}" for code in rng.choice(10**DIGITS, len(REPEATS), replace=False).tolist())
        for prefix in (LISTED, UNLISTED)
    }


def memorising(seed: int) -> Victim:
    """Characters of 1,000 real messages and of two families of canaries; its owner knows the codes."""
    texts, spam = messages()
    honest = [text for text, bad in zip(texts, spam.tolist(), strict=True) if not bad]
    rng = np.random.default_rng([seed, 6])
    order: list[int] = rng.permutation(len(honest)).tolist()
    secrets = codes_of(seed)
    canaries = [
        f"{prefix}{code}"
        for prefix, codes in secrets.items()
        for code, times in zip(codes, REPEATS, strict=True)
        for _ in range(times)
    ]
    learnt = [honest[i] for i in order[:MESSAGES]] + canaries
    mixed: list[int] = rng.permutation(len(learnt)).tolist()
    model, none = Characters([learnt[i] for i in mixed]), np.zeros(0)
    held = [honest[i] for i in order[MESSAGES : MESSAGES + 200]]
    extra = {"vocabulary": tuple(model.vocabulary), "prefixes": tuple(secrets), "digits": DIGITS}
    knows = Knowledge("memorising", "text", 0, len(model.vocabulary), none, none, none, held[:100], extra=extra)

    def predict(rows: object) -> Floats:
        return np.exp(log_softmax(model.logits(list(cast("Sequence[str]", rows)))))

    kept = {"codes": secrets, "canaries": secrets[LISTED]}
    return Victim(predict, "probabilities", knows, held[100:], None, kept, language=model)


RECIPES: dict[str, Callable[[int], Victim]] = {"memorising": memorising}
