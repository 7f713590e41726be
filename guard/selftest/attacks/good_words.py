"""Good words: find words that a spam filter takes for honest mail, and append them to spam."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.evasion import refusal, wilson
from guard.selftest.base import Api, Attack, Criterion, Outcome, Refused, Threat, Try, Unresolved, World
from guard.selftest.measures import Floats, Ints, Measure

BLOCKED = 1
"""The class that is blocked."""
WORD = re.compile(r"[a-z']{2,}")
TINY = 1e-6


@dataclass
class Guide:
    """What one attacker has learnt of the candidate words.

    Args:
        api: whom it asks.
        words: candidates, likeliest first, as far as the attacker's own messages tell.
        gain: of each word so far, shape (m,); the higher, the better it hides spam.
        stages: (queries, the words in order) along the way.
        ended: by what refusal it was ended, in words; empty when by none.
    """

    api: Api
    words: list[str]
    gain: Floats
    stages: list[tuple[int, list[str]]]
    ended: str = ""

    def ask(self, texts: list[str]) -> Floats | None:
        """Return scores, or None once the API has refused."""
        if self.ended:
            return None
        try:
            return self.api.ask(texts)
        except Refused as error:
            self.ended = refusal(error)
            return None

    def learn(self, gain: Floats) -> None:
        """Add what one carrier message told of each word."""
        self.gain = self.gain + gain
        order = np.argsort(-self.gain, kind="stable")
        self.stages.append((self.api.asked, [self.words[i] for i in order]))


def candidates(texts: list[str], y: Ints, n: int) -> list[str]:
    """Return words of honest messages, those first that are in many more of them than of spam.

    Args:
        texts: the attacker's messages.
        y: their classes.
        n: how many words.
    """
    honest, spam = Counter[str](), Counter[str]()
    for text, label in zip(texts, y, strict=True):
        (spam if label == BLOCKED else honest).update(set(WORD.findall(text.lower())))
    of_honest, of_spam = max(1, int((y != BLOCKED).sum())), max(1, int((y == BLOCKED).sum()))
    lead = {word: count / of_honest - spam[word] / of_spam for word, count in honest.items()}
    return sorted(lead, key=lambda word: (-lead[word], word))[:n]


def by_scores(guide: Guide, spam: list[str], carriers: int) -> None:
    """Rank words by how far they lower the score of a few messages that are nearly let through.

    Args:
        guide: learns.
        spam: the attacker's own spam.
        carriers: how many messages.
    """
    scores = guide.ask(spam)
    if scores is None:
        return
    nearest = np.argsort(np.abs(scores[:, BLOCKED] - 0.7), kind="stable")[:carriers]
    for i in nearest:
        found = guide.ask([f"{spam[i]} {word}" for word in guide.words])
        if found is None:
            return
        passed = np.log(np.maximum(1.0 - found[:, BLOCKED], TINY))
        guide.learn(passed - np.log(max(1.0 - scores[i, BLOCKED], TINY)))


def by_labels(guide: Guide, spam: list[str], carriers: int, rng: np.random.Generator) -> None:
    """Rank words by how many barely blocked messages they let through.

    Args:
        guide: learns.
        spam: the attacker's own spam.
        carriers: how many messages.
        rng: draws the words that bring a message to the boundary.
    """
    for text in spam[:carriers]:
        filler: list[str] = [guide.words[i] for i in rng.permutation(len(guide.words))]
        prefix = barely_blocked(guide, text, filler)
        if prefix is None:
            if guide.ended:
                return
            continue
        # With fewer filler words only the better words suffice, which tells them apart.
        for kept in {prefix, prefix - 1, prefix - 2} & set(range(len(filler))):
            carrier = " ".join([text, *filler[:kept]])
            found = guide.ask([f"{carrier} {word}" for word in guide.words])
            if found is None:
                return
            guide.learn((found.argmax(axis=1) != BLOCKED).astype(np.float64))


def barely_blocked(guide: Guide, text: str, filler: list[str]) -> int | None:
    """Search the number of filler words with which a message is blocked, while one more lets it through.

    Returns:
        That number; None if the message is not blocked, or is with all of them.
    """
    least, most = 0, len(filler)
    ends = guide.ask([text, " ".join([text, *filler])])
    if ends is None or ends[0].argmax() != BLOCKED or ends[1].argmax() == BLOCKED:
        return None
    while most - least > 1:
        middle = (least + most) // 2
        found = guide.ask([" ".join([text, *filler[:middle]])])
        if found is None:
            return None
        if found[0].argmax() == BLOCKED:
            least = middle
        else:
            most = middle
    return least


@dataclass(frozen=True)
class GoodWords:
    """Appends the words that a filter likes best to spam that it blocks.

    Args:
        messages: blocked held-out messages that are to pass.
        added: words appended to each, without another query.
        few: words of which the notes tell as well, since with more all guides reach 1.
        words: candidates, from the attacker's own honest messages.
        score_carriers: messages that words are tried on by scores.
        label_carriers: messages that words are tried on by labels.

    Source: Lowd and Meek, CEAS 2005: the passive frequency ratio chooses the candidates; labels guide as their active
    attack with barely blocked messages (first-N, here every candidate on several messages, the most often good first).
    Differs: scores guide the same search where an API gives them. Beside both stands whoever appends the most frequent
    words and asks nothing, who is no published control but what no policy of answers can hold.
    """

    name: ClassVar[str] = "good_words"
    title: ClassVar[str] = "spam that passes with appended words"
    threat: ClassVar[Threat] = "evasion"
    atlas: ClassVar[str] = "AML.T0043.001"
    source: ClassVar[str] = "Lowd, Meek, Good Word Attacks on Statistical Spam Filters, CEAS 2005"
    published: ClassVar[str] = (
        "half of the blocked spam passes with 150 words without queries, with 30 words with queries"
    )
    victim: ClassVar[str] = "spam"
    metric: ClassVar[str] = "passed"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("passed", 0.95),)
    helps: ClassVar[str] = "a budget of queries per customer, and detection; no change of answers holds it"
    needs: ClassVar[frozenset[str]] = frozenset({"text", "own_labels"})
    floors: ClassVar[tuple[str, ...]] = ("label_only",)

    messages: int = 60
    added: int = 20
    few: int = 5
    words: int = 150
    score_carriers: int = 4
    label_carriers: int = 8

    def run(self, world: World) -> Outcome:
        """Learn words by scores and, on another account, by labels; then append them."""
        if world.knows.own_y is None:
            raise Unresolved("the attacker's messages need labels: 1 is blocked")
        own, y = cast("list[str]", world.knows.own_x), cast("Ints", world.knows.own_y)
        blocked = self.blocked(world)
        words = candidates(own, y, self.words)
        order = world.rng("spam").permutation(np.flatnonzero(y == BLOCKED))
        spam: list[str] = [own[i] for i in order[:40]]
        if len(spam) < 3 or len(words) < self.added:
            raise Unresolved("the attacker owns too few messages of either kind")
        scores, labels = (Guide(api, words, np.zeros(len(words)), []) for api in (world.api, world.account(1)))
        by_scores(scores, spam, self.score_carriers)
        world.progress(0.5, "labels")
        by_labels(labels, spam, self.label_carriers, world.rng("filler"))
        tries = [Try("frequencies, no query", {"passed": self.passed(world, blocked, words)}, plain=False)]
        notes = [f"frequencies, no query: {self.effort(world, blocked, words)}"]
        for how, guide in (("scores", scores), ("labels", labels)):
            if guide.stages:
                best = guide.stages[-1][1]
                tries.append(Try(how, {"passed": self.passed(world, blocked, best)}))
                ended = f"; {guide.ended}" if guide.ended else ""
                notes.append(f"{how}: {self.effort(world, blocked, best)}; {guide.api.asked:,} queries{ended}")
        guide = scores if scores.stages else labels
        curve = [(0, self.share(world, blocked, words, self.added))]
        curve += [(asked, self.share(world, blocked, found, self.added)) for asked, found in guide.stages]
        return Outcome(tries, scores.api.asked + labels.api.asked, curve, notes=notes)

    def blocked(self, world: World) -> list[str]:
        """Return held-out spam that the model blocks.

        Raises:
            Unresolved: there are fewer than 10.
        """
        texts = cast("list[str]", world.judge.test_x)
        stopped = world.judge.truth(texts).argmax(axis=1) == BLOCKED
        if world.judge.test_y is not None:
            stopped &= np.asarray(world.judge.test_y) == BLOCKED
        which = world.rng("inputs").permutation(np.flatnonzero(stopped))[: self.messages]
        if len(which) < 10:
            raise Unresolved(f"needs at least 10 held-out messages that the model blocks; there are {len(which)}")
        return [texts[i] for i in which]

    def share(self, world: World, blocked: list[str], words: list[str], added: int) -> float:
        """Return the share of messages that the model itself lets through with the first words appended."""
        tail = " ".join(words[:added])
        said = world.judge.truth([f"{text} {tail}" for text in blocked]).argmax(axis=1)
        return float((said != BLOCKED).mean())

    def passed(self, world: World, blocked: list[str], words: list[str]) -> Measure:
        """Return that share with its interval."""
        return wilson(round(self.share(world, blocked, words, self.added) * len(blocked)), len(blocked))

    def effort(self, world: World, blocked: list[str], words: list[str]) -> str:
        """Say what fewer words do."""
        shares = [self.share(world, blocked, words, n) for n in range(1, self.added + 1)]
        enough = next((n for n, share in enumerate(shares, 1) if share >= 0.5), None)
        half = "less than half pass" if enough is None else f"{enough} words let half of the messages pass"
        return f"{half}, {self.few} words {shares[self.few - 1]:.0%}"


ATTACKS: tuple[Attack, ...] = (GoodWords(),)
