"""What a serving Guard loads: nothing that makes it slow to start or large, and no adapter that nobody configured."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("scipy", "sklearn", "torch", "pandas")
OPTIONAL = ("joserfc", "redis")
SERVING = "import guard.cli.serve, guard.proxy.server, guard.proxy.admin, guard.policy.load, guard.wire.registry\n"
ONE_REQUEST = """
import asyncio, pathlib, tempfile
from guard.model.exchange import Reply
from tests.support.fakes import Guarded

async def ask():
    with tempfile.TemporaryDirectory() as folder:
        guarded = Guarded("strict", pathlib.Path(folder), api="kserve_v1")
        guarded.upstream.answer = lambda seen: Reply(200, [], b'{"predictions": [[0.2, 0.8]]}')
        got = await guarded.ask("POST", "/v1/models/m:predict", b'{"instances": [[1.0, 2.0]]}')
        assert got.status == 200, got

asyncio.run(ask())
"""


def loaded(program: str, folder: Path) -> set[str]:
    """Run a program in a fresh interpreter and return the top-level packages that it has loaded."""
    path = folder / "program.py"
    path.write_text(
        f"{program}\nimport json, sys\nprint(json.dumps(sorted(set(m.split('.')[0] for m in sys.modules))))\n"
    )
    env = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, str(path)], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("program", [SERVING, SERVING + ONE_REQUEST], ids=["imported", "one request"])
def test_serving_loads_nothing_heavy_and_nothing_that_is_not_configured(program: str, tmp_path: Path) -> None:
    found = loaded(program, tmp_path)
    assert {"guard", "numpy", "uvicorn"} <= found
    assert not found & {*HEAVY, *OPTIONAL}


@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("redis", "from guard.state.open import open_state\nopen_state('redis://127.0.0.1:1')"),
        ("joserfc", "import guard.proxy.identity_jwt"),
        ("sklearn", "import sklearn"),
    ],
)
def test_what_is_configured_would_be_seen(package: str, program: str, tmp_path: Path) -> None:
    """The negative control: the test above looks where these would show."""
    assert package in loaded(program, tmp_path)
