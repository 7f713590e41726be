"""The code of docs/extending.md works as the page says: it is written into a copy of Guard, registered, tested there.

One process runs it all, since most of the time is Python's start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import DOCS, Block, blocks
from tests.support.processes import ROOT

PAGE = {block.title: block for block in blocks(DOCS / "extending.md")}
RUN = """
import sys, pytest
failed = pytest.main(["-q", "-p", "no:cacheprovider", "--doctest-modules", "-k", "floor or off_range", *sys.argv[1:]])
from guard.cli.main import main
sys.exit(failed or main(["check", "floored.yaml"]) or main(["schema", "--format", "markdown"]))
"""
OWN = [title for title in PAGE if title.startswith("tests/unit")]
PLUGINS = ["guard/defences/floor.py", "guard/detectors/off_range.py"]
REGISTRIES = ("guard/defences/__init__.py", "guard/detectors/__init__.py")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is needed, with the page's files in it."""
    folder = tmp_path_factory.mktemp("extended")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for part in ("guard", "policies", "tests/support", "tests/contract"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    for file in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / file, folder / file)
    for title, block in PAGE.items():
        if title in REGISTRIES:
            register(folder / title, block)
        elif "." in title:
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(block.text)
    return folder


def register(file: Path, block: Block) -> None:
    """Put the page's two lines, an import and an entry, where they belong."""
    imported, entry = block.text.splitlines()
    text = file.read_text().replace("import Registry\n", f"import Registry\n{imported}\n", 1)
    file.write_text(re.sub(r"^\}", f"{entry}\n}}", text, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def told(checkout: Path) -> str:
    """What the page's commands print: both plugins' tests, `guard check` and `guard schema`."""
    suites = ["tests/contract/test_defences.py", "tests/contract/test_detectors.py"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GUARD_", "COVERAGE_", "COV_", "PYTEST_"))}
    command = [sys.executable, "-c", RUN, *OWN, *PLUGINS, *suites]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_contract_suites_and_the_pages_own_tests_pass(told: str) -> None:
    counted = re.search(r"(\d+) passed, \d+ deselected", told)
    stated = sum(int(number) for number in re.findall(r"ran (\d+) checks on it", (DOCS / "extending.md").read_text()))

    assert counted, told
    assert int(counted[1]) == sum(PAGE[title].text.count("def test_") for title in OWN) + len(PLUGINS) + stated
    assert all(any(title in PAGE[commands].text for commands in ("defence", "detector")) for title in OWN)


def test_a_policy_may_name_the_new_defence(told: str) -> None:
    assert "floored.yaml: fine." in told
    assert "defences floor(least=0.05) > grid(step=0.05)" in told
    assert "## Defence `floor`" in told
