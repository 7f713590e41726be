"""The cookbook's answers before and after are what Guard makes of what the real servers said, and what is closed is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from guard.cli.explanation import Explanation, Traffic, explain
from guard.cli.samples import sample, sample_path
from guard.model.client import Client
from guard.policy.load import load_plan
from guard.policy.plan import Plan
from tests.support.pages import DOCS, Block, blocks, name, variables
from tests.support.recorded import reply, request

PAGES = sorted((DOCS / "cookbook").glob("*.md"))
SHOWN = [
    pytest.param(page, before, after, id=f"{page.stem}:{before.note}")
    for page in PAGES
    for before, after in zip(blocks(page), blocks(page)[1:], strict=False)
    if before.title == "the model says"
]
_ACCESS = re.compile(r"^\| `(GET|POST|PUT|DELETE) (/[^`?]*)` \|.*\| (guarded|answered|closed)[^|]*\|$", re.MULTILINE)


def plan_of(page: Path, folder: Path) -> Plan:
    policy = next(block for block in blocks(page) if block.title == "policy.yaml")
    (folder / "policy.yaml").write_text(policy.text)
    return load_plan(folder / "policy.yaml", api=None, env=variables(policy.text))


def explained(plan: Plan, source: str) -> Explanation:
    """Follow a recorded exchange, or the sample that `guard explain` makes up, through a policy."""
    client, secret = Client("example", "example", "api_key"), bytes(32)
    if source == "sample":
        made, path = sample(plan.routes[0]), sample_path(plan.routes[0], None)
        assert made is not None
        assert path is not None
        return explain(plan, Traffic("POST", path, made[0], "application/json", made[1], client, secret))
    server, _, case = source.partition("/")
    method, call = request(server, case)
    answer = reply(server, case).body
    return explain(plan, Traffic(method, call.path, call.body, call.content_type, answer, client, secret))


@pytest.mark.parametrize(("page", "before", "after"), SHOWN)
def test_an_answer_before_and_after_is_real(page: Path, before: Block, after: Block, tmp_path: Path) -> None:
    result = explained(plan_of(page, tmp_path), before.note.removeprefix("recorded: "))

    assert result.refused is None
    assert json.loads(before.text) == json.loads(result.before)
    assert after.title == "the client gets"
    assert json.loads(after.text) == json.loads(result.after)
    assert json.loads(after.text) != json.loads(before.text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_says_of_endpoints_is_so(page: Path, tmp_path: Path) -> None:
    rows = _ACCESS.findall(page.read_text(encoding="utf-8"))
    if not rows:
        assert page.stem in ("index", "ingress", "ensemble")
        return
    plan = plan_of(page, tmp_path)
    for method, path, said in rows:
        found = plan.match(method, path)
        access = "closed" if found is None else found.endpoint.access
        assert {"scoring": "guarded", "status": "answered"}.get(access, access) == said, (method, path)


def test_pages_show_answers_and_endpoints() -> None:
    assert len(SHOWN) >= 10
    assert len(PAGES) >= 11
