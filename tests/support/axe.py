"""axe-core, which looks for what keeps people from using a page, out of a package that ships it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from functools import cache

from tests.support.processes import ROOT

_PACKAGE = "axe-playwright-python==0.1.8"
_FILE = "axe_playwright_python/axe.min.js"


@cache
def axe() -> str:
    """Return axe-core's script; it is fetched once."""
    folder = ROOT / ".venvs" / "axe"
    if not list(folder.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, "--dest", str(folder), _PACKAGE], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(_FILE).decode()


RUN = """
const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
const found = await axe.run(document, {runOnly: rules});
return found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
"""
"""A script that returns what axe finds wrong, a line a rule."""
