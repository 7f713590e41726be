"""`logprobs`: how many log-probabilities of tokens may be answered."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from guard.budgets.base import Budget, Counts
from guard.budgets.tokens import only_generated
from guard.errors import Problem
from guard.model.outputs import Outputs
from guard.model.text import Most


class Logprobs(Budget, frozen=True):
    """A limit on revealed log-probabilities: one a token and candidate, all choices of a request together.

    Charged and settled as `tokens` are. What it bounds: the last layer of width h takes at least h * (h + 1) numbers
    (Carlini 2024), and a distribution over the vocabulary one for each of its tokens.

    Args:
        limit: log-probabilities a window.

    >>> Logprobs(limit=10).name
    'logprobs/client'
    """

    counts: ClassVar[Counts] = "logprobs"

    kind: Literal["logprobs"] = "logprobs"
    limit: int = Field(ge=1, lt=2**53)

    def counted(self, rows: int, most: Most | None) -> int:
        """Return the log-probabilities that an answer may hold."""
        del rows
        return 0 if most is None else most.logprobs

    def limit_for(self, dimension: int) -> int:
        """Return `limit`."""
        del dimension
        return self.limit

    def check(self, outputs: Outputs) -> list[Problem]:
        """Refuse outputs that hold no generated text."""
        return [*super().check(outputs), *only_generated(self.kind, outputs)]
