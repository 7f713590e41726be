"""What a page points at is there: pages, pictures, tests, benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.pages import DOCS, blocks, links, name, pages
from tests.support.processes import ROOT

_TESTS = re.compile(r"(?<![\w/.-])tests/[\w/.*-]*[\w*]")
_MODULES = re.compile(r"python -m (tests\.[\w.]+|guard\.[\w.]+)")


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path = link.partition("#")[0]
        if path and "://" not in path and not path.startswith("mailto:"):
            assert (page.parent / path).exists(), link


@pytest.mark.parametrize("page", pages(), ids=name)
def test_named_tests_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written = {block.title for block in blocks(page)}  # by whoever follows the page
    for path in set(_TESTS.findall(text)) - written:
        assert list(ROOT.glob(path)), path
    for module in _MODULES.findall(text):
        at = ROOT / module.replace(".", "/")
        assert at.is_dir() or at.with_suffix(".py").exists(), module


def test_every_page_is_in_the_menu_once() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    found = re.findall(r"[\w/-]+\.md", str(yaml.safe_load(config)["nav"]))

    assert sorted(found) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_pages_load_nothing_from_outside(page: Path) -> None:
    # Links may lead outside; pictures, frames and scripts may not.
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"!\[[^\]]*\]\(https?:|<(img|script|iframe|link)\b[^>]*https?:", text)
