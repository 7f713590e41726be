"""Every command, option, variable and metric that the documentation names is one that Guard has."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from guard.cli.main import COMMANDS
from tests.support.pages import Block, all_blocks, commands, name, pages, prose
from tests.support.processes import ROOT

SHOWN = [
    pytest.param(block, words, id=f"{block}:{' '.join(words)[:60]}")
    for block in all_blocks()
    if block.language in ("", "sh", "bash", "console")
    for _, words in commands(block)
]


@cache
def parser(command: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"guard {command}", allow_abbrev=False)
    import_module(f"guard.cli.{command}").configure(made)
    return made


def parses(words: list[str]) -> bool:
    if words[0] not in COMMANDS:
        return words[0] in ("-h", "--help", "help", "-V", "--version")
    try:
        parser(words[0]).parse_args(words[1:])
    except SystemExit as done:
        return not done.code
    return True


@pytest.mark.parametrize(("block", "words"), SHOWN)
def test_a_command_on_a_page_parses(block: Block, words: list[str]) -> None:
    assert parses(words), f"{block}: guard {' '.join(words)}"


def test_a_wrong_command_on_a_page_would_be_found() -> None:
    assert parses(["check", "policy.yaml"])
    assert not parses(["chekc", "policy.yaml"])
    assert not parses(["serve", "--polcy", "x"])
    block = Block("p", 1, "sh", "", "curl x | guard explain --api mlflow \\\n  --request - > out # why\n", "")
    assert [words for _, words in commands(block)] == [["explain", "--api", "mlflow", "--request", "-"]]
    assert len(SHOWN) >= 40


def options(command: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a command's options, and those of its commands."""
    for action in command._actions:  # pyright: ignore[reportPrivateUsage]  # argparse has no other way to ask
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for sub in set(action.choices.values()):  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType, reportUnknownVariableType]
                yield from options(sub)  # pyright: ignore[reportUnknownArgumentType]


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_in_the_text_have_the_options_that_are_named(page: Path) -> None:
    for code in re.findall(r"`guard ([a-z][^`\n]*)`", prose(page)):
        command = code.split()[0].split("|")[0]
        assert command in COMMANDS, code
        known = set(options(parser(command)))
        assert set(re.findall(r"(?<!\S)--[a-z-]+", code)) <= known, code


@cache
def source() -> str:
    """Return all of Guard's source, and what reads its variables."""
    files = [
        *(ROOT / "guard").rglob("*.py"),
        *(ROOT / "guard").rglob("*.html"),
        ROOT / "guard" / "state" / "charge.lua",
    ]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.exists())


@pytest.mark.parametrize("page", pages(), ids=name)
def test_variables_and_metrics_on_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for variable in set(re.findall(r"\bGUARD_[A-Z_]*[A-Z]\b", text)) - {"GUARD_OPTION"}:
        flag = "--" + variable.removeprefix("GUARD_").lower().replace("_", "-")
        assert variable in source() or f'"{flag}"' in source(), variable
    for metric in set(re.findall(r"\bguard_[a-z0-9_]+[a-z0-9]\b", text)):
        family = re.sub(r"_(sum|count|bucket|info)$", "", metric)
        assert metric in source() or family in source(), metric
