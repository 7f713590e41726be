"""What a budget is: a frozen spec that turns a request into one charge per scope."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from guard.errors import Problem
from guard.model.client import Client
from guard.model.ledger import Then
from guard.model.outputs import Kind, Outputs
from guard.model.text import Most

Per = Literal["client", "group", "model"]
Counts = Literal["rows", "tokens", "logprobs"]
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: object) -> object:
    """Read a duration such as `24h`, `30m`, `90s`, `7d` as whole seconds; anything else is left for pydantic to refuse.

    >>> seconds("24h"), seconds(60)
    (86400, 60)
    """
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+)\s*([smhd])\s*", value)):
        return int(match[1]) * _UNITS_S[match[2]]
    if isinstance(value, str):
        raise ValueError("must be a duration such as 90s, 30m, 24h or 7d")
    return value


Window = Annotated[
    int,
    BeforeValidator(seconds),
    Field(ge=1, le=3650 * 86400),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 1, "pattern": r"^\s*\d+\s*[smhd]\s*$"}),
]


class Budget(BaseModel, frozen=True):
    """Base of all budgets.

    Args:
        per: whose budget it is: each client's, each group's, or one for the model (the route's ledger).
        window: length of a fixed, UTC-aligned window (`24h`); none means for ever.
        then: what happens to a batch that does not fit: `deny` (429) or `label_only`.
        hard_limit: with `then: label_only`: rows in all (graded or not) after which the answer is 429.
        mode: `shadow` counts in a ledger namespace of its own and refuses nothing.
    """

    model_config = ConfigDict(extra="forbid")

    distinct: ClassVar[bool] = False
    """It counts distinct snapped queries, so charges carry their digests."""
    counts: ClassVar[Counts] = "rows"
    """What it counts; `tokens` and `logprobs` are settled when an answer has ended."""

    kind: str
    per: Per = "client"
    window: Window | None = None
    then: Then = "deny"
    hard_limit: int | None = Field(default=None, ge=1, lt=2**53)
    mode: Literal["shadow", "enforce"] = "enforce"

    @property
    def scales(self) -> bool:
        """Whether the limit follows the queries' dimension."""
        return False

    @property
    def needs_profile(self) -> bool:
        """Whether the route needs a profile with held-out queries."""
        return False

    def on(self, outputs: Outputs) -> Self:
        """Return the budget for a route with such outputs: what it leaves to them is filled in."""
        del outputs
        return self

    def closes(self, reading: float) -> bool:
        """Return whether a scope with such a reading of the information meter gets nothing more from this budget."""
        del reading
        return False

    @cached_property
    def name(self) -> str:
        """The stable name inside its ledger and in metrics.

        Kind, scope and window, never a limit, so that edits refund nothing.
        """
        return f"{self.kind}/{self.per}" + (f"/{self.window_s}s" if self.window_s else "")

    @property
    def window_s(self) -> int:
        """Length of its window in seconds; 0 is for ever."""
        return self.window or 0

    @property
    def event(self) -> str | None:
        """What one row costs, for a budget that keeps a journal."""
        return None

    def counted(self, rows: int, most: Most | None) -> int:
        """Return how much of what this budget counts a request may be answered with.

        Args:
            rows: of the request.
            most: what an answer of generated text may hold; None for other answers.
        """
        del most
        return rows

    def amount_for(self, rows: int, drawn: int) -> int:
        """Return what a batch costs.

        Args:
            rows: all of its rows, or whatever else `counted` has counted.
            drawn: distinct queries among them whose release is not remembered.
        """
        del drawn
        return rows

    def scope(self, client: Client) -> str:
        """Return the scope that `client` charges."""
        if self.per == "model":
            return "model"
        return f"client:{client.name}" if self.per == "client" else f"group:{client.group}"

    def limit_for(self, dimension: int) -> int:
        """Return the limit for queries of `dimension` features."""
        raise NotImplementedError

    def check(self, outputs: Outputs) -> list[Problem]:
        """Return what is wrong with these parameters on a route with such outputs."""
        problems: list[Problem] = []
        no_labels: tuple[Kind, ...] = ("logits", "logprobs", "value", "embedding")
        if self.then == "label_only" and outputs.kind in no_labels:
            problems.append(
                Problem(f"{outputs.kind} cannot be answered with a label only", "then", hint="write then: deny")
            )
        if self.hard_limit is not None and self.then == "deny":
            problems.append(Problem("hard_limit only follows then: label_only", "hard_limit", hint="drop hard_limit"))
        return problems
