"""Blur where one class ends and the next begins."""

from __future__ import annotations

from math import exp, sqrt
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from guard.defences.base import Batch, Defence, Randomness, has_cells, keep_top, swap_top
from guard.errors import InvariantError, Problem
from guard.model.arrays import Bools, Ints
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs


class BoundaryResponse(Defence, frozen=True):
    """Lets the two best classes change places in some answers near the decision boundary: p1 - p2 < margin.

    There the model's answer is kept with probability 1/2 + sqrt(e^(2 eps) - 1) / (2 + 2 e^eps): .747 at .5, .840 at 1.
    With it, two answers near the boundary that agree make it at most e^eps times as likely as not that the model agrees
    on the two queries, if neither label was likelier before. Output perturbation: it is no differential privacy of the
    training data.

    Costs: labels, .2% of them at a margin of .05 and .7% at .2 (digits, epsilon .5). Does nothing by itself: the
    released scores show which answers are near the boundary, and a copy of all the others is exact (digits: .000 at 650
    queries). With `label_only` behind it, it makes labels worth less to a patient attacker: a copy of 3,250 labels
    comes within .106 (.093 to .126 over three seeds) instead of .074 (.070 to .082), of 650 within .13 either way. Does
    nothing against a copy that only has to agree: .98 at 3,250 labels, and active learning .99. An answer with a single
    score says nothing of the boundary and stays: clients must not choose how many classes come back.
    Source: Zheng, Ye, Hu, Fang, Shi, ESORICS 2019 (BDPL), and IEEE TDSC 19(3), 2022: boundary randomised response.
    Differs: near is what the scores call near, not a distance in the inputs; keyed, so that a repeat says nothing new.

    Args:
        margin: of the two best probabilities, below which answers may change.
        epsilon: in nats.
        reuse: `query`: the same client and snapped query get the same answer; `cell`: all near-by queries of a coarse
            cell change or none. Fresh draws are not on offer: repeats would average them out.

    >>> batch = Batch(np.array([[0.48, 0.45, 0.07]]), np.array([0]), "probabilities")
    >>> class Last:
    ...     def words(self, reuse, width, salt):
    ...         return np.full((1, width), 65535, dtype=np.uint16)
    >>> BoundaryResponse(margin=0.05).apply(batch, Last(), b"").scores
    array([[0.45, 0.48, 0.07]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    random: ClassVar[bool] = True
    keep_argmax: ClassVar[bool] = False
    """It changes labels, and cannot without scores to go by."""
    instead: ClassVar[str] = "drop boundary_response here, or let the model answer probabilities"

    kind: Literal["boundary_response"] = "boundary_response"
    margin: float = Field(default=0.05, gt=0, le=1)
    epsilon: float = Field(default=0.5, gt=0, le=20)
    reuse: Literal["query", "cell"] = "query"

    @property
    def keep(self) -> float:
        """The probability with which an answer near the boundary stays."""
        return 0.5 + sqrt(exp(2 * self.epsilon) - 1) / (2 + 2 * exp(self.epsilon))

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the scores with the two best exchanged in some rows; `top` is the new one's."""
        scores, top = batch.scores, batch.top
        words = rng.words(self.reuse, 1, salt)
        if len(words) != len(scores):
            raise InvariantError("there are other rows in the answer than in the request")
        if scores.shape[1] < 2:
            return batch
        second, near = self._near(batch)
        swapped = np.flatnonzero(near & (words[:, 0] >= self.keep * 2**16))
        if not len(swapped):
            return batch
        released = top.copy()
        released[swapped] = second[swapped]
        changed = keep_top(swap_top(scores, top, second, swapped), released)
        return Batch(changed, released, batch.kind, batch.complete, batch.kept, batch.labels_only)

    def _near(self, batch: Batch) -> tuple[Ints, Bools]:
        """Return the second best column of each row and whether the row is near the boundary, shape (n,) each."""
        rows = np.arange(len(batch.top))
        others = np.where(batch.scores > 0 if batch.kept is None else batch.kept, batch.scores, -np.inf)
        others[rows, batch.top] = -np.inf
        second = others.argmax(axis=1)
        # A class that was dropped, or is impossible, is no second best.
        return second, batch.scores[rows, batch.top] - others[rows, second] < self.margin

    def check(self, outputs: Outputs, inputs: Inputs | None) -> list[Problem]:
        """Add what changed labels and coarse cells need to know."""
        problems = super().check(outputs, inputs)
        if not problems and outputs.classes is None:
            hint = "outputs: {classes: [...]} in the columns' order, or drop boundary_response"
            problems.append(Problem("labels will change, and nothing says what they are called", "kind", hint=hint))
        if self.reuse == "cell" and not has_cells(inputs):
            hint = "inputs: {kind: vector, size: .., low: .., high: ..}, or reuse: query"
            problems.append(Problem("cells need the inputs' size and range", "reuse", hint=hint))
        return problems
