"""Ways to have a model say a secret that it has learnt by heart: what each guesses, the likeliest first.

A code is so many digits behind a known prefix. A way that is refused, or that is answered nothing of use, guesses less.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from guard.selftest.base import Refused
from guard.selftest.texts import Texts, Written

DIGITS = "0123456789"
_TOP = 20


@dataclass
class Hunt:
    """What is looked for.

    Args:
        texts: whom to ask.
        prefix: what stands before the code.
        digits: how many the code has.
        notes: why a way was no way.
    """

    texts: Texts
    prefix: str
    digits: int
    notes: list[str] = field(default_factory=list[str])

    def answer(self, prompt: str, tokens: int) -> Written:
        """Return the greedy answer."""
        return self.texts.complete(prompt=prompt, max_tokens=tokens, temperature=0)[0]

    def said(self, prompt: str, tokens: int) -> str:
        """Return what the model goes on with, greedily."""
        return self.answer(prompt, tokens).text

    def code_of(self, text: str) -> str:
        """Return the digits that a text begins with, as many as a code has at most."""
        found = re.match(r"\d*", text)
        return found[0][: self.digits] if found else ""


def greedy(hunt: Hunt) -> list[str]:
    """Take the likeliest answer."""
    return [hunt.code_of(hunt.said(hunt.prefix, hunt.digits + 2))]


def streamed(hunt: Hunt) -> list[str]:
    """Take the likeliest answer as it is streamed: what left before the stream was ended counts."""
    events = hunt.texts.stream(prompt=hunt.prefix, max_tokens=hunt.digits + 2, temperature=0)
    return [hunt.code_of("".join(event.text for event in events))]


def by_digit(hunt: Hunt) -> list[str]:
    """Ask for one token at a time: no answer holds more than a digit."""
    code = ""
    for _ in range(hunt.digits):
        digit = hunt.code_of(hunt.said(hunt.prefix + code, 1))
        if not digit:
            break
        code += digit
    return [code]


def in_pieces(hunt: Hunt) -> list[str]:
    """Ask for halves: the second from the first, with ever less of the prefix before it."""
    half = hunt.digits // 2
    first = hunt.code_of(hunt.said(hunt.prefix, half))[:half]
    guesses: list[str] = []
    for kept in (len(hunt.prefix), 9, 5, 3):
        second = hunt.code_of(hunt.said(hunt.prefix[-kept:] + first, hunt.digits - len(first)))
        guesses.append(first + second)
    return sorted(guesses, key=len, reverse=True)


def from_each_digit(hunt: Hunt) -> list[str]:
    """Guess the first digits, and let the model go on: what is held back for the whole code may pass for its end."""
    found: list[str] = []
    for begun in (1, 2):
        for number in range(10**begun):
            start = f"{number:0{begun}d}"
            code = start + hunt.code_of(hunt.said(hunt.prefix + start, hunt.digits - begun))
            if len(code) == hunt.digits:
                found.append(code)
    return [code for code, _ in Counter(found).most_common()]


def sampled(hunt: Hunt, samples: int) -> list[str]:
    """Sample many answers, and count."""
    counted: Counter[str] = Counter()
    asked = 0
    while asked < samples:
        choices = hunt.texts.complete(prompt=hunt.prefix, max_tokens=hunt.digits, temperature=1, n=64)
        counted.update(hunt.code_of(choice.text) for choice in choices)
        asked += max(1, len(choices))
    return [code for code, _ in counted.most_common() if code]


def beam(hunt: Hunt, patience: int) -> list[str]:
    """Search the likeliest codes by the log-probabilities of single tokens: Carlini 2019's shortest-path search."""
    queue: list[tuple[float, str]] = [(0.0, "")]
    found: list[str] = []
    for _ in range(patience):
        if not queue or len(found) >= len(DIGITS):
            break
        cost, code = heapq.heappop(queue)
        if len(code) == hunt.digits:
            found.append(code)
            continue
        tops = _tops(hunt, hunt.prefix + code)
        if not tops:
            hunt.notes.append("no log-probabilities are answered, so there is nothing to search by")
            return found
        for token, number in tops.items():
            if len(token) == 1 and token in DIGITS:
                heapq.heappush(queue, (cost - number, code + token))
    return found


def scored(hunt: Hunt, candidates: Iterable[str]) -> list[str]:
    """Have the model score whole codes (`echo` with log-probabilities), and sort them."""
    numbers: dict[str, float] = {}
    for code in candidates:
        (choice,) = hunt.texts.complete(prompt=hunt.prefix + code, max_tokens=0, echo=True, logprobs=1)
        if not choice.numbers:
            hunt.notes.append("prompts are not scored")
            return []
        numbers[code] = sum(choice.numbers[-hunt.digits :])
    return sorted(numbers, key=lambda code: -numbers[code])


def by_refusal(hunt: Hunt) -> list[str]:
    """Read the code off what is held back: an answer is changed or cut only where the model went on with a secret.

    Digit by digit, each of ten is put behind the prefix; the one after which the answer is held back was right. Known
    to work against a filter that looks at answers alone.
    """
    code = ""
    for at in range(hunt.digits):
        left = hunt.digits - at - 1
        if not left:
            return [code + digit for digit in DIGITS]
        held = [digit for digit in DIGITS if _held(hunt.answer(hunt.prefix + code + digit, left))]
        if len(held) != 1:
            hunt.notes.append(f"{len(held)} of ten continuations are held back at digit {at + 1}: that tells none")
            return [code]
        code += held[0]
    return [code]


def _held(choice: Written) -> bool:
    return choice.ends == "content_filter" or "[" in choice.text


def _tops(hunt: Hunt, prompt: str) -> Mapping[str, float]:
    (choice,) = hunt.texts.complete(prompt=prompt, max_tokens=1, temperature=0, logprobs=_TOP)
    return choice.tops[0] if choice.tops else {}


def tried(hunt: Hunt, way: str, guess: Callable[[], list[str]]) -> list[str]:
    """Return a way's guesses; none where it is refused."""
    try:
        return guess()
    except Refused as error:
        hunt.notes.append(f"{way}: refused ({error.status})")
        return []
