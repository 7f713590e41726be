"""Every policy that the documentation shows is one that Guard takes."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from guard.errors import PolicyError
from guard.policy.load import load_plan
from guard.policy.schema import Policy, Route
from tests.support.pages import Block, all_blocks, variables

FOREIGN = "not a policy"
ELSEWHERE = "checked in test_extending.py"
ROUTE = {
    "name": "shown",
    "inputs": "{kind: vector, size: 64, low: 0, high: 16, step: 1}",
    "outputs": "{kind: probabilities, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}",
}
"""What a part of a route stands in, as far as it does not say so itself."""
TEXT_ROUTE = {"name": "shown", "api": "openai", "outputs": "{kind: logprobs}"}
"""The same for a part of a language model's route."""
_OF_TEXT = re.compile(r"^\s*parameters:|kind: (secrets|tokens|logprobs)\b", re.MULTILINE)
POLICIES = [
    block for block in all_blocks() if block.language in ("yaml", "yml") and block.note not in (FOREIGN, ELSEWHERE)
]


def whole(text: str) -> str:
    """Return a policy: the text itself, or the least one that the text is a part of.

    What files of readers' own hold is left out: recorded traffic, documents. Their secrets are in the environment.
    """
    text = re.sub(r"^\s*(profile|document_files):.*\n", "", textwrap.dedent(text), flags=re.MULTILINE)
    text = re.sub(r"\{file: /run/secrets/\w+\}", "{env: SECRET}", text)
    data: Any = yaml.safe_load(text)  # Any: whatever YAML a page shows
    assert isinstance(data, dict), f"say `<!-- {FOREIGN} -->` in the line before"
    keys = set(cast("dict[str, object]", data))
    if "version" in keys:
        return text
    if keys <= set(Policy.model_fields) and not keys <= set(Route.model_fields):
        routes = "" if keys & {"routes", "extends"} else "routes: [{name: shown}]\n"
        return f"version: 1\n{routes}{text}"
    assert keys <= set(Route.model_fields), f"no keys of a policy: {keys}; say `<!-- {FOREIGN} -->` in the line before"
    route = TEXT_ROUTE if _OF_TEXT.search(text) else ROUTE
    given = "".join(f"{key}: {value}\n" for key, value in route.items() if key not in keys)
    return "version: 1\nroutes:\n  -\n" + textwrap.indent(given + text, "    ")


@pytest.mark.parametrize("block", POLICIES, ids=str)
def test_a_policy_on_a_page_is_accepted(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(whole(block.text))

    plan = load_plan(file, api=None, env={"SECRET": "a secret of a reader's own", **variables(block.text)})

    assert plan.routes


def test_a_wrong_policy_on_a_page_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    for wrong in ("version: 1\nroutes: [{nam: x}]\n", "defences: [{kind: grit}]\n", "identity: [{kind: key}]\n"):
        file.write_text(whole(wrong))
        with pytest.raises(PolicyError):
            load_plan(file, api="open_inference", env={})
    with pytest.raises(AssertionError, match="no keys of a policy"):
        whole("defenses: []\n")


def test_pages_show_policies() -> None:
    assert len(POLICIES) >= 20
