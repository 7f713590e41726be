"""Generated text in whole answers of text-generation-inference: `generated_text`, and `details` of every token.

A token has a `logprob` and an `id`, and clients will not do without either member: the first reads -9999.0 where it is
not let out, the second 0 unless the policy opens `token_ids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from guard.model.prediction import Answer
from guard.model.text import Piece, Token
from guard.wire.body import encode, unreadable
from guard.wire.openai_logprobs import DROPPED, Entry, made_token
from guard.wire.openai_parts import object_of, objects_of
from guard.wire.parameters import Json
from guard.wire.spans import spanning

_REASONS = frozenset({"length", "eos_token", "stop_sequence"})
ENDED = "stop_sequence"
"""Why a filter ended the text: clients know no other reason than the server's three, and this is the nearest."""
KNOWN = frozenset({"index", "token", "top_tokens", "generated_text", "details"})
_ABOVE = 1e-6


@dataclass(slots=True)
class Talk:
    """One request under way.

    Args:
        prompt: what is asked.
        echo: answers begin with the prompt.
        details: the client asked for them.
        top: candidates that were asked for beside each token; -1: no log-probabilities.
        ids: the policy opens token numbers.
        seed: the client has named one, so that it may be told.
        several: texts that `best_of` makes.
        listed: the answer stands in a list of one.
    """

    prompt: str
    echo: bool = False
    details: bool = False
    top: int = -1
    ids: bool = False
    seed: bool = False
    several: int = 1
    listed: bool = False
    done: bool = False
    tokens: int = 0
    """Events that have come."""
    index: int = 0
    """Events that have gone out."""


@dataclass(slots=True)
class Marked:
    """A token's entry, and what the server says of it beside.

    Args:
        token: the token, whose `raw` this is.
        entry: its log-probabilities.
        numbers: token number and whether it is special, by text.
    """

    entry: Entry
    numbers: dict[str, tuple[int, bool]]

    def chosen(self, text: str | None = None) -> Json:
        """Return the token's object."""
        number, special = self.numbers[self.entry.token]
        shown = self.entry.token if text is None else text
        return {"id": number, "text": shown, "logprob": self.entry.chosen(), "special": special}

    def others(self) -> list[Json]:
        """Return its candidates."""
        made: list[Json] = []
        for one, score in self.entry.ranked():
            number, special = self.numbers.get(one.token, (0, False))
            made.append({"id": number, "text": one.token, "logprob": score, "special": special})
        return made


def read_token(said: Json, others: Sequence[Json], talk: Talk) -> Token:
    """Read a token and its candidates.

    Raises:
        UpstreamError: they are something else.
    """
    numbers: dict[str, tuple[int, bool]] = {}
    for one in (said, *others):
        text, number = text_of(one), one.get("id")
        numbers.setdefault(text, (number if talk.ids and type(number) is int else 0, one.get("special") is True))
    pairs = [(text_of(one), None, _score(one)) for one in others]
    token = made_token(text_of(said), None, _score(said), pairs, max(talk.top, 0), -1, listed=max(talk.top, 0))
    if said.get("special") is True:
        token.data = b""  # it stands beside the text, not in it
    token.raw = Marked(cast("Entry", token.raw), numbers)
    return token


def text_of(said: Json) -> str:
    """Return a token's text.

    Raises:
        UpstreamError: it has none.
    """
    text = said.get("text")
    if not isinstance(text, str):
        raise unreadable("a token has no text")
    return text


def _score(said: Json) -> float:
    score = said.get("logprob")
    if score is None:
        return float("nan")
    if type(score) not in (float, int) or not cast("float", score) <= _ABOVE:
        raise unreadable("a token's score is no log-probability")
    return max(min(float(cast("float", score)), 0.0), DROPPED)


@dataclass(slots=True)
class Whole:
    """A whole answer in the making, or one more sequence of it.

    Args:
        talk: the request's.
        details: what is let out beside texts and tokens; None where nothing is.
    """

    talk: Talk
    details: Json | None
    text: str = ""
    tokens: list[Token] = field(default_factory=list[Token])
    others: list[Whole] = field(default_factory=list["Whole"])

    def put(self, text: str, tokens: list[Token]) -> None:
        """Take what leaves of the text."""
        self.text += text
        self.tokens += tokens

    def filtered(self) -> None:
        """Say that the text was ended."""
        if self.details is not None:
            self.details["finish_reason"] = ENDED

    def document(self) -> Json:
        """Return what is let out."""
        text = f"{self.talk.prompt}{self.text}" if self.talk.echo else self.text
        if self.details is None:
            return {"generated_text": text}
        details: Json = {
            **self.details,
            "prefill": [],
            "tokens": [cast("Marked", token.raw).chosen() for token in self.tokens],
        }
        if self.talk.top > 0:
            details["top_tokens"] = [cast("Marked", token.raw).others() for token in self.tokens]
        if self.others:
            sequences = [one.document() for one in self.others]
            details["best_of_sequences"] = [
                {"generated_text": one["generated_text"], **cast("Json", one["details"])} for one in sequences
            ]
        return {"generated_text": text, "details": details}

    def encode(self) -> bytes:
        """Return it as JSON."""
        return encode([self.document()] if self.talk.listed else self.document())


def read_whole(value: object, talk: Talk, generated: int | None) -> Answer:
    """Read a whole answer.

    Args:
        value: it.
        talk: the request's.
        generated: how many tokens its header counts.

    Raises:
        UpstreamError: it is something else.
    """
    if talk.listed:
        if not isinstance(value, list) or len(cast("list[object]", value)) != 1:
            raise unreadable("it is no list of one")
        value = cast("list[object]", value)[0]
    said = object_of(value, "it")
    answer = Answer(1, None, dropped=[name for name in said if name not in KNOWN])
    details = said.get("details")
    detailed = object_of(details, "details") if talk.details else {}
    answer.document = whole = _read_sequence(said, detailed, talk, answer)
    counts = [count(detailed)]
    if talk.details and talk.several > 1:
        for one in objects_of(detailed.get("best_of_sequences"), "sequences"):
            whole.others.append(_read_sequence(one, one, talk, answer))
            counts.append(count(one))
    known = [count for count in counts if count is not None]
    answer.usage = sum(known) if talk.details and len(known) == len(counts) >= talk.several else generated
    return answer


def count(details: Json) -> int | None:
    """Return how many tokens were generated."""
    count = details.get("generated_tokens")
    return count if type(count) is int and count >= 0 else None


def _read_sequence(said: Json, details: Json, talk: Talk, answer: Answer) -> Whole:
    text = said.get("generated_text")
    if not isinstance(text, str):
        raise unreadable("it has no text")
    text = without_prompt(text, talk)
    whole = Whole(talk, details_of(details, talk) if talk.details else None)
    number, answer.choices = answer.choices, answer.choices + 1
    tokens = spanning(text, _tokens(details, talk)) if talk.top >= 0 else []
    answer.pieces.append(Piece(f"{number}/content", text, whole.put, tokens, True, False, talk.prompt, whole.filtered))
    return whole


def without_prompt(text: str, talk: Talk) -> str:
    """Return what was generated of a text that may begin with the prompt.

    Raises:
        UpstreamError: it was to begin with it, and does not.
    """
    if not talk.echo:
        return text
    if not text.startswith(talk.prompt):
        raise unreadable("it does not begin with the prompt")
    return text[len(talk.prompt) :]


def _tokens(details: Json, talk: Talk) -> list[Token]:
    entries = objects_of(details.get("tokens"), "tokens")
    rows = details.get("top_tokens") if talk.top > 0 else None
    ranks = cast("list[object]", rows) if isinstance(rows, list) else []
    if ranks and len(ranks) != len(entries):
        raise unreadable("its candidates are not as many as its tokens")
    others = [objects_of(row, "candidates") for row in ranks] or [[]] * len(entries)
    return [read_token(entry, row, talk) for entry, row in zip(entries, others, strict=True)]


def details_of(details: Json, talk: Talk) -> Json:
    """Return what details say beside tokens; the seed only to who has named it."""
    reason, seed = details.get("finish_reason"), details.get("seed")
    return {
        "finish_reason": reason if isinstance(reason, str) and reason in _REASONS else "length",
        "generated_tokens": count(details) or 0,
        "seed": seed if talk.seed and type(seed) is int else None,
    }
