"""Real processes for tests: a venv for each real server, servers on free ports, and Guard in front of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ROOT / "tests" / "real" / "servers"


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def venv_of(name: str, interpreter: Path | str = sys.executable, *options: str) -> Path:
    """Return the Python of the venv for tests/real/servers/NAME.

    It is made once for each content of requirements.txt, by an interpreter with options of `-m venv`.
    """
    requirements = SERVERS / name / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".venvs" / f"{name}-{digest}"
    if not (folder / "ready").exists():
        subprocess.run([str(interpreter), "-m", "venv", "--clear", *options, str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
        done = subprocess.run([*pip, "-r", str(requirements)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        (folder / "ready").touch()
    return folder / "bin" / "python"


@contextlib.contextmanager
def process(command: list[str], log: Path, env: dict[str, str] | None = None) -> Generator[subprocess.Popen[bytes]]:
    """Run a process that ends with this context; its output goes to `log`."""
    with log.open("wb") as out:
        running = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | (env or {}), start_new_session=True
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for_port(port: int, running: subprocess.Popen[bytes], log: Path, timeout_s: float = 120) -> None:
    """Return once something accepts connections on `port`."""
    deadline = time.monotonic() + timeout_s
    while True:
        assert running.poll() is None, f"it ended: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"it did not start: {log.read_text()[-3000:]}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)


@contextlib.contextmanager
def guard(
    policy: Path | str, upstream: str | None, folder: Path, *options: str, env: dict[str, str] | None = None
) -> Generator[Guard]:
    """Run `guard serve` on free ports, before one model, several (NAME=URL apart by spaces), or what `options` name."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "guard.log"
    command = [sys.executable, "-m", "guard", "serve", "--policy", str(policy)]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    if "--state" not in options:
        command += ["--state", f"sqlite:{folder / 'guard.db'}"]
    env = {**(env or {}), **({"GUARD_UPSTREAM": upstream} if upstream else {})}
    with process([*command, *options], log, env) as running:
        yield Guard(running, log)


class Guard:
    """A running Guard.

    Args:
        running: its process.
        log: its output.
    """

    def __init__(self, running: subprocess.Popen[bytes], log: Path) -> None:
        self.running = running
        self.log = log
        deadline = time.monotonic() + 30
        pattern = r"guarded on ((?:http|grpc)s?://[\d.]+:(\d+)), admin on (https?://[\d.]+:\d+)"
        while (found := re.search(pattern, log.read_text())) is None:
            assert running.poll() is None, f"guard ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"guard did not start: {log.read_text()}"
            time.sleep(0.01)
        self.url, self.port, self.admin = found[1], int(found[2]), found[3]

    @property
    def grpc(self) -> str:
        """The address of its gRPC listener."""
        found = re.search(r"guarded on grpcs?://([\d.]+:\d+)", self.log.read_text())
        assert found is not None, self.log.read_text()
        return found[1]


def client(python: Path, name: str, *arguments: str) -> Any:  # Any: the client's JSON document
    """Run tests/real/servers/NAME/client.py and return what it printed."""
    command = [str(python), str(SERVERS / name / "client.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
