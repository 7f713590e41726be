"""What a mechanism of differential privacy is: a defence that spends a privacy budget.

A policy says how much noise; `bind` says on what, once the route is known: its outputs' domain, its ensemble's quorum,
its number of columns. A bound mechanism is a `Measurement`: its event is what the ledger is charged for every row that
it draws anew. It stands first in a route's defences, moves scores into their domain or refuses them, draws from a
cryptographic source only (`Randomness.fresh`), and what follows it is post-processing, which costs nothing.
"""

from __future__ import annotations

from math import inf
from typing import ClassVar, Self

import numpy as np
from pydantic import PrivateAttr

from guard.defences.base import Batch, Defence, Randomness, has_classes
from guard.errors import InvariantError, Problem, UpstreamError
from guard.model.arrays import Floats, Ints
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.privacy.events import Event
from guard.privacy.lattice import Lattice
from guard.privacy.measurement import Bounds, Measurement, Norm


class Mechanism(Defence, frozen=True):
    """Base of all mechanisms: subclasses set `norm`, implement `draw`, `event` and `noise`, and if need be `solved`."""

    random: ClassVar[bool] = True
    spends: ClassVar[bool] = True
    instead: ClassVar[str] = (
        "have the model answer probabilities; values take dp_gaussian or dp_laplace, and embeddings dp_gaussian"
    )
    norm: ClassVar[Norm]
    """In which sensitivity is measured."""

    _bounds: Bounds | None = PrivateAttr(default=None)
    _sensitivity: float = PrivateAttr(default=0.0)
    _columns: int = PrivateAttr(default=1)
    _quorum: int = PrivateAttr(default=1)
    _grid: Lattice | None = PrivateAttr(default=None)

    def bounds(self, outputs: Outputs) -> Bounds:
        """Return the domain of the answers that it works on."""
        return Bounds(outputs.kind, outputs.low, outputs.high, outputs.norm, outputs.clip)

    def bind(self, outputs: Outputs, quorum: int, columns: int, sensitivity: float | None = None) -> Self:
        """Return the mechanism with sensitivity and noise worked out for one route.

        Args:
            outputs: of the route.
            quorum: of its ensemble; 1 for a single model.
            columns: scores a row; of embeddings at most.
            sensitivity: how far one training record can move the scores, in `norm`; None: what outputs and ensemble
                imply.

        Raises:
            ValueError: nothing bounds these outputs, or no noise meets what was asked for.
        """
        bounds = self.bounds(outputs)
        diameter = bounds.diameter(self.norm)
        if diameter is None:
            raise ValueError(f"nothing bounds outputs of kind {outputs.kind} in {self.norm}")
        moved = diameter / quorum if sensitivity is None else sensitivity
        return self.knowing(_bounds=bounds, _columns=columns, _quorum=quorum, _sensitivity=moved).solved()

    def solved(self) -> Self:
        """Return a bound mechanism with its noise worked out.

        Raises:
            ValueError: no noise meets what was asked for.
        """
        return self

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the release of scores that lie in their domain.

        Raises:
            UpstreamError: code `outside_outputs`: they do not, and are not to be clipped; or rows are not as wide as
                declared, or only parts of a distribution, which tell of the data without any noise.
            InvariantError: not bound.
        """
        del salt
        bounds = self.domain
        columns = batch.scores.shape[1]
        fits = columns <= self._columns if bounds.kind == "embedding" else columns == self._columns
        if not fits or batch.kept is not None or (has_classes(bounds.kind) and columns > 1 and not batch.complete):
            raise UpstreamError("the model's answer has another form than declared", code="outside_outputs")
        return self.draw(bounds.fit(batch.scores), batch, rng)

    def draw(self, scores: Floats, batch: Batch, rng: Randomness) -> Batch:
        """Return a release of scores; only a bound mechanism can.

        Args:
            scores: inside their domain, shape (n, k).
            batch: what they came in.
            rng: its `fresh` is the only source.
        """
        raise NotImplementedError

    @property
    def domain(self) -> Bounds:
        """What the scores must be for the sensitivity to hold.

        Raises:
            InvariantError: not bound.
        """
        if self._bounds is None:
            raise InvariantError("a mechanism ran before it was bound")
        return self._bounds

    @property
    def grid(self) -> Lattice:
        """Where scores are put, with the noise's scale on it.

        Raises:
            InvariantError: not bound.
        """
        if self._grid is None:
            raise InvariantError("a mechanism ran before it was bound")
        return self._grid

    @property
    def magnitude(self) -> float:
        """The greatest absolute value of a score."""
        domain = self.domain
        if domain.kind == "value":
            return max(abs(domain.low or 0.0), abs(domain.high or 0.0))
        return domain.norm or 1.0

    def noise(self) -> str:
        """Return the noise in words, with its scale in the scores' unit; only a bound mechanism knows."""
        raise NotImplementedError

    def measurement(self) -> Measurement:
        """Return everything that the loss follows from; only a bound mechanism knows."""
        return Measurement(self.kind, self.event(), self.norm, self._sensitivity, self._quorum, self.noise())

    def event(self) -> Event:
        """Return what one row costs; only a bound mechanism knows."""
        raise NotImplementedError

    def check(self, outputs: Outputs, inputs: Inputs | None) -> list[Problem]:
        """Add that outputs must be bounded, and that labels will change."""
        problems = super().check(outputs, inputs)
        if not problems:
            problems += self._check_domain(outputs)
        if has_classes(outputs.kind) and outputs.classes is None:
            hint = "outputs: {classes: [...]} in the columns' order"
            problems.append(Problem("labels may change, and nothing says what they are called", "kind", hint=hint))
        return problems

    def _check_domain(self, outputs: Outputs) -> list[Problem]:
        diameter = self.bounds(outputs).diameter(self.norm)
        hint = {
            "value": "outputs: {kind: value, low: .., high: ..}",
            "embedding": "outputs: {kind: embedding, norm: ..}, to which longer ones are clipped",
        }.get(outputs.kind, "answer probabilities")
        if diameter is None:
            message = f"nothing bounds outputs of kind {outputs.kind}, so no noise makes them private"
            return [Problem(message, "kind", hint=hint)]
        if not 0 < diameter < inf:
            return [Problem("outputs need a low below their high", "kind", hint=hint)]
        return []


def labels(chosen: Ints, batch: Batch) -> Batch:
    """Return a release of nothing but labels: one-hot rows.

    Args:
        chosen: the label's column of each row, shape (n,).
        batch: what the scores came in; nothing but its shape and kind is used.
    """
    kept = np.equal(np.arange(batch.scores.shape[1], dtype=np.int64), chosen[:, None])
    return Batch(kept.astype(np.float64), chosen, batch.kind, True, kept, labels_only=True)
