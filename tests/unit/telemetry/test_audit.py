"""The file of operators' acts: one line an act, only ever added to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guard.errors import StateError
from guard.telemetry.audit import append


def test_each_act_is_one_line_behind_the_others(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"act":"earlier"}\n')
    acts: list[dict[str, object]] = [
        {"act": "reset", "reason": "zwei\nZeilen, ü \ud800"},
        {"act": "migrate", "before": [{"spent": 2**53 - 1}]},
    ]
    for act in acts:
        append(str(path), act)
    lines = path.read_bytes().decode("utf-8", "surrogatepass").splitlines()
    assert [json.loads(line) for line in lines] == [{"act": "earlier"}, *acts]


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    append(str(tmp_path / "new.jsonl"), {})
    assert (tmp_path / "new.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "missing/audit.jsonl", "/dev/full"])
def test_what_cannot_be_written_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be written") as caught:
        append(str(tmp_path / name), {})
    assert caught.value.code == "audit_unavailable"
