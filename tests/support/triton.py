"""A real Triton on the CPU: installed from PyPI, started on free ports, ended with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from tests.support import debian
from tests.support.processes import SERVERS, free_port, process, venv_of, wait_for_port

MODELS = ("digits", "digits_fp16", "digits_fp64", "digits_int64", "digits_bytes")
"""What tests/real/servers/triton/serve.py serves."""


@dataclass(frozen=True)
class Triton:
    """A running Triton.

    Args:
        python: of a venv with `tritonclient[http,grpc]`, numpy and scikit-learn.
        url: HTTP.
        port: HTTP.
        grpc: port of gRPC.
    """

    python: Path
    url: str
    port: int
    grpc: int


@contextlib.contextmanager
def running_triton(folder: Path) -> Generator[Triton]:
    """Run Triton with every model ready; it ends with this context."""
    # Its Python backend embeds the system's Python, and finds packages only beside the interpreter that it is given.
    python = venv_of("triton", debian.python(), "--copies")
    port, grpc, metrics = free_port(), free_port(), free_port()
    command = [str(python), str(SERVERS / "triton" / "serve.py"), "--port", str(port)]
    command += ["--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    log = folder / "triton.log"
    # A short path, since sockets stand in it.
    with tempfile.TemporaryDirectory(prefix="triton-", ignore_cleanup_errors=True) as home:
        group: int | None = None
        try:
            with process(command, log, {"PYTRITON_HOME": home}) as running:
                group = running.pid
                wait_for_port(port, running, log)
                _wait_for_models(port, running, log)
                yield Triton(python, f"http://127.0.0.1:{port}", port, grpc)
        finally:
            if group is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)  # what it leaves behind in the session that it was started in


def _wait_for_models(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    waiting = list(MODELS)
    while waiting:
        assert running.poll() is None, f"it ended: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"{waiting} did not get ready: {log.read_text()[-3000:]}"
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/v2/models/{waiting[0]}/ready", timeout=5):
            waiting.pop(0)
            continue
        time.sleep(0.1)
