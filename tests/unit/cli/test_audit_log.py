"""`guard audit` on logs: verify, show and key, and what is typed wrongly."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from guard.cli.main import main
from guard.errors import StateError
from guard.proxy.audit import open_audit, where_of
from guard.proxy.secret import derived, load_secret
from guard.telemetry.audit import append
from guard.telemetry.audit_keys import SigningKey
from guard.telemetry.metrics import Metrics
from guard.telemetry.pseudonyms import Pseudonyms
from tests.support.audits import OTHER, entry

WORDS = "a secret that is long enough"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GUARD_STATE", "GUARD_SECRET", "GUARD_SECRET_FILE", "GUARD_AUDIT", "GUARD_POLICY", "GUARD_API"):
        monkeypatch.delenv(name, raising=False)
    Path("secret").write_text(WORDS)


def secret() -> bytes:
    return load_secret("memory:", Path("secret"))


def key() -> str:
    return SigningKey(derived(secret(), b"guard audit")).public


def pseudonym(name: str) -> str:
    return Pseudonyms(derived(secret(), b"guard pseudonyms")).of(name)


@pytest.fixture
def log() -> Path:
    """A log of four decisions, an event and a policy, written by the real thing."""
    made = open_audit("file:audit.jsonl", secret(), Metrics(), "d" * 64)
    for number, (day, who, verdict) in enumerate(
        [("30", "alice", "allow"), ("30", "bob", "deny"), ("31", "alice", "allow"), ("31", "alice", "deny")]
    ):
        time = f"2027-01-{day}T10:00:00.000+00:00"
        outcome, status = ("ok", 200) if verdict == "allow" else ("budget_spent", 429)
        members = {"time": time, "client": pseudonym(who), "group": pseudonym("staff"), "verdict": verdict}
        made.add(entry(number, **members, outcome=outcome, status=status, rows=2, mode="enforce", budget=None))
    made.add({"kind": "event", "event": "ladder", "time": "2027-01-31T11:00:00.000+00:00", "client": pseudonym("bob")})
    made.close()
    return Path("audit.jsonl")


def run(*arguments: str) -> int:
    return main(["audit", *arguments])


def ids(capsys: Capture, *options: str) -> list[str]:
    """Requests that `show` finds."""
    assert run("show", "audit.jsonl", "--format", "jsonl", *options) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line["id"][-1] for line in lines if line["kind"] == "decision"]


@pytest.mark.usefixtures("log")
def test_a_sound_log_is_sound_by_secret_by_key_and_by_file_of_a_key(capsys: Capture) -> None:
    assert run("verify", "audit.jsonl", "--secret-file", "secret") == 0
    assert "audit.jsonl: 7 lines, seq 1 to 7, log " in (out := capsys.readouterr().out)
    assert f"signed by {key()} (the secret in secret), to seq 7" in out
    assert run("verify", "audit.jsonl", "--key", key()) == 0
    Path("key.txt").write_text(key() + "\n")
    assert run("verify", "audit.jsonl", "--key", OTHER.public, "--key", "key.txt") == 0


@pytest.mark.usefixtures("log")
def test_nobodys_key_is_warned_of_unless_any_will_do(capsys: Capture) -> None:
    assert run("verify", "audit.jsonl") == 0
    assert "WHOSE KEY IT IS WAS NOT CHECKED" in capsys.readouterr().err
    assert run("verify", "audit.jsonl", "--any-key") == 0
    assert capsys.readouterr().err == ""
    assert run("verify", "audit.jsonl", "--key", OTHER.public) == 1
    assert f"it is signed with another key, {key()}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"request-1", b"request-7", "audit.jsonl:3: seq 3 was changed"),
        (b'"seq":3', b'"seq":4', "audit.jsonl:3: seq 3 is missing"),
        (b'"verdict":"deny"', b'"verdict":"\x1b[2J"', "audit.jsonl:3: seq 3 was changed"),
    ],
)
def test_a_problem_has_its_file_line_and_number(log: Path, old: bytes, new: bytes, said: str, capsys: Capture) -> None:
    log.write_bytes(log.read_bytes().replace(old, new, 1))
    assert run("verify", "audit.jsonl", "--secret-file", "secret") == 1
    got = capsys.readouterr()
    assert said in got.out
    assert "\x1b" not in got.out
    assert "this is not what was written" in got.err


def test_a_log_that_is_gone_is_tampering_while_its_head_is_there(log: Path, capsys: Capture) -> None:
    log.unlink()
    assert run("verify", "audit.jsonl", "--secret-file", "secret") == 1
    assert "seq 1 to 7 are missing" in capsys.readouterr().out
    Path("audit.jsonl.head").unlink()
    assert run("verify", "audit.jsonl", "--secret-file", "secret") == 5


@pytest.mark.usefixtures("log")
def test_a_log_without_a_head_could_have_been_cut(capsys: Capture) -> None:
    Path("audit.jsonl.head").unlink()
    assert run("verify", "audit.jsonl", "--secret-file", "secret") == 1
    assert "there is no head" in capsys.readouterr().out


@pytest.mark.usefixtures("log")
def test_a_rollback_is_found_by_who_remembers_the_number(capsys: Capture) -> None:
    assert run("verify", "audit.jsonl", "--secret-file", "secret", "--at-least", "7") == 0
    assert run("verify", "audit.jsonl", "--secret-file", "secret", "--at-least", "8") == 1
    assert "it ends at seq 7, and was at 8 already: rolled back" in capsys.readouterr().out


def test_lines_that_were_moved_to_an_archive_are_not_missed(log: Path, capsys: Capture) -> None:
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[3:]))
    assert run("verify", "audit.jsonl", "--secret-file", "secret") == 1
    assert "seq 1 to 3 are missing, and no rotation has removed them" in capsys.readouterr().out
    assert run("verify", "audit.jsonl", "--secret-file", "secret", "--from", "4") == 0
    assert run("verify", "audit.jsonl", "--secret-file", "secret", "--from", "3") == 1


def test_a_chain_is_read_from_a_pipe_with_a_collectors_words_before_it(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    lines = [b"Jan 31 host guard: " + line for line in log.read_bytes().splitlines(keepends=True)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"".join(lines))))
    assert run("verify", "-", "--key", key()) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"".join(lines[:3] + lines[4:]))))
    assert run("verify", "-", "--key", key()) == 1
    assert "stdin:4: seq 4 is missing" in capsys.readouterr().out


@pytest.mark.usefixtures("log")
def test_show_filters_by_client_route_time_verdict_and_id(capsys: Capture) -> None:
    assert ids(capsys) == ["0", "1", "2", "3"]
    assert ids(capsys, "--client", "alice", "--secret-file", "secret") == ["0", "2", "3"]
    assert ids(capsys, "--client", pseudonym("bob")) == ["1"]
    assert ids(capsys, "--client", "staff", "--secret-file", "secret") == ["0", "1", "2", "3"]
    assert ids(capsys, "--route", "digits", "--verdict", "deny") == ["1", "3"]
    assert ids(capsys, "--route", "other") == []
    assert ids(capsys, "--since", "2027-01-31") == ["2", "3"]
    assert ids(capsys, "--until", "2027-01-31T00:00+01:00", "--id", "request-1") == ["1"]


@pytest.mark.usefixtures("log")
def test_show_prints_a_table_with_a_summary(capsys: Capture) -> None:
    assert run("show", "audit.jsonl", "--client", pseudonym("alice")) == 0
    head, *rows, counted, verdicts, _ = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["time", "(UTC)", "verdict", "status"]
    assert [row.split()[2:4] for row in rows] == [["allow", "200"], ["allow", "200"], ["deny", "429"]]
    assert counted == "3 of 7 lines; 3 decisions"
    assert verdicts == "verdicts: allow 2, deny 1; outcomes: ok 2, budget_spent 1"


def test_key_says_whose_log_it_is(capsys: Capture) -> None:
    assert run("key", "--secret-file", "secret") == 0
    assert capsys.readouterr().out == key() + "\n"
    assert run("key") == 2
    assert not Path("guard.secret").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("shwo", "x"), 2, "did you mean show"),
        (("show",), 2, "needs the audit log's PATH"),
        (("verify", "--key", "a" * 64), 2, "--key needs the audit log's PATH"),
        (("verify", "audit.jsonl", "--key", "nowhere"), 2, "nowhere: No such file"),
        (("verify", "audit.jsonl", "--key", "secret"), 2, "neither a public key"),
        (("verify", "audit.jsonl", "--ledger", "digits"), 2, "leave the PATH out"),
        (("verify", "nowhere/audit.jsonl", "--any-key"), 5, "there is no audit log"),
        (("verify", ".", "--any-key"), 3, "cannot be read"),
        (("show", "nowhere"), 5, "there is no audit log"),
        (("show", "."), 3, "cannot be read"),
        (("show", "audit.jsonl", "--client", "alice"), 2, "takes Guard's secret"),
        (("show", "audit.jsonl", "--since", "teusday"), 2, "teusday is no time"),
    ],
)
def test_what_is_typed_wrongly_is_told(
    arguments: tuple[str, ...], code: int, said: str, log: Path, capsys: Capture
) -> None:
    assert log.exists()
    assert run(*arguments) == code
    assert said in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file:", "must be file:PATH"),
        ("fiel:x", "must be file:PATH"),
        ("audit.jsonl", "must be file:PATH"),
        ("stdout:x", "must be file:PATH"),
        ("syslog:", "must be file:PATH"),
        ("syslog:udp:host", "a syslog address is"),
        ("file:x?max_mb=0", "max_mb=0"),
        ("file:x?keep=many", "keep=many"),
        ("file:x?kepe=3", "kepe=3"),
    ],
)
def test_where_the_log_goes_is_checked(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        where_of(text)


def test_a_budgets_audit_file_is_not_the_audit_log(log: Path) -> None:
    before = log.read_bytes()
    with pytest.raises(StateError, match="whose chain this would break"):
        append("audit.jsonl", {"act": "reset"})
    assert log.read_bytes() == before
