"""Marked self-test traffic: one line a run in the log, nothing of it upstream."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from guard.model.client import Client
from guard.model.exchange import Reply
from guard.proxy.marks import MOST, Marks
from guard.telemetry.pseudonyms import Pseudonyms
from tests.support.fakes import Guarded

PATH = "/v1/models/m:predict"
BODY = json.dumps({"instances": [[1.0, 2.0]]}).encode()
ANA = Client("ana", "ana", "api_key")


def guarded(folder: Path, mode: str) -> Guarded:
    made = Guarded(f"version: 1\nmode: {mode}\nroutes: [{{name: r, api: kserve_v1}}]\n", folder)
    made.upstream.answer = lambda _: Reply(200, [], b'{"predictions":[[0.25,0.75]]}')
    return made


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "guard.selftest"]


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_run_is_logged_once_and_stays_at_guard(
    mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = guarded(tmp_path, mode)
    with caplog.at_level(logging.INFO, "guard.selftest"):
        for run in (b"run-1", b"run-1", b"run-2"):
            got = await made.ask("POST", PATH, BODY, [(b"x-guard-selftest", run), (b"user-agent", b"guard-selftest/1")])
            assert got.status == 200
    first, second = lines(caplog)
    assert first.startswith("self-test run run-1 began on route r, client ")
    assert second.startswith("self-test run run-2 began on route r, client ")
    assert "192.0.2.1" not in caplog.text
    sent = [dict(seen.headers) for seen in made.upstream.seen]
    assert all(b"x-guard-selftest" not in headers for headers in sent)
    assert {headers[b"user-agent"] for headers in sent} == {b"guard-selftest/1"}


async def test_unmarked_requests_log_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "guard.selftest"):
        await guarded(tmp_path, "enforce").ask("POST", PATH, BODY, [(b"x-guard", b"run-1")])
    assert lines(caplog) == []


def test_a_client_cannot_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    marks = Marks(Pseudonyms(bytes(32)))
    with caplog.at_level(logging.INFO, "guard.selftest"):
        for i in range(10 * MOST):
            marks.note([(b"x-guard-selftest", b"run-%d" % i)], "r", ANA)
    assert len(lines(caplog)) == MOST + 1
    assert lines(caplog)[-1].endswith("no further one is logged")


@pytest.mark.parametrize("run", [b"", b"a b", b"run\n1", b"x" * 65, b"\xff", b"run-1\n"])
def test_what_is_no_run_id_is_never_written(run: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "guard.selftest"):
        Marks(Pseudonyms(bytes(32))).note([(b"x-guard-selftest", run)], "r", None)
    assert lines(caplog) == []


def test_a_pseudonym_depends_on_name_and_secret(caplog: pytest.LogCaptureFixture) -> None:
    one, other = Pseudonyms(bytes(32)), Pseudonyms(bytes([1] * 32))
    assert one.of("ana") == Pseudonyms(bytes(32)).of("ana") != other.of("ana")
    assert one.of("ana") != one.of("bob")
    with caplog.at_level(logging.INFO, "guard.selftest"):
        Marks(one).note([(b"host", b"h"), (b"x-guard-selftest", b"run-1")], "r", None)
    assert lines(caplog) == ["self-test run run-1 began on route r, client none"]
