"""Log-probabilities in OpenAI's two shapes, read as tokens and written back.

Chat completions have a list of `{token, logprob, bytes, top_logprobs: [{token, logprob, bytes}]}`; completions have the
lists `tokens`, `token_logprobs`, `top_logprobs` (maps of text to number) and `text_offset`. llama.cpp answers the first
shape on both endpoints. What is written is made anew: nothing else that stands in an entry leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from typing import cast

from guard.model.text import Token
from guard.wire.body import unreadable
from guard.wire.parameters import Json

DROPPED = -9999.0
"""What the chosen token's number reads when it is not let out, as OpenAI's own servers write it."""
_LEAST = -1e30
"""llama.cpp writes the least float for a probability of 0."""
_ESCAPED = re.compile(rb"\\x([0-9a-fA-F]{2})")


@dataclass(slots=True)
class Candidate:
    """A token that might have come, and its place among the labels."""

    token: str
    data: bytes | None
    label: int


@dataclass(slots=True)
class Entry:
    """What is said of one token, in the making.

    Args:
        token: as upstream wrote it.
        data: its bytes where upstream said them.
        offset: where it begins in the text (completions only).
        candidates: the others, and mostly the token itself once more.
        scores: log-probabilities, one a label.
        kept: which of them are let out.
    """

    token: str
    data: bytes | None
    offset: int
    candidates: list[Candidate]
    scores: Sequence[float]
    kept: Sequence[bool]

    def chosen(self) -> float | None:
        """Return the number of the token itself."""
        return _shown(self.scores[0]) if self.kept[0] else DROPPED

    def ranked(self) -> list[tuple[Candidate, float]]:
        """Return the candidates that are let out, the likeliest first: upstream's own order would tell its ranks."""
        left = [(one, self.scores[one.label]) for one in self.candidates if self.kept[one.label]]
        return sorted([pair for pair in left if pair[1] == pair[1]], key=_likeliest)

    def of_chat(self) -> Json:
        """Return it in the shape of chat completions."""
        candidates = [
            {"token": one.token, "logprob": score, "bytes": None if one.data is None else [*one.data]}
            for one, score in self.ranked()
        ]
        data = None if self.data is None else [*self.data]
        return {"token": self.token, "logprob": self.chosen(), "bytes": data, "top_logprobs": candidates}


def _likeliest(pair: tuple[Candidate, float]) -> tuple[float, str]:
    return -pair[1], pair[0].token


def _shown(score: float) -> float | None:
    return score if score == score else None  # noqa: PLR0124  # NaN alone is not itself


def read_chat(entries: object, top: int) -> list[Token]:
    """Read a list of the first shape.

    Args:
        entries: upstream's; None for nothing.
        top: how many candidates were asked for.

    Raises:
        UpstreamError: they are no log-probabilities.
    """
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise unreadable("log-probabilities are not a list")
    return [_chat_token(entry, top) for entry in cast("list[object]", entries)]


def _chat_token(entry: object, top: int) -> Token:
    if not isinstance(entry, dict):
        raise unreadable("a log-probability is not an object")
    said = cast("Json", entry)
    others = said.get("top_logprobs") or ()
    if not isinstance(others, list | tuple) or not all(isinstance(one, dict) for one in cast("list[object]", others)):
        raise unreadable("candidates are not a list of objects")
    pairs = [(*_named(one), _score(one.get("logprob"))) for one in cast("list[Json]", others)]
    token, data = _named(said)
    return made_token(token, data, _score(said.get("logprob")), pairs, top, -1, listed=top)


def _named(entry: Json) -> tuple[str, bytes | None]:
    """Return a token's text and its bytes."""
    token, data = entry.get("token"), entry.get("bytes")
    if not isinstance(token, str):
        raise unreadable("a token is not a text")
    if data is None:
        return token, None
    try:
        return token, bytes(cast("list[int]", data)) if isinstance(data, list) else b""
    except (TypeError, ValueError):
        raise unreadable("a token's bytes are none") from None


def _score(value: object) -> float:
    """Read a log-probability; NaN for none."""
    if value is None:
        return nan
    if type(value) not in (float, int):
        raise unreadable("a log-probability is not a number")
    score = float(cast("float", value))
    if not isfinite(score) or score < _LEAST:
        return nan if score != score else DROPPED  # noqa: PLR0124  # as above
    if score > 1e-6:
        raise unreadable("a log-probability is above 0")
    return min(score, 0.0)


def made_token(
    token: str,
    data: bytes | None,
    score: float,
    others: Sequence[tuple[str, bytes | None, float]],
    top: int,
    offset: int,
    *,
    listed: int,
) -> Token:
    """Return a token with at most `top` other candidates, `listed` with itself.

    A candidate that says the same as the token, or as another candidate, is that one.
    """
    labels, scores, candidates = [_label(token, data)], [score], list[Candidate]()
    known = {labels[0]: 0}
    for name, its, value in sorted(others, key=_greatest):
        if len(candidates) == listed:
            break
        label = _label(name, its)
        place = known.get(label)
        if place is None:
            if len(labels) > top:
                continue
            place = known[label] = len(labels)
            labels.append(label)
            scores.append(value)
        elif any(one.label == place for one in candidates):
            continue
        candidates.append(Candidate(name, its, place))
    entry = Entry(token, data, offset, candidates, scores, [True] * len(labels))
    return Token(_bytes_of(token) if data is None else data, labels, scores, partial(_write, entry), entry)


def _greatest(other: tuple[str, bytes | None, float]) -> tuple[float, str]:
    score = other[2]
    return (-score if score == score else 1e300), other[0]  # noqa: PLR0124  # as above


def _write(entry: Entry, scores: Sequence[float], kept: Sequence[bool]) -> None:
    entry.scores, entry.kept = scores, kept


def _label(token: str, data: bytes | None) -> str:
    """Return what names a candidate: its text; tokens that hold part of a character differ in their bytes only."""
    return token if data is None else data.decode("utf-8", "backslashreplace")


def _bytes_of(token: str) -> bytes:
    r"""Return a token's bytes; completions write those that hold part of a character as `bytes:\xe2\x80`."""
    data = token.encode("utf-8", "replace")
    if token.startswith("bytes:") and (found := _ESCAPED.sub(_unescaped, data[6:])) != data[6:]:
        return found
    return data


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 16)])


def read_lists(said: Json, top: int) -> list[Token]:
    """Read lists of the second shape.

    Args:
        said: upstream's.
        top: how many candidates were asked for.

    Raises:
        UpstreamError: they are no log-probabilities, or not of one length.
    """
    tokens = said.get("tokens")
    if not isinstance(tokens, list):
        raise unreadable("log-probabilities name no tokens")
    n = len(cast("list[object]", tokens))
    numbers, offsets = _list(said, "token_logprobs", n), _list(said, "text_offset", n)
    maps = _list(said, "top_logprobs", n)
    found: list[Token] = []
    for token, number, ranks, offset in zip(cast("list[object]", tokens), numbers, maps, offsets, strict=True):
        if not isinstance(token, str) or not isinstance(ranks, dict | None):
            raise unreadable("a log-probability is not named")
        pairs = [(name, None, _score(score)) for name, score in cast("Json", ranks or {}).items()]
        place = offset if type(offset) is int else -1
        # These maps hold the token itself beside as many others as were asked for.
        found.append(made_token(token, None, _score(number), pairs, top, place, listed=top + 1))
    return found


def _list(said: Json, member: str, length: int) -> list[object]:
    value = said.get(member)
    if value is None:
        return [None] * length
    if not isinstance(value, list) or len(cast("list[object]", value)) != length:
        raise unreadable(f"{member} are not as many as the tokens")
    return cast("list[object]", value)


def write_chat(tokens: Sequence[Token]) -> list[Json]:
    """Return tokens in the first shape."""
    return [cast("Entry", token.raw).of_chat() for token in tokens]


def write_lists(tokens: Sequence[Token], *, candidates: bool) -> Json:
    """Return tokens in the second shape; without candidates where none were asked for."""
    entries = [cast("Entry", token.raw) for token in tokens]
    ranked = [{one.token: score for one, score in entry.ranked()} or None for entry in entries] if candidates else None
    return {
        "tokens": [entry.token for entry in entries],
        "token_logprobs": [entry.chosen() for entry in entries],
        "top_logprobs": ranked,
        "text_offset": [max(entry.offset, 0) for entry in entries],
    }
