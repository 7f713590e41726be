"""What one answer of a mechanism costs: frozen values that a filter turns into units and a ledger keeps as text.

An event names the mechanism by what bounds its privacy loss, never by what it was applied to. `text` and `parse` are
each other's inverse; what cannot be parsed is refused, so a ledger that holds an unknown event cannot be replayed.
Shape of the design: dp-accounting's `DpEvent` (Google, 2021); no code of it is here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from math import inf, isfinite


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Gaussian noise of standard deviation noise_multiplier * L2 sensitivity: exactly (1 / noise_multiplier)-GDP.

    Args:
        noise_multiplier: sigma divided by sensitivity, above 0.
        fine: the discrete Gaussian's grid is so fine (2^32 steps a sigma) that Gaussian DP holds up to a probability
            that `filters` takes off delta. A coarse grid has Renyi bounds only.
    """

    noise_multiplier: float
    fine: bool = True


@dataclass(frozen=True, slots=True)
class Laplace:
    """Laplace noise of scale noise_multiplier * L1 sensitivity: (1 / noise_multiplier)-DP.

    Args:
        noise_multiplier: scale divided by sensitivity, above 0.
    """

    noise_multiplier: float


@dataclass(frozen=True, slots=True)
class Pure:
    """Any epsilon-DP mechanism, such as randomised response.

    Args:
        epsilon: nats, above 0.
    """

    epsilon: float


@dataclass(frozen=True, slots=True)
class BoundedRange:
    """The exponential mechanism: epsilon-DP, and epsilon-bounded-range, which composes better.

    Args:
        epsilon: nats, above 0.
    """

    epsilon: float


@dataclass(frozen=True, slots=True)
class Composed:
    """Several events for one answer, such as a threshold and a vote.

    Args:
        parts: in order.
    """

    parts: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class NoOp:
    """Costs nothing: post-processing."""


@dataclass(frozen=True, slots=True)
class NonPrivate:
    """Costs infinity: an answer without noise."""


Event = Gaussian | Laplace | Pure | BoundedRange | Composed | NoOp | NonPrivate
_SIMPLE: dict[str, type[Gaussian] | type[Laplace] | type[Pure] | type[BoundedRange] | type[NoOp] | type[NonPrivate]] = {
    "gaussian": Gaussian,
    "laplace": Laplace,
    "pure": Pure,
    "bounded_range": BoundedRange,
    "no_op": NoOp,
    "non_private": NonPrivate,
}
_CALL = re.compile(r"(\w+)\(([^()]*)\)")


def text(event: Event) -> str:
    """Return an event as a ledger keeps it.

    >>> text(Composed((Gaussian(2.5), Pure(0.1))))
    'gaussian(2.5)+pure(0.1)'
    """
    if isinstance(event, Composed):
        return "+".join(text(part) for part in event.parts) or "no_op()"
    name = next(name for name, kind in _SIMPLE.items() if type(event) is kind)
    if isinstance(event, Gaussian) and not event.fine:
        return f"gaussian({event.noise_multiplier!r},coarse)"
    values = [getattr(event, field.name) for field in fields(event)]
    return f"{name}({','.join(repr(value) for value in values if not isinstance(value, bool))})"


def parse(written: str) -> Event:
    """Return the event that `text` wrote.

    Raises:
        ValueError: it is none that this version knows, alone or within a composition.

    >>> parse("gaussian(2.5)+pure(0.1)")
    Composed(parts=(Gaussian(noise_multiplier=2.5, fine=True), Pure(epsilon=0.1)))
    """
    parts = [_one(part) for part in written.split("+")]
    return parts[0] if len(parts) == 1 else Composed(tuple(parts))


def _one(written: str) -> Event:
    found = _CALL.fullmatch(written)
    kind = _SIMPLE.get(found[1]) if found else None
    if found is None or kind is None:
        raise ValueError(f"there is no privacy event {written}")
    arguments = [argument for argument in found[2].split(",") if argument]
    coarse = kind is Gaussian and arguments[-1:] == ["coarse"]
    numbers = [float(argument) for argument in (arguments[:-1] if coarse else arguments)]
    expected = 0 if kind in (NoOp, NonPrivate) else 1
    if len(numbers) != expected or any(not isfinite(n) or not 0 < n < inf for n in numbers):
        raise ValueError(f"there is no privacy event {written}")
    if coarse:
        return Gaussian(numbers[0], fine=False)
    return kind(*numbers)
