"""docs/quickstart.md, run as a reader runs it: every command, in order, against a real model and a real Guard.

A `sh` block runs in bash; what it prints must match the `text` block behind it, line by line in order, where `…` stands
for anything. A block with `title="terminal: NAME"` runs on in the background until the next one of that name; `install`
runs in the checkout. Ports are swapped for free ones. Only the venv is kept between runs, for its downloads.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.pages import DOCS, Block, blocks
from tests.support.processes import ROOT, free_port

pytestmark = pytest.mark.real
PAGE = blocks(DOCS / "quickstart.md")
VENV = ROOT / ".venvs" / "quickstart"


@dataclass
class Reader:
    """Somebody who types what the page says.

    Args:
        folder: where they are.
    """

    folder: Path
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in ("8080", "9000", "9001")})
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, "subprocess.Popen[bytes]"])

    def follow(self, block: Block, shown: str) -> None:
        """Do what a block says; what it prints must be what is shown."""
        text = self.local(block.text)
        if block.title.startswith("terminal: "):
            self.start(block.title.removeprefix("terminal: "), text, self.local(shown))
        elif block.language == "sh":
            code, told = self.bash(text, ROOT if block.title == "install" else self.folder)
            expected = re.fullmatch(r"(?:fails|ends) with (\d)", block.title)
            assert code == (int(expected[1]) if expected else 0), f"{block}: exit {code}\n{told}"
            assert missing(self.local(shown), told) is None, f"{block}: not as shown\n{told}"
        elif block.language in ("json", "yaml", "python"):
            (self.folder / block.title).write_text(text)

    def local(self, text: str) -> str:
        """Swap the page's ports for ours."""
        return re.sub(r"\b(8080|9000|9001)\b", lambda match: self.ports[match[1]], text)

    @property
    def env(self) -> dict[str, str]:
        """The reader's environment: the venv first, nothing of ours."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GUARD_", "COVERAGE", "COV_"))}
        listen = {
            f"GUARD_{name}": f"127.0.0.1:{self.ports[port]}" for name, port in (("LISTEN", "9000"), ("ADMIN", "9001"))
        }
        return kept | listen | {"PATH": f"{VENV / 'bin'}:{kept['PATH']}", "COLUMNS": "80"}

    def bash(self, text: str, where: Path) -> tuple[int, str]:
        """Run commands; returns the exit code and everything printed."""
        command, out = ["bash", "-e", "-c", text], subprocess.PIPE
        done = subprocess.run(
            command, cwd=where, env=self.env, stdout=out, stderr=subprocess.STDOUT, text=True, check=False, timeout=600
        )
        return done.returncode, done.stdout

    def start(self, name: str, text: str, shown: str) -> None:
        """Run a command in a terminal of its own, after Ctrl-C for the one that ran there; wait for what it prints."""
        self.stop(name)
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            command = ["bash", "-c", f"exec {text}"]
            self.running[name] = subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=out, stderr=out, start_new_session=True
            )

        deadline = time.monotonic() + 120
        while not (told := log.read_text()) or missing(shown, told) is not None:
            assert self.running[name].poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.05)

    def stop(self, name: str) -> None:
        """Press Ctrl-C in a terminal."""
        if (process := self.running.pop(name, None)) is not None:
            os.kill(process.pid, signal.SIGINT)
            process.wait(60)


def missing(shown: str, told: str) -> str | None:
    """Return the first line that is shown and was not printed, in order; spaces count as one."""
    lines = iter([" ".join(line.split()) for line in told.splitlines()])
    for line in (" ".join(line.split()) for line in shown.splitlines()):
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        if line and line != "…" and not any(pattern.fullmatch(found) for found in lines):
            return line
    return None


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    made = Reader(tmp_path_factory.mktemp("quickstart"))
    yield made
    for name in list(made.running):
        made.stop(name)


def test_every_command_of_the_page_does_what_the_page_says(reader: Reader) -> None:
    ran = 0
    for block, after in zip(PAGE, [*PAGE[1:], None], strict=True):
        shown = after.text if after is not None and after.language == "text" else ""
        reader.follow(block, shown)
        ran += block.language == "sh"

    assert ran >= 15
    assert (reader.folder / "report.html").stat().st_size > 10_000


def test_a_line_that_is_not_printed_is_found() -> None:
    assert missing("one …\n…\nthree\n", "one two\nand more\n  three\n") is None
    for shown in ("two\none\n", "one\n", "on…e\n"):
        assert missing(shown, "one two\ntwo\n") == shown.splitlines()[-1]
