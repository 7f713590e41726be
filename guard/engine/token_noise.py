"""Randomness for tokens: one number for a client, a prompt, what was generated before, and a candidate. Pure.

Theory of operation. What a model says of the next token is a function of the prompt and of the tokens before it, so
that is what names a draw, and nothing else does: not the choice (the n choices of a request would be n draws to
average), not the position, the event or the number of candidates, and not the candidate's rank (the token that was
chosen stands first, whichever it is). The same candidate after the same tokens of the same prompt gets the same noise
in a stream and in a whole answer; after other tokens, independent noise, since two distributions with the same noise
would give their exact difference away. For the same reason a prompt is a cell of its own: a language model tells case
and white space apart, so that prompts which differ in nothing else are as many distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from guard.defences.base import Reuse
from guard.engine.randomness import QueryNoise
from guard.model.arrays import Words

_WORD = np.dtype("<u2")
_SAID_BYTES = 16


class Place(NamedTuple):
    """Where a token stands.

    Args:
        row: which of the request's rows it answers.
        said: digest of what was generated before it.
    """

    row: int
    said: bytes


class Said:
    """What a choice has said so far, as a running digest."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = blake2b(digest_size=_SAID_BYTES)

    def add(self, data: bytes) -> None:
        """Take a token's bytes."""
        self._state.update(b"%d:%b" % (len(data), data))

    def add_text(self, text: str) -> None:
        """Take text whose tokens nobody named; however it is split."""
        self._state.update(text.encode("utf-8", "surrogatepass"))

    def digest(self) -> bytes:
        """Return what stands for all of it."""
        return self._state.digest()

    def copy(self) -> Said:
        """Return one that goes on from here by itself."""
        made = Said()
        made._state = self._state.copy()
        return made


class TokenNoise:
    """`Randomness` whose rows are tokens.

    Args:
        noise: the request's.
        seed: 32 bytes that nobody else has, for `reuse: none`: an answer's own, so that what repeats it agrees.
        places: one a token.
        labels: each token's candidates, no two alike, in the order of the columns.
    """

    __slots__ = ("_labels", "_noise", "_places", "_seed")

    def __init__(
        self, noise: QueryNoise, seed: bytes, places: Sequence[Place], labels: Sequence[Sequence[str]]
    ) -> None:
        self._noise = noise
        self._seed = seed
        self._places = places
        self._labels = labels

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        """Return uniform words, shape (tokens, width), one a candidate: see `guard.defences.base.Randomness`."""
        parts: list[bytes] = []
        begun: dict[int, blake2b] = {}
        for place, labels in zip(self._places, self._labels, strict=True):
            state = begun.get(place.row)
            if state is None:
                state = begun[place.row] = self._begun(reuse, salt, place.row)
            state = state.copy()
            state.update(place.said)
            names = [label.encode("utf-8", "surrogatepass") for label in labels[:width]]
            # No text begins with the byte FF.
            names += [b"\xff%d" % column for column in range(len(names), width)]
            for name in names:
                one = state.copy()
                one.update(name)
                parts.append(one.digest()[:2])
        return np.frombuffer(b"".join(parts), _WORD).reshape(len(self._places), width)

    def _begun(self, reuse: Reuse, salt: bytes, row: int) -> blake2b:
        if reuse == "none":
            return blake2b(b"%d:%b%d:" % (len(salt), salt, row), key=self._seed)
        return self._noise.begun(salt, row)

    def fresh(self, size: int) -> bytes:
        """Return bytes that no key determines: see `guard.defences.base.Randomness`."""
        return self._noise.fresh(size)

    def constant(self, name: bytes) -> float:
        """Return a secret number of the ledger: see `guard.defences.base.Randomness`."""
        return self._noise.constant(name)

    def own(self, name: bytes, size: int) -> bytes:
        """Return secret bytes of the client's own: see `guard.defences.base.Randomness`."""
        return self._noise.own(name, size)
