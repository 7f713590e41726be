"""Gibberish: copy a text classifier from its answers to random words."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.api import one_hot
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.network_copies import ANSWERS, LABELS, OWN, POINTS, WEIGHED, hard
from guard.selftest.attacks.quantisers import bare_labels, told
from guard.selftest.attacks.text_copy import TextCopy, fit_text, presence, words_of
from guard.selftest.base import Attack, Criterion, Outcome, Threat, Try, Unresolved, World
from guard.selftest.lab.data import untyped
from guard.selftest.measures import Floats, exact, fidelity

RIDGES = (1e-4, 1e-5, 1e-6)
RANDOM = 500
"""Texts of uniform random words that copies are measured on, besides held-out texts."""


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
        rng = world.rng("uniform test")
        random = [spelled(vocabulary, self.most, rng) for _ in range(RANDOM)]
        tries = self.tried(world, self.copies(world, texts, y, vocabulary), random)
        best = min(tries, key=lambda found: found.measures[self.metric].value)
        world.progress(0.9, "fitting copies to fewer answers")
        cost = world.api.asked / len(texts)
        shorter = [n for n in POINTS if n < len(texts)]
        curve = [(round(n * cost), self.at(world, texts[:n], y[:n], vocabulary, best.how)) for n in shorter]
        curve.append((world.api.asked, best.measures[self.metric].value))
        return Outcome(tries, world.api.asked, curve, notes=[self.constant(world)])

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
        return [spelled(bags[int(b)], int(length), rng) for b, length in zip(which, lengths, strict=True)]

    def copies(self, world: World, texts: Sequence[str], y: Floats, vocabulary: Sequence[str]) -> dict[str, TextCopy]:
        """Fit copies by how they are fitted; of the ridges, the one that serves the thief best counts."""
        bare, scores = bare_labels(y), told(y)
        column = {word: i for i, word in enumerate(vocabulary)}
        words = presence(texts, column)
        lessons = {ANSWERS: (words, y)}
        if not bare.all():
            lessons[LABELS] = (words, hard(y))
        if bare.any() and not bare.all():
            repeats = max(1, int(bare.sum()) // int((~bare).sum()))
            rows = np.concatenate((np.repeat(np.flatnonzero(~bare), repeats), np.flatnonzero(bare)))
            lessons[WEIGHED] = (words[rows], scores[rows])
        if world.knows.own_y is not None:
            own = one_hot(np.asarray(world.knows.own_y, dtype=np.float64), y.shape[1])
            more = presence(cast("Sequence[str]", world.knows.own_x), column)
            lessons[OWN] = (untyped("scipy.sparse").vstack((more, words)).tocsr(), np.concatenate((own, scores)))
        test = presence(cast("Sequence[str]", world.judge.test_x), column)
        truth = world.judge.truth(world.judge.test_x)
        found: dict[str, TextCopy] = {}
        for how, (features, targets) in lessons.items():
            fits: list[TextCopy] = []
            for ridge in RIDGES:
                fits.append(fit_text(features, targets, column, ridge, fits[-1] if fits else None))
            found[how] = min(fits, key=lambda fit: float(np.abs(fit.of(test) - truth).sum()))
        return found

    def tried(self, world: World, copies: dict[str, TextCopy], random: Sequence[str]) -> list[Try]:
        """Measure copies on held-out texts and on uniform random words."""
        test = cast("Sequence[str]", world.judge.test_x)
        truth, beyond = world.judge.truth(test), None
        with suppress(Unresolved):  # a live target's limit of queries may leave no room for more
            beyond = world.judge.truth(random)
        graded = {"graded_answers": exact(max(world.api.tally.graded.values(), default=0))}
        found: list[Try] = []
        for how, copy in copies.items():
            rng = world.rng("bootstrap")
            measures = fidelity(copy.probabilities(test), truth, rng) | graded
            if beyond is not None:
                measures |= fidelity(copy.probabilities(random), beyond, rng, "_uniform")
            found.append(Try(how, measures, plain=how == ANSWERS))
        return found

    def at(self, world: World, texts: Sequence[str], y: Floats, vocabulary: Sequence[str], how: str) -> float:
        """Return the distance of the copy that the first answers give, fitted as the best one was."""
        found = self.copies(world, texts, y, vocabulary)
        test = cast("Sequence[str]", world.judge.test_x)
        copy = found.get(how, found[ANSWERS])
        return float(np.abs(copy.probabilities(test) - world.judge.truth(test)).sum(axis=1).mean())

    def constant(self, world: World) -> str:
        """Return what naming the commonest class would reach: the least that an agreement must be held against."""
        named = world.judge.truth(world.judge.test_x).argmax(axis=1)
        share = np.bincount(named).max() / len(named)
        return f"always naming the commonest class agrees on {share:.3f} of the held-out texts"


def spelled(words: Sequence[str], length: int, rng: np.random.Generator) -> str:
    """Return a text of random words."""
    return " ".join(words[int(i)] for i in rng.integers(len(words), size=length))


ATTACKS: tuple[Attack, ...] = (GibberishText(),)
