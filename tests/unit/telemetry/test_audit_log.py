"""The buffer: what it takes, when there is room, and what becomes of entries when the target fails."""

from __future__ import annotations

import threading

import pytest

from guard.telemetry.audit_log import AuditLog
from guard.telemetry.audit_target import Pace
from tests.support.audits import FAST, KEY, FakeTarget, Losses, check, entry, until


def opened(
    target: FakeTarget, losses: Losses | None = None, pace: Pace = FAST, lines: int = 100_000, size: int = 10**8
) -> AuditLog:
    about = {"version": "1", "instance": "host/1", "policy": "d"}
    return AuditLog(target, KEY, losses or Losses(), about, pace=pace, most_lines=lines, most_bytes=size)


def kinds(target: FakeTarget) -> list[str]:
    return [made["kind"] for made in target.entries]


def test_what_is_added_is_chained_signed_and_ended() -> None:
    target = FakeTarget()
    log = opened(target)
    for number in range(3):
        log.add(entry(number, note='a\nb\u2028"c'))
    log.close()
    assert kinds(target) == ["start", "decision", "decision", "decision", "stop"]
    assert target.entries[1]["note"] == 'a\nb\u2028"c'
    checker = check(target.data, target.head)
    assert (checker.problems, checker.notes, checker.signed_to) == ([], [], 5)
    assert (target.closed, log.waiting, log.sequence) == (True, 0, 5)


def test_closing_twice_ends_once() -> None:
    target = FakeTarget()
    log = opened(target)
    log.close()
    log.close()
    assert kinds(target) == ["start", "stop"]


def test_what_comes_behind_the_end_is_counted() -> None:
    losses = Losses()
    log = opened(FakeTarget(), losses)
    log.close()
    log.add(entry(1))
    assert losses.lost == 1


def test_an_idle_log_wakes_up_for_an_entry() -> None:
    target = FakeTarget()
    log = opened(target)
    until(lambda: log._asleep)  # pyright: ignore[reportPrivateUsage] (that the thread sleeps shows nowhere else)
    log.add(entry(1))
    until(lambda: log.waiting == 0)
    assert kinds(target)[:2] == ["start", "decision"]
    log.close()


def test_a_full_buffer_has_no_room_keeps_answers_and_drops_refusals() -> None:
    target, losses = FakeTarget(), Losses()
    target.held.clear()
    log = opened(target, losses, lines=8)
    for number in range(6):
        assert log.room()
        log.add(entry(number))
    assert not log.room()
    log.add(entry(6, outcome="audit_unavailable"))
    assert losses.lost == 1
    log.add(entry(7))
    log.add(entry(8, outcome="upstream_error", charges={"rows/client": 1}))
    assert losses.lost == 1
    log.add(entry(9))
    assert losses.lost == 2
    target.held.set()
    until(log.room)
    log.close()
    assert [made["id"] for made in target.entries if made["kind"] == "decision"] == [
        *(f"request-{number}" for number in range(6)), "request-7", "request-8"
    ]  # fmt: skip
    (lost,) = [made for made in target.entries if made["kind"] == "lost"]
    assert (lost["entries"], lost["refused"]) == (2, 1)
    checker = check(target.data, target.head)
    assert checker.problems == []
    assert "2 entries were lost about here, 1 of them of refusals" in checker.notes[0]


def test_bytes_are_bounded_too() -> None:
    target, losses = FakeTarget(), Losses()
    target.held.clear()
    log = opened(target, losses, size=1000)
    while losses.lost == 0:
        log.add(entry(1, note="x" * 100))
    assert not log.room()
    assert log.waiting <= 5
    target.held.set()
    log.close()


@pytest.mark.parametrize("bad", [{"kind": "x", "value": object()}, {"kind": "x", "value": "y" * 40000}, {}])
def test_what_cannot_be_put_down_is_lost_and_harms_nobody(bad: dict[str, object]) -> None:
    target, losses = FakeTarget(), Losses()
    log = opened(target, losses)
    log.add(bad)
    log.add(entry(1))
    log.close()
    assert losses.lost == 1
    assert sorted(kinds(target)) == ["decision", "lost", "start", "stop"]


def test_a_target_that_fails_is_tried_again_with_the_same_lines(caplog: pytest.LogCaptureFixture) -> None:
    target, losses = FakeTarget(), Losses()
    target.broken = True
    log = opened(target, losses)
    log.add(entry(1))
    until(lambda: "cannot be written" in caplog.text)
    assert target.data == b""
    target.broken = False
    log.add(entry(2))
    until(lambda: log.waiting == 0)
    log.close()
    assert kinds(target) == ["start", "decision", "decision", "stop"]
    assert check(target.data, target.head).problems == []
    assert losses.lost == 0
    assert "written again" in caplog.text


def test_there_is_no_room_once_something_has_waited_too_long() -> None:
    target = FakeTarget()
    target.held.clear()
    log = opened(target, pace=FAST._replace(patience_s=0.05))
    assert log.room()
    log.add(entry(1))
    until(lambda: not log.room())
    assert log.waiting == 1
    target.held.set()
    until(log.room)
    log.close()


def test_a_target_that_never_comes_back_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    target = FakeTarget()
    target.broken = True
    log = opened(target, pace=FAST._replace(patience_s=0.05))
    log.add(entry(1))
    log.close()
    assert target.closed
    assert "1 entries could not be written before the end" in caplog.text


def test_a_bug_in_the_thread_leaves_no_room(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(FakeTarget):
        def write(self, data: bytes) -> None:
            raise ZeroDivisionError

    log = opened(Buggy())
    until(lambda: not log.room())
    assert "enforcing routes refuse until a restart" in caplog.text
    log.close()


def test_checkpoints_come_after_so_many_lines_and_so_long() -> None:
    target = FakeTarget()
    log = opened(target, pace=FAST._replace(checkpoint_lines=5))
    for number in range(12):
        log.add(entry(number))
    until(lambda: "checkpoint" in kinds(target))
    log.close()
    assert check(target.data, target.head).problems == []
    quiet = FakeTarget()
    log = opened(quiet, pace=FAST._replace(checkpoint_s=0.02))
    log.add(entry(1))
    until(lambda: "checkpoint" in kinds(quiet))
    log.close()


def test_entries_of_many_bursts_are_all_there_in_order() -> None:
    target, losses = FakeTarget(), Losses()
    log = opened(target, losses)
    for number in range(5000):
        log.add(entry(number))
    log.close()
    assert losses.lost == 0
    assert [made["id"] for made in target.entries if made["kind"] == "decision"] == [
        f"request-{number}" for number in range(5000)
    ]
    assert not any(thread.name == "guard-audit" for thread in threading.enumerate())
