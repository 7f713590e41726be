"""Processes that the self-test starts and ends: the lab's server, and Guard as it is deployed.

Each is a child in a session of its own, so that a terminal's Ctrl-C reaches the self-test alone, which then ends its
children by pid.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO

GUARD: tuple[str, ...] = (sys.executable, "-m", "guard")


class NotStarted(RuntimeError):
    """A process did not start."""


@contextlib.contextmanager
def child(
    command: Sequence[str],
    stderr: int | None = None,
    patience_s: float = 10.0,
    env: Mapping[str, str] | None = None,
) -> Generator[subprocess.Popen[str]]:
    """Start a process that ends with this context: by itself, or killed when it takes longer than `patience_s`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GUARD_")}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} | dict(env or {})
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter and modules
        list(command), stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def lab(seed: int) -> Generator[str]:
    """Start the lab's model server; yields its URL.

    Raises:
        NotStarted: it did not start.
    """
    with child([sys.executable, "-m", "guard.selftest.lab", "--seed", str(seed)]) as process:
        port = first_line(process.stdout).strip()
        if not port.isdigit():
            raise NotStarted("the lab's model server did not start")
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def guard(
    policy: str,
    upstream: str | Sequence[str],
    folder: Path,
    *options: str,
    command: Sequence[str] = GUARD,
    env: Mapping[str, str] | None = None,
) -> Generator[tuple[str, str]]:
    """Start `guard serve` on free ports, as it is deployed; yields its URL and its admin URL.

    Args:
        policy: a preset or a file.
        upstream: URL of the model server; several, for an ensemble, get names.
        folder: where its state lives.
        options: further options of `serve`.
        command: how Guard is started.
        env: added to the environment, from which every `GUARD_` variable of ours is taken.

    Raises:
        NotStarted: it did not start; the message is what it said.
    """
    models = [upstream] if isinstance(upstream, str) else [f"model{i}={url}" for i, url in enumerate(upstream)]
    started = [*command, "serve", "--policy", policy, *(part for model in models for part in ("--upstream", model))]
    started += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    started += ["--state", f"sqlite:{folder / 'guard.db'}", "--log-level", "error", *options]
    with child(started, stderr=subprocess.PIPE, env=env) as process:
        line = first_line(process.stderr)
        found = re.search(r"guarded on (http://\S+), admin on (http://\S+)", line)
        if found is None:
            process.terminate()
            rest = process.stderr.read() if process.stderr else ""
            raise NotStarted(f"guard did not start: {line}{rest}".strip())
        yield found[1], found[2]


def first_line(stream: IO[str] | None) -> str:
    """Return the first line of a child's output; empty when it ended without one."""
    return stream.readline() if stream is not None else ""
