"""Generated text in the events of text-generation-inference: one token each, and in the last one the whole text again.

Every event has a token with its log-probability, asked for or not. Text that had to wait leaves with the events that
follow: as many as tokens leave, with whatever no token covers in one of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from guard.model.prediction import Answer
from guard.model.text import Piece, Token
from guard.wire.body import encode, unreadable
from guard.wire.openai_logprobs import DROPPED
from guard.wire.openai_parts import object_of, objects_of
from guard.wire.parameters import Json
from guard.wire.tgi_texts import ENDED, KNOWN, Marked, Talk, details_of, read_token, text_of, without_prompt


@dataclass(slots=True)
class Happening:
    """One event in the making: several go out in its place where text had waited.

    Args:
        talk: the request's.
        special: a special token that no log-probability was asked of.
    """

    talk: Talk
    special: str | None = None
    parts: list[tuple[str, Token | None]] = field(default_factory=list[tuple[str, Token | None]])
    whole: str | None = None
    details: Json | None = None
    ended: bool = False

    def put(self, text: str, tokens: list[Token]) -> None:
        """Take what leaves: the text of each token in turn, and what none covers."""
        at = 0
        for token in tokens:
            own = cast("Marked", token.raw).entry.token if token.data else ""
            begin = text.find(own, at) if own else at
            if begin > at:
                self.parts.append((text[at:begin], None))
            if begin >= at:
                self.parts.append((own, token))
                at = begin + len(own)
        if at < len(text):
            self.parts.append((text[at:], None))

    def put_whole(self, text: str, tokens: list[Token]) -> None:
        """Take what was let out of the whole text."""
        del tokens
        self.whole = f"{self.talk.prompt}{text}" if self.talk.echo else text

    def filtered(self) -> None:
        """Say that the text was ended."""
        self.ended = True
        if self.talk.details:
            unsaid: Json = {"generated_tokens": self.talk.index, "input_length": 0, "seed": None}
            self.details = {**(self.details or unsaid), "finish_reason": ENDED}

    def encode(self) -> bytes:
        """Return the events."""
        tokens: list[tuple[Json, list[Json] | None]] = []
        for text, token in self.parts:
            if token is None:
                tokens.append((_plain(text), None))
                continue
            marked = cast("Marked", token.raw)
            shown = None if not token.data else text
            tokens.append((marked.chosen(shown), marked.others() if self.talk.top > 0 else None))
        last = self.whole is not None or self.ended
        if self.special is not None:
            tokens.append((_plain(self.special, special=True), None))
        elif last and not tokens:
            tokens.append((_plain("", special=True), None))
        written: list[bytes] = []
        for i, (token, others) in enumerate(tokens):
            self.talk.index += 1
            closing = i == len(tokens) - 1
            event: Json = {"index": self.talk.index, "token": token}
            if others is not None:
                event["top_tokens"] = others
            event["generated_text"] = self.whole if closing else None
            event["details"] = self.details if closing else None
            written.append(b"data:" + encode(event) + b"\n\n")
        return b"".join(written)


def _plain(text: str, *, special: bool = False) -> Json:
    return {"id": 0, "text": text, "logprob": DROPPED, "special": special}


def read_event(value: object, talk: Talk) -> Answer:
    """Read one event.

    Raises:
        UpstreamError: it is something else, or an error.
    """
    said = object_of(value, "it")
    if said.get("error") is not None:
        raise unreadable("the model failed")
    token = object_of(said.get("token"), "its token")
    special = token.get("special") is True
    text, whole = "" if special else text_of(token), said.get("generated_text")
    happening = Happening(talk)
    talk.tokens += 1
    answer = Answer(1, happening, choices=1, usage=talk.tokens, dropped=[name for name in said if name not in KNOWN])
    tokens: list[Token] = []
    if talk.top >= 0:
        others = objects_of(said.get("top_tokens"), "candidates") if talk.top > 0 else []
        tokens = [read_token(token, others, talk)]
    elif special:
        happening.special = text_of(token)
    last = whole is not None
    answer.pieces.append(Piece("0/content", text, happening.put, tokens, last, False, talk.prompt, happening.filtered))
    if last:
        if not isinstance(whole, str):
            raise unreadable("its text is none")
        talk.done = True
        put = happening.put_whole
        answer.pieces.append(Piece("0/content", without_prompt(whole, talk), put, whole=True, before=talk.prompt))
        details = said.get("details")
        if talk.details and isinstance(details, dict):
            detailed = cast("Json", details)
            length = detailed.get("input_length")
            happening.details = {**details_of(detailed, talk), "input_length": length if type(length) is int else 0}
    return answer
