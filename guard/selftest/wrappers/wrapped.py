"""What all wrapped APIs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from guard.selftest.base import Api, Rows, Tally, World
from guard.selftest.measures import Floats

Wrapper = Callable[[World], World]


class Wrapped:
    """An API that asks another one.

    Args:
        inner: the other.
    """

    def __init__(self, inner: Api) -> None:
        self.inner = inner

    def ask(self, x: Rows) -> Floats:
        """Return the scores of all rows."""
        return self.inner.ask(x)

    def ask_all(self, x: Rows) -> dict[str, Floats]:
        """Return every numeric member of the answers by name."""
        return self.inner.ask_all(x)

    @property
    def asked(self) -> int:
        """Rows sent so far."""
        return self.inner.asked

    @property
    def tally(self) -> Tally:
        """What the answers were so far."""
        return self.inner.tally


def everywhere(world: World, wrap: Callable[[Api], Api]) -> World:
    """Wrap the API, the attacker's other accounts and the attacker's own deployments alike."""

    def account(number: int) -> Api:
        return wrap(world.account(number))

    def shadow(name: str) -> Api:
        return wrap(world.shadow(name))

    return replace(world, api=wrap(world.api), account=account, shadow=shadow)


def joined(parts: list[Floats], otherwise: Floats | None) -> Floats | None:
    """Return parts as one; `otherwise` when there are none."""
    kept = [part for part in parts if len(part)]
    return np.concatenate(kept) if kept else otherwise
