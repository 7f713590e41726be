"""What a charge does to counters that are already in memory: the one place that decides, for `memory:` and `sqlite:`.

Semantics: `guard.model.ledger`. `charge.lua` says the same again, inside Redis. Both decide first and change after, so
a denied call changes nothing. The charges of one call name counters that differ from each other: two claims on one
counter would each be measured against the value before the call, so they are refused as a bug. So is a charge that
counts distinct queries and is journalled: its entry could not say which rows were paid for.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from guard.errors import InvariantError
from guard.model.ledger import Admission, Receipt, Spend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.model.ledger import Charge

DIGEST_BYTES = 16

_ALLOW, _LABEL_ONLY, _DENY = Admission.ALLOW, Admission.LABEL_ONLY, Admission.DENY
_SAFE = "/:@+=,!*()$;"
_PLAIN = re.compile(rf"[A-Za-z0-9_.~{_SAFE}-]+")
_NOTHING: tuple[bytes, ...] = ()
_ZERO = Spend(0, 0)


class Counter:
    """One counter: a budget's spend on a scope in a window.

    Args:
        spent: counts against the limit.
        total: counts against the hard limit.
        digests: what a distinct budget has been paid for; None while there is nothing.
    """

    __slots__ = ("digests", "spent", "total")

    def __init__(self, spent: int = 0, total: int = 0, digests: set[bytes] | None = None) -> None:
        self.spent = spent
        self.total = total
        self.digests = digests


def check_charges(charges: Sequence[Charge]) -> None:
    """Raise `InvariantError` when two charges of one call name the same counter, or a digest has not 16 bytes."""
    if len(charges) > 1 and len({(c.budget, c.scope, c.window_s) for c in charges}) < len(charges):
        raise InvariantError("a call charges one counter twice")
    for charge in charges:
        if charge.digests is None:
            continue
        if charge.event is not None:
            raise InvariantError("a journalled charge counts distinct queries")
        if any(len(digest) != DIGEST_BYTES for digest in charge.digests):
            raise InvariantError("a query digest has a wrong length")


def unpaid(charge: Charge, counter: Counter) -> tuple[bytes, ...]:
    """Return the distinct digests of `charge` that `counter` has not been paid for, in order."""
    unique = dict.fromkeys(charge.digests or ())
    paid = counter.digests
    return tuple(d for d in unique if d not in paid) if paid else tuple(unique)


def settle(charges: Sequence[Charge], counters: Sequence[Counter]) -> Receipt:
    """Decide a call and, unless it is denied, charge its counters.

    Args:
        charges: checked by `check_charges`.
        counters: one for each charge, with its present values; changed in place.

    Returns:
        The receipt; when it says DENY nothing was changed.

    >>> from guard.model.ledger import Charge
    >>> counter = Counter(spent=8, total=8)
    >>> settle([Charge("rows/client", "client:a", 0, 10, 2)], [counter]).admission.name, counter.spent
    ('ALLOW', 10)
    >>> settle([Charge("rows/client", "client:a", 0, 10, 1)], [counter]).admission.name, counter.spent
    ('DENY', 10)
    """
    binding: int | None = None
    fresh: list[tuple[bytes, ...]] | None = None
    i = 0
    for charge, counter in zip(charges, counters, strict=True):
        need = charge.amount
        if charge.digests is not None:
            if fresh is None:
                fresh = [_NOTHING] * len(charges)
            fresh[i] = unpaid(charge, counter)
            need = len(fresh[i])
        if counter.spent + need > charge.limit:
            hard_limit = charge.hard_limit
            if charge.then == "deny" or (hard_limit is not None and counter.total + charge.amount > hard_limit):
                none = len(charges)
                return Receipt(_DENY, i, _spends(counters), (_ZERO,) * none, (_NOTHING,) * none)
            if binding is None:
                binding = i
        i += 1
    if binding is None and fresh is None:
        for charge, counter in zip(charges, counters, strict=True):
            counter.spent += charge.amount
            counter.total += charge.amount
        charged = tuple([Spend(charge.amount, charge.amount) for charge in charges])
        return Receipt(_ALLOW, None, _spends(counters), charged, (_NOTHING,) * i)
    return _charge_mixed(charges, counters, binding, fresh)


def _charge_mixed(
    charges: Sequence[Charge], counters: Sequence[Counter], binding: int | None, fresh: list[tuple[bytes, ...]] | None
) -> Receipt:
    """Charge a call that has distinct charges, or that is label-only."""
    paid_for = fresh if binding is None and fresh is not None else [_NOTHING] * len(charges)
    charged: list[Spend] = []
    for charge, counter, new in zip(charges, counters, paid_for, strict=True):
        if charge.digests is None:
            fits = counter.spent + charge.amount <= charge.limit
            taken = Spend(charge.amount if fits else 0, charge.amount)
        elif binding is None:
            taken = Spend(len(new), len(new))
            paid = counter.digests if counter.digests is not None else set[bytes]()
            paid.update(new)
            counter.digests = paid
        else:
            taken = Spend(0, charge.amount)
        counter.spent += taken.spent
        counter.total += taken.total
        charged.append(taken)
    admission = _ALLOW if binding is None else _LABEL_ONLY
    return Receipt(admission, binding, _spends(counters), tuple(charged), tuple(paid_for))


def _spends(counters: Sequence[Counter]) -> tuple[Spend, ...]:
    return tuple([Spend(counter.spent, counter.total) for counter in counters])


def take_off(counter: Counter, charged: Spend, fresh: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Refund one counter, never below zero, and return the digests that it forgot.

    >>> counter = Counter(spent=8, total=9)
    >>> take_off(counter, Spend(2, 2), ()), counter.spent, counter.total
    ((), 6, 7)
    """
    digests = counter.digests or set[bytes]()
    forgotten = tuple([digest for digest in fresh if digest in digests])
    digests.difference_update(forgotten)
    counter.spent = max(0, counter.spent - charged.spent)
    counter.total = max(0, counter.total - charged.total)
    return forgotten


def rows_back(rows: int, charged: int, taken: int) -> int:
    """Return how many of the `rows` that `charged` paid for a refund of `taken` stands for.

    All of them, unless less was there to take off.

    >>> rows_back(3, 30, 30), rows_back(3, 30, 10), rows_back(3, 0, 0)
    (3, 1, 0)
    """
    return rows * taken // charged if charged else 0


def escaped(name: str) -> str:
    """Write a ledger's, budget's or scope's name without `|`, `{`, `}` or anything that is not printable ASCII.

    Different names stay different, and the usual ones stay as they are.

    >>> escaped("client:alice"), escaped("client:a|b}"), escaped("")
    ('client:alice', 'client:a%7Cb%7D', '%')
    """
    return name if _PLAIN.fullmatch(name) else _quoted(name)


@lru_cache(maxsize=4096)  # a name that clients choose may be long, so not many are kept
def _quoted(name: str) -> str:
    # `quote` never writes a % that no hex digits follow, so a bare one can stand for the empty name.
    return quote(name, safe=_SAFE, errors="surrogatepass") if name else "%"


def unescaped(text: str) -> str:
    """Return the name that `escaped` wrote.

    >>> unescaped("client:a%7Cb%7D"), unescaped("%")
    ('client:a|b}', '')
    """
    return "" if text == "%" else unquote(text, errors="surrogatepass")


def forgotten_after_s(window_s: int, window: int) -> int:
    """Return when a window of `window_s` > 0 seconds may be forgotten, in seconds since the epoch.

    It is kept for as long again as it lasted, at least a minute: a clock that steps back finds its counters.

    >>> forgotten_after_s(3600, 1), forgotten_after_s(1, 9)
    (10800, 70)
    """
    return (window + 1) * window_s + max(window_s, 60)
