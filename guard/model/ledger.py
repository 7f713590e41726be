"""Values of budget accounting: what is charged, and what came of it.

A **ledger** holds counters per (budget, scope, window). Windows are fixed and UTC-aligned: window `w` of length `s`
seconds covers `[w*s, (w+1)*s)`; length 0 means one window for ever. Every counter has two integers:

* `spent`: what counts against `limit`;
* `total`: everything charged, label-only rows included; counts against `hard_limit`.

One call charges several `Charge`s of one ledger atomically. For each, with the counter's present values:

1. *need* is `amount`, or for a **distinct** charge (one with `digests`) the number of digests, each counted once, that
   the scope has not yet paid for in this window.
2. `spent + need <= limit`: it fits.
3. Otherwise `then: deny`: the call is denied. `then: label_only`: it is label-only, or denied when there is a
   `hard_limit` and `total + amount > hard_limit`. (A charge that fits is never stopped by the hard limit; the policy
   demands hard_limit >= limit.)

Denied by any: nothing is charged anywhere. Otherwise everything is charged at once:

* a plain charge that fits adds `amount` to `spent` and `total`; one that is label-only adds `amount` to `total` alone;
* a distinct charge, when no charge of the call is label-only, remembers its new digests and adds their number to
  `spent` and `total` (a repeat is free); when any is label-only, it costs no graded answer: `amount` is added to
  `total` alone, and no digest is remembered.

The receipt says what each counter was increased by. A refund takes off just that, never below zero, and forgets the new
digests; a counter that is gone stays gone.

A charge with an `event` is of a privacy budget, and is **journalled**. In the atomic step that adds `a` > 0 to `spent`,
the counter's journal gets the entry (event, rows, a); a refund that takes `b` > 0 off enters (event, -rows, -b), where
rows are in proportion if less was left than had been charged. Nothing else changes a journalled counter but an
operator's rewrite, which enters what it does. So for every counter, at every moment,

    spent = sum of the amounts of all its entries,

which is what replaying means. Entries are only ever added. Of a long journal the oldest are folded into a checkpoint, a
total for each event; folding moves what it takes from the one to the other, and keeps the sum. A counter is either
journalled by all of its charges or by none. With its window a counter and its journal are forgotten together.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple

Then = Literal["deny", "label_only"]
TERMS_CHANGED = "ledger_terms_changed"
"""Code of the `StateError` for a privacy charge on a ledger whose terms are not those that this process last saw."""


class Admission(Enum):
    """What came of a charge, ordered from mild to strict."""

    ALLOW = 0
    LABEL_ONLY = 1
    DENY = 2


class Charge(NamedTuple):
    """One budget's claim on one scope.

    Args:
        budget: the budget's stable name inside its ledger, such as `rows/client` or `information/group`.
        scope: `client:NAME`, `group:NAME` or `model`.
        window_s: window length in whole seconds; 0 is for ever.
        limit: greatest `spent`; 0 of a budget that is closed.
        amount: rows; at least 1.
        then: what happens to a call that does not fit.
        hard_limit: greatest `total` once label-only; None for no such limit.
        digests: 16-byte keyed digests of the snapped queries (one per row) for a distinct charge; None for a plain one.
        event: for a privacy budget: what one row costs, as `guard.privacy.events.text` writes it; the charge is then
            also entered in the ledger's journal, which `guard audit verify` replays. None for other budgets.
        rows: for a privacy budget: rows that `amount` pays for.
    """

    budget: str
    scope: str
    window_s: int
    limit: int
    amount: int
    then: Then = "deny"
    hard_limit: int | None = None
    digests: tuple[bytes, ...] | None = None
    event: str | None = None
    rows: int = 0

    def window(self, now_s: float) -> int:
        """Return the number of the window that `now_s` falls in; 0 when the budget is for ever.

        >>> Charge("rows/client", "client:a", 60, 10, 1).window(125.0)
        2
        """
        return int(now_s // self.window_s) if self.window_s else 0


class Spend(NamedTuple):
    """A counter's values.

    Args:
        spent: counts against the limit.
        total: counts against the hard limit.
    """

    spent: int
    total: int


class Receipt(NamedTuple):
    """What one atomic call did.

    Args:
        admission: the strictest of all charges.
        binding: index of the first charge that denied or made it label-only; None when all fit.
        spends: each charge's counter after the call (before it, when denied).
        charged: what each charge's counter was increased by; zeros when denied. A refund takes it off.
        fresh: for each charge the digests that were newly remembered; empty for plain ones. A refund forgets them.
    """

    admission: Admission
    binding: int | None
    spends: tuple[Spend, ...]
    charged: tuple[Spend, ...]
    fresh: tuple[tuple[bytes, ...], ...]


class Entry(NamedTuple):
    """What a ledger's journal says of one counter and one event, added up.

    Args:
        event: as `guard.privacy.events.text` writes it, or `reset` or `migrated`.
        rows: rows drawn, refunds taken off.
        amount: what they cost together, in the budget's units; negative for a reset.
    """

    event: str
    rows: int
    amount: int


class Account(NamedTuple):
    """One counter of a ledger as its state has it.

    Args:
        budget: the budget's name.
        scope: whose it is.
        window_s: window length; 0 is for ever.
        window: its number.
        spend: the live counter.
        entries: checkpoint and journal, added up by event, sorted by it; empty for budgets that keep no journal.
    """

    budget: str
    scope: str
    window_s: int
    window: int
    spend: Spend
    entries: tuple[Entry, ...]
