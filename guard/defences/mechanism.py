"""What a mechanism of differential privacy is: a defence that spends a privacy budget.

A policy says how much noise; `bind` says on what, once the route is known: its outputs' domain, its ensemble's quorum,
its number of columns. A bound mechanism is a `Measurement`: its event is what the ledger is charged for every row that
it draws anew. It stands first in a route's defences, gets scores inside their domain, draws from a cryptographic source
only (`Randomness.fresh`), and what follows it is post-processing, which costs nothing.
"""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import PrivateAttr

from guard.defences.base import Defence, has_classes
from guard.errors import Problem
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.privacy.events import Event
from guard.privacy.measurement import Bounds, Measurement, Norm


class Mechanism(Defence, frozen=True):
    """Base of all mechanisms: subclasses set `norm`, implement `apply`, `event`, `noise`, and if need be `solved`."""

    random: ClassVar[bool] = True
    spends: ClassVar[bool] = True
    norm: ClassVar[Norm]
    """In which sensitivity is measured."""

    _sensitivity: float = PrivateAttr(default=0.0)
    _columns: int = PrivateAttr(default=1)
    _quorum: int = PrivateAttr(default=1)

    def bounds(self, outputs: Outputs) -> Bounds:
        """Return the domain of the answers that it works on."""
        return Bounds(outputs.kind, outputs.low, outputs.high, outputs.norm, outputs.clip)

    def bind(self, outputs: Outputs, quorum: int, columns: int, sensitivity: float | None = None) -> Self:
        """Return the mechanism with sensitivity and noise worked out for one route.

        Args:
            outputs: of the route.
            quorum: of its ensemble; 1 for a single model.
            columns: scores a row, at most.
            sensitivity: how far one training record can move the scores, in `norm`; None: what outputs and ensemble
                imply.

        Raises:
            ValueError: nothing bounds these outputs, or no noise meets what was asked for.
        """
        if sensitivity is None:
            diameter = self.bounds(outputs).diameter(self.norm)
            if diameter is None:
                raise ValueError(f"nothing bounds outputs of kind {outputs.kind} in {self.norm}")
            sensitivity = diameter / quorum
        bound = self.solved(columns)
        bound._sensitivity, bound._columns, bound._quorum = sensitivity, columns, quorum
        return bound

    def solved(self, columns: int) -> Self:
        """Return a copy with the noise worked out, where epsilon, delta and answers were given instead of it.

        Raises:
            ValueError: no noise meets them.
        """
        del columns
        return self.model_copy()

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
        if not problems and self.bounds(outputs).diameter(self.norm) is None:
            hint = {
                "value": "outputs: {kind: value, low: .., high: ..}",
                "embedding": "outputs: {kind: embedding, norm: ..}, to which longer ones are clipped",
            }.get(outputs.kind, "answer probabilities")
            message = f"nothing bounds outputs of kind {outputs.kind}, so no noise makes them private"
            problems.append(Problem(message, "kind", hint=hint))
        if has_classes(outputs.kind) and outputs.classes is None:
            hint = "outputs: {classes: [...]} in the columns' order"
            problems.append(Problem("labels may change, and nothing says what they are called", "kind", hint=hint))
        return problems
