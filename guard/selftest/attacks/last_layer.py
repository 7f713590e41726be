"""The last layer of a language model, read off its log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.logit_reading import FIRST, Matrix, Source, biased, bisected, constrained, sampled
from guard.selftest.attacks.low_rank import completed, layer_error, rank_of
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, Try, Unresolved, World
from guard.selftest.measures import Floats, Measure, exact

_LEAST = 2000
"""Fewer entries than this complete nothing."""


@dataclass(frozen=True)
class LastLayer:
    """Puts a matrix of logits together, prompts by tokens, and looks where its singular values fall.

    Logits of all tokens are a hidden state of h numbers times the last layer, so that the matrix has rank h, and its
    row space is the layer up to an affine map. The published attacker raises tokens into the top with `logit_bias`,
    some at a time beside one of reference, and subtracts. Others do without: they complete the matrix of what the top
    shows by itself; they have a constrained answer (`response_format`) show the tokens that they list; they count what
    is sampled, over several accounts; and where no log-probabilities are answered they bisect at which bias the greedy
    answer changes. Who cannot put a matrix together, or finds a rank that moves with the number of prompts, knows
    nothing: an error of 1, which is the most that any estimate counts.

    Args:
        prompts: rows of the matrix; more than h.
        tokens: columns of a matrix that not all tokens are asked for; more than h.
        top: candidates asked for at once.
        alone: prompts of which the top is asked without any bias.
        accounts: who samples.
        rounds: requests of each for four samples of every prompt.
        squares: rows and columns of a matrix that is bisected; a little more than h.
        fine: how closely a logit is bisected.
        patience: most answers that are asked for to bisect.

    Source: Carlini et al., ICML 2024, sections 4 and 5, and the appendix on log-probability-free attacks. Differs:
    prompts are asked in batches; without log-probabilities one token is bisected at a time.
    """

    name: ClassVar[str] = "last_layer"
    title: ClassVar[str] = "read a language model's last layer off its log-probabilities"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = (
        "Carlini et al., Stealing Part of a Production Language Model, ICML 2024; "
        "Finlayson et al., Logits of API-Protected LLMs Leak Proprietary Information, COLM 2024"
    )
    published: ClassVar[str] = (
        "the hidden dimension of OpenAI's ada and babbage, and their whole last layer, for under $20"
    )
    victim: ClassVar[str] = "softmax_head"
    metric: ClassVar[str] = "dimension_error"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("dimension_error", 0.0), Criterion("layer_error", 1e-3))
    helps: ClassVar[str] = "dropping logit_bias, and log-probabilities wherever answers can be constrained"
    needs: ClassVar[frozenset[str]] = frozenset({"generation", "lab"})
    floors: ClassVar[tuple[str, ...]] = ()

    prompts: int = 96
    tokens: int = 152
    top: int = 20
    alone: int = 768
    accounts: int = 4
    rounds: int = 20
    squares: int = 80
    fine: float = 0.0625
    patience: int = 60_000

    def run(self, world: World) -> Outcome:
        """Read logits in every way there is, and measure each."""
        if world.texts is None:
            raise Unresolved("this model generates no text")
        words = cast("Sequence[str]", world.knows.extra["vocabulary"])
        source = Source(world.texts, words, self.drawn(world, words, self.prompts), self.tokens, self.top)
        curve: list[tuple[int, float]] = []

        def grown(matrix: Matrix) -> None:
            curve.append((source.asked, self.measured(world, matrix)["dimension_error"].value))

        world.progress(0.0, "logit_bias and log-probabilities")
        full = biased(source, grown)
        tries = [Try("logit_bias", self.measured(world, full))]
        ways: list[tuple[str, Callable[[], dict[str, Measure]]]] = [
            ("the top alone", lambda: self.of_tops(world, source, words)),
            ("constrained answers", lambda: self.measured(world, constrained(source))),
            ("counted samples", lambda: self.measured(world, sampled(source, self.accounts, self.rounds))),
        ]
        if full is None:  # a thousand times the answers, so only where the direct way is none
            ways.append(("bisected answers", lambda: self.measured(world, self.bisected(world, source))))
        for number, (how, measure) in enumerate(ways, 1):
            world.progress(number / (len(ways) + 1), how)
            tries.append(Try(how, measure(), plain=False))
        return Outcome(
            tries, source.asked, curve=curve or [(0, 1.0), (source.asked, 1.0)], notes=list(dict.fromkeys(source.notes))
        )

    def drawn(self, world: World, words: Sequence[str], count: int) -> list[str]:
        """Return prompts: some words in a row."""
        drawn: list[list[int]] = world.rng("prompts").integers(FIRST, len(words), (count, 6)).tolist()
        return ["".join(words[token] for token in row).strip() for row in drawn]

    def bisected(self, world: World, source: Source) -> Matrix | None:
        """Bisect, and tell how far that is."""

        def told(share: float) -> None:
            world.progress(0.8 + share / 5, "bisected answers")

        return bisected(source, self.squares, self.fine, self.patience, told)

    def of_tops(self, world: World, source: Source, words: Sequence[str]) -> dict[str, Measure]:
        """Complete the matrix of which only each prompt's top is known."""
        rows: list[int] = []
        columns: list[int] = []
        values: list[float] = []
        numbers = {word: number for number, word in enumerate(words)}
        prompts = self.drawn(world, words, self.alone)
        try:
            for at in range(0, len(prompts), self.prompts):
                for row, top in enumerate(source.tops(prompts[at : at + self.prompts]), at):
                    known = [(numbers[word], number) for word, number in top.items() if word in numbers]
                    rows += [row] * len(known)
                    columns += [column for column, _ in known]
                    values += [number for _, number in known]
        except Refused as error:
            source.notes.append(f"the top was refused ({error.status})")
        if len(values) < _LEAST:
            return self.measured(world, None)
        found = completed(np.array(rows), np.array(columns), np.array(values), world.rng("completion"))
        error = exact(1.0) if found is None else self.error_of(world, found)
        return {"dimension_error": error, "layer_error": exact(1.0)}

    def measured(self, world: World, matrix: Matrix | None) -> dict[str, Measure]:
        """Return how far off the dimension and the layer are that a matrix gives."""
        found = None if matrix is None else rank_of(matrix.values)
        if matrix is None or found is None:
            return {"dimension_error": exact(1.0), "layer_error": exact(1.0)}
        layer = cast("Floats", world.judge.secret("layer"))[FIRST:]
        return {
            "dimension_error": self.error_of(world, found),
            "layer_error": exact(layer_error(matrix.values, matrix.columns - FIRST, layer, found)),
        }

    def error_of(self, world: World, found: int) -> Measure:
        """Return how far off a hidden dimension is."""
        width = cast("Floats", world.judge.secret("layer")).shape[1]
        return exact(min(1.0, abs(found - width) / width))


ATTACKS: tuple[Attack, ...] = (LastLayer(),)
