"""`rows`: how many rows (one query and its answer) may be asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from guard.budgets.base import Budget
from guard.errors import Problem
from guard.model.outputs import Outputs
from guard.model.text import Most


class Rows(Budget, frozen=True):
    """A limit on rows. Every row of a batch counts; a batch is charged whole.

    Costs honest users nothing below the limit. Buys little by itself: 100 clean answers are an exact copy of a
    650-parameter softmax, so a limit that honest users never meet does not protect a small model.

    Args:
        limit: rows a window.

    >>> Rows(kind="rows", limit=10, window="24h").name
    'rows/client/86400s'
    """

    kind: Literal["rows"] = "rows"
    limit: int = Field(ge=1, lt=2**53)

    def counted(self, rows: int, most: Most | None) -> int:
        """Return the rows; n choices of generated text count n times."""
        return rows if most is None else max(rows, most.choices)

    def limit_for(self, dimension: int) -> int:
        """Return `limit`."""
        del dimension
        return self.limit

    def check(self, outputs: Outputs) -> list[Problem]:
        """Refuse a hard limit below the limit."""
        problems = super().check(outputs)
        if self.hard_limit is not None and self.hard_limit < self.limit:
            problems.append(
                Problem("hard_limit is below limit", "hard_limit", hint="hard_limit counts all rows, so raise it")
            )
        return problems
