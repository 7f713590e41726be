"""`guard audit verify` on files that were tampered with, each in one way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from guard.cli.audit import verify
from guard.cli.ledgers import Ledger
from guard.model.ledger import Account, Entry, Spend
from guard.privacy.terms import Terms
from tests.support.operators import CLIENT, LAPLACE, MODEL, ROWS, operate, policy, spend

REASON = ("--reason", "SEC-412: test traffic")
OF_ALICE = "counter IN (SELECT id FROM counters WHERE scope = 'client:alice' AND budget = 'privacy/client')"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GUARD_POLICY", "GUARD_STATE", "GUARD_API", "GUARD_AUDIT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A ledger of two clients and a model, with rows beside."""
    path = tmp_path / "guard.db"
    spend(f"sqlite:{path}", policy(tmp_path, MODEL, CLIENT, ROWS), {"alice": 40, "bob": 20})
    return path


def audit(db: Path, *options: str | Path) -> int:
    return operate("audit", "verify", "--state", f"sqlite:{db}", *options)


def tamper(db: Path, statement: str) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        assert connection.execute(statement).rowcount > 0


def test_a_sound_ledger_replays(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(db) == 0
    assert capsys.readouterr().out == "digits: 3 counters, 120 rows charged: the journal adds up to what is spent\n"
    assert audit(db, "--ledger", "digits") == 0


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (f"UPDATE spends SET spent = spent - 1 WHERE {OF_ALICE}", "the journal adds up to"),
        (f"UPDATE spends SET spent = spent + 1 WHERE {OF_ALICE}", "the journal adds up to"),
        (f"DELETE FROM journal WHERE {OF_ALICE}", "the journal adds up to 0, the counter says"),
        (f"UPDATE journal SET amount = amount - 1 WHERE {OF_ALICE}", "40 rows cost"),
        (f"UPDATE journal SET rows = 39 WHERE {OF_ALICE}", "gaussian(20.0): 39 rows cost"),
        (f"UPDATE journal SET event = 'gaussian(25.0)' WHERE {OF_ALICE}", "gaussian(25.0): 40 rows cost"),
        (f"UPDATE journal SET event = 'no_op()' WHERE {OF_ALICE}", "no_op(): 40 rows cost 0"),
        (f"UPDATE journal SET event = 'magic(1.0)' WHERE {OF_ALICE}", "so its 40 rows have no price"),
        (f"UPDATE journal SET event = 'gaussian(20.0)+magic(1.0)' WHERE {OF_ALICE}", "so its 40 rows have no price"),
        (f"UPDATE journal SET event = 'laplace(20.0)' WHERE {OF_ALICE}", "so its 40 rows have no price"),
        (f"UPDATE journal SET event = 'gaussian(20.0)+non_private()' WHERE {OF_ALICE}", "costs infinity"),
        (f"UPDATE journal SET event = 'reset' WHERE {OF_ALICE}", "which no operator's act can"),
    ],
)
def test_each_way_to_tamper_with_a_counter_is_named(
    statement: str, said: str, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper(db, statement)
    assert audit(db) == 1
    out, err = capsys.readouterr()
    assert out.startswith("digits: privacy/client of client:alice: ")
    assert said in out
    assert "bob" not in out
    assert "discrepancies" in err


def test_a_counter_lowered_with_a_reset_of_nobodys_is_named(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(db, f"INSERT INTO checkpoints SELECT counter, 'reset', 0, -spent FROM spends WHERE {OF_ALICE}")
    tamper(db, f"UPDATE spends SET spent = 0, total = 0 WHERE {OF_ALICE}")
    assert audit(db) == 1
    assert "which no act of an operator explains" in capsys.readouterr().out


def test_a_reset_of_an_operators_is_not(db: Path) -> None:
    assert operate("budget", "reset", "--state", f"sqlite:{db}", "--ledger", "digits", *REASON, "--yes") == 0
    assert audit(db) == 0


def test_a_ledger_that_has_lost_its_terms_cannot_be_priced(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(db, "DELETE FROM terms")
    assert audit(db) == 1
    assert capsys.readouterr().out.count("the ledger has no terms, so that its answers have no price") == 3


@pytest.mark.parametrize("terms", ["x'7b7d'", "x'00'", "replace(terms, '\"gdp\"', '\"gdp2\"')"])
def test_terms_that_cannot_be_read_are_named(terms: str, db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(db, f"UPDATE terms SET terms = CAST({terms} AS BLOB)")
    assert audit(db) == 1
    assert "digits: " in capsys.readouterr().out


def test_other_accounting_in_the_terms_is_named_for_every_counter(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(db, "UPDATE terms SET terms = CAST(replace(terms, '\"gdp\"', '\"rdp(3.0)\"') AS BLOB)")
    assert audit(db) == 1
    assert capsys.readouterr().out.count("rows cost") == 3


def test_budgets_that_only_count_have_no_terms_and_still_add_up() -> None:
    sound = Account("privacy/model", "model", 0, 0, Spend(9, 9), (Entry("gaussian(2.0)", 1, 9),))
    assert verify(Ledger("shadow:digits", None, [sound])) == (1, [])
    found = verify(Ledger("shadow:digits", None, [sound._replace(spend=Spend(8, 9))]))
    assert found == (1, ["privacy/model of model: the journal adds up to 9, the counter says 8"])


def test_rows_keep_no_journal_and_are_left_alone() -> None:
    rows = Account("rows/client", "client:a", 0, 0, Spend(9, 9), ())
    assert verify(Ledger("digits", Terms("gdp", {}, ()).dumps(), [rows])) == (0, [])


def test_a_policy_narrows_the_look_and_its_disagreement_is_a_note(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(db, "--policy", tmp_path / "policy.yaml") == 0
    assert "note" not in capsys.readouterr().out
    assert audit(db, "--policy", policy(tmp_path, MODEL, mechanism=LAPLACE, name="other.yaml")) == 0
    assert "note: the policy disagrees: the accounting changes from gdp to rdp(" in capsys.readouterr().out
    (tmp_path / "apart.yaml").write_text("version: 1\nname: apart\nroutes: [{name: apart, api: mlflow}]\n")
    assert audit(db, "--policy", tmp_path / "apart.yaml") == 5


def test_a_policy_that_allows_less_than_was_spent_is_a_note(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    less = policy(tmp_path, MODEL.replace("8", "1"), CLIENT.replace("4", "1"), name="less.yaml")
    assert audit(db, "--policy", less) == 0
    out = capsys.readouterr().out
    assert "note: privacy/model of model has spent more than the policy allows now" in out
    assert "client:alice has spent more" in out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--state", "sqlite:missing.db"), 3, "is not there"),
        (("--state", "redis://127.0.0.1:1"), 3, "cannot be re"),
        (("--ledger", "digit"), 5, "did you mean digits?"),
        (("--policy", "missing.yaml"), 2, "missing.yaml"),
    ],
)
def test_what_cannot_be_verified_has_its_own_exit_code(
    options: tuple[str, ...], code: int, said: str, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(db, *options) == code
    assert said in "".join(capsys.readouterr())


def test_rows_alone_are_nothing_to_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spend(f"sqlite:{tmp_path / 'rows.db'}", policy(tmp_path, ROWS), {"alice": 1})
    assert audit(tmp_path / "rows.db") == 5
    assert "there is nothing to verify" in capsys.readouterr().err


def test_another_part_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert operate("audit", "verfy") == 2
    assert "did you mean verify?" in capsys.readouterr().err


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert operate("audit", "--help") == 0
    assert "guard audit verify --state sqlite:guard.db" in capsys.readouterr().out
