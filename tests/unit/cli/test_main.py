"""The command line: help that teaches, exit codes, and quiet ends."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from guard.cli import main as main_module
from guard.cli.common import Exit, add_option, fail
from guard.cli.main import COMMANDS, main, run
from guard.errors import GuardError, PolicyError, Problem, StateError, UpstreamError


@dataclass
class Fake:
    """A command that raises or returns what it is told."""

    HELP: str = "a command"
    EPILOG: str = "example: none"
    result: int | BaseException = 0
    configured: bool = False

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--n", type=int, default=1)
        self.configured = True

    def run(self, args: argparse.Namespace) -> int:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result + int(args.n) - 1


def guard(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "guard", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
        check=False,
    )


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["-h"], ["help"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {name} " in out for name in COMMANDS)
        assert "guard serve --policy observe" in out
        assert "exit codes" in out
        assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([name, "--help"], ["help", name]):
        assert main(arguments) == 0
        assert f"guard {name}" in capsys.readouterr().out.partition("\n")[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("guard ")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["chekc"], "there is no command chekc", "did you mean check?"),
        (["zzzz"], "there is no command zzzz", "one of serve"),
        ([], "a command is missing", "guard --help"),
        (["help", "explian"], "explian", "did you mean explain?"),
    ],
)
def test_an_unknown_command_is_a_usage_error_with_a_hint(
    arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == Exit.USAGE
    err = capsys.readouterr().err
    assert message in err
    assert hint in err


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--nope"]) == Exit.USAGE
    assert "--nope" in capsys.readouterr().err


def test_a_command_gets_its_arguments_and_its_code_is_returned() -> None:
    assert run(Fake(result=0), "fake", ["--n", "4"]) == 3
    assert run(Fake(), "fake", ["--n", "x"]) == Exit.USAGE
    assert run(Fake(), "fake", ["--help"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PolicyError([Problem("no", "routes", 3, "do", "p.yaml")]), Exit.USAGE, "p.yaml:3: routes: no"),
        (StateError("state gone"), Exit.UNREACHABLE, "state gone"),
        (UpstreamError("model gone"), Exit.UNREACHABLE, "model gone"),
        (GuardError("odd"), Exit.INTERNAL, "odd"),
        (ZeroDivisionError("secret"), Exit.INTERNAL, "internal error: ZeroDivisionError"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, ""),
    ],
)
def test_what_a_command_raises_decides_the_exit_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_module.guarded(lambda: run(Fake(result=error), "fake", [])) == code
    err = capsys.readouterr().err
    assert words in err
    assert bool(err) == bool(words)


def test_fail_says_what_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail("no", "do", 3) == 3
    assert capsys.readouterr().err == "guard: no\n  hint: do\n"


def test_the_environment_gives_what_the_command_line_does_not() -> None:
    parser = argparse.ArgumentParser()
    env = {"GUARD_SECRET_FILE": "/s", "GUARD_N": "3", "GUARD_EMPTY": ""}
    add_option(parser, "--secret-file", help="h", env=env)
    add_option(parser, "--n", help="h", kind=int, default=1, env=env)
    add_option(parser, "--empty", help="h", default="d", env=env)
    add_option(parser, "--policy", help="h", env=env)
    args = parser.parse_args([])
    assert (args.secret_file, args.n, args.empty, args.policy) == ("/s", 3, "d", None)
    assert parser.parse_args(["--n", "7"]).n == 7
    assert "[GUARD_SECRET_FILE]" in parser.format_help()


@pytest.mark.parametrize("env", [{"GUARD_N": "x"}, {"GUARD_N": "9"}])
def test_an_environment_that_cannot_be_is_a_usage_error(
    env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        add_option(argparse.ArgumentParser(), "--n", help="h", kind=int, choices=("1", "2"), env=env)
    assert caught.value.code == 2
    assert "GUARD_N" in capsys.readouterr().err


def test_the_policy_may_come_from_the_environment() -> None:
    done = guard("check", GUARD_POLICY="strict", GUARD_API="open_inference")
    assert done.returncode == 0, done.stderr
    assert "strict: fine" in done.stdout


def test_python_dash_m_guard_is_the_command() -> None:
    assert guard("--version").returncode == 0
    assert guard("nope").returncode == 2


def test_a_reader_that_leaves_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "guard", "schema"], stdout=out, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == Exit.BROKEN_PIPE
    assert done.stderr == b""


def test_ctrl_c_ends_quietly(tmp_path: Path) -> None:
    fifo = tmp_path / "request"
    os.mkfifo(fifo)
    command = [
        sys.executable,
        "-m",
        "guard",
        "explain",
        "--policy",
        "strict",
        "--api",
        "open_inference",
        "--request",
        str(fifo),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        # Opening blocks until the command opens the other end: from there on it waits for a body that never comes.
        with fifo.open("wb"):
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == Exit.INTERRUPTED
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_the_command_imports_only_what_it_runs() -> None:
    heavy = "('numpy', 'pydantic', 'rich', 'yaml')"
    code = f"import sys, guard.cli.main as m; m.main(['--version']); print(*(n for n in sys.modules if n in {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[1] == ""
