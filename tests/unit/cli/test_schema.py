"""`guard schema` prints the language."""

from __future__ import annotations

import json

import pytest

from guard.cli.main import main
from guard.policy.reference import markdown


def test_json_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["title"] == "Guard policy"
    assert schema["additionalProperties"] is False


def test_markdown_is_the_committed_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == markdown()
