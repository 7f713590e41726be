"""What a replay says of a policy is what that policy then does: the same traffic, recorded, replayed, and served live.

A real model of the lab stands behind a real `guard serve` in shadow that records, and behind one that enforces.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest

from guard.evidence.bodies import Asked
from guard.model.arrays import Floats
from guard.policy.load import load_plan
from guard.proxy.secret import derived, load_secret
from guard.replay.engine import Engine
from guard.replay.run import Secret, open_traffic
from guard.replay.seen import Seen
from guard.replay.traffic import Kind, Wanted
from guard.selftest.api import OpenInference
from guard.selftest.processes import lab
from tests.support.customers import KEY_HEADER, MODEL, customer, guarded_by, key_of, write_keys
from tests.support.processes import ROOT, guard

pytestmark = pytest.mark.lab

SEED = 20261127
HONEST, ROWS, BATCH = 6, 256, 8
SECRET = "the secret of a deployment"
DIALECT = OpenInference(MODEL)


class Sent(NamedTuple):
    """One request.

    Args:
        name: of the client.
        body: as it is sent.
        rows: of it; 0 for one that is no query.
    """

    name: str
    body: bytes
    rows: int


class Told(NamedTuple):
    """What came back."""

    status: int
    scores: Floats | None


def traffic() -> Iterator[Sent]:
    """Yield honest customers in turn, and one that searches near points, one that asks uniformly, one that errs."""
    honest = [customer(SEED, i, ROWS)[1] for i in range(HONEST)]
    rng = np.random.default_rng(SEED)
    for at in range(0, ROWS, BATCH):
        for i, rows in enumerate(honest):
            yield _sent(f"customer{i}", rows[at : at + BATCH])
        point = rng.integers(0, 17, 64).astype(np.float64)
        near = np.clip(np.round(point + rng.normal(scale=0.05, size=(BATCH, 64)), 3), 0, 16)
        yield _sent("walker", near)
        yield _sent("prober", rng.integers(0, 17, (BATCH, 64)).astype(np.float64))
        if at % 32 == 0:
            yield Sent("sloppy", b'{"inputs": [}', 0)
            document = json.loads(DIALECT.encode(np.full((1, 64), 99.0)))
            yield Sent("sloppy", json.dumps(document).encode(), 1)


def _sent(name: str, rows: Floats) -> Sent:
    return Sent(name, DIALECT.encode(rows), len(rows))


def ask(url: str, requests: list[Sent]) -> list[Told]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    told: list[Told] = []
    for sent in requests:
        connection.request("POST", DIALECT.path, sent.body, {**DIALECT.headers, KEY_HEADER: key_of(sent.name)})
        answer = connection.getresponse()
        body = answer.read()
        good = answer.status == 200 and sent.rows
        told.append(Told(answer.status, DIALECT.decode(body, sent.rows)["probabilities"] if good else None))
    connection.close()
    return told


class Served(NamedTuple):
    """The same traffic in shadow and enforced."""

    folder: Path
    requests: list[Sent]
    shadow: list[Told]
    live: list[Told]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("replay")
    write_keys(folder, [*(f"customer{i}" for i in range(HONEST)), "walker", "prober", "sloppy"])
    (folder / "secret").write_text(SECRET)
    for name, mode in (("observe", "shadow"), ("strict", "enforce")):
        preset = "balanced" if mode == "shadow" else "strict"
        (folder / f"{name}.yaml").write_text(guarded_by(preset, folder, mode=mode))
    requests = list(traffic())
    options = ("--api", "open_inference", "--secret-file", str(folder / "secret"))
    record = ("--record", str(folder / "traffic"), "--record-bodies")
    with lab(0) as model:
        with guard(folder / "observe.yaml", model, folder / "observing", *options, *record) as watching:
            shadow = ask(watching.url, requests)
            said = watching.log.read_text()
        with guard(folder / "strict.yaml", model, folder / "enforcing", *options) as enforcing:
            live = ask(enforcing.url, requests)
    assert "RECORDING BODIES" in said
    assert all(told.status == 200 for told, sent in zip(shadow, requests, strict=True) if sent.name != "sloppy")
    return Served(folder, requests, shadow, live)


def replayed(served: Served, kind: Kind) -> list[Seen]:
    secret = Secret(load_secret("memory:", served.folder / "secret"), real=True)
    salt = derived(secret.key, b"guard detectors")
    plan = load_plan(served.folder / "strict.yaml", api="open_inference", env={}, salt=salt)
    engine = Engine(plan, secret.key)

    async def run() -> list[Seen]:
        seen = [await engine.ask(request) for request in open_traffic([served.folder / "traffic"], kind, Wanted())]
        return [one for one in seen if one is not None]

    return asyncio.run(run())


def shift(before: Told, after: Told) -> float:
    assert before.scores is not None
    assert after.scores is not None
    return float(np.abs(after.scores - before.scores).sum(axis=1).mean())


def test_from_bodies_every_verdict_refusal_and_shift_is_what_is_then_served(served: Served) -> None:
    seen = replayed(served, "bodies")
    assert len(seen) == len(served.requests)
    statuses = {"ok": 200, "denied": 403, "budget_spent": 429, "bad_json": 400, "outside_domain": 422}
    assert [statuses[one.code] for one in seen] == [told.status for told in served.live]
    shifts = [shift(a, b) for a, b in zip(served.shadow, served.live, strict=True) if b.scores is not None]
    assert np.allclose([one.shift for one in seen if one.code == "ok"], shifts, atol=1e-9)
    # Traffic that agrees because nothing happens would prove nothing.
    assert {one.word for one in seen} >= {"allow", "alert", "deny", "label_only", "refuse"}


def test_from_sketches_it_is_so_for_whatever_a_sketch_holds(served: Served) -> None:
    seen = replayed(served, "sketches")
    # What is no query leaves no sketch; one outside the domain does.
    answered = [(a, b) for a, b in zip(served.shadow, served.live, strict=True) if a.scores is not None]
    assert len(seen) == len(answered)
    statuses = {"ok": 200, "denied": 403, "budget_spent": 429, "outside_domain": 422}
    assert [statuses[one.code] for one in seen] == [told.status for _, told in answered]
    pairs = [(one.shift, shift(a, b)) for one, (a, b) in zip(seen, answered, strict=True) if b.scores is not None]
    off = [abs(a - b) > 1e-5 for a, b in pairs]
    assert np.mean(off) <= 0.01  # a score at a level's edge may fall on its other side in single precision


def test_the_command_says_so_and_gates_hold(served: Served) -> None:
    common = ("replay", str(served.folder / "traffic"), "--api", "open_inference", "--policy")
    report = served.folder / "replay.json"
    done = cli(
        *common, str(served.folder / "strict.yaml"), "--secret-file", str(served.folder / "secret"),
        "--report", f"json={report}", "--fail-if", "denied_clients>0",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "--fail-if denied_clients>0" in done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    refused = sum(told.status != 200 for told in served.live)
    assert found["figures"]["refused"] == pytest.approx(refused / len(served.requests), abs=1e-6)
    assert found["requests"] == len(served.requests)
    assert found["clients"] == HONEST + 3
    same = cli(*common, str(served.folder / "strict.yaml"), "--against", str(served.folder / "strict.yaml"),
               "--fail-if", "verdicts_changed>0")  # fmt: skip
    assert same.returncode == 0, same.stderr


def test_recorded_bodies_hold_no_credential_and_are_for_their_owner_alone(served: Served) -> None:
    folder = served.folder / "traffic"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.glob("*.bodies"))
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    whole = [asked for asked in open_traffic([folder], "bodies", Wanted()) if isinstance(asked, Asked)]
    said = repr([(asked.headers, asked.client, asked.group, asked.path, asked.body[:0]) for asked in whole])
    assert not any(word in said for word in ("key-of", "customer", KEY_HEADER, "walker"))


def test_bodies_are_not_recorded_where_others_can_read(served: Served, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = cli(
        "serve", "--policy", str(served.folder / "observe.yaml"), "--api", "open_inference",
        "--upstream", "http://127.0.0.1:9", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", "memory:",
        "--record", str(tmp_path), "--record-bodies",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "chmod 700" in done.stderr


def test_ctrl_c_reports_what_was_done_until_then(served: Served) -> None:
    files = sorted((served.folder / "traffic").glob("*.bodies")) * 40  # the same again: enough to be interrupted
    command = [sys.executable, "-m", "guard", "replay", *map(str, files), "--api", "open_inference"]
    command += ["--policy", str(served.folder / "strict.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        began = None
        while running.poll() is None:  # it has begun to replay when it has worked for a second on files that are open
            worked = _worked_s(running.pid)
            if began is None and ".bodies" in Path(f"/proc/{running.pid}/maps").read_text():
                began = worked
            if began is not None and worked > began + 1.5:
                running.send_signal(signal.SIGINT)
                running.wait(60)
            time.sleep(0.02)
        assert running.stdout is not None
        assert running.stderr is not None
        out, err = running.stdout.read(), running.stderr.read()
    assert running.returncode == 130, err
    assert "Interrupted after" in out
    assert "the report is partial" in err


def _worked_s(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guard", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120, env=env)
