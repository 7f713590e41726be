"""A covert channel: whoever wrote the training code asks the model for the bits that it was made to learn by heart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.candidates import Asked, ask_each
from guard.selftest.attacks.membership_label_only import jittered
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, Try, Unresolved, World
from guard.selftest.measures import Floats, Ints, Measure, bootstrap, exact


@dataclass(frozen=True)
class CovertChannel:
    """Asks the synthetic inputs that the training code labelled with a secret, and reads the labels.

    Labels carry the bits, so that no defence of scores does anything: only a budget below the number of labels, or
    refusing inputs that are unlike the data, stops it. The inputs lie inside every feature's range. What is not
    answered is guessed. A second attacker also asks slightly moved copies and reads the mean, against labels that are
    changed at random.

    Args:
        copies: moved copies of each input.
        noise: standard deviation of the move, as a share of each feature's range.

    Source: Song, Ristenpart, Shmatikov, CCS 2017, section 5 (capacity abuse). Differs: the bits are random, as those of
    an encrypted secret are, rather than pixels or words of the training data.
    """

    name: ClassVar[str] = "covert_channel"
    title: ClassVar[str] = "read back bits that the training code hid in the model"
    threat: ClassVar[Threat] = "covert channel"
    atlas: ClassVar[str] = "AML.T0024"
    source: ClassVar[str] = "Song et al., Machine Learning Models that Remember Too Much, CCS 2017, section 5"
    published: ClassVar[str] = "subsets of the training data read back from labels of models as accurate as honest ones"
    victim: ClassVar[str] = "digits_bits"
    metric: ClassVar[str] = "bits"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("bits", 0.95),)
    helps: ClassVar[str] = (
        "reading the training code, refusing inputs unlike the data, or a budget of a few rows a customer"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    copies: int = 2
    noise: float = 0.01

    def run(self, world: World) -> Outcome:
        """Ask, and read."""
        knows = world.knows
        if "channel" not in knows.extra:
            raise Unresolved("nothing is known to be hidden in this model")
        x = cast("Floats", knows.extra["channel"])
        count, width = cast("int", knows.extra["channel_bits"]), cast("int", knows.extra["channel_per_label"])
        told = ask_each(world.api, x, knows.classes)
        if not told.answered.any():
            raise Refused(429, "no input was answered")
        plain = self.share(world, told, count, width)
        tries = [Try("labels", {"bits": plain[-1]})]
        moved = self.moved(world, x, told)
        if moved is not None:
            tries.append(
                Try("labels of moved copies too", {"bits": self.share(world, moved, count, width)[-1]}, plain=False)
            )
        return Outcome(tries, world.api.asked, curve=[(n, m.value) for n, m in zip(steps(len(x)), plain, strict=True)])

    def moved(self, world: World, x: Floats, told: Asked) -> Asked | None:
        """Return the mean answers of inputs and their moved copies; None when no copy was answered."""
        rng, knows = world.rng("copies"), world.knows
        total, heard = told.scores.copy(), told.answered.copy()
        for i in range(self.copies):
            world.progress((i + 1) / (self.copies + 1), "moved copies")
            more = ask_each(world.api, jittered(x, self.noise, knows.low, knows.high, rng), knows.classes)
            if not more.answered.any():
                return None if i == 0 else Asked(total, heard, told.reduced)
            total += more.scores
            heard |= more.answered
        return Asked(total, heard, told.reduced)

    def share(self, world: World, told: Asked, count: int, width: int) -> list[Measure]:
        """Return the share of bits that were read after each of some numbers of queries; the others are guessed."""
        secret = np.asarray(world.judge.secret("bits"))
        guesses = world.rng("guesses").integers(2, size=(len(told.scores), width))
        read = np.where(told.answered[:, None], spelt(told.scores, width), guesses)
        found: list[Measure] = []
        for n in steps(len(read)):
            late = np.arange(len(read))[:, None] >= n
            right = (np.where(late, guesses, read).ravel()[:count] == secret).astype(np.float64)
            by_label = np.append(right, np.full(-count % width, np.nan)).reshape(-1, width)
            found.append(_share(by_label, world.rng("bootstrap")) if n == len(read) else exact(right.mean()))
        return found


def steps(n: int) -> list[int]:
    """Return the numbers of queries at which a curve is drawn, up to `n`, ascending."""
    return sorted({n * i // 8 for i in range(9)})


def spelt(scores: Floats, width: int) -> Ints:
    """Return the bits that labels spell, shape (n, width), among the classes that carry any."""
    labels = scores[:, : 1 << width].argmax(axis=1)
    return (labels[:, None] >> np.arange(width)[::-1]) & 1


def _share(by_label: Floats, rng: np.random.Generator) -> Measure:
    """Return the share of bits that are right, with its interval over labels: bits of one label are wrong together."""
    return bootstrap(lambda rows: float(np.nanmean(by_label[rows])), len(by_label), rng)


ATTACKS: tuple[Attack, ...] = (CovertChannel(),)
