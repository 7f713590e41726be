"""What a person sees while a self-test runs: one bar for all of it, one line for every cell at work."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from guard.selftest.cell import Cell, Done


class Watch:
    """Draws on a terminal; says nothing but a line a cell where there is none.

    Args:
        console: where.
    """

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        self.console = console
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.lock = threading.Lock()
        self.total = self.progress.add_task("self-test", total=0)
        self.lines: dict[str, TaskID] = {}

    def __enter__(self) -> Watch:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def planned(self, cells: int) -> None:
        """Lengthen the bar."""
        self.progress.update(self.total, total=(self.progress.tasks[0].total or 0) + cells)

    def moved(self, cell: Cell, share: float, what: str) -> None:
        """Move a cell's line."""
        with self.lock:
            line = self.lines.get(_key(cell))
            if line is None:
                line = self.lines[_key(cell)] = self.progress.add_task(title(cell), total=100)
        self.progress.update(line, completed=int(100 * share), description=f"  {title(cell)}: {what}")

    def finished(self, done: Done) -> None:
        """Take a cell's line away."""
        with self.lock:
            line = self.lines.pop(_key(done.cell), None)
        if line is not None:
            self.progress.remove_task(line)
        self.progress.advance(self.total)
        if not self.console.is_terminal:
            said = f"{title(done.cell)}: {done.seconds:.1f} s" + (f", unresolved: {done.reason}" if done.reason else "")
            self.console.print(said, soft_wrap=True, highlight=False)


def title(cell: Cell) -> str:
    """Return what a cell is in words."""
    return f"{cell.attack}, {cell.way}{' + ' + cell.wrapper if cell.wrapper else ''}"


def _key(cell: Cell) -> str:
    return f"{title(cell)} {cell.seed}"
