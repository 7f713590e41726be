"""The unions of whatever plugins are registered, so that a plugin needs no line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import Field

from guard.budgets import BUDGETS
from guard.budgets.base import Budget
from guard.defences import DEFENCES
from guard.defences.base import Defence
from guard.detectors import DETECTORS
from guard.detectors.base import Detector
from guard.wire.registry import API_NAMES

if TYPE_CHECKING:
    AnyDefence = Defence
    AnyBudget = Budget
    AnyDetector = Detector
    ApiName = str
else:
    # UP007 asks for X | Y, which cannot be written of a tuple that is known at import alone.
    AnyDefence = Annotated[Union[tuple(DEFENCES.values())], Field(discriminator="kind")]  # noqa: UP007
    AnyBudget = Annotated[Union[tuple(BUDGETS.values())], Field(discriminator="kind")]  # noqa: UP007
    AnyDetector = Annotated[Union[tuple(DETECTORS.values())], Field(discriminator="kind")]  # noqa: UP007
    ApiName = Literal[API_NAMES]
