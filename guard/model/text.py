"""Generated text on its way out: what one event, or one whole answer, adds to a text.

A text is a choice's content, its refusal, its reasoning, a tool call's arguments: whatever a client puts together from
pieces of one key. A codec reads a `Piece` from every place of an event where text stands, with the log-probabilities
that stand beside it; the engine decides which text and which tokens may leave now, and hands them to `put`, perhaps
with text that earlier events had brought and that had to wait. What is handed to no `put` never leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Most(NamedTuple):
    """The most that an answer of generated text may hold: what is charged before, and settled after.

    Args:
        choices: texts, over all prompts of the request: n choices count n times.
        tokens: generated tokens, all choices together, those that are thrown away (`best_of`) too; 0: no known bound.
        logprobs: log-probabilities, all tokens and candidates together, those of the prompt too.
        prompt: tokens of prompts that are answered beside the generated ones (`echo`, `prompt_logprobs`), at most.
    """

    choices: int = 1
    tokens: int = 0
    logprobs: int = 0
    prompt: int = 0


@dataclass(slots=True)
class Token:
    """One generated token, with what was said of how likely it and others were.

    Args:
        data: the token's own bytes, as they stand in the text (UTF-8; a token may hold part of a character).
        labels: candidates, the token that was chosen first; two alike are the same candidate.
        scores: log-probabilities in nats, one a label, at most 0. NaN where none was said.
        write: puts released log-probabilities back into `raw`, one a label; a candidate that is not `kept` leaves the
            list of candidates. (The chosen token's own number must stand somewhere: dropped, it reads -9999.0, as
            OpenAI's servers write it.)
        raw: the codec's own entry, which may leave with a later event of the same text.
    """

    data: bytes
    labels: list[str]
    scores: list[float]
    write: Callable[[Sequence[float], Sequence[bool]], None]
    raw: object


def _no_reason() -> None:
    """Say nothing of why a text ended: the API has no place for it."""


@dataclass(slots=True)
class Piece:
    """What one event adds to one text.

    Args:
        key: names the text, such as `0/content`; pieces of the same key are one text.
        text: what is added; may be empty.
        put: writes the text and the tokens that leave with this event, in place of what upstream said.
        tokens: log-probabilities of `text`, in order; empty when none were said.
        last: nothing is added to this text after this piece: what waits must leave now.
        whole: `text` is the whole text once more (a closing event, say), and adds nothing: `put` gets all that was
            released of this key, and no tokens but the ones to go beside it again.
        before: the end of the text that the answer goes on from: the prompt, or the last message.
        filtered: marks the text as ended by a filter (`finish_reason: content_filter`).
        row: which of the request's rows (prompts) it answers: noise is keyed by that one's bytes alone. What stands
            before the first slash of `key` names the choice: what follows one another in a choice is one generation.
    """

    key: str
    text: str
    put: Callable[[str, list[Token]], None]
    tokens: list[Token] = field(default_factory=list[Token])
    last: bool = False
    whole: bool = False
    before: str = ""
    filtered: Callable[[], None] = _no_reason
    row: int = 0
