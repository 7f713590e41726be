"""`guard budget show`, `reset` and `migrate` on a real file, without a guard."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from guard.model.ledger import Spend
from guard.policy.load import load_plan
from guard.privacy.terms import Terms, loads
from guard.state.books import open_books
from guard.state.open import open_state
from tests.support.operators import CLIENT, LAPLACE, MODEL, ROWS, accounts, operate, policy, spend

REASON = ("--reason", "SEC-412: test traffic")
Json = Any  # Any: JSON


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("GUARD_POLICY", "GUARD_STATE", "GUARD_API", "GUARD_AUDIT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'guard.db'}"


def show(url: str, file: Path, *options: str) -> int:
    return operate("budget", "show", "--policy", file, "--state", url, *options)


def shown(capsys: pytest.CaptureFixture[str], url: str, file: Path, *options: str) -> Json:
    capsys.readouterr()
    assert show(url, file, "--format", "json", *options) == 0
    return json.loads(capsys.readouterr().out)


def reset(url: str, *options: str) -> int:
    return operate("budget", "reset", "--state", url, "--ledger", "digits", *options)


def migrate(url: str, file: Path, *options: str) -> int:
    return operate("budget", "migrate", "--policy", file, "--state", url, *options)


def verified(url: str) -> bool:
    return operate("audit", "verify", "--state", url) == 0


def terms(url: str) -> Terms:
    async def run() -> bytes | None:
        books = open_books(url, write=False)
        try:
            return await books.terms("digits")
        finally:
            await books.aclose()

    return loads(asyncio.run(run()) or b"")


def audited() -> list[Json]:
    path = Path("guard-audit.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def bytes_of(url: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as db:
        tables = ("counters", "spends", "journal", "checkpoints", "terms")
        return [row for table in tables for row in db.execute(f"SELECT * FROM {table}").fetchall()]


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_says_how_many_answers_are_left_and_no_more_are_admitted(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, MODEL, CLIENT)
    spend(url, file, {"alice": 40, "bob": 20})
    budgets = shown(capsys, url, file)["budgets"]
    assert [(b["budget"], [s["scope"] for s in b["scopes"]]) for b in budgets] == [
        ("privacy/model", ["model"]),
        ("privacy/client", ["client:alice", "client:bob"]),
    ]
    left = budgets[1]["scopes"][0]["left"]["digits"]
    spend(url, file, {"alice": left})
    assert shown(capsys, url, file)["budgets"][1]["scopes"][0]["left"] == {"digits": 0}
    before = accounts(url)
    spend(url, file, {"alice": 1})  # it does not fit any more
    assert accounts(url) == before


def test_show_tells_epsilon_at_the_budgets_own_delta(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, MODEL)
    spend(url, file, {"alice": 40})
    (budget,) = shown(capsys, url, file)["budgets"]
    plan = load_plan(file, api=None, env={})
    assert plan.routes[0].private is not None
    spent = accounts(url)["privacy/model", "model"].spend.spent
    assert budget["scopes"][0]["epsilon"] == plan.routes[0].private.filter.epsilon(spent, 1e-6)
    assert (budget["epsilon"], budget["delta"]) == (8.0, 1e-6)
    show(url, file)
    assert f"epsilon {budget['scopes'][0]['epsilon']:.4g} of 8" in capsys.readouterr().out


def test_what_is_nearest_to_its_end_comes_first_and_the_rest_is_counted(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, CLIENT)
    spend(url, file, {f"c{i}": i for i in range(1, 8)})
    (budget,) = shown(capsys, url, file, "--limit", "3")["budgets"]
    assert [s["scope"] for s in budget["scopes"]] == ["client:c7", "client:c6", "client:c5"]
    assert budget["hidden"] == 4
    show(url, file, "--limit", "3")
    assert "4 more, further from their end" in capsys.readouterr().out


def test_privacy_comes_before_rows_and_a_window_says_when_it_ends(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, ROWS, MODEL)
    spend(url, file, {"alice": 1})
    privacy, rows = shown(capsys, url, file)["budgets"]
    assert (privacy["kind"], privacy["ends"]) == ("privacy", None)
    assert (rows["kind"], rows["period_s"], rows["ends"][10:]) == ("rows", 86_400, "T00:00:00+00:00")
    assert (rows["limit"], rows["scopes"]) == (100, [])  # that window is long over


def test_one_client_is_shown_though_it_has_asked_nothing(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, MODEL, CLIENT, ROWS)
    spend(url, file, {"alice": 40})
    found = shown(capsys, url, file, "--client", "carol")["budgets"]
    assert [(b["budget"], [(s["scope"], s["spent"]) for s in b["scopes"]]) for b in found] == [
        ("privacy/client", [("client:carol", 0)]),
        ("rows/client/86400s", [("client:carol", 0)]),
    ]
    assert found[0]["scopes"][0]["left"]["digits"] > 0


def test_a_name_cannot_write_on_the_operators_terminal(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, CLIENT)
    spend(url, file, {"\x1b[31mred\nline": 1})
    assert show(url, file) == 0
    assert verified(url)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[31mred" in out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--route", "digit"), 2, "did you mean digits?"),
        (("--limit", "0"), 2, "--limit is at least 1"),
        (("--state", "sqlite:missing.db"), 3, "missing.db is not there"),
        (("--state", "memory:"), 3, "inside the guard that serves"),
    ],
)
def test_what_cannot_be_shown_is_said(
    options: tuple[str, ...],
    code: int,
    said: str,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = policy(tmp_path, CLIENT)
    spend(url, file, {"alice": 1})
    assert show(url, file, *options) == code
    assert said in capsys.readouterr().err


def test_a_policy_without_budgets_has_nothing_to_show(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.yaml").write_text("version: 1\nname: none\nroutes: [{api: mlflow}]\n")
    spend(url, policy(tmp_path, MODEL), {"alice": 1})
    assert show(url, tmp_path / "none.yaml") == 5
    assert "has no budgets" in capsys.readouterr().err


# -- reset -------------------------------------------------------------------------------------------------------------


def test_a_reset_is_done_recorded_and_replays(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = policy(tmp_path, MODEL, CLIENT, ROWS)
    spend(url, file, {"alice": 40, "bob": 20})
    before = accounts(url)
    assert reset(url, "--budget", "privacy/client", "--scope", "client:alice", *REASON, "--yes") == 0
    assert "1 counters of the ledger digits are reset" in capsys.readouterr().out
    after = accounts(url)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {("privacy/client", "client:alice")}
    assert after["privacy/client", "client:alice"].spend == Spend(0, 0)
    assert verified(url)
    (act,) = terms(url).acts
    assert (act.what, act.budget, act.scope, act.reason) == ("reset", "privacy/client", "client:alice", REASON[1])
    (line,) = audited()
    assert (line["act"], line["ledger"], line["reason"]) == ("reset", "digits", REASON[1])
    spent = before["privacy/client", "client:alice"].spend.spent
    assert line["before"] == [{"budget": "privacy/client", "scope": "client:alice", "spent": spent}]
    assert Path("guard-audit.jsonl").stat().st_mode & 0o077 == 0
    assert REASON[1] in shown(capsys, url, file)["notes"]["digits"][0]


def test_everything_is_reset_with_rows_of_its_own(url: str, tmp_path: Path) -> None:
    spend(url, policy(tmp_path, MODEL, CLIENT, ROWS), {"alice": 40})
    assert reset(url, *REASON, "--yes") == 0
    assert {account.spend for account in accounts(url).values()} == {Spend(0, 0)}
    assert verified(url)


def test_a_ledger_without_privacy_is_reset_and_gets_no_terms(url: str, tmp_path: Path) -> None:
    spend(url, policy(tmp_path, ROWS), {"alice": 40})
    assert reset(url, *REASON, "--yes") == 0
    assert {account.spend for account in accounts(url).values()} == {Spend(0, 0)}
    with pytest.raises(ValueError, match="no terms"):
        terms(url)
    assert len(audited()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--yes",), "a reset needs a --reason"),
        (("--yes", "--reason", "oops"), "one line of 5 to 500"),
        (("--yes", "--reason", "two\nlines"), "one line of 5 to 500"),
        (REASON, "nobody is there to confirm"),
        (("--budget", "privacy/clint", *REASON, "--yes"), "did you mean privacy/client?"),
        (("--ledger", "digit", *REASON, "--yes"), "did you mean digits?"),
    ],
)
def test_a_reset_that_is_not_sure_changes_nothing(
    options: tuple[str, ...],
    said: str,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spend(url, policy(tmp_path, MODEL, CLIENT), {"alice": 40})
    monkeypatch.setattr("sys.stdin", io.StringIO())
    before = bytes_of(url)
    assert reset(url, *options) == 2
    assert said in capsys.readouterr().err
    assert (bytes_of(url), audited()) == (before, [])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_on_a_terminal_it_asks(
    answer: str,
    code: int,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spend(url, policy(tmp_path, CLIENT), {f"c{i}": 1 for i in range(12)})
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert reset(url, *REASON) == code
    assert "reset 12 counters of the ledger digits? [y/N]" in capsys.readouterr().err
    assert all((account.spend.spent == 0) is (code == 0) for account in accounts(url).values())
    assert len(audited()) == (code == 0)


def test_what_was_never_spent_is_not_reset(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spend(url, policy(tmp_path, MODEL, CLIENT), {"alice": 40})
    assert reset(url, "--scope", "client:bob", *REASON, "--yes") == 5
    assert "there is nothing to reset" in capsys.readouterr().err
    assert audited() == []


def test_a_ledger_that_a_guard_has_is_not_touched(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = policy(tmp_path, MODEL)
    spend(url, file, {"alice": 40})

    async def guarded() -> tuple[int, int, int]:
        state = open_state(url)
        try:
            return await asyncio.to_thread(
                lambda: (reset(url, *REASON, "--yes"), migrate(url, file, *REASON), show(url, file))
            )
        finally:
            await state.aclose()

    assert asyncio.run(guarded()) == (3, 3, 0)
    assert "stop it first, since it would overwrite the change" in capsys.readouterr().err
    assert audited() == []


def test_without_an_audit_file_nothing_is_changed(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spend(url, policy(tmp_path, MODEL), {"alice": 40})
    before = bytes_of(url)
    other = policy(tmp_path, CLIENT, name="other.yaml")
    assert reset(url, *REASON, "--yes", "--audit", str(tmp_path)) == 3
    assert migrate(url, other, *REASON, "--audit", str(tmp_path)) == 3
    assert f"the audit file {tmp_path} cannot be written" in capsys.readouterr().err
    assert bytes_of(url) == before


# -- migrate -----------------------------------------------------------------------------------------------------------


def agrees(url: str, file: Path) -> bool:
    private = load_plan(file, api=None, env={}).routes[0].private
    return private is not None and private.terms.differs(terms(url)) == []


def test_a_dry_run_says_what_would_come_of_it_and_changes_nothing(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(url, policy(tmp_path, CLIENT), {"alice": 40, "bob": 20})
    other = policy(tmp_path, CLIENT, MODEL, mechanism=LAPLACE, name="other.yaml")
    before = bytes_of(url)
    assert migrate(url, other, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "the accounting changes from gdp to rdp(" in out
    assert "the budget privacy/model is new" in out
    assert "nothing was changed: --dry-run" in out
    assert (bytes_of(url), audited()) == (before, [])


def test_a_ledger_moves_to_the_policys_terms_and_says_no_less(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, CLIENT)
    spend(url, file, {"alice": 40, "bob": 20})
    before = shown(capsys, url, file)["budgets"][0]["scopes"]
    other = policy(tmp_path, CLIENT, MODEL, mechanism=LAPLACE, name="other.yaml")
    assert not agrees(url, other)
    assert migrate(url, other, *REASON) == 0
    assert agrees(url, other)
    assert verified(url)
    after = shown(capsys, url, other)
    clients, model = after["budgets"]
    assert all(new["epsilon"] >= old["epsilon"] for old, new in zip(before, clients["scopes"], strict=True))
    assert model["floor"] > 0
    assert model["scopes"] == [model["scopes"][0] | {"scope": "model", "spent": model["floor"]}]
    assert "was moved to new terms" in after["notes"]["digits"][0]
    (line,) = audited()
    assert (line["act"], line["counters"], line["reason"]) == ("migrate", 2, REASON[1])
    assert migrate(url, other, *REASON) == 0
    assert "agrees with the policy; nothing to do" in capsys.readouterr().out
    assert len(audited()) == 1


def test_what_a_floor_takes_is_not_admitted_again(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spend(url, policy(tmp_path, MODEL), {"alice": 100})
    both = policy(tmp_path, MODEL, CLIENT, name="both.yaml")
    assert migrate(url, both, *REASON) == 0
    show(url, both)
    assert "privacy/client: every scope begins with" in capsys.readouterr().out
    budget = next(b for b in load_plan(both, api=None, env={}).routes[0].budgets if b.name == "privacy/client")
    units = budget.limit_for(0) - terms(url).floors["privacy/client"]
    (clients,) = shown(capsys, url, both, "--client", "bob")["budgets"]
    assert clients["scopes"][0]["left"]["digits"] == units // budget.amount_for(1, 1)


def test_a_policy_that_disagrees_is_shown_with_nothing_known_to_be_left(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(url, policy(tmp_path, CLIENT), {"alice": 40})
    other = policy(tmp_path, CLIENT, mechanism=LAPLACE, name="other.yaml")
    (budget,) = shown(capsys, url, other)["budgets"]
    assert budget["scopes"][0]["left"] == {"digits": None}
    assert budget["scopes"][0]["epsilon"] > 0
    show(url, other)
    assert "guard budget migrate --dry-run shows what would come of it" in capsys.readouterr().out


def test_what_cannot_be_priced_is_refused_with_a_way_out(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(url, policy(tmp_path, CLIENT, mechanism=LAPLACE), {"alice": 40})
    before = bytes_of(url)
    gaussian = policy(tmp_path, CLIENT, name="gaussian.yaml")
    assert migrate(url, gaussian, *REASON) == 1
    error = capsys.readouterr().err
    assert "gdp cannot account for" in error
    assert "write order: 8" in error
    assert (bytes_of(url), audited()) == (before, [])
    assert migrate(url, policy(tmp_path, CLIENT.replace("}", ", order: 8}"), name="order.yaml"), *REASON) == 0
    assert verified(url)


def test_a_journal_that_does_not_replay_is_not_moved(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(url, policy(tmp_path, CLIENT), {"alice": 40})
    with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as db, db:
        db.execute("UPDATE spends SET spent = spent - 1")
    assert migrate(url, policy(tmp_path, MODEL, name="other.yaml"), *REASON) == 1
    assert "guard audit verify names every discrepancy" in capsys.readouterr().err
    assert audited() == []


def test_after_periods_alone_a_budget_for_ever_is_refused_until_a_reset(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monthly = MODEL.replace("}", ", period: 30d, guarantee: per_period}")
    spend(url, policy(tmp_path, monthly), {"alice": 40})
    for_ever = policy(tmp_path, MODEL, name="for_ever.yaml")
    assert migrate(url, for_ever, *REASON) == 1
    assert "reset the whole ledger first, which is published" in capsys.readouterr().err
    assert not agrees(url, for_ever)
    assert reset(url, *REASON, "--yes") == 0
    assert migrate(url, for_ever, *REASON) == 0
    assert agrees(url, for_ever)
    assert [act.what for act in terms(url).acts] == ["reset", "migrate"]


def test_a_policy_that_counts_no_privacy_any_more_is_remembered(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, MODEL)
    spend(url, file, {"alice": 40})
    plain = tmp_path / "plain.yaml"
    plain.write_text("version: 1\nname: plain\nroutes: [{name: digits, api: mlflow}]\n")
    assert migrate(url, plain, *REASON) == 0
    assert "the budget privacy/model is gone" in capsys.readouterr().out
    assert migrate(url, file, *REASON) == 1  # nobody knows what was answered meanwhile
    assert "nobody knows what it answered" in capsys.readouterr().err


def test_a_migration_that_ended_half_way_is_run_again(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = policy(tmp_path, MODEL)
    spend(url, file, {"alice": 40})

    async def halfway() -> None:
        books = open_books(url, write=True)
        raw = await books.terms("digits")
        assert await books.rewrite("digits", raw, loads(raw or b"").close().dumps(), [])
        await books.aclose()

    asyncio.run(halfway())
    assert not agrees(url, file)
    assert verified(url)
    show(url, file)
    assert "a migration was begun and not finished" in capsys.readouterr().out
    assert migrate(url, file, *REASON) == 0
    assert agrees(url, file)
    assert verified(url)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "a migration needs a --reason"),
        (("--policy", "", "--dry-run"), 2, "--policy is missing"),
        (("--policy", "plain.yaml", "--dry-run"), 5, "this policy has no privacy budget"),
    ],
)
def test_a_migration_that_cannot_begin_says_why(
    options: tuple[str, ...], code: int, said: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.yaml").write_text("version: 1\nname: plain\nroutes: [{name: other, api: mlflow}]\n")
    file = policy(tmp_path, MODEL)
    spend(url, file, {"alice": 1})
    assert migrate(url, file, *options) == code
    assert said in capsys.readouterr().err


def test_a_ledger_that_has_not_begun_needs_no_migration(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spend(url, policy(tmp_path, ROWS), {"alice": 1})
    assert migrate(url, policy(tmp_path, MODEL, name="other.yaml"), *REASON) == 0
    assert "not begun yet; nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["show", "reset", "migrate"])
def test_help_teaches_by_example(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert operate("budget", part, "--help") == 0
    assert f"examples:\n  guard budget {part} " in capsys.readouterr().out
