"""`information`: how many distinct queries are answered with more than a label."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from guard.budgets.base import Budget
from guard.errors import Problem
from guard.model.ledger import Then
from guard.model.outputs import Outputs


class Information(Budget, frozen=True):
    """A limit on graded answers.

    Released rows that carry more than a label, counted once per distinct snapped query and scope.

    A repeat is free, so retries and health checks burn nothing. What pays against extraction: 65 clean answers are an
    exact copy of a softmax on 64 features, while 32 graded answers and then labels leave it at least .10 away in mean
    L1. Costs every heavy honest user their scores once the budget is spent. Does nothing against a copy trained on
    labels alone.

    Args:
        graded_answers: limit a window; `auto` is `per_dimension` times the number of features of a query (64 for
            texts).
        per_dimension: what `auto` multiplies: 1/3 fits clean scores, 1 a grid of .05, 3 four levels.
    """

    distinct: ClassVar[bool] = True

    kind: Literal["information"] = "information"
    graded_answers: int | Literal["auto"] = "auto"
    per_dimension: float = Field(default=1 / 3, gt=0, le=1000)
    then: Then = "label_only"

    @property
    def scales(self) -> bool:
        """Whether the limit follows the queries' dimension: it does under `auto`."""
        return self.graded_answers == "auto"

    def limit_for(self, dimension: int) -> int:
        """Return the number of graded answers for queries of `dimension` features, at least 1.

        >>> Information(per_dimension=3).limit_for(64)
        192
        """
        if self.graded_answers == "auto":
            return max(1, int(self.per_dimension * dimension))
        return self.graded_answers

    def check(self, outputs: Outputs) -> list[Problem]:
        """Refuse limits that contradict each other."""
        problems = super().check(outputs)
        if self.graded_answers != "auto" and self.graded_answers < 1:
            problems.append(
                Problem("graded_answers must be at least 1", "graded_answers", hint="use the label_only defence")
            )
        elif self.graded_answers != "auto" and self.hard_limit is not None and self.hard_limit < self.graded_answers:
            problems.append(
                Problem("hard_limit is below graded_answers", "hard_limit", hint="hard_limit counts all rows")
            )
        return problems
