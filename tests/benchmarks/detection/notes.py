"""Messages as texts: honest clients and attacks on a spam filter that is asked with the words themselves."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from numpy import typing as npt

from guard.model.arrays import Floats
from tests.benchmarks.detection.clients import KINDS, LONGEST, SHARES, SHORTEST, Stream, chosen_rows, in_batches, repeat
from tests.benchmarks.detection.domains import Domain, documentation, embed

Texts = npt.NDArray[Any]  # Any: strings, shape (n,)
Asking = Generator[list[str], Floats, None]


class TextDomain:
    """The messages of `base`, asked as texts.

    Args:
        base: the domain of their embeddings.
    """

    def __init__(self, base: Domain) -> None:
        self.base = base
        counts = Counter(word for text in base.source.texts for word in text.split())
        self.words = sorted(counts)
        frequency = np.array([counts[word] for word in self.words], dtype=np.float64)
        self.frequency: Floats = np.cumsum(frequency / frequency.sum())
        self.common = [word for word, _ in counts.most_common(400)]
        self.documentation = documentation()

    def embed(self, texts: Texts) -> Floats:
        """Return standardised embeddings, shape (n, 256)."""
        return (embed(texts.tolist()) - self.base.mean) / self.base.scale

    def predict(self, texts: list[str]) -> Floats:
        """Return the model's probabilities, shape (n, 2)."""
        return self.base.predict(self.embed(np.array(texts, dtype=object)))

    def spliced(self, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> Texts:
        """Return new texts, each like the given one."""
        return np.array(self.base.spliced(rows, rng), dtype=object)

    def records(self, n: int, rng: np.random.Generator) -> list[str]:
        """Return fresh texts like any of the data."""
        return self.base.spliced(rng.integers(len(self.base.z), size=n), rng)

    def client(self, rng: np.random.Generator, queries: int | None = None, *, shifted: bool = False) -> Stream:
        """Draw an honest client of the kinds of `clients`.

        `whatif` puts other words in one place; `sloppy` drops case and punctuation of some; shifted ones write small
        and sign each message.
        """
        n = queries or int(SHORTEST * (LONGEST / SHORTEST) ** rng.random())
        kind = KINDS[int(rng.choice(len(KINDS), p=SHARES))]
        rows = chosen_rows(self.base, rng, n, kind, shifted=shifted)
        texts = self.spliced(rows, rng)
        if kind == "batch":
            texts = texts[in_batches(self.base, rng, rows)]
        if shifted:
            signature = " ".join(self.common[int(i)] for i in rng.integers(len(self.common), size=3))
            texts = np.array([f"{text.lower()} {signature}" for text in texts.tolist()], dtype=object)
        repeat(texts, rng, rng.beta(2, 8) if kind == "retry" else rng.beta(0.5, 60))
        self._what_if(texts, rng, rng.beta(2, 6) if kind == "whatif" else rng.beta(0.3, 80))
        if kind == "sloppy":
            dropped = str.maketrans("", "", string.punctuation)
            for i in np.flatnonzero(rng.random(n) < rng.uniform(0.05, 0.9)).tolist():
                texts[i] = str(texts[i]).lower().translate(dropped) or "ok"
        if kind == "health":
            texts[:: int(rng.integers(5, 50))] = texts[0]
        return Stream(kind, texts)

    def _what_if(self, texts: Texts, rng: np.random.Generator, rate: float) -> None:
        if rate < 0.002:
            return
        i = 0
        while i < len(texts) - 1:
            if rng.random() < rate:
                more = min(len(texts) - 1 - i, int(rng.integers(1, 8)))
                words = str(texts[i]).split() or ["ok"]
                place = int(rng.integers(len(words)))
                for j in range(more):
                    words[place] = self.common[int(rng.integers(len(self.common)))]
                    texts[i + 1 + j] = " ".join(words)
                i += more
            i += 1

    def trace(self, name: str, rng: np.random.Generator, queries: int) -> Texts:
        """Run an attack; return the texts that it asked, in order."""
        run = NOTES[name](self, rng)
        asked = next(run)
        texts = list(asked)
        while len(texts) < queries:
            asked = run.send(self.predict(asked))
            texts += asked
        return np.array(texts[:queries], dtype=object)


def gibberish(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """Random characters: the uniform queries of equation solving."""
    characters = list(string.ascii_letters + string.digits + string.punctuation + " " * 16)
    while True:
        yield ["".join(rng.choice(characters, int(rng.integers(20, 120)))) for _ in range(64)]


def random_words(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """Words of the data, all alike (Krishna et al., ICLR 2020, "RANDOM")."""
    while True:
        yield [" ".join(domain.words[int(i)] for i in rng.integers(len(domain.words), size=12)) for _ in range(64)]


def shuffled(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """Words as frequent as in the data, in no order: the mimic of marginals."""
    while True:
        places = np.searchsorted(domain.frequency, rng.random((64, 14))).clip(max=len(domain.words) - 1)
        yield [" ".join(domain.words[int(i)] for i in row) for row in places]


def knockoff(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """Texts of another kind, numpy's documentation (Orekondy et al., CVPR 2019)."""
    while True:
        yield [domain.documentation[int(i)] for i in rng.integers(len(domain.documentation), size=64)]


def leave_one_out(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """Which words matter, then others in their place (TextFooler: Jin et al., AAAI 2020)."""
    while True:
        words = domain.records(1, rng)[0].split()[:40] or ["ok"]
        label = int((yield [" ".join(words)])[0].argmax())
        without = [" ".join(words[:i] + words[i + 1 :]) or "ok" for i in range(len(words))]
        order = np.argsort((yield without)[:, label])
        for i in order[:10].tolist():
            tries = [[*words[:i], domain.common[int(j)], *words[i + 1 :]] for j in rng.integers(400, size=8)]
            scores = (yield [" ".join(t) for t in tries])[:, label]
            words = tries[int(scores.argmin())]
            if scores.min() < 0.5:
                break


def good_words(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """One message with one word more, for word after word (Lowd and Meek, CEAS 2005)."""
    while True:
        message = domain.records(1, rng)[0]
        yield [message]
        for i in rng.permutation(len(domain.words))[:200].tolist():
            yield [f"{message} {domain.words[i]}"]


def jittered_members(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """A member and seven copies with a letter changed: label-only membership inference."""
    while True:
        text = domain.base.source.texts[int(rng.integers(domain.base.members))] or "ok"
        copies = [text]
        for _ in range(7):
            i = int(rng.integers(len(text)))
            copies.append(text[:i] + string.ascii_lowercase[int(rng.integers(26))] + text[i + 1 :])
        yield copies


def averaging(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """The same message 50 times."""
    while True:
        yield domain.records(1, rng) * 50


def members_once(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """Membership inference by one query a record."""
    while True:
        yield [domain.base.source.texts[int(i)] for i in rng.permutation(domain.base.members)]


def in_distribution(domain: TextDomain, rng: np.random.Generator) -> Asking:
    """Extraction with messages like any customer's."""
    while True:
        yield domain.records(64, rng)


NOTES: dict[str, Callable[[TextDomain, np.random.Generator], Asking]] = {
    "gibberish": gibberish,
    "random_words": random_words,
    "shuffled": shuffled,
    "knockoff": knockoff,
    "leave_one_out": leave_one_out,
    "good_words": good_words,
    "jittered_members": jittered_members,
    "averaging": averaging,
    "members_once": members_once,
    "in_distribution": in_distribution,
}
