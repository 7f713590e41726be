"""What one answer of a mechanism costs: frozen values that a filter turns into units and a ledger keeps as text.

An event names the mechanism by what bounds its privacy loss, never by what it was applied to. `text` and `parse` are
each other's inverse; what cannot be parsed is refused, so a ledger that holds an unknown event cannot be replayed.
Shape of the design: dp-accounting's `DpEvent` (Google, 2021); no code of it is here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from math import inf


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Gaussian noise of standard deviation noise_multiplier * L2 sensitivity.

    Args:
        noise_multiplier: sigma divided by sensitivity, above 0.
        fine: the discrete Gaussian has at least 2^32 grid steps a sigma, so that it may be taken for the continuous
            one, which is exactly (1 / noise_multiplier)-GDP; `filters` takes the difference off. A coarse one has Renyi
            bounds only.
    """

    noise_multiplier: float
    fine: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what is no noise."""
        _check(self.noise_multiplier)


@dataclass(frozen=True, slots=True)
class Laplace:
    """Discrete Laplace noise of scale noise_multiplier * L1 sensitivity, on at least 2^32 grid steps a scale.

    It is (1 / noise_multiplier)-DP on any grid: what a coarse one costs is `Pure`.

    Args:
        noise_multiplier: scale divided by sensitivity, above 0.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        """Refuse what is no noise."""
        _check(self.noise_multiplier)


@dataclass(frozen=True, slots=True)
class Pure:
    """Any epsilon-DP mechanism, such as randomised response.

    Args:
        epsilon: nats, above 0.
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Refuse what bounds nothing."""
        _check(self.epsilon)


@dataclass(frozen=True, slots=True)
class BoundedRange:
    """The exponential mechanism: privacy loss in some interval of this length, which composes better than epsilon-DP.

    Args:
        epsilon: nats, above 0; the mechanism is epsilon-DP as well.
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Refuse what bounds nothing."""
        _check(self.epsilon)


@dataclass(frozen=True, slots=True)
class NoOp:
    """Costs nothing: post-processing."""


@dataclass(frozen=True, slots=True)
class NonPrivate:
    """Costs infinity: an answer without noise."""


@dataclass(frozen=True, slots=True)
class Composed:
    """Several events for one answer, such as a threshold and a vote.

    Args:
        parts: in order, at least two; compositions among them are taken apart.
    """

    parts: tuple[Event, ...]

    def __post_init__(self) -> None:
        """Refuse parts that are no events; take nested compositions apart, so that equal costs are equal values."""
        flat = tuple(one for part in self.parts for one in (part.parts if isinstance(part, Composed) else (part,)))
        if len(flat) < 2 or not all(known(part) for part in flat):
            raise ValueError(f"{flat} are not two or more privacy events")
        object.__setattr__(self, "parts", flat)


Simple = Gaussian | Laplace | Pure | BoundedRange | NoOp | NonPrivate
Event = Simple | Composed
_NAMES: dict[type[Simple], str] = {
    Gaussian: "gaussian",
    Laplace: "laplace",
    Pure: "pure",
    BoundedRange: "bounded_range",
    NoOp: "no_op",
    NonPrivate: "non_private",
}
_KINDS = {name: kind for kind, name in _NAMES.items()}
_CALL = re.compile(r"([a-z_]+)\(([0-9.e+-]*)(,coarse)?\)", re.ASCII)
_BETWEEN = re.compile(r"(?<=\))\+")


def _check(number: float) -> None:
    if not 0.0 < number < inf:
        raise ValueError(f"a privacy event of {number}, which is not above 0 and finite")


def known(value: object) -> bool:
    """Say whether a value is one of the events here, or composed of them."""
    return isinstance(value, Composed) or type(value) in _NAMES


def text(event: Event) -> str:
    """Return an event as a ledger keeps it.

    Raises:
        ValueError: it is none.

    >>> text(Composed((Gaussian(2.5), Pure(0.1))))
    'gaussian(2.5)+pure(0.1)'
    """
    if isinstance(event, Composed):
        return "+".join(text(part) for part in event.parts)
    if not known(event):
        raise ValueError(f"there is no privacy event {event!r}")
    numbers = [repr(float(value)) for each in fields(event) if type(value := getattr(event, each.name)) is not bool]
    coarse = ["coarse"] if isinstance(event, Gaussian) and not event.fine else []
    return f"{_NAMES[type(event)]}({','.join(numbers + coarse)})"


def parse(written: str) -> Event:
    """Return the event that `text` wrote.

    Raises:
        ValueError: it is none that this version knows, alone or within a composition.

    >>> parse("gaussian(2.5)+pure(0.1)")
    Composed(parts=(Gaussian(noise_multiplier=2.5, fine=True), Pure(epsilon=0.1)))
    """
    parts = [_one(part) for part in _BETWEEN.split(written)]
    return parts[0] if len(parts) == 1 else Composed(tuple(parts))


def _one(written: str) -> Event:
    found = _CALL.fullmatch(written)
    kind = _KINDS.get(found[1]) if found else None
    if found is None or kind is None or (found[3] and kind is not Gaussian):
        raise ValueError(f"there is no privacy event {written}")
    try:
        event = kind(*([float(found[2])] if found[2] else []))
    except (TypeError, ValueError):
        raise ValueError(f"there is no privacy event {written}") from None
    return Gaussian(event.noise_multiplier, fine=False) if found[3] and isinstance(event, Gaussian) else event
