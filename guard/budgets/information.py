"""`information`: how many distinct queries are answered with more than a label, and how close a copy may come."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field

from guard.budgets.base import Budget
from guard.errors import InvariantError, Problem
from guard.evidence.meter import MARGIN
from guard.model.ledger import Then
from guard.model.outputs import Outputs

_ROUNDING = 1e-9


class Information(Budget, frozen=True):
    """A limit on graded answers.

    Released rows that carry more than a label, counted once per distinct snapped query and scope.

    A repeat is free, so retries and health checks burn nothing. What pays against extraction: 65 clean answers are an
    exact copy of a softmax on 64 features, while 32 graded answers and then labels leave it at least .10 away in mean
    L1. Costs every heavy honest user their scores once the budget is spent. Does nothing against a copy trained on
    labels alone.

    Args:
        graded_answers: limit a window; `auto` is `per_dimension` times the number of features of a query (64 for
            texts), or times `parameters / equations` when `parameters` is given.
        per_dimension: what `auto` multiplies: 1/3 fits clean scores, 1 a grid of .05, 3 four levels.
        parameters: unknowns of the model (weights and biases): a network of a million leaves room that a logistic
            regression does not.
        equations: numbers that one graded answer reveals; left out, what `outputs` declares: one less than its
            classes, or 1 of kind `value`. Write 1 behind `top_k: 1`.
        meter: how close to the model the copy may come that a scope's answers make possible, as agreement: when the
            information meter plus its margin of .3, or equations revealed / `parameters`, reaches it, no further
            answer of that scope is graded. Needs a profile and `outputs.kind: probabilities`.
    """

    distinct: ClassVar[bool] = True

    kind: Literal["information"] = "information"
    graded_answers: int | Literal["auto"] = "auto"
    per_dimension: float = Field(default=1 / 3, gt=0, le=1000)
    parameters: int | None = Field(default=None, ge=1, le=10**12)
    equations: int | None = Field(default=None, ge=1, le=10**6)
    meter: float | None = Field(default=None, gt=0, le=1)
    then: Then = "label_only"

    @property
    def scales(self) -> bool:
        """Whether the limit follows the queries' dimension: it does under `auto`, unless `parameters` are given."""
        return self.graded_answers == "auto" and self.parameters is None

    @property
    def needs_profile(self) -> bool:
        """Whether it needs a profile with held-out queries: the meter does."""
        return self.meter is not None

    def on(self, outputs: Outputs) -> Self:
        """Return the budget with `equations` as these outputs have it, where it was left out."""
        if self.parameters is None or self.equations is not None:
            return self
        return self.model_copy(update={"equations": _revealed(outputs)})

    def limit_for(self, dimension: int) -> int:
        """Return the number of graded answers for queries of `dimension` features, at least 1.

        Raises:
            InvariantError: `equations` was left out, and the budget was not put `on` a route's outputs.

        >>> Information(per_dimension=3).limit_for(64), Information(parameters=650, equations=9).limit_for(64)
        (192, 24)
        """
        limit = self.graded_answers
        if limit == "auto":
            limit = int(self.per_dimension * (dimension if self.parameters is None else self._effective))
        if self.meter is not None and self.parameters is not None:
            # Equations revealed / unknowns may come up to the meter; the ledger counts that exactly, over replicas too.
            limit = min(limit, int(self.meter * self._effective + _ROUNDING))
        return max(1, limit)

    def closes(self, reading: float) -> bool:
        """Return whether a scope with such a reading of the information meter gets no further graded answer.

        >>> Information(meter=0.9).closes(0.55), Information(meter=0.9).closes(0.65)
        (False, True)
        """
        return self.meter is not None and reading > 0 and reading + MARGIN >= self.meter - _ROUNDING

    def charged(self, reading: float, answers: int) -> float:
        """Return what a scope is charged with, in [0, 1]: how close a copy may have come.

        Args:
            reading: the scope's information meter; 0 before its first reading.
            answers: its distinct graded answers.

        >>> Information(parameters=650, equations=10).charged(0.2, 52), Information().charged(0.25, 52)
        (0.8, 0.55)
        """
        solved = answers / self._effective if self.parameters is not None else 0.0
        return min(1.0, max(reading + MARGIN if reading > 0 else 0.0, solved))

    @property
    def _effective(self) -> float:
        """Answers that determine the model: unknowns over equations an answer."""
        if self.parameters is None or self.equations is None:
            raise InvariantError("an information budget is used before it was put on a route's outputs")
        return self.parameters / self.equations

    def check(self, outputs: Outputs) -> list[Problem]:
        """Refuse limits that contradict each other, and what cannot be worked out."""
        problems = super().check(outputs) + self._check_unknowns(outputs) + self._check_meter(outputs)
        if self.graded_answers != "auto" and self.graded_answers < 1:
            problems.append(
                Problem("graded_answers must be at least 1", "graded_answers", hint="use the label_only defence")
            )
            return problems
        resolved = self.on(outputs)
        known = not self.scales and (self.parameters is None or resolved.equations is not None)
        if known and self.hard_limit is not None and self.hard_limit < resolved.limit_for(1):
            problems.append(
                Problem("hard_limit is below graded_answers", "hard_limit", hint="hard_limit counts all rows")
            )
        return problems

    def _check_unknowns(self, outputs: Outputs) -> list[Problem]:
        """Refuse parameters without equations, and either where it says nothing."""
        problems: list[Problem] = []
        if self.parameters is None:
            if self.equations is not None:
                hint = "write parameters, the unknowns of the model, or drop equations"
                problems.append(Problem("equations says nothing without parameters", "equations", hint=hint))
        elif self.graded_answers != "auto" and self.meter is None:
            hint = "write graded_answers: auto, or drop parameters"
            problems.append(Problem("parameters says nothing beside a number of answers", "parameters", hint=hint))
        elif self.equations is None and _revealed(outputs) is None:
            hint = "write equations, or outputs.classes"
            message = "how many numbers an answer reveals is not known"
            problems.append(Problem(message, "equations", hint=hint))
        return problems

    def _check_meter(self, outputs: Outputs) -> list[Problem]:
        """Refuse a meter that cannot read these outputs, or that is full before the first answer."""
        if self.meter is None:
            return []
        problems: list[Problem] = []
        if outputs.kind != "probabilities":
            hint = "drop meter; graded_answers holds for any kind"
            problems.append(Problem(f"the information meter cannot read {outputs.kind}", "meter", hint=hint))
        if self.meter <= MARGIN:
            hint = f"write a number above {MARGIN}, such as 0.9, or use the label_only defence"
            problems.append(Problem("the meter's margin alone reaches this", "meter", hint=hint))
        return problems


def _revealed(outputs: Outputs) -> int | None:
    """Return how many numbers an answer reveals: K - 1 of a distribution, K of logits, 1 of a value; None: unknown."""
    if outputs.kind == "value":
        return 1
    if outputs.classes is None or outputs.kind == "embedding":
        return None
    return len(outputs.classes) - (outputs.kind != "logits")
