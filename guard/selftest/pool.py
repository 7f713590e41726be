"""Runs cells side by side, each in a process of its own: what one does to memory or to the clock, no other sees.

Processes are forked from a server that has imported the libraries once. A cell that dies, hangs or is interrupted ends
alone, and the pool says what came of it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from typing import Protocol, cast

from guard.selftest.base import Tally
from guard.selftest.cell import Cell, Done, run_cell, start_worker

PRELOAD = ("numpy", "scipy.optimize", "sklearn.linear_model", "guard.selftest.cell")
PATIENCE_S = 900.0


class Stopped(Exception):
    """The self-test was interrupted."""


class Progress(Protocol):
    """Told how far a cell is."""

    def __call__(self, cell: Cell, share: float, what: str) -> None:
        """Tell the share that is done, 0 to 1, and what is being done."""
        ...


class Pipe(Protocol):
    """One end of a connection between two processes."""

    def poll(self, timeout: float) -> bool:
        """Say whether something can be received within `timeout` seconds."""
        ...

    def recv(self) -> object:
        """Receive an object."""
        ...

    def send(self, obj: object) -> None:
        """Send an object."""
        ...


class Pool:
    """Starts a process a cell.

    Args:
        patience_s: a cell that takes longer is ended.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ[name] = "1"
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(PRELOAD))
        self.patience_s = patience_s
        self.stop = threading.Event()

    def run(self, cell: Cell, progress: Progress) -> Done:
        """Run one cell and wait for it.

        Raises:
            Stopped: `stop` was set meanwhile.
        """
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(cell, theirs), daemon=True)
        began = time.monotonic()
        process.start()
        theirs.close()
        try:
            return self._wait(cell, ours, progress, began)
        finally:
            ours.close()
            process.terminate()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def _wait(self, cell: Cell, pipe: Pipe, progress: Progress, began: float) -> Done:
        while time.monotonic() - began < self.patience_s:
            if self.stop.is_set():
                raise Stopped
            if not pipe.poll(0.1):
                continue
            try:
                message = pipe.recv()
            except EOFError:
                return failed(cell, "the attack's process ended by itself", began)
            if isinstance(message, Done):
                return message
            share, what = cast("tuple[float, str]", message)
            progress(cell, share, what)
        return failed(cell, f"it took longer than {self.patience_s:.0f} s", began)


def failed(cell: Cell, reason: str, began: float) -> Done:
    """Return what a cell comes to that did not run through."""
    return Done(cell, None, reason, Tally(), time.monotonic() - began, broken=True)


def _work(cell: Cell, pipe: Pipe) -> None:
    start_worker()
    told: list[float] = [0.0]

    def progress(share: float, what: str) -> None:
        if time.monotonic() - told[0] > 0.2:
            told[0] = time.monotonic()
            with contextlib.suppress(OSError):
                pipe.send((share, what))

    began = time.monotonic()
    try:
        done = run_cell(cell, progress)
    except Exception as error:  # A bug in one attack leaves its row unresolved, and the others run on
        done = failed(cell, f"internal error in {cell.attack}: {type(error).__name__}: {error}", began)
    with contextlib.suppress(OSError):
        pipe.send(done)
