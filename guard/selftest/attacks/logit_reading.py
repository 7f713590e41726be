"""Ways to read logits off an API that generates text: what each makes a matrix of, prompts by tokens.

A way returns None where there is no matrix to be had, and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from guard.selftest.base import Refused
from guard.selftest.measures import Floats, Ints
from guard.selftest.texts import Texts

FIRST = 2
"""The first token that is a word; it is the one of reference."""
RAISED = 100.0
"""The most that OpenAI's API lets be added to a logit."""
WIDEST = 32.0
"""How far below the top a logit is looked for."""
STEPS = 8
"""How often a growing matrix is looked at."""


class Matrix(NamedTuple):
    """Logits of some tokens.

    Args:
        values: shape (n, m), each row up to a constant.
        columns: which tokens, shape (m,).
    """

    values: Floats
    columns: Ints


@dataclass
class Source:
    """What is asked, and by whom.

    Args:
        account: gives the API as seen by an account.
        vocabulary: how tokens are spelt, by number.
        prompts: the rows.
        tokens: how many columns, where not all tokens are asked for.
        top: candidates to ask for.
        notes: why a way was no way.
    """

    account: Callable[[int], Texts]
    vocabulary: Sequence[str]
    prompts: list[str]
    tokens: int
    top: int
    notes: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.accounts: dict[int, Texts] = {}

    def texts(self, number: int = 0) -> Texts:
        """Return an account's connection."""
        if number not in self.accounts:
            self.accounts[number] = self.account(number)
        return self.accounts[number]

    @property
    def asked(self) -> int:
        """Answers asked for, by all accounts."""
        return sum(texts.asked for texts in self.accounts.values())

    def tops(self, prompts: Sequence[str], **more: object) -> list[Mapping[str, float]]:
        """Return the candidates of each prompt's next token; empty ones where none are answered."""
        choices = self.texts().complete(prompt=list(prompts), max_tokens=1, temperature=0, logprobs=self.top, **more)
        return [choice.tops[0] if choice.tops else {} for choice in choices]

    def width(self) -> int:
        """Return how many candidates are answered; the most that is not refused is asked for from then on."""
        for top in (self.top, 5, 1):
            self.top = top
            try:
                return min(map(len, self.tops(self.prompts[:1])), default=0)
            except Refused as error:
                refused = error
        self.notes.append(f"log-probabilities are refused ({refused.status})")
        return 0


def biased(source: Source, grown: Callable[[Matrix], None]) -> Matrix | None:
    """Raise tokens into the top, some at a time beside the one of reference, and subtract.

    Args:
        source: whom to ask.
        grown: told the matrix so far, now and then.
    """
    width = source.width()
    if width < 2:
        source.notes.append("no two log-probabilities are answered together")
        return None
    wanted = np.arange(FIRST + 1, len(source.vocabulary))
    parts: list[Floats] = [np.zeros((len(source.prompts), 1))]
    groups = [wanted[at : at + width - 1] for at in range(0, len(wanted), width - 1)]
    for number, group in enumerate(groups):
        bias = {str(token): RAISED for token in (FIRST, *group.tolist())}
        try:
            tops = source.tops(source.prompts, logit_bias=bias)
        except Refused as error:
            source.notes.append(f"logit_bias beside log-probabilities: refused ({error.status})")
            break
        part = np.array([_relative(source, top, group) for top in tops])
        if np.isnan(part).any():
            source.notes.append("logit_bias moves no token into the top")
            return None
        parts.append(part)
        if number % -(-len(groups) // STEPS) == 0 or number + 1 == len(groups):
            values = np.concatenate(parts, axis=1)
            grown(Matrix(values, np.arange(FIRST, FIRST + values.shape[1])))
    values = np.concatenate(parts, axis=1)
    return Matrix(values, np.arange(FIRST, FIRST + values.shape[1])) if len(parts) > 1 else None


def constrained(source: Source) -> Matrix | None:
    """List tokens as the only answers (`response_format`): a server that masks before it scores shows just those."""
    width = source.width()
    group = max(1, min(width, source.top) - 1)
    wanted = np.arange(FIRST + 1, FIRST + source.tokens)
    groups = [wanted[at : at + group] for at in range(0, len(wanted), group)]
    rows: list[list[float]] = []
    try:
        for prompt in source.prompts:
            tops = [_listed(source, prompt, [FIRST, *listed.tolist()]) for listed in groups]
            row = [
                number for top, listed in zip(tops, groups, strict=True) for number in _relative(source, top, listed)
            ]
            if np.isnan(row).any():
                source.notes.append("constrained answers show no log-probabilities of what was listed")
                return None
            rows.append([0.0, *row])
    except Refused as error:
        source.notes.append(f"constrained answers with log-probabilities: refused ({error.status})")
    return Matrix(np.array(rows), np.arange(FIRST, FIRST + len(wanted) + 1)) if len(rows) > 1 else None


def sampled(source: Source, accounts: int, rounds: int) -> Matrix | None:
    """Count what is sampled, over several accounts: frequencies are probabilities, roughly.

    Args:
        source: whom to ask.
        accounts: how many customers of the attacker's ask.
        rounds: requests an account.
    """
    counts = np.zeros((len(source.prompts), len(source.vocabulary)))
    numbers = {word: number for number, word in enumerate(source.vocabulary)}
    for account in range(accounts):
        for _ in range(rounds):
            try:
                choices = source.texts(account).complete(prompt=source.prompts, max_tokens=1, temperature=1, n=4)
            except Refused as error:
                source.notes.append(f"an account's samples were refused ({error.status})")
                break
            each = max(1, len(choices) // len(source.prompts))
            for choice in choices:
                number = numbers.get(choice.text)
                if number is not None:
                    counts[choice.index // each, number] += 1
    if not counts.any():
        source.notes.append("nothing was sampled")
        return None
    columns = np.argsort(-counts.sum(axis=0), kind="stable")[: source.tokens]
    return Matrix(np.log(counts[:, columns] + 0.5), columns)


def bisected(source: Source, size: int, fine: float, patience: int, progress: Callable[[float], None]) -> Matrix | None:
    """Find, by greedy answers alone, how much bias each token needs to become the answer.

    Args:
        source: whom to ask.
        size: rows and columns, at most as many as there are prompts.
        fine: how closely each is looked for.
        patience: most answers asked for.
        progress: told the share that is done.
    """
    texts = source.texts()
    probe = FIRST + 1
    rows: list[list[float]] = []
    try:
        if _answer(texts, source.prompts[0], {probe: RAISED}) != source.vocabulary[probe]:
            source.notes.append("logit_bias changes no answer, so there is nothing to bisect")
            return None
        begun = texts.asked
        for number, prompt in enumerate(source.prompts[:size]):
            progress(number / size)
            if texts.asked - begun > patience:
                source.notes.append(f"bisecting was given up after {patience:,} answers")
                break
            rows.append([-_needed(source, prompt, FIRST + column, fine) for column in range(size)])
    except Refused as error:
        source.notes.append(f"bisecting: refused ({error.status})")
    return Matrix(np.array(rows), np.arange(FIRST, FIRST + size)) if len(rows) > 1 else None


def _needed(source: Source, prompt: str, token: int, fine: float) -> float:
    low, high = 0.0, WIDEST
    while high - low > fine:
        middle = (low + high) / 2
        if _answer(source.texts(), prompt, {token: middle}) == source.vocabulary[token]:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _answer(texts: Texts, prompt: str, bias: dict[int, float]) -> str:
    named = {str(token): change for token, change in bias.items()}
    return texts.complete(prompt=prompt, max_tokens=1, temperature=0, logit_bias=named)[0].text


def _listed(source: Source, prompt: str, tokens: list[int]) -> Mapping[str, float]:
    words = [source.vocabulary[token] for token in tokens]
    schema = {"name": "one_of", "strict": True, "schema": {"type": "string", "enum": words}}
    (choice,) = source.texts().chat(
        messages=[{"role": "user", "content": prompt}],
        max_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=source.top,
        response_format={"type": "json_schema", "json_schema": schema},
    )
    none: Mapping[str, float] = {}
    return next((top for top in choice.tops if any(word in top for word in words)), none)


def _relative(source: Source, top: Mapping[str, float], tokens: Ints) -> list[float]:
    """Return tokens' logits relative to the one of reference, NaN for those that are not there."""
    reference = top.get(source.vocabulary[FIRST], np.nan)
    wanted: list[int] = tokens.tolist()
    return [top.get(source.vocabulary[token], np.nan) - reference for token in wanted]
