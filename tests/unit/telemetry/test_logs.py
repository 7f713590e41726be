"""The log: what a line holds, and what no client can put into it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guard.errors import StateError
from guard.model.exchange import Reply
from guard.model.ledger import Charge, Receipt
from guard.state.memory import MemoryState
from guard.telemetry.logs import Format, Sparse, handler_of, request_id, trace_id
from guard.telemetry.tracebacks import MOST_FRAMES, MOST_LINKED, chain_of, safe_message, shown
from tests.support.fakes import Guarded, Seen

Line = dict[str, Any]  # Any: JSON
FORMS: list[Format] = ["text", "json"]


@contextmanager
def written(form: Format, name: str = "guard") -> Generator[io.StringIO]:
    """Write what a logger and those below it say to a stream."""
    stream = io.StringIO()
    logger, handler = logging.getLogger(name), handler_of(form, stream)
    level, logger.level = logger.level, logging.INFO
    propagate, logger.propagate = logger.propagate, False  # pytest would keep what no report can hold
    logger.addHandler(handler)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = level, propagate


def lines(stream: io.StringIO) -> list[Line]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_json_says_when_how_bad_where_and_what() -> None:
    with written("json") as stream:
        logging.getLogger("guard.proxy").warning("%d of %s", 3, "seven")
    (line,) = lines(stream)
    assert list(line) == ["time", "level", "logger", "event"]
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"], line["event"]) == ("warning", "guard.proxy", "3 of seven")


def test_a_line_of_text_reads_the_same() -> None:
    with written("text") as stream:
        logging.getLogger("guard.proxy").warning("%d of %s", 3, "seven")
    assert stream.getvalue().endswith("Z WARNING guard.proxy: 3 of seven\n")


@pytest.mark.parametrize("form", FORMS)
def test_a_line_names_the_request_and_the_trace(form: Format) -> None:
    with written(form) as stream:
        tokens = request_id.set("req-12345678"), trace_id.set("ab" * 16)
        logging.getLogger("guard").info("inside")
        request_id.reset(tokens[0])
        trace_id.reset(tokens[1])
        logging.getLogger("guard").info("outside")
    inside, outside = stream.getvalue().splitlines()
    assert "req-12345678" in inside
    assert "ab" * 16 in inside
    assert "request_id" not in outside
    assert "trace_id" not in outside


FORGED = "x\r\n2030-01-01T00:00:00.000Z INFO guard: all is well\x1b[2J\u2028\u202e\x85\x00"


def test_a_client_cannot_forge_a_line_of_text() -> None:
    with written("text") as stream:
        logging.getLogger("guard").warning("refused: %s", FORGED)
    text = stream.getvalue()
    assert text.isascii()
    assert not set(map(ord, text)) & ({*range(32), 127} - {10})
    first, *more = text.splitlines()
    assert "WARNING guard: refused: x\\x0d" in first
    assert more
    assert all(line.startswith("    ") for line in more)


def test_a_client_cannot_forge_a_line_of_json() -> None:
    with written("json") as stream:
        logging.getLogger("guard").warning("refused: %s\ud800", FORGED)
        logging.getLogger("guard").warning("%s", '"}\n{"level":"info"')
    assert len(stream.getvalue().splitlines()) == len(lines(stream)) == 2
    assert lines(stream)[1]["event"] == '"}\n{"level":"info"'


def test_a_long_message_is_cut() -> None:
    with written("json") as stream:
        logging.getLogger("guard").warning("%s", "x" * 10**6)
    assert len(lines(stream)[0]["event"]) == 16384


# -- exceptions --------------------------------------------------------------------------------------------------------

SECRET = "1234567.875"
TARGET = "/v1/models/m:predict"
POLICY = "version: 1\nroutes: [{name: r, api: kserve_v1, budgets: [{kind: rows, per: client, limit: 9}]}]\n"


def stumble(seen: Seen) -> Reply:
    """Raise as a library does that quotes what it could not read, and then another while that is handled."""
    local = seen.body.decode()
    try:
        float(f"not {local}")
    except ValueError:
        raise KeyError(local)  # noqa: B904 -- what is chained by itself must be withheld too
    raise AssertionError


@pytest.mark.parametrize("form", FORMS)
async def test_a_bug_in_a_phase_is_logged_without_what_it_stumbled_over(form: Format, tmp_path: Path) -> None:
    made = Guarded(POLICY, tmp_path)
    made.upstream.answer = stumble
    with written(form) as stream:
        body = f'{{"instances":[[{SECRET}]]}}'.encode()
        headers = [(b"x-request-id", b"client-chosen-1"), (b"x-api-key", b"key-of-the-client")]
        assert (await made.ask("POST", TARGET, body, headers)).status == 502
    told = stream.getvalue()
    assert "bug in phase forward of route r" in told
    assert "KeyError" in told
    assert "ValueError" in told
    assert "test_logs.py" in told
    assert "client-chosen-1" in told
    for secret in (SECRET, "instances", "key-of-the-client", "predictions"):
        assert secret not in told
    if form == "json":
        (line,) = lines(stream)
        assert [raised["type"] for raised in line["exception"]] == ["KeyError", "ValueError"]
        frames = line["exception"][0]["frames"]
        assert (frames[-1]["function"], set(frames[-1])) == ("stumble", {"file", "line", "function"})


async def test_lines_of_the_state_name_the_request(tmp_path: Path) -> None:
    class Telling(MemoryState):
        async def charge(self, ledger: str, charges: Any, now_s: float) -> Receipt:  # Any: as the port has it
            logging.getLogger("guard.state").warning("the state is slow")
            list[Charge](charges)
            return await super().charge(ledger, charges, now_s)

    made = Guarded(POLICY, tmp_path, state=Telling())
    made.upstream.answer = lambda _: Reply(200, [], b'{"predictions":[[0.9,0.1]]}')
    with written("json") as stream:

        async def ask(name: str) -> None:
            await made.ask("POST", TARGET, b'{"instances":[[1.0]]}', [(b"x-request-id", name.encode())])

        await asyncio.gather(*(asyncio.create_task(ask(f"request-{n}")) for n in range(3)))
    assert sorted(line["request_id"] for line in lines(stream)) == ["request-0", "request-1", "request-2"]


def test_what_is_safe_to_show_is_shown() -> None:
    assert safe_message(StateError("the state is out of reach")) == "the state is out of reach"
    assert safe_message(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
    assert safe_message(OSError("quotes an input")) == ""
    assert safe_message(ValueError("quotes an input")) == ""


def test_a_message_cannot_forge_a_line_either() -> None:
    text = shown(chain_of(StateError("one\n2030-01-01 INFO guard: two")))
    assert all(line.startswith("  ") for line in text.splitlines())


def test_deep_stacks_and_long_chains_are_bounded() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise ValueError("at the bottom")
        dig(depth - 1)

    with pytest.raises(ValueError, match="bottom") as caught:
        dig(500)
    (found,) = chain_of(caught.value)
    assert len(found["frames"]) == MOST_FRAMES
    assert found["frames"][-1]["function"] == "dig"
    error = first = ValueError()
    for _ in range(50):
        error.__cause__ = ValueError()
        error = error.__cause__
    error.__cause__ = first
    assert len(chain_of(first)) == MOST_LINKED


def test_what_asyncio_says_of_a_task_is_its_first_line() -> None:
    async def run(stream: io.StringIO) -> str:
        loop = asyncio.get_running_loop()
        error = ValueError(SECRET)
        loop.call_exception_handler({"message": "Task exception was never retrieved", "exception": error, "x": error})
        return stream.getvalue()

    with written("text", "asyncio") as stream:
        told = asyncio.run(run(stream))
    assert "Task exception was never retrieved" in told
    assert "ValueError" in told
    assert SECRET not in told


# -- the process's own set-up ------------------------------------------------------------------------------------------


def test_every_library_and_every_warning_comes_out_the_same() -> None:
    code = (
        "import logging, warnings\n"
        "from guard.telemetry.logs import configure\n"
        "configure('info', 'json')\n"
        "logging.getLogger('redis').info('told')\n"
        "logging.getLogger('redis').debug('not told')\n"
        "logging.getLogger('uvicorn.error').warning('not told')\n"
        "warnings.warn('old', stacklevel=1)\n"
        "logging.getLogger('guard').info('%d', 'secret')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in told] == ["redis", "py.warnings"]
    assert "secret" not in done.stderr
    assert done.stdout == ""


def test_the_command_line_does_not_import_structlog() -> None:
    late = "{'structlog', 'opentelemetry', 'cryptography'}"
    code = f"import sys, guard.cli.serve; print(sorted({late} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_noisy_library_says_one_thing_a_minute() -> None:
    now_s = 0.0
    sparse = Sparse(("noisy",), lambda: now_s)

    def record(name: str, line: int) -> bool:
        return sparse.filter(logging.LogRecord(name, logging.WARNING, "file.py", line, "m", (), None))

    assert [record("noisy.exporter", 1) for _ in range(3)] == [True, False, False]
    assert record("noisy.exporter", 2)
    assert record("noisy", 1)
    assert all(record("guard.proxy", 1) for _ in range(3))
    now_s = 61.0
    assert record("noisy.exporter", 1)
