"""The documentation's site: `make docs` builds it strictly, and it loads nothing from outside."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.real
MKDOCS = ROOT / ".venvs" / "docs" / "bin" / "mkdocs"
_LOADS = (
    re.compile(r"<(?:script|img|iframe|video|audio|source|embed)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s\"'>]+"),
    re.compile(r"<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next|alternate)\b)[^>]*\bhref=[\"']?(?:https?:)?//[^\s>]+"),
    re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^\s\"')]+"),
)


@pytest.fixture(scope="module")
def site() -> Path:
    done = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return ROOT / "site"


def outside(text: str) -> list[str]:
    """Return what a page or a style sheet would load from elsewhere."""
    return [found for pattern in _LOADS for found in pattern.findall(text)]


def test_no_page_and_no_style_loads_from_elsewhere(site: Path) -> None:
    pages = [file for file in site.rglob("*") if file.suffix in (".html", ".css", ".svg")]

    assert len([page for page in pages if page.suffix == ".html"]) > 30
    assert {str(page): found for page in pages if (found := outside(page.read_text(encoding="utf-8")))} == {}


def test_nothing_asks_the_themes_script_to_load_from_elsewhere(site: Path) -> None:
    # It fetches a renderer for Mermaid diagrams, and figures of a repository, when a page has them.
    for page in site.rglob("*.html"):
        assert not re.search(r'class="[^"]*mermaid|data-md-component="source"', page.read_text(encoding="utf-8")), page


def test_what_would_load_from_elsewhere_is_seen() -> None:
    for text in (
        '<script src="https://a/b.js">',
        "<img alt=x src=//a/b.png>",
        "@import 'https://a/b.css'",
        "url(//a/f)",
    ):
        assert outside(text), text
    assert outside('<link rel="stylesheet" href="https://a/b.css">')
    assert not outside('<a href="https://a/">x</a><link rel="canonical" href="https://a/"><img src="a.png">')


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("failures.md", "\n[nowhere](nowhere.md)\n"),
        ("failures.md", "\n[no anchor](policy.md#none)\n"),
        ("lost.md", "# Lost"),
    ],
)
def test_a_broken_link_or_a_page_in_no_menu_fails_the_build(site: Path, tmp_path: Path, file: str, text: str) -> None:
    assert site.is_dir()
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / file).open("a") as out:
        out.write(text)
    command = [str(MKDOCS), "build", "--strict", "--clean"]  # as `make docs` does; --quiet would switch strict off

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode != 0
    assert "Aborted with 1 warnings in strict mode" in done.stdout + done.stderr
