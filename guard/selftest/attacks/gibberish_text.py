"""Gibberish: copy a text classifier from its answers to random words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.api import one_hot
from guard.selftest.attacks.fit import completed
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.network_copies import ANSWERS, GRADED, LABELS, OWN, POINTS
from guard.selftest.attacks.quantisers import bare_labels
from guard.selftest.attacks.text_copy import fit_text, words_of
from guard.selftest.base import Attack, Criterion, Outcome, Threat, Try, Unresolved, World
from guard.selftest.measures import Floats, exact, fidelity

RIDGES = (1e-6, 1e-5, 1e-4)
RANDOM = 500
"""Texts of uniform random words that copies are measured on, besides held-out texts."""

TextFit = Callable[[Sequence[str]], Floats]
"""Texts -> probabilities, shape (n, k)."""


@dataclass(frozen=True)
class GibberishText:
    """Queries are random words of the attacker's own texts, drawn as often as they occur there.

    Args:
        queries: how many.
        least: fewest words of a query.
        most: most words of a query.
        marked: share of the queries whose words come from own texts of one true class, every class alike, so that rare
            classes are met; 0 draws from all own texts, as the paper does, and so does an attacker without labels.

    Source: Krishna, Tomar, Parikh, Papernot, Iyyer, ICLR 2020, section 3 (RANDOM). Differs: the model and its copy are
    logistic regressions on words, not BERT; the word list is the attacker's own texts, not Wikipedia's.
    """

    name: ClassVar[str] = "gibberish_text"
    title: ClassVar[str] = "train a copy of a text classifier on random words"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = "Krishna et al., Thieves on Sesame Street! Model Extraction of BERT-based APIs, ICLR 2020"
    published: ClassVar[str] = (
        "SST-2: 90.1% right after as many random queries as training texts, the model itself 93.1%"
    )
    victim: ClassVar[str] = "spam"
    metric: ClassVar[str] = "surrogate_l1"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("agreement", 0.95), Criterion("surrogate_l1", 0.03))
    helps: ClassVar[str] = (
        "a budget of graded answers per customer, then labels, then refusal; nothing keeps decisions secret"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"text", "scores"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    queries: int = 10_000
    least: int = 4
    most: int = 24
    marked: float = 0.5

    def run(self, world: World) -> Outcome:
        """Ask gibberish, fit in every way, measure.

        Raises:
            Unresolved: the attacker has no texts to take words from.
        """
        own = [words_of(text) for text in cast("Sequence[str]", world.knows.own_x)]
        vocabulary = sorted({word for words in own for word in words})
        if not vocabulary:
            raise Unresolved("there are no own texts to take words from")
        texts = self.gibberish(world, own, self.queries, world.rng("queries"))
        asked, y = harvest(world.api, texts, world.knows.classes)
        texts = list(cast("Sequence[str]", asked))
        world.progress(0.5, "fitting copies")
        curve = [self.point(world, texts[:n], y[:n], vocabulary) for n in POINTS if n < len(texts)]
        rng = world.rng("uniform test")
        random = [spelled(vocabulary, self.most, rng) for _ in range(RANDOM)]
        tries = self.tried(world, self.copies(world, texts, y, vocabulary), random)
        best = min(found.measures[self.metric].value for found in tries)
        cost = world.api.asked / len(texts)
        points = [(round(n * cost), value) for n, value in [*curve, (len(texts), best)]]
        return Outcome(tries, world.api.asked, points, notes=[self.constant(world)])

    def gibberish(self, world: World, own: Sequence[list[str]], n: int, rng: np.random.Generator) -> list[str]:
        """Return texts of random words."""
        bags = [[word for words in own for word in words]]
        if self.marked and world.knows.own_y is not None:
            labels = np.asarray(world.knows.own_y, dtype=np.int64)
            for label in range(world.knows.classes):
                bags.append([w for words, c in zip(own, labels, strict=True) if c == label for w in words])
        bags = [bag for bag in bags if bag]
        lengths = rng.integers(self.least, self.most + 1, n)
        marked = (rng.random(n) < self.marked) & (len(bags) > 1)
        which = np.where(marked, rng.integers(1, max(2, len(bags)), n), 0)
        return [spelled(bags[b], length, rng) for b, length in zip(which.tolist(), lengths.tolist(), strict=True)]

    def copies(self, world: World, texts: Sequence[str], y: Floats, vocabulary: Sequence[str]) -> dict[str, TextFit]:
        """Fit copies by how they are fitted."""
        graded = ~bare_labels(y)
        lessons = {ANSWERS: (texts, y)}
        if graded.any():
            lessons[LABELS] = (texts, one_hot(y.argmax(axis=1).astype(np.float64), y.shape[1]))
        if y.shape[1] < graded.sum() < len(y):
            lessons[GRADED] = ([text for text, kept in zip(texts, graded, strict=True) if kept], y[graded])
        if world.knows.own_y is not None:
            own = one_hot(np.asarray(world.knows.own_y, dtype=np.float64), y.shape[1])
            both = [*cast("Sequence[str]", world.knows.own_x), *texts]
            lessons[OWN] = (both, np.concatenate((own, completed(y))))
        return {
            f"{how}, ridge {ridge:g}": fit_text(rows, scores, vocabulary, ridge).probabilities
            for how, (rows, scores) in lessons.items()
            for ridge in RIDGES
        }

    def tried(self, world: World, copies: dict[str, TextFit], random: Sequence[str]) -> list[Try]:
        """Measure copies on held-out texts and on uniform random words."""
        test = cast("Sequence[str]", world.judge.test_x)
        truth, beyond = world.judge.truth(test), world.judge.truth(random)
        graded = {"graded_answers": exact(max(world.api.tally.graded.values(), default=0))}
        found: list[Try] = []
        for how, copy in copies.items():
            rng = world.rng("bootstrap")
            near, far = fidelity(copy(test), truth, rng), fidelity(copy(random), beyond, rng, "_uniform")
            found.append(Try(how, near | far | graded, plain=how.startswith(f"{ANSWERS},")))
        return found

    def point(self, world: World, texts: Sequence[str], y: Floats, vocabulary: Sequence[str]) -> tuple[int, float]:
        """Return how many answers there are, and the least distance of a copy fitted to them."""
        test = cast("Sequence[str]", world.judge.test_x)
        truth = world.judge.truth(test)
        copies = self.copies(world, texts, y, vocabulary).values()
        return len(texts), float(min(np.abs(copy(test) - truth).sum(axis=1).mean() for copy in copies))

    def constant(self, world: World) -> str:
        """Return what naming the commonest class would reach: the least that an agreement must be held against."""
        named = world.judge.truth(world.judge.test_x).argmax(axis=1)
        share = np.bincount(named).max() / len(named)
        return f"always naming the commonest class agrees on {share:.3f} of the held-out texts"


def spelled(words: Sequence[str], length: int, rng: np.random.Generator) -> str:
    """Return a text of random words."""
    return " ".join([words[i] for i in rng.integers(len(words), size=length).tolist()])


ATTACKS: tuple[Attack, ...] = (GibberishText(),)
