"""`tokens`: how many tokens of generated text may be answered."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from guard.budgets.base import Budget, Counts
from guard.errors import Problem
from guard.model.outputs import Outputs
from guard.model.text import Most


class Tokens(Budget, frozen=True):
    """A limit on generated tokens, all choices of a request together.

    The most that a request may be answered with (`max_tokens` times its choices, `best_of` instead where that is more)
    is charged before the model is asked; what was not generated is given back when the answer has ended. Prompts are
    not counted. Needs a `max` on the parameter `max_tokens`: without one there is no bound to charge.

    Costs: a client with many answers under way holds more of its budget than it will have used. Buys: memorised text
    leaves a model at some tokens a query, so whoever looks for it by the million is stopped by the million.

    Args:
        limit: tokens a window.

    >>> Tokens(limit=10, window="24h").name
    'tokens/client/86400s'
    """

    counts: ClassVar[Counts] = "tokens"

    kind: Literal["tokens"] = "tokens"
    limit: int = Field(ge=1, lt=2**53)

    def counted(self, rows: int, most: Most | None) -> int:
        """Return the tokens that an answer may hold."""
        del rows
        return 0 if most is None else most.tokens

    def limit_for(self, dimension: int) -> int:
        """Return `limit`."""
        del dimension
        return self.limit

    def check(self, outputs: Outputs) -> list[Problem]:
        """Refuse outputs that hold no generated text."""
        return [*super().check(outputs), *only_generated(self.kind, outputs)]


def only_generated(kind: str, outputs: Outputs) -> list[Problem]:
    """Return the complaint about a budget of generated text on a route that answers something else."""
    if outputs.kind == "logprobs":
        return []
    hint = "write outputs: {kind: logprobs} on the route of a language model, or a rows budget"
    return [Problem(f"{kind} are counted of generated text only", "kind", hint=hint)]
