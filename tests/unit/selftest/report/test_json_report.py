"""The JSON report: its published schema, its way back, and what JSON cannot hold."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.selftest.report.json_report import Unreadable, clean, parse, render
from guard.selftest.report.schema import json_schema
from guard.selftest.results import SCHEMA_VERSION
from tests.unit.selftest.report import sample

PUBLISHED = Path(__file__).parents[4] / "docs" / "selftest.schema.json"
validators: Any = import_module("jsonschema")  # Any: it has no types


def refuse(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def test_published_schema_is_the_dataclasses_own() -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema(), (
        "stale: python -m guard.selftest.report.schema > docs/selftest.schema.json"
    )
    validators.Draft202012Validator.check_schema(json_schema())


def test_every_member_is_described() -> None:
    schema: Any = json_schema()  # Any: JSON
    for name, part in {"Report": schema, **schema["$defs"]}.items():
        assert [m for m, s in part["properties"].items() if "description" not in s] == [], name


@pytest.mark.parametrize("case", sample.EVERY)
def test_reports_fit_the_schema_and_read_back_the_same(case: str) -> None:
    text = render(sample.EVERY[case]())

    data = json.loads(text.encode("utf-8", "backslashreplace"), parse_constant=refuse)

    validators.Draft202012Validator(json_schema()).validate(data)
    assert render(parse(text)) == text


@pytest.mark.parametrize("member", ["attacks", "digest", "gates"])
def test_schema_refuses_a_report_without(member: str) -> None:
    data = json.loads(render(sample.report()))
    del data[member]
    assert not validators.Draft202012Validator(json_schema()).is_valid(data)


def test_what_is_no_number_is_null_and_reads_nan() -> None:
    text = render(sample.report())
    row = next(r for r in parse(text).attacks if r.name == "membership_threshold")

    assert "NaN" not in text
    assert "Infinity" not in text
    assert row.adaptive is not None
    assert math.isnan(row.adaptive.value)
    assert row.parameters["limit"] is None


def test_arrays_sets_and_numpy_scalars_become_plain_data() -> None:
    made = clean(
        {
            "a": np.array([[1.0, math.inf]]),
            "b": np.int64(3),
            "c": np.float64(math.nan),
            "d": frozenset("ba"),
            5: Path("x"),
        }
    )

    assert made == {"a": [[1.0, None]], "b": 3, "c": None, "d": ["a", "b"], "5": "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no schema_version"),
        ("{}", "no schema_version"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), f"schema_version {SCHEMA_VERSION + 1}"),
        (json.dumps({"schema_version": SCHEMA_VERSION}), "policy is missing"),
    ],
)
def test_what_is_no_report_says_why(text: str, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("member", "value", "said"),
    [
        ("seed", "0", "report.seed: '0' instead of int"),
        ("passed", 1, "report.passed: 1 instead of bool"),
        ("seed", True, "report.seed: True instead of int"),
        ("attacks", {}, "report.attacks: dict instead of a list"),
        ("attacks", [3], r"report.attacks\[0\]: int instead of an object"),
        ("versions", [], "report.versions: list instead of an object"),
    ],
)
def test_wrong_members_are_named(member: str, value: object, said: str) -> None:
    data = json.loads(render(sample.passing())) | {member: value}
    with pytest.raises(Unreadable, match=said):
        parse(json.dumps(data))


def test_wrong_verdicts_and_intervals_are_named() -> None:
    data = json.loads(render(sample.passing()))
    data["attacks"][0]["verdict"] = "splendid"
    with pytest.raises(Unreadable, match="'splendid' is none of held"):
        parse(json.dumps(data))
    data["attacks"][0]["verdict"] = "held"
    data["attacks"][0]["adaptive"]["measures"]["agreement"] = [1]
    with pytest.raises(Unreadable, match="1 items instead of 3"):
        parse(json.dumps(data))


def test_members_of_later_versions_are_passed_over() -> None:
    data = json.loads(render(sample.passing())) | {"later": 1}
    assert parse(json.dumps(data)).policy == "strict"
