"""The audit log of a real Guard: killed, out of disk, attacked, beside another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guard.telemetry.audit_chain import Chain
from guard.telemetry.audit_keys import SigningKey
from tests.support.audits import Made, entries_of
from tests.support.clients import PATIENCE_S, KeepAlive, ask, infer
from tests.support.model import model
from tests.support.processes import ROOT, Guard, guard

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.support.model import Model

pytestmark = pytest.mark.real

TARGET = "/v2/models/m/infer"
POLICY = """version: 1
routes:
  - name: digits
    api: open_inference
    defences: [{kind: round, decimals: 1}]
    budgets: [{kind: rows, per: client, limit: 1000000}]
"""
SECRET = "a secret of some length"
KILLS = 2
SURE_S = 1.5
"""An answer this old must be in the log, whatever happens to Guard: it gathers for 0.1 s."""
Json = Any  # Any: JSON


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Generator[Model]:
    with model(tmp_path_factory.mktemp("model")) as running:
        yield running


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def command(*arguments: object, stdin: Path | None = None, secret: str | None = None) -> tuple[int, str]:
    """Run a command of Guard's as an operator does; return its exit code and all that it said."""
    env = os.environ | ({} if secret is None else {"GUARD_SECRET": secret})
    line = [sys.executable, "-m", "guard", *map(str, arguments)]
    with (stdin or Path(os.devnull)).open("rb") as file:
        done = subprocess.run(
            line, stdin=file, capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=60
        )
    return done.returncode, done.stdout + done.stderr


def verify(folder: Path) -> tuple[int, str]:
    """Verify a log with the secret beside its guard's state."""
    return command("audit", "verify", folder / "audit.jsonl", "--state", f"sqlite:{folder / 'guard.db'}")


def options(folder: Path) -> tuple[str, ...]:
    return ("--audit", f"file:{folder / 'audit.jsonl'}", "--state", f"sqlite:{folder / 'guard.db'}")


def answered_in(folder: Path) -> set[str]:
    """Ids of requests that the log says were answered."""
    return {e["id"] for e in entries_of(folder / "audit.jsonl") if e["kind"] == "decision" and e["outcome"] == "ok"}


async def load(port: int, answers: dict[str, float]) -> None:
    """Ask until Guard is gone; note when each request was answered."""
    with contextlib.suppress(OSError, EOFError):
        async with KeepAlive(port) as connection:
            while True:
                got = await connection.ask(TARGET, infer([1.0, 2.0]))
                assert got.status == 200, got
                answers[got.headers["x-request-id"]] = time.monotonic()


async def test_kill_9_under_load_loses_at_most_the_last_moment(policy: Path, upstream: Model, tmp_path: Path) -> None:
    sure: set[str] = set()

    def old(answers: dict[str, float]) -> set[str]:
        return {name for name, when in answers.items() if when < time.monotonic() - SURE_S}

    for number in range(KILLS):
        answers: dict[str, float] = {}
        with guard(policy, upstream.url, tmp_path / f"{number}", *options(tmp_path)) as running:
            clients = [asyncio.create_task(load(running.port, answers)) for _ in range(8)]
            async with asyncio.timeout(2 * PATIENCE_S):
                while len(old(answers)) < 100:
                    await asyncio.sleep(0.02)
            sure |= old(answers)
            running.running.kill()
            running.running.wait()
            await asyncio.gather(*clients)
        code, said = verify(tmp_path)
        assert code == 0, said
    with guard(policy, upstream.url, tmp_path / "last", *options(tmp_path)) as running:
        got = await ask(running.port, TARGET, infer([1.0, 2.0]))
        sure.add(got.headers["x-request-id"])
    assert sure - answered_in(tmp_path) == set()
    found = [e["found"]["state"] for e in entries_of(tmp_path / "audit.jsonl") if e["kind"] == "start"]
    assert found == ["new", *["crash"] * KILLS]
    code, said = verify(tmp_path)
    assert code == 0, said
    assert "the guard before had not ended in order" in said
    assert entries_of(tmp_path / "audit.jsonl")[-1]["kind"] == "stop"


async def wait_for(port: int, status: int, code: str = "") -> None:
    """Ask until the answer has a status."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        got = await ask(port, TARGET, infer([1.0, 2.0]))
        if got.status == status:
            assert code in got.body.decode()
            return
        assert time.monotonic() < deadline, got
        await asyncio.sleep(0.05)


async def test_a_disk_that_fills_up_stops_answers_until_there_is_room_again(
    policy: Path, upstream: Model, tmp_path: Path
) -> None:
    audit, before = tmp_path / "audit.jsonl", upstream.counts()["rows/m"]
    # A limit on file sizes is a full disk: it fails in the middle of a line. The state's is not under it.
    log = ("--audit", f"file:{audit}", "--state", "memory:")
    with guard(policy, upstream.url, tmp_path, *log, env={"GUARD_SECRET": SECRET}) as running:
        await wait_for(running.port, 200)
        pid = running.running.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (audit.stat().st_size + 700, resource.RLIM_INFINITY))
        await wait_for(running.port, 503, "audit")
        seen = upstream.counts()["rows/m"]
        await wait_for(running.port, 503, "audit")
        assert upstream.counts()["rows/m"] == seen
        assert audit.read_bytes().endswith(b"}\n")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await wait_for(running.port, 200)
        assert "guard_audit_dropped_total 0.0" not in (await ask_admin(running.admin))
    code, said = command("audit", "verify", audit, secret=SECRET)
    assert code == 0, said
    assert "entries were lost about here" in said
    outcomes = [e["outcome"] for e in entries_of(audit) if e["kind"] == "decision"]
    # Nothing reached the model that is not in the log.
    assert outcomes.count("ok") == upstream.counts()["rows/m"] - before


async def ask_admin(url: str) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_S) as page:
            return page.read().decode()

    return await asyncio.to_thread(read)


async def test_two_guards_cannot_share_a_file_and_need_not(policy: Path, upstream: Model, tmp_path: Path) -> None:
    with guard(policy, upstream.url, tmp_path / "a", *options(tmp_path)) as one:
        serve = ("serve", "--policy", policy, "--upstream", upstream.url, "--listen", "127.0.0.1:0", "--admin", "off")
        code, said = command(*serve, "--state", "memory:", "--audit", f"file:{tmp_path / 'audit.jsonl'}")
        assert code == 3
        assert "another guard writes the audit log" in said
        assert "give each one a file of its own" in said
        other = ("--audit", f"file:{tmp_path / 'other.jsonl'}", "--state", "memory:")
        with guard(policy, upstream.url, tmp_path / "b", *other) as two:
            for running in (one, two):
                await wait_for(running.port, 200)
    one, two = (entries_of(tmp_path / name)[0] for name in ("audit.jsonl", "other.jsonl"))
    assert one["instance"] != two["instance"]
    assert verify(tmp_path)[0] == 0


async def test_who_may_write_the_directory_and_has_no_secret_cannot_rewrite_the_log(
    policy: Path, upstream: Model, tmp_path: Path
) -> None:
    audit, head = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.head"
    with guard(policy, upstream.url, tmp_path / "0", *options(tmp_path)) as running:
        for _ in range(5):
            await wait_for(running.port, 200)
    true = (audit.read_bytes(), head.read_bytes())
    entries = entries_of(audit)
    signed = [e for e in entries if "sig" in e]

    def rewritten(key: SigningKey | None) -> None:
        """Write the log anew with one decision less: with a key of one's own, or with the old signatures."""
        made = Made(chain=Chain(), key=key or SigningKey(bytes(32)), log=signed[0]["log"])
        for said in [e for e in entries if e is not entries[2]]:
            rest = {name: value for name, value in said.items() if name not in ("seq", "prev", "key", "sig")}
            if key is not None and "sig" in said:
                made.lines.append(made.chain.seal(rest, key))
            else:
                rest |= {name: said[name] for name in ("key", "sig") if name in said}
                made.lines.append(made.chain.add(json.dumps(rest, separators=(",", ":")).encode()))
        audit.write_bytes(made.data)
        if key is not None:
            head.write_bytes(made.head())

    for key in (SigningKey(bytes(32)), None):
        rewritten(key)
        code, said = verify(tmp_path)
        assert code == 1, said
        assert "signed with another key" in said or "forged" in said
        audit.write_bytes(true[0])
        head.write_bytes(true[1])
    assert verify(tmp_path)[0] == 0
    # Guard starts on the forged log, and says for ever what it found.
    rewritten(SigningKey(bytes(32)))
    with guard(policy, upstream.url, tmp_path / "1", *options(tmp_path)) as running:
        await wait_for(running.port, 200)
        assert "another key has signed it" in running.log.read_text()
    code, said = verify(tmp_path)
    assert code == 1
    assert "the guard that started here found a log that the key" in said


async def test_standard_output_is_a_chain_that_verifies(policy: Path, upstream: Model, tmp_path: Path) -> None:
    with guard(policy, upstream.url, tmp_path, "--audit", "stdout") as running:
        for _ in range(3):
            await wait_for(running.port, 200)
    # Its output and its errors went into one file, as a container's do.
    state = f"sqlite:{tmp_path / 'guard.db'}"
    code, said = command("audit", "verify", "-", "--state", state, stdin=running.log)
    assert code == 0, said
    assert "5 lines, seq 1 to 5" in said
    assert "other lines were passed over" in said


@contextlib.contextmanager
def unread(policy: Path, upstream: Model, folder: Path) -> Generator[tuple[int, str]]:
    """Run a guard whose standard output nobody reads; return its port and the admin page's address."""
    line = [sys.executable, "-m", "guard", "serve", "--policy", str(policy), "--upstream", upstream.url]
    line += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", "memory:", "--audit", "stdout"]
    log = folder / "guard.log"
    with log.open("wb") as err, subprocess.Popen(line, stdout=subprocess.PIPE, stderr=err, cwd=ROOT) as running:
        try:
            ready = Guard(running, log)
            yield ready.port, ready.admin
        finally:
            running.kill()


async def test_a_reader_of_standard_output_that_hangs_stops_answers_and_not_the_loop(
    policy: Path, upstream: Model, tmp_path: Path
) -> None:
    with unread(policy, upstream, tmp_path) as (port, admin):
        async with asyncio.timeout(4 * PATIENCE_S), KeepAlive(port) as connection:
            while (await connection.ask(TARGET, infer([1.0, 2.0]))).status == 200:
                pass
            assert (await connection.ask(TARGET, infer([1.0, 2.0]))).status == 503
        assert "guard_audit_waiting" in await ask_admin(admin)
