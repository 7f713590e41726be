"""Events go to the log, and to the audit log with their time and the request that caused them."""

from __future__ import annotations

import logging
from contextvars import copy_context
from typing import TYPE_CHECKING

from guard.telemetry.events import Events
from guard.telemetry.logs import request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest


class Sink:
    def __init__(self) -> None:
        self.entries: list[Mapping[str, object]] = []

    def room(self) -> bool:
        return True

    def add(self, entry: Mapping[str, object]) -> None:
        self.entries.append(entry)

    def close(self) -> None:
        return


def told(sink: Sink | None) -> None:
    request_id.set("request-0001")
    Events(sink).add({"event": "ladder", "time": "2027-01-31T10:00:00.000+00:00", "route": "digits"})


def test_an_event_names_its_request_and_keeps_its_own_time(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    with caplog.at_level(logging.WARNING):
        copy_context().run(told, sink)
    assert list(sink.entries[0].items())[:4] == [
        ("kind", "event"),
        ("time", "2027-01-31T10:00:00.000+00:00"),
        ("id", "request-0001"),
        ("event", "ladder"),
    ]
    assert '"event":"ladder"' in caplog.text


def test_an_event_outside_of_a_request_has_a_time_and_no_id() -> None:
    sink = Sink()
    Events(sink).add({"event": "profile_stale", "route": "digits"})
    assert list(sink.entries[0]) == ["kind", "time", "event", "route"]


def test_without_an_audit_log_events_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        copy_context().run(told, None)
    assert '"event":"ladder"' in caplog.text
