"""`privacy`: how much differential privacy loss answers may cause."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

from pydantic import Field, PrivateAttr

from guard.budgets.base import Budget, Window
from guard.errors import InvariantError, Problem
from guard.model.ledger import Then
from guard.model.outputs import Outputs
from guard.privacy.events import Event, text
from guard.privacy.filters import MOST, Filter


class Price(NamedTuple):
    """What a privacy budget comes to on one route.

    Args:
        limit: what it holds, in the filter's units.
        cost: what one row costs, likewise.
        event: what one row costs, as a journal keeps it.
    """

    limit: int
    cost: int
    event: str


class Privacy(Budget, frozen=True):
    """A limit on differential privacy loss, charged for every answer that is drawn anew and never given back.

    Needs a mechanism of differential privacy first among the route's defences. `per: model` bounds what everybody
    together learns of the training data; `per: client` and `per: group` bound what each learns alone, which says
    nothing of several that compare their answers. A repeated query gets the same release and costs nothing. What it
    costs is noise: `guard budget plan` says how much, before you write it here.

    Args:
        epsilon: in nats.
        delta: below 1 / n for a training set of n records.
        period: the budget begins anew every so often (`30d`), and with it the guarantee; needs `guarantee: per_period`.
        guarantee: `for_ever`, or `per_period`: you know that whoever asks through several periods learns more.
        order: the Renyi order to account at; left out, Gaussian DP where it applies, otherwise the best order.
    """

    kind: Literal["privacy"] = "privacy"
    epsilon: float = Field(gt=0, le=1000, examples=[8.0])
    delta: float = Field(gt=0, lt=1, examples=[1e-6])
    period: Window | None = None
    guarantee: Literal["for_ever", "per_period"] = "for_ever"
    order: float | None = Field(default=None, gt=1, le=2**20)
    then: Then = "deny"

    _price: Price | None = PrivateAttr(default=None)

    def priced(self, filter_: Filter, event: Event) -> Self:
        """Return the budget for a route whose every row costs `event`, in the units of `filter_`."""
        price = Price(filter_.limit(self.epsilon, self.delta), filter_.cost(event), text(event))
        made = self.model_copy()
        made._price = price  # pyright: ignore[reportAttributeAccessIssue] - pydantic sets private attributes of frozen models
        return made

    @property
    def window_s(self) -> int:
        """Length of its period in seconds; 0 is for ever."""
        return self.period or 0

    @property
    def price(self) -> Price:
        """What it holds and what a row costs.

        Raises:
            InvariantError: it has not been priced.
        """
        if self._price is None:
            raise InvariantError("a privacy budget is used before it was priced")
        return self._price

    @property
    def event(self) -> str | None:
        """What one row costs, as a journal keeps it."""
        return self.price.event

    @property
    def answers(self) -> int:
        """How many rows it admits in all."""
        return self.price.limit // self.price.cost if self.price.cost <= MOST else 0

    def limit_for(self, dimension: int) -> int:
        """Return the limit in the filter's units."""
        del dimension
        return self.price.limit

    def amount_for(self, rows: int, drawn: int) -> int:
        """Return what the rows drawn anew cost."""
        del rows
        return self.price.cost * drawn

    def check(self, outputs: Outputs) -> list[Problem]:
        """Refuse what would weaken the guarantee without words."""
        problems = super().check(outputs)
        if self.then != "deny":
            problems.append(Problem("a label costs privacy, too", "then", hint="write then: deny"))
        if self.window is not None:
            hint = "write period, and guarantee: per_period"
            problems.append(Problem("privacy that is spent does not come back with a window", "window", hint=hint))
        if self.period is not None and self.guarantee != "per_period":
            hint = "add guarantee: per_period, if that is what you can promise"
            message = "with a period the guarantee is per period: whoever asks through several learns more"
            problems.append(Problem(message, "period", hint=hint))
        if self.period is None and self.guarantee == "per_period":
            problems.append(Problem("there is no period", "guarantee", hint="write period: 30d, or drop guarantee"))
        return problems
