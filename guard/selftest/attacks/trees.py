"""Path finding: copy a decision tree by finding the faces of its leaves, from whole queries or partial ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import numpy as np

from guard.selftest.attacks.asking import Asker
from guard.selftest.attacks.boxes import Box, Boxes, find_boxes
from guard.selftest.attacks.extraction import tried
from guard.selftest.attacks.topdown import Node, rebuild
from guard.selftest.attacks.tree_copies import Predict, retrained, tree_on
from guard.selftest.base import Attack, Criterion, Outcome, Refused, Threat, Try, World
from guard.selftest.measures import Floats, exact

_POINTS = 5


@dataclass(frozen=True)
class PathFinding:
    """Finds one leaf after the other: the whole answer is the leaf's id, faces are found by bisection.

    Args:
        queries: most queries.
        precision: of faces, as a share of a feature's range.

    Source: Tramer et al., USENIX Security 2016, section 4.2 and algorithm 1. Differs: starts from rows of the
    attacker's own rather than random ones, takes all lines of a leaf in lock-step, and treats every feature as
    continuous. Leaves that answer alike run together, so a tree is also trained on the same answers, and, by an
    attacker apart, on as many answers to likely rows.
    """

    name: ClassVar[str] = "tree_path_finding"
    title: ClassVar[str] = "copy a decision tree leaf by leaf"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = "Tramèr et al., Stealing Machine Learning Models via Prediction APIs, USENIX Security 2016"
    published: ClassVar[str] = (
        "without partial inputs: German credit 1,722 queries, steak survey 3,652 (92.45% agreement), "
        "GSS survey 7,434, IRS tax patterns 101,057"
    )
    victim: ClassVar[str] = "affairs"
    metric: ClassVar[str] = "surrogate_l1"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("agreement", 0.85),)
    helps: ClassVar[str] = "a budget of graded answers per customer, then labels, then refusal"
    needs: ClassVar[frozenset[str]] = frozenset({"vector", "scores", "lab"})
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    queries: int = 8000
    precision: float = 0.01

    def run(self, world: World) -> Outcome:
        """Find leaves, then train on the same answers, then on others."""
        asker = Asker(world.api, self.queries)
        own = cast("Floats", world.knows.own_x)
        starts = own[world.rng("starts").permutation(len(own))]

        def progress() -> None:
            world.progress(0.6 * asker.answered / self.queries, "following paths")

        boxes = find_boxes(asker, world.knows, starts, self.precision, progress)
        x, y = asker.kept()
        copies: dict[str, Predict] = {"retrained on the same answers": tree_on(x, y, world.seed)}
        if boxes:
            copies = {"boxes": self._copy(world, boxes).probabilities, **copies}
        world.progress(0.7, "retraining")
        tries = [*tried(world, copies, {"boxes"}), *retrained(world, self.queries)]
        notes = [f"{len(boxes)} leaves were told apart; the retraining attacker has an account of its own"]
        return Outcome(tries, world.api.asked, self._curve(world, boxes), notes=notes)

    def _copy(self, world: World, boxes: list[Box]) -> Boxes:
        return Boxes(boxes, np.maximum(world.knows.std, 1e-9))

    def _curve(self, world: World, boxes: list[Box]) -> list[tuple[int, float]]:
        test = cast("Floats", world.judge.test_x)
        truth = world.judge.truth(test)
        found: list[tuple[int, float]] = []
        for count in sorted({1 + (len(boxes) - 1) * i // _POINTS for i in range(1, _POINTS + 1)} if boxes else ()):
            copy = self._copy(world, boxes[:count]).probabilities(test)
            found.append((boxes[count - 1].found_at, float(np.abs(copy - truth).sum(axis=1).mean())))
        return found


@dataclass(frozen=True)
class PartialInputs:
    """Rebuilds the tree from the root down: leaves features out and sees which one changes the answer.

    Args:
        queries: most queries.
        precision: of thresholds, as a share of a feature's range.

    Source: Tramer et al., USENIX Security 2016, section 4.2, "top-down". Differs: takes many nodes in lock-step. Where
    no partial query is answered, the published attack is left with the prior, and the adaptive one asks whole queries.
    """

    name: ClassVar[str] = "tree_partial_inputs"
    title: ClassVar[str] = "copy a decision tree from queries that leave features out"
    threat: ClassVar[Threat] = "model extraction"
    atlas: ClassVar[str] = "AML.T0024.002"
    source: ClassVar[str] = PathFinding.source
    published: ClassVar[str] = (
        "with partial inputs: German credit 1,150 queries, steak survey 4,013, GSS survey 2,752, "
        "IRS tax patterns 29,609"
    )
    victim: ClassVar[str] = "affairs"
    metric: ClassVar[str] = "surrogate_l1"
    control: ClassVar[tuple[Criterion, ...]] = (Criterion("surrogate_l1", 0.02), Criterion("agreement", 0.98))
    helps: ClassVar[str] = "inputs: {kind: any}, which refuses queries that leave features out"
    needs: ClassVar[frozenset[str]] = PathFinding.needs
    floors: ClassVar[tuple[str, ...]] = ("zero_query", "label_only")

    queries: int = 8000
    precision: float = 0.01

    def run(self, world: World) -> Outcome:
        """Rebuild the tree, or fall back to whole queries."""
        asker = Asker(world.api, self.queries)

        def progress() -> None:
            world.progress(0.6 * asker.answered / self.queries, "growing the copy")

        root = rebuild(asker, world.knows, self.precision, progress)
        return self._fallback(world, asker.refused) if root is None else self._rebuilt(world, asker, root)

    def _rebuilt(self, world: World, asker: Asker, root: Node) -> Outcome:
        partial = int(np.isnan(asker.kept()[0]).any(axis=1).sum())
        world.progress(0.7, "retraining")
        plain = tried(world, {"top-down": root.probabilities}, {"top-down"})
        return Outcome(_counted([*plain, *retrained(world, self.queries)], partial), world.api.asked)

    def _fallback(self, world: World, refused: Refused | None) -> Outcome:
        prior = _prior(world)
        plain = tried(world, {"prior": lambda z: np.repeat(prior[None], len(z), axis=0)}, {"prior"})
        notes = [f"no partial query was answered ({refused.status if refused else 'limit 0'}): whole queries instead"]
        try:
            whole = PathFinding(self.queries, self.precision).run(world)
        except Refused:
            return Outcome(_counted(plain, 0), world.api.asked, notes=notes)
        tries = [replace(t, how=f"whole queries: {t.how}", plain=False) for t in whole.tries]
        return Outcome(_counted([*plain, *tries], 0), world.api.asked, whole.curve, notes=[*notes, *whole.notes])


def _prior(world: World) -> Floats:
    """Return each class's share of the attacker's own labels; even without labels."""
    k, labels = world.knows.classes, world.knows.own_y
    if labels is None or not len(labels):
        return np.full(k, 1 / k)
    return np.bincount(labels.astype(np.int64), minlength=k) / len(labels)


def _counted(tries: list[Try], partial: int) -> list[Try]:
    return [replace(t, measures={**t.measures, "partial_answers": exact(partial)}) for t in tries]


ATTACKS: tuple[Attack, ...] = (PathFinding(), PartialInputs())
