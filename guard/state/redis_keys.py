"""How a ledger's keys are named in Redis, and what a key's name says.

All keys of a ledger are `guard:{LEDGER}:…`: the hash tag keeps a ledger on one shard, so that one script may change all
of it. Names are escaped, so that none reaches another's key; one that is very long is replaced by its hash.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from guard.state.counters import escaped, unescaped

if TYPE_CHECKING:
    from guard.model.ledger import Charge

_DAY_S = 86_400
_LONGEST_NAME = 256
_HASHED = "%sha256-"


class Name(NamedTuple):
    """What names a counter inside its ledger."""

    budget: str
    scope: str
    window_s: int
    window: int


def key_of(kind: str, ledger: str, charge: Charge, now_s: float) -> str:
    """Name a counter (`c`) or a set of digests (`d`).

    >>> from guard.model.ledger import Charge
    >>> key_of("c", "digits", Charge("rows/client", "client:a", 60, 10, 1), 125.0)
    'guard:{digits}:c|rows/client|client:a|60|2'
    """
    names = f"{_short(charge.budget)}|{_short(charge.scope)}"
    return f"guard:{{{_short(ledger)}}}:{kind}|{names}|{charge.window_s}|{charge.window(now_s)}"


def counter_key(ledger: str, name: Name) -> str:
    """Name a counter by what `name_in` returned.

    >>> counter_key("digits", Name("rows/client", "client:a", 60, 2))
    'guard:{digits}:c|rows/client|client:a|60|2'
    """
    return f"guard:{{{_short(ledger)}}}:c|{_short(name.budget)}|{_short(name.scope)}|{name.window_s}|{name.window}"


def counter_prefix(ledger: str) -> str:
    """Return what the keys of a ledger's counters begin with.

    >>> counter_prefix("digits")
    'guard:{digits}:c|'
    """
    return f"guard:{{{_short(ledger)}}}:c|"


def name_in(key: str) -> Name:
    """Return what a counter's key says; of a name that was too long, its hash.

    >>> name_in("guard:{digits}:c|rows/client|client:a%7Cb|60|2")
    Name(budget='rows/client', scope='client:a|b', window_s=60, window=2)
    """
    budget, scope, window_s, window = key.partition("}:c|")[2].split("|")
    return Name(_long(budget), _long(scope), int(window_s), int(window))


def terms_key(ledger: str) -> str:
    """Name a ledger's terms.

    >>> terms_key("digits")
    'guard:{digits}:t'
    """
    return f"guard:{{{_short(ledger)}}}:t"


def memo_key(ledger: str) -> str:
    """Name a ledger's remembered releases.

    >>> memo_key("digits")
    'guard:{digits}:m'
    """
    return f"guard:{{{_short(ledger)}}}:m"


def record_key(space: str, key: str) -> str:
    """Name a client's record (`e`): a ledger's evidence and marks are on its shard, other spaces have one of their own.

    >>> record_key("evidence/digits/0123456789ab", "alice#0"), record_key("marks/digits", "alice")
    ('guard:{digits}:e|evidence|0123456789ab|alice%230', 'guard:{digits}:e|marks|%|alice')
    """
    kind, _, rest = space.partition("/")
    part = rest.rpartition("/")[2] if kind == "evidence" else ""
    return f"guard:{{{_short(ledger_of(space))}}}:e|{_short(kind)}|{_short(part)}|{_short(key)}"


def ledger_of(space: str) -> str:
    """Return the ledger on whose shard a space's records are.

    >>> ledger_of("evidence/digits/0123456789ab"), ledger_of("marks/digits"), ledger_of("other")
    ('digits', 'digits', 'other')
    """
    kind, _, rest = space.partition("/")
    if kind == "evidence":
        return rest.rpartition("/")[0]
    return rest if kind == "marks" else space


def ledger_in(key: str) -> str | None:
    """Return the ledger of a key; None for a key that is no ledger's, such as a client's record.

    >>> ledger_in("guard:{digits}:t"), ledger_in("guard:{ping}"), ledger_in("guard:{digits}:e|marks|%|alice")
    ('digits', None, None)
    """
    prefix, _, rest = key.partition("{")
    name, closed, what = rest.partition("}:")
    return _long(name) if prefix == "guard:" and closed and not what.startswith("e|") else None


def ttl_ms(charge: Charge, now_s: float) -> int:
    """Return how long the keys of the window of `now_s` live; 0 for ever.

    >>> from guard.model.ledger import Charge
    >>> ttl_ms(Charge("rows/client", "client:a", 60, 10, 1), 125.0)
    86455000
    """
    return lives_ms(charge.window_s, charge.window(now_s), now_s)


def lives_ms(window_s: int, window: int, now_s: float) -> int:
    """Return how long the keys of a window live from now on; 0 for ever.

    >>> lives_ms(60, 2, 125.0), lives_ms(0, 0, 125.0)
    (86455000, 0)
    """
    return max(1, int(((window + 1) * window_s - now_s + _DAY_S) * 1000)) if window_s else 0


def _short(name: str) -> str:
    """Escape a name; a long one is replaced by its hash, behind a % that no escaped name begins with so."""
    text = escaped(name)
    return text if len(text) <= _LONGEST_NAME else _HASHED + hashlib.sha256(text.encode()).hexdigest()


def _long(text: str) -> str:
    return text if text.startswith(_HASHED) else unescaped(text)
