"""What commands on ledgers share: reading them whole, an operator's reason, and words."""

from __future__ import annotations

import argparse
import getpass
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from guard.cli.common import add_option
from guard.errors import StateError
from guard.model.ledger import Account
from guard.privacy.terms import Act, Terms, loads

if TYPE_CHECKING:
    from guard.ports import Books

LEAST_REASON, MOST_REASON = 5, 500
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger as its state has it.

    Args:
        name: its name.
        raw: its terms as they are stored; None for one without privacy budgets.
        accounts: its counters.
    """

    name: str
    raw: bytes | None
    accounts: list[Account]

    @property
    def terms(self) -> Terms | None:
        """Its terms.

        Raises:
            StateError: they cannot be read.
        """
        if self.raw is None:
            return None
        try:
            return loads(self.raw)
        except ValueError as error:
            raise StateError(f"the terms of the ledger {self.name} are damaged", code="ledger_damaged") from error

    @property
    def private(self) -> list[Account]:
        """Its privacy counters."""
        return [account for account in self.accounts if account.entries or account.budget.startswith("privacy/")]


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add `--state`."""
    add_option(parser, "--state", default="sqlite:guard.db", help="as for serve (default: %(default)s)")


def add_reason(parser: argparse.ArgumentParser) -> None:
    """Add `--reason` and `--audit`."""
    parser.add_argument(
        "--reason", type=reason, help="why, in a sentence or a ticket's number; it is published with the guarantee"
    )
    # Not `GUARD_AUDIT`: that is where `guard serve` puts its decisions, and another hand would break their chain.
    parser.add_argument(
        "--audit",
        default=os.environ.get("GUARD_BUDGET_AUDIT") or "guard-audit.jsonl",
        help="file that gets a line about it (default: %(default)s) [GUARD_BUDGET_AUDIT]",
    )


def reason(text: str) -> str:
    """Return a reason that can be published.

    Raises:
        ArgumentTypeError: it is too short, too long or not printable.
    """
    text = text.strip()
    if not LEAST_REASON <= len(text) <= MOST_REASON or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"a reason is one line of {LEAST_REASON} to {MOST_REASON} characters; it will be published"
        )
    return text


def using(url: str, work: Callable[[Books], Coroutine[None, None, Result]], *, write: bool = False) -> Result:
    """Open the books of a state, do the work and close them.

    Raises:
        StateError: the state is out of reach; to write in SQLite, a guard has it.
    """
    import asyncio

    from guard.state.books import open_books

    async def run() -> Result:
        try:
            books = open_books(url, write=write)
        except StateError as error:
            if write and "is in use" in error.message:
                raise StateError(f"{error.message}; stop it first, since it would overwrite the change") from error
            raise
        try:
            return await work(books)
        finally:
            await books.aclose()

    return asyncio.run(run())


async def read(books: Books, names: Iterable[str]) -> list[Ledger]:
    """Return ledgers whole; one that is not there is empty.

    Raises:
        StateError: the state is out of reach, or terms change all the time.
    """
    return [await _read(books, name) for name in names]


async def _read(books: Books, name: str) -> Ledger:
    for _ in range(5):
        raw = await books.terms(name)
        accounts = await books.accounts(name)
        if await books.terms(name) == raw:
            return Ledger(name, raw, accounts)
    raise StateError(f"the terms of the ledger {name} change all the time")


def now() -> tuple[float, str]:
    """Return the time in seconds, and as ISO 8601 in UTC."""
    now_s = time.time()
    return now_s, instant(now_s)


def instant(at_s: float) -> str:
    """Return a time as ISO 8601 in UTC.

    >>> instant(0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")


def line(act: Act, ledger: str, url: str, accounts: Sequence[Account]) -> dict[str, object]:
    """Return what the audit file says of an act.

    Args:
        act: the act.
        ledger: on which.
        url: of its state; its password stays out.
        accounts: the counters before, of which the first hundred are named.
    """
    from guard.cli.findings import redacted

    spent = [{"budget": a.budget, "scope": a.scope, "spent": a.spend.spent} for a in accounts[:100]]
    return {
        "at": act.at,
        "act": act.what,
        "by": _user(),
        "state": redacted(url),
        "ledger": ledger,
        "budget": act.budget or None,
        "scope": act.scope or None,
        "reason": act.reason,
        "counters": len(accounts),
        "before": spent,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def printable(text: str) -> str:
    r"""Return a name that clients chose as it may be shown on a terminal.

    >>> printable("client:\x1b[2J")
    'client:\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def act_in_words(act: Act) -> str:
    """Return an act as a sentence.

    >>> act_in_words(Act("reset", "2027-01-31T10:00:00+00:00", "SEC-412", "privacy/client", "client:a"))
    '2027-01-31T10:00:00+00:00: privacy/client of client:a was reset: SEC-412'
    """
    what = "moved to new terms" if act.what == "migrate" else act.what
    of = f" of {act.scope}" if act.scope else ""
    return printable(f"{act.at}: {act.budget or 'everything'}{of} was {what}: {act.reason}")
