"""Finding presets and files by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guard.errors import PolicyError
from guard.policy.presets import find_policy, preset_directory, preset_names


def test_the_checkout_has_them_beside_the_package() -> None:
    assert preset_directory().name == "policies"
    assert preset_names() == ["balanced", "label-only", "llm", "observe", "private-ensemble", "strict"]


def test_an_installed_package_has_them_inside(tmp_path: Path) -> None:
    (tmp_path / "guard" / "presets").mkdir(parents=True)
    assert preset_directory(tmp_path / "guard") == tmp_path / "guard" / "presets"


def test_a_bare_name_is_the_preset_even_where_a_file_has_that_name(tmp_path: Path) -> None:
    (tmp_path / "balanced").write_text("")
    assert find_policy("balanced", tmp_path) == preset_directory() / "balanced.yaml"
    assert find_policy("./balanced", tmp_path) == tmp_path / "./balanced"


def test_a_path_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("")
    assert find_policy("p.yaml", tmp_path) == tmp_path / "p.yaml"
    assert find_policy(tmp_path / "p.yaml") == tmp_path / "p.yaml"
    assert find_policy(os.fspath(tmp_path / "p.yaml"), Path("/")) == tmp_path / "p.yaml"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("balancd", "no preset and no file called balancd", "did you mean balanced?"),
        ("", "called (empty)", "known: balanced, label-only"),
        ("zzz", "called zzz", "known: balanced"),
        ("nope.yaml", "no file nope.yaml", "a preset: balanced"),
        ("./nope", "no file nope", "a preset: balanced"),
        ("a\0b", "no file", "a preset"),
    ],
)
def test_an_unknown_name_gets_a_hint(name: str, message: str, hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        find_policy(name)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert hint in problem.hint
