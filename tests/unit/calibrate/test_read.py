"""Recordings become one log a client, whatever files they lie in, unless they do not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guard.calibrate.read import CalibrationError, read_logs
from guard.detectors.base import Features
from guard.telemetry.recorder import Recorder
from tests.support.traffic import SKETCH, WIDTH, honest, record, ticking

KEY = b"a secret of sixteen bytes or more"


def test_each_client_is_one_log_in_the_order_of_time(tmp_path: Path) -> None:
    clients = [honest(number) for number in range(3)]
    record(tmp_path, clients)
    logs = read_logs([tmp_path])
    assert (logs.route, logs.sketch, logs.secrets, logs.cut, logs.unusable) == ("digits", SKETCH, 1, (), 0)
    assert sorted(len(log) for log in logs.clients) == [96] * 3
    log = next(log for log in logs.clients if log.raw is not None and np.allclose(log.raw, clients[1].raw, atol=1e-6))
    assert np.array_equal(log.keys, clients[1].features.keys)
    assert np.array_equal(log.top, clients[1].scores.argmax(axis=1))
    two = np.sort(clients[1].scores, axis=1)
    assert np.allclose(log.margins, two[:, -1] - two[:, -2], atol=1e-6)
    assert np.allclose(log.scores, clients[1].scores, atol=1e-6)


def test_files_of_replicas_are_put_together_by_time(tmp_path: Path) -> None:
    for name, times in (("a", (1.0, 4.0)), ("b", (3.0, 2.0))):
        recorder = Recorder(tmp_path / name, KEY)
        for time in times:
            row = Features(np.full((1, 9), time, dtype=np.uint32), None, False)
            recorder.note("digits", SKETCH, "alice", time, row, np.full((1, WIDTH), time), None)
        recorder.close()
    (log,) = read_logs([tmp_path / "a", tmp_path / "b"]).clients
    assert log.times.tolist() == [1, 2, 3, 4]
    assert log.keys[:, 0].tolist() == [1, 2, 3, 4]
    assert log.raw is not None
    assert log.raw[:, 0].tolist() == [1, 2, 3, 4]
    assert np.isnan(log.margins).all()
    assert log.top.tolist() == [-1] * 4


def test_a_file_that_was_cut_off_is_read_up_to_there_and_named(tmp_path: Path) -> None:
    record(tmp_path, [honest(0)])
    (path,) = tmp_path.glob("*.rec")
    path.write_bytes(path.read_bytes()[:-10])
    logs = read_logs([tmp_path])
    assert len(logs.clients[0]) == 95
    assert logs.cut == (path.name,)


def test_a_file_without_a_first_line_is_passed_over(tmp_path: Path) -> None:
    record(tmp_path, [honest(0)])
    (tmp_path / "digits-00000000000000000009-9.rec").write_bytes(b'{"format":"guard-rec')
    assert len(read_logs([tmp_path]).clients) == 1


def test_different_sketches_are_refused_by_what_differs(tmp_path: Path) -> None:
    record(tmp_path / "a", [honest(0)])
    record(tmp_path / "b", [honest(1)], sketch=SKETCH.model_copy(update={"salt": "77" * 16}))
    with pytest.raises(CalibrationError, match=r"different sketches \(salt\)"):
        read_logs([tmp_path / "a", tmp_path / "b"])


def test_secrets_are_counted(tmp_path: Path) -> None:
    record(tmp_path, [honest(0)])
    recorder = Recorder(tmp_path, b"another secret")
    recorder.note("digits", SKETCH, "client-0", 1.0, Features(np.zeros((1, 9), np.uint32), None, False), None, None)
    recorder.close()
    assert read_logs([tmp_path]).secrets == 2


def test_of_several_routes_one_is_named(tmp_path: Path) -> None:
    record(tmp_path, [honest(0)])
    record(tmp_path / "more", [honest(1)], route="loans")
    both = [tmp_path, tmp_path / "more"]
    with pytest.raises(CalibrationError, match="name one of digits, loans"):
        read_logs(both)
    assert read_logs(both, "loans").route == "loans"
    with pytest.raises(CalibrationError, match="no recordings of route cats, only of digits, loans"):
        read_logs(both, "cats")


@pytest.mark.parametrize("text", [b"hello\n", b"{}\n"])
def test_what_is_no_recording_is_named(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.rec").write_bytes(text)
    with pytest.raises(CalibrationError, match=r"x\.rec: not a recording"):
        read_logs([tmp_path])


def test_an_empty_directory_says_where_recordings_come_from(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="guard serve --record"):
        read_logs([tmp_path])


def test_records_without_a_usable_sketch_are_left_out_and_counted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY, clock_ns=ticking().__next__)
    rows = Features(np.zeros((1, 9), np.uint32), None, False)
    for raw in (None, np.ones((1, WIDTH)), np.full((1, WIDTH), 1e300)):
        recorder.note("digits", SKETCH, "alice", 1.0, rows, raw, None)
    recorder.close()
    logs = read_logs([tmp_path])
    assert [len(log) for log in logs.clients] == [1]
    assert logs.unusable == 2


def test_queries_without_sketches_at_all_are_logs_of_keys(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY)
    recorder.note("digits", SKETCH, "alice", 1.0, Features(np.ones((2, 9), np.uint32), None, False), None, None)
    recorder.close()
    (log,) = read_logs([tmp_path]).clients
    assert log.raw is None
    assert len(log) == 2
