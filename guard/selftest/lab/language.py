"""Generating text with a language model of the lab: what servers of language models do between a prompt and an answer.

Parameters mean what they mean to OpenAI's API and to vLLM: log-probabilities are of the logits after `logit_bias` and
after the mask of a constrained answer, at temperature 1; of a temperature of 0, the likeliest token is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np

from guard.selftest.measures import Floats

END = 0
"""Token that ends a text; it is spelt by nothing."""
_NEVER = -1e30


class Language(Protocol):
    """A language model: a vocabulary, and what may come next."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """How each token is spelt; all are different."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return a text as tokens."""
        ...

    def logits(self, texts: Sequence[str]) -> Floats:
        """Return one logit a token of what may follow each text, shape (n, V)."""
        ...


@dataclass(frozen=True)
class Ask:
    """What is asked of a model, beside the prompts.

    Args:
        most: tokens an answer.
        temperature: 0 takes the likeliest token.
        n: answers a prompt.
        top: candidates to name at every token; 0 for none, though the token's own number is known.
        bias: added to logits, by token.
        seed: of sampling; None draws one.
        allowed: the answer is one of these texts; None for any.
        stop: the answer ends before a token that holds one of these.
    """

    most: int = 16
    temperature: float = 1.0
    n: int = 1
    top: int = 0
    bias: Mapping[int, float] = field(default_factory=dict[int, float])
    seed: int | None = None
    allowed: tuple[str, ...] | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """One token of an answer.

    Args:
        choice: which answer, prompts in order, each with its `n`.
        text: how it is spelt.
        logprob: its own.
        top: the likeliest tokens and their log-probabilities, greatest first.
        ends: why the answer ends behind it: `stop`, `length` or, when it goes on, nothing.
    """

    choice: int
    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]
    ends: str = ""


def generate(model: Language, prompts: Sequence[str], ask: Ask) -> Iterator[Said]:
    """Yield tokens as they come: all answers grow together, one token at a time.

    An answer that ends of itself yields a last one that is spelt by nothing.
    """
    rng = np.random.default_rng(ask.seed)
    texts = [prompt for prompt in prompts for _ in range(ask.n)]
    begun = [len(text) for text in texts]
    open_ = list(range(len(texts))) if ask.most > 0 else []
    for step in range(ask.most):
        if not open_:
            return
        logits = model.logits([texts[i] for i in open_])
        for token, change in ask.bias.items():
            logits[:, token] += change
        if ask.allowed is not None:
            for row, i in enumerate(open_):
                logits[row, ~_fits(model, texts[i][begun[i] :], ask.allowed)] = _NEVER
        logprobs = log_softmax(logits)
        chosen = _choose(logprobs, ask.temperature, rng)
        going: list[int] = []
        for row, i in enumerate(open_):
            token = int(chosen[row])
            stopped = any(word in model.vocabulary[token] for word in ask.stop)
            said = "" if stopped else model.vocabulary[token]
            texts[i] += said
            whole = ask.allowed is not None and texts[i][begun[i] :] in ask.allowed
            ends = "stop" if token == END or whole or stopped else "length" if step + 1 == ask.most else ""
            if not ends:
                going.append(i)
            best = likeliest(model, logprobs[row], ask.top)
            yield Said(i, said, float(logprobs[row, token]), best, ends)
        open_ = going


def scored(model: Language, prompt: str, top: int) -> list[Said]:
    """Return a prompt's own tokens with their log-probabilities, as `echo` answers them; the first one has none."""
    said: list[Said] = []
    before = ""
    for token in model.encode(prompt):
        row = log_softmax(model.logits([before]))[0]
        number = float(row[token]) if before else float("nan")
        said.append(Said(0, model.vocabulary[token], number, likeliest(model, row, top) if before else ()))
        before += model.vocabulary[token]
    return said


def likeliest(model: Language, logprobs: Floats, top: int) -> tuple[tuple[str, float], ...]:
    """Return the `top` likeliest tokens of one row, shape (V,), with their log-probabilities."""
    if not top:
        return ()
    found = np.argpartition(-logprobs, top)[:top] if top < len(logprobs) else np.arange(len(logprobs))
    best: list[int] = found[np.argsort(-logprobs[found], kind="stable")].tolist()
    return tuple((model.vocabulary[token], float(logprobs[token])) for token in best if logprobs[token] > _NEVER / 2)


def log_softmax(logits: Floats) -> Floats:
    """Return log-probabilities, shape (n, V)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def choices_of(schema: object) -> tuple[str, ...] | None:
    """Return what an answer of a JSON schema that lists its values (`enum`) may be; None for another schema."""
    values = cast("dict[str, object]", schema).get("enum") if isinstance(schema, dict) else None
    listed = cast("list[object]", values) if isinstance(values, list) else []
    return tuple(json.dumps(value) for value in listed) or None


def _choose(logprobs: Floats, temperature: float, rng: np.random.Generator) -> np.ndarray:
    if temperature <= 0:
        return logprobs.argmax(axis=1)
    return (logprobs / temperature + rng.gumbel(size=logprobs.shape)).argmax(axis=1)


def _fits(model: Language, said: str, allowed: tuple[str, ...]) -> np.ndarray:
    """Mark the tokens behind which one of the allowed texts can still be said."""
    rest = [text[len(said) :] for text in allowed if text.startswith(said)]
    begins = {text[:size] for text in rest for size in range(1, len(text) + 1)}
    return np.array([word in begins for word in model.vocabulary])
