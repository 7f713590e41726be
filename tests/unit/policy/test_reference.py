"""The described language: JSON Schema and Markdown say what the specs say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from guard.budgets import BUDGETS
from guard.defences import DEFENCES
from guard.detectors import DETECTORS
from guard.policy.reference import arguments, json_schema, markdown, models

ROOT = Path(__file__).parents[3]


def test_the_committed_documentation_is_current() -> None:
    assert (ROOT / "docs" / "policy.md").read_text() == markdown(), "guard schema --format markdown > docs/policy.md"


def test_every_key_of_every_model_is_explained() -> None:
    for model in models():
        missing = set(model.model_fields) - {"kind"} - set(arguments(model))
        assert not missing, f"{model.__name__}: {missing}"


def test_every_kind_has_a_section() -> None:
    text = markdown()
    for kind in [*DEFENCES, *BUDGETS, *DETECTORS, "api_key", "jwt", "address"]:
        assert f"`{kind}`\n" in text


def test_the_schema_carries_meanings_and_requires_a_kind() -> None:
    schema: dict[str, Any] = json_schema()
    top_k = schema["$defs"]["TopK"]
    assert top_k["properties"]["k"]["description"]
    assert "kind" in top_k["required"]
    assert schema["required"] == []


def test_the_schema_knows_detection() -> None:
    schema: dict[str, Any] = json_schema()
    route = schema["$defs"]["Route"]["properties"]
    assert {"profile", "detectors", "ladder", "exceptions"} <= route.keys()
    assert {option.get("const") for option in route["detectors"]["anyOf"]} >= {"default"}
    assert schema["$defs"]["Rung"]["properties"]["action"]["enum"] == ["alert", "degrade", "throttle", "deny"]
    assert schema["$defs"]["Exempt"]["required"] == ["client", "until", "reason"]
    assert "kind" in schema["$defs"]["Mahalanobis"]["required"]


def test_detection_reads_well() -> None:
    text = markdown()
    assert "| `until` | date (`2026-12-31`) | required |" in text
    assert "| `detectors` | `default` or list of one of `feature_marginals`, " in text
    assert "## Detector `repeats`" in text


def test_an_inherited_key_is_explained_by_the_base() -> None:
    assert "UTC-aligned" in arguments(BUDGETS["rows"])["window"]


@pytest.mark.parametrize(
    "module", ["suggest", "yamlmap", "problems", "reference", "plan", "compile", "detection_words"]
)
def test_doctests_hold(module: str) -> None:
    result = doctest.testmod(import_module(f"guard.policy.{module}"))
    assert not result.failed
