"""`--upstream` and `--upstream-file`: what may stand there, and what of it counts."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from guard.cli.upstreams import add_upstreams, check_own, grpc_upstreams_of, read, shown, upstreams_of

A, B = "a=http://10.0.0.1:8080", "b=http://10.0.0.2:8080/base"
BOTH = (("a", "http://10.0.0.1:8080"), ("b", "http://10.0.0.2:8080/base"))


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_upstreams(parser)
    return parser.parse_args(arguments)


def test_one_bare_url_or_several_with_names(tmp_path: Path) -> None:
    assert upstreams_of(parsed(), {}) == ()
    assert upstreams_of(parsed("--upstream", "http://10.0.0.1"), {}) == (("", "http://10.0.0.1"),)
    assert upstreams_of(parsed("--upstream", A), {}) == BOTH[:1]
    assert upstreams_of(parsed("--upstream", A, "--upstream", B), {}) == BOTH
    file = tmp_path / "models"
    file.write_text(f"\ufeff# shards of May\n{A}\n\n  {B}  # the second\n", encoding="utf-8")
    assert upstreams_of(parsed("--upstream-file", str(file)), {}) == BOTH


@pytest.mark.parametrize("text", [f"{A} {B}", f"{A},{B}", f" {A} , {B}\n"])
def test_the_variable_holds_several(text: str) -> None:
    assert upstreams_of(parsed(), {"GUARD_UPSTREAM": text}) == BOTH


def test_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "models"
    file.write_text(B)
    env = {"GUARD_UPSTREAM": "http://10.0.0.9", "GUARD_UPSTREAM_FILE": "/nowhere"}
    assert upstreams_of(parsed("--upstream", A), env) == BOTH[:1]
    assert upstreams_of(parsed("--upstream-file", str(file)), env) == BOTH[1:]
    assert upstreams_of(parsed(), {"GUARD_UPSTREAM": "", "GUARD_UPSTREAM_FILE": str(file)}) == BOTH[1:]


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["10.0.0.1:8080"], "must be http://HOST:PORT"),
        (["a=10.0.0.1:8080"], "must be http://HOST:PORT"),
        (["a=ftp://10.0.0.1"], "must be http://HOST:PORT"),
        (["http://10.0.0.1:0"], "must be http://HOST:PORT"),
        (["http://10.0.0.1:99999"], "must be http://HOST:PORT"),
        (["http://[::1"], "must be http://HOST:PORT"),
        (["a b=http://10.0.0.1"], "must be http://HOST:PORT"),
        ([A, "http://10.0.0.2"], "http://10.0.0.2 needs a name among several"),
        (["http://10.0.0.1", "http://10.0.0.2"], "http://10.0.0.1 needs a name among several"),
        ([A, "a=http://10.0.0.2"], "a is named twice"),
        ([A, "b=http://10.0.0.1:8080"], "b is the same server as a: its shard would count twice"),
        ([A, "b=http://10.0.0.1:8080/"], "b is the same server as a"),
        (["a=http://Model", "b=http://model.:80"], "b is the same server as a"),
        (["a=https://model", "b=https://model:443/"], "b is the same server as a"),
        (["a=http://localhost:1", "b=http://127.0.0.1:1", "c=http://[::1]:1"], "b is the same server as a"),
        ([f"m{i}=http://10.0.0.1/{i}" for i in range(4097)], "at most 4096"),
    ],
)
def test_what_cannot_be_used_is_told(texts: list[str], told: str) -> None:
    with pytest.raises(ValueError, match="--upstream") as caught:
        read(texts)
    assert told in str(caught.value)


def test_what_differs_in_port_path_or_address_is_another_server() -> None:
    assert len(read(["a=http://m:1", "b=http://m:2", "c=http://m:1/x", "d=http://m:1/y", "e=http://127.0.0.2:1"])) == 5


def test_a_file_and_options_together_are_refused_and_so_is_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "models"
    file.write_text("# none yet\n")
    with pytest.raises(ValueError, match="two ways to say the same"):
        upstreams_of(parsed("--upstream", A, "--upstream-file", str(file)), {})
    with pytest.raises(ValueError, match="names no model"):
        upstreams_of(parsed("--upstream-file", str(file)), {})


def test_guards_own_address_is_refused_under_every_name() -> None:
    models = read([A, "b=http://localhost:9000/base"])
    for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::"):
        with pytest.raises(ValueError, match="round in circles"):
            check_own(models, (host, 9000))
    check_own(models, ("127.0.0.1", 9001))


def test_what_is_guarded_is_told_in_a_few_words() -> None:
    assert shown(BOTH[:1]) == "http://10.0.0.1:8080"
    assert shown(BOTH) == "an ensemble of 2 models"


def test_models_over_grpc_are_named_apart() -> None:
    one, two = "a=grpc://10.0.0.1:8001", "b=grpcs://10.0.0.2:8001"
    both = (("a", "grpc://10.0.0.1:8001"), ("b", "grpcs://10.0.0.2:8001"))
    assert grpc_upstreams_of(parsed(), {}) == ()
    assert grpc_upstreams_of(parsed("--grpc-upstream", "grpc://10.0.0.1:1"), {}) == (("", "grpc://10.0.0.1:1"),)
    assert grpc_upstreams_of(parsed("--grpc-upstream", one, "--grpc-upstream", two), {}) == both
    assert grpc_upstreams_of(parsed(), {"GUARD_GRPC_UPSTREAM": f"{one} {two}"}) == both
    assert upstreams_of(parsed("--grpc-upstream", one), {}) == ()
    for wrong in ("grpc://10.0.0.1", "http://10.0.0.1:1", "10.0.0.1:1", "grpc://10.0.0.1:0"):
        with pytest.raises(ValueError, match="--grpc-upstream must be grpc://HOST:PORT or grpcs://HOST:PORT"):
            grpc_upstreams_of(parsed("--grpc-upstream", wrong), {})
    with pytest.raises(ValueError, match="--grpc-upstream b is the same server as a"):
        grpc_upstreams_of(parsed("--grpc-upstream", one, "--grpc-upstream", "b=grpcs://10.0.0.1:8001"), {})
    with pytest.raises(ValueError, match="--upstream must be http://HOST:PORT"):
        read(["grpc://10.0.0.1:1"])
