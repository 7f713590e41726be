"""The HTML report: one well-formed file that needs nothing and no script, in the order that readers want."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from guard.selftest.report.html import render
from tests.unit.selftest.report import sample

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Reads a page and notes what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=sample.EVERY)
def text(request: pytest.FixtureRequest) -> str:
    return render(sample.EVERY[request.param]())


def test_elements_are_balanced_and_ids_are_unique(text: str) -> None:
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert page.open == []
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for a in page.all("a")}
    assert targets <= set(map(str, ids))


def test_charts_are_xml_with_title_and_description(text: str) -> None:
    for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        root = ET.fromstring(drawn)
        if root.get("aria-hidden") != "true":
            assert root.get("role") == "img"
            told = {str(e.get("id")): e.text for e in root if e.tag in ("title", "desc")}
            assert str(root.get("aria-labelledby")).split() == list(told)
            assert all(told.values())


def test_nothing_is_loaded_and_nothing_runs(text: str) -> None:
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "base", "form", "use"}
    )
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "xlink:href")]
        for name in ("href", "content", "class"):
            assert "://" not in (attributes.get(name) or "")
    assert "url(" not in text
    assert "@import" not in text


def test_policy_of_the_page_allows_its_own_style_only(text: str) -> None:
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    policy = next(str(m["content"]) for m in Page(text).all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert len(style) == 1
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "unsafe" not in policy


def test_tables_are_real_and_scroll_by_keyboard(text: str) -> None:
    page = Page(text)
    tables = len(page.all("table"))
    assert len(page.all("caption")) == tables
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    regions = [div for div in page.all("div") if div.get("role") == "region"]
    assert len(regions) == tables
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)


def test_sections_come_in_the_order_of_their_readers() -> None:
    page = Page(render(sample.report()))
    assert [section["id"] for section in page.all("section")] == [
        "verdict", "gates", "attacks", "utility", "substitutions", "versions", "reading",
    ]  # fmt: skip
    assert page.all("html")[0]["lang"] == "en"


def test_every_chart_has_its_data() -> None:
    text = render(sample.report())
    titles = re.findall(r"<svg[^>]*><title[^>]*>(.*?)</title>", text)
    for start in ("equation_solving_softmax: surrogate_l1 against rows asked", "membership_lira: ROC curve on log-log",
                  "prototype_inversion: recovered prototypes", "How much of what each attack gains",
                  "What honest users pay against", "hopskipjump: the strongest attackers"):  # fmt: skip
        assert any(title.startswith(start) for title in titles), start


def test_an_attack_shows_published_beside_ours_attackers_and_help() -> None:
    text = render(sample.report())
    article = next(a for a in text.split("<article") if "attack-tree_path_finding" in a[:80])
    for said in ("265 queries 99.96% agreement", "USENIX Security 2016", "0.981 [0.973, 0.989]", "What would help:",
                 "through Guard: labels", "never asks (floor)", "queries=200, draws=gauss"):  # fmt: skip
        assert said in article, said


def test_a_legend_names_each_sign_once() -> None:
    for legend in re.findall(r'<ul class="legend">(.*?)</ul>', render(sample.report()), re.DOTALL):
        items = re.findall(r"</svg>([^<]+)</li>", legend)
        assert len(items) == len(set(items)) > 1


def test_artefacts_that_are_not_what_they_should_be_draw_nothing() -> None:
    bad = {"roc": [["a", 1], 3, [0.1, float("nan")]], "prototypes": {"shape": [8], "truth": "x", "recovered": [[1]]}}
    row = sample.row("odd", "evasion", "auc", artefacts={"undefended": bad, "defended": {"prototypes": 3}},
                     curves={"undefended": [], "defended": [(0, 1.0)], "elsewhere": [(1, 1.0)]})  # fmt: skip
    Page(render(sample.report(attacks=(row,))))


def test_warnings_and_partial_stand_in_the_verdict() -> None:
    text = render(sample.report(partial=True, warnings=("the clock stood still",)))
    verdict = text.partition('id="gates"')[0]
    assert "the clock stood still" in verdict
    assert "Partial." in verdict


def test_the_strongest_attackers_stand_first_and_the_others_are_a_click_away() -> None:
    row = sample.report().attacks[0]
    assert row.adaptive is not None
    many = [replace(row.adaptive, wrapper=f"way {i}", value=row.adaptive.value + i) for i in range(40)]
    page = render(replace(sample.report(), attacks=[replace(row, attackers=many)]))
    assert "The other attackers (28)" in page
    head, _, rest = page.partition("The other attackers (28)")
    assert "way 11" in head
    assert "way 12" in rest
    assert "way 39" in rest
