"""What commands on ledgers share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import pytest

from guard.cli.ledgers import Ledger, line, read, reason
from guard.errors import StateError
from guard.model.ledger import Account, Spend
from guard.privacy.terms import Act

ACT = Act("reset", "2027-01-31T10:00:00+00:00", "SEC-412", "privacy/client", "client:a")


class Moving:
    """Books whose terms change under the reader's eyes, so many times."""

    def __init__(self, changes: int) -> None:
        self.changes = changes

    async def ledgers(self) -> list[str]:
        return ["digits"]

    async def terms(self, ledger: str) -> bytes | None:
        del ledger
        self.changes -= 1
        return b"%d" % max(0, self.changes)

    async def accounts(self, ledger: str) -> list[Account]:
        del ledger
        return []

    async def rewrite(self, ledger: str, old: bytes | None, new: bytes | None, accounts: Sequence[Account]) -> bool:
        del ledger, old, new, accounts
        return False

    async def aclose(self) -> None:
        pass


async def test_terms_and_counters_are_of_one_moment() -> None:
    assert await read(Moving(4), ["digits"]) == [Ledger("digits", b"0", [])]
    with pytest.raises(StateError, match="change all the time"):
        await read(Moving(100), ["digits"])


def test_the_audit_file_holds_no_password_and_names_a_hundred_counters_at_most() -> None:
    many = [Account("rows/client", f"client:{i}", 0, 0, Spend(i, i), ()) for i in range(250)]
    said = line(ACT, "digits", "redis://guard:hunter2@redis:6379", many)
    assert said["counters"] == 250
    text = json.dumps(said)
    assert "hunter2" not in text
    assert text.count('"spent"') == 100


def test_what_a_ledger_keeps_for_privacy_is_told_from_the_rest() -> None:
    rows = Account("rows/client", "client:a", 0, 0, Spend(1, 1), ())
    private = Account("privacy/client", "client:a", 0, 0, Spend(1, 1), ())
    assert Ledger("digits", None, [rows, private]).private == [private]


@pytest.mark.parametrize("text", ["", "    why   ", "x" * 501, "tab\there", "esc\x1b[2J"])
def test_a_reason_is_one_line_that_can_be_published(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="it will be published"):
        reason(text)


def test_a_reason_loses_the_space_around_it() -> None:
    assert reason("  SEC-412 ") == "SEC-412"
