"""A language model that is little but its last layer: hidden states that follow from the prompt, and a softmax head.

What a real model's depth adds to its last layer does not matter to who steals the layer: any hidden state will do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

import numpy as np

from guard.selftest.base import Knowledge
from guard.selftest.lab.language import log_softmax
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats

VOCABULARY, WIDTH = 2048, 64
SPREAD = 2.0
"""Standard deviation of the logits."""
_FADES = 0.8
"""What a word counts for, one word further back."""
_SPACE = 0.05
"""What everything beside the words, such as white space, counts for."""
_LETTERS = "bdfgklmnprstvz"
PROMPTS = ("the weather in", "once upon a time", "dear colleagues, the meeting", "my favourite book is")


def spelling(size: int) -> tuple[str, ...]:
    """Return a vocabulary: the end, a quotation mark, and words of one length, none of which begins another."""
    pairs = [first + vowel for first in _LETTERS for vowel in "aeiou"]
    words = [f" {one}{other}" for one in pairs for other in pairs]
    return ("", '"', *words[: size - 2])


class SoftmaxHead:
    """The model.

    Args:
        vocabulary: how many tokens, at most 4,902.
        width: of the hidden state.
        seed: of the secret weights.
    """

    def __init__(self, vocabulary: int, width: int, seed: int) -> None:
        self.vocabulary: tuple[str, ...] = spelling(vocabulary)
        rng = np.random.default_rng([seed, 4])
        self.layer: Floats = rng.normal(0.0, SPREAD / np.sqrt(width), (vocabulary, width))
        self._mix = rng.normal(0.0, 1.0 / np.sqrt(width), (width, width))
        self._numbers = {word: number for number, word in enumerate(self.vocabulary)}
        self._seed = seed
        self._word = lru_cache(4096)(self._drawn)

    def encode(self, text: str) -> list[int]:
        """Return a text as tokens: words that are none of the vocabulary's are hashed to one."""
        words = [f" {word}" for word in text.split()]
        return [self._numbers.get(word) or 2 + _hash(word) % (len(self.vocabulary) - 2) for word in words]

    def logits(self, texts: Sequence[str]) -> Floats:
        """Return one logit a token of what may follow each text, shape (n, V); the end is never said."""
        logits = self.hidden(texts) @ self.layer.T
        logits[:, 0] = -1e30
        return logits

    def hidden(self, texts: Sequence[str]) -> Floats:
        """Return the hidden states, shape (n, h): later words count more, and the least difference counts a little."""
        width = len(self._mix)
        raw = np.zeros((len(texts), width))
        for row, text in enumerate(texts):
            for back, word in enumerate(reversed(text.split()[-16:])):
                raw[row] += _FADES**back * self._word(word)
            raw[row] += _SPACE * self._drawn(f"\0{text}")
        state = np.asarray(np.tanh(raw) @ self._mix, dtype=np.float64)
        lengths = np.asarray(np.sqrt((state * state).sum(axis=1) / width), dtype=np.float64)
        return (state.T / lengths).T

    def _drawn(self, word: str) -> Floats:
        return np.random.default_rng([self._seed, _hash(word)]).normal(0.0, 1.0, len(self._mix))


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")


def softmax_head(seed: int, vocabulary: int = VOCABULARY, width: int = WIDTH) -> Victim:
    """A softmax head of 64 dimensions over 2,048 tokens; its owner knows the weights."""
    model, none = SoftmaxHead(vocabulary, width, seed), np.zeros(0)
    extra = {"vocabulary": tuple(model.vocabulary)}
    knows = Knowledge("softmax_head", "text", 0, vocabulary, none, none, none, list(PROMPTS[:2]), extra=extra)

    def predict(rows: object) -> Floats:
        return np.exp(log_softmax(model.logits(list(cast("Sequence[str]", rows)))))

    return Victim(predict, "probabilities", knows, list(PROMPTS[2:]), None, {"layer": model.layer}, language=model)


RECIPES: dict[str, Callable[[int], Victim]] = {"softmax_head": softmax_head}
