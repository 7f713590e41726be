"""The recorder: what is written, how much of it, and that nothing it does reaches a request."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from guard.calibrate.read import read_logs
from guard.detectors.base import Features
from guard.detectors.sketch import Sketch
from guard.evidence.recording import FIRST, RAW, TOP, WHOLE, Records, read_header, read_records
from guard.telemetry.recorder import MOST_WAITING, Recorder
from tests.support.traffic import SKETCH, WIDTH, honest, record, ticking

KEY = b"a secret of sixteen bytes or more"


def features(rows: int) -> Features:
    return Features(np.arange(rows * 9, dtype=np.uint32).reshape(rows, 9), None, False)


def records_of(path: Path) -> Records:
    data = path.read_bytes()
    end = data.index(b"\n") + 1
    header = read_header(data[:end])
    assert header is not None
    found, cut = read_records(data[end:], header)
    assert not cut
    return found


def files_of(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.rec"))


def test_what_was_noted_is_read_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "new", KEY)
    raw = np.arange(12.0).reshape(2, WIDTH)
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    recorder.note("digits", SKETCH, "alice", 1.5, features(2), raw, scores)
    recorder.close()
    (path,) = files_of(tmp_path / "new")
    found = records_of(path)
    assert found["time"].tolist() == [1.5, 1.5]
    assert np.array_equal(found["keys"], features(2).keys)
    assert np.array_equal(found["raw"], raw)
    assert found["top"].tolist() == [0, 2]
    assert np.allclose(found["best"] - found["second"], [0.5, 0.3])
    assert np.allclose(found["scores"], scores)


def test_nothing_of_a_clients_name_is_written_and_pseudonyms_depend_on_the_secret(tmp_path: Path) -> None:
    names: list[int] = []
    for key in (KEY, KEY, b"another secret of sixteen bytes"):
        recorder = Recorder(tmp_path / str(len(names)), key)
        recorder.note("digits", SKETCH, "alice@example.com", 1.5, features(1), None, None)
        recorder.close()
        (path,) = files_of(tmp_path / str(len(names)))
        assert b"alice" not in path.read_bytes()
        names.append(int(records_of(path)["client"][0]))
    assert names[0] == names[1] != names[2]
    assert names[0] != int.from_bytes(hashlib.blake2b(b"alice@example.com", digest_size=8).digest(), "little")


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    record(tmp_path / "traffic", [honest(0)])
    (path,) = files_of(tmp_path / "traffic")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "traffic").stat().st_mode & 0o777 == 0o700


def test_what_is_missing_is_flagged_and_comes_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY, clock_ns=ticking().__next__)
    raw, scores = np.ones((1, WIDTH)), np.array([[0.5, 0.5]])
    for some_raw, some_scores in ((None, None), (raw, None), (raw, scores), (None, scores)):
        recorder.note("digits", SKETCH, "alice", 1.0, features(1), some_raw, some_scores)
    recorder.close()
    # A file begins with the columns of its first rows; when more are wanted, another begins.
    flags = [records_of(path)["flags"].tolist() for path in files_of(tmp_path)]
    assert flags == [[FIRST], [FIRST | RAW], [FIRST | RAW | TOP | WHOLE, FIRST | TOP | WHOLE]]
    assert records_of(files_of(tmp_path)[2])["raw"].tolist() == [[1.0] * WIDTH, [0.0] * WIDTH]


def test_logits_are_recorded_as_what_they_stand_for(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY)
    recorder.note("digits", SKETCH, "alice", 1.0, features(1), None, np.log([[0.7, 0.2, 0.1]]) + 3)
    recorder.close()
    (path,) = files_of(tmp_path)
    assert np.allclose(records_of(path)["scores"], [[0.7, 0.2, 0.1]], atol=1e-6)


def test_scores_that_are_no_whole_distribution_are_no_calibration_answers(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY)
    recorder.note("digits", SKETCH, "alice", 1.0, features(2), None, np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.0]]))
    recorder.note("many", SKETCH, "alice", 1.0, features(1), None, np.full((1, 100), 0.01))
    recorder.close()
    few, many = (records_of(path) for path in files_of(tmp_path))
    assert few["flags"].tolist() == [FIRST | TOP | WHOLE, TOP]
    assert many["flags"].tolist() == [FIRST | TOP]
    assert many["scores"].shape == (1, 0)


def test_a_full_file_is_followed_by_another_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "other-00000000000000000001-7.rec").write_bytes(b"of another replica")
    (tmp_path / "notes.txt").write_text("not a recording")
    size = 20_000
    recorder = Recorder(tmp_path, KEY, max_file_bytes=size, max_files=3, clock_ns=ticking().__next__)
    for number in range(60):
        recorder.note("digits", SKETCH, "alice", float(number), features(100), None, None)
    recorder.close()
    found = files_of(tmp_path)
    assert len(found) == 3
    assert all(path.stat().st_size <= size for path in found)
    assert not (tmp_path / "other-00000000000000000001-7.rec").exists()
    assert (tmp_path / "notes.txt").exists()
    times = np.concatenate([records_of(path)["time"] for path in found])
    assert times.max() == 59.0
    assert times.min() > 0.0


def test_replicas_share_a_directory(tmp_path: Path) -> None:
    clock: Iterator[int] = ticking()
    both = [Recorder(tmp_path, KEY, clock_ns=clock.__next__) for _ in range(2)]
    for number, recorder in enumerate(both):
        recorder.note("digits", SKETCH, "alice", float(number), features(1), np.ones((1, WIDTH)), None)
    for recorder in both:
        recorder.close()
    (log,) = read_logs([tmp_path]).clients
    assert log.times.tolist() == [0.0, 1.0]


def test_rows_beyond_the_queue_are_dropped_and_counted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY)
    recorder.note("digits", SKETCH, "alice", 1.0, features(MOST_WAITING + 1), None, None)
    recorder.note("digits", SKETCH, "alice", 1.0, features(3), None, None)
    recorder.close()
    assert recorder.dropped == MOST_WAITING + 1
    assert len(records_of(files_of(tmp_path)[0])) == 3
    recorder.note("digits", SKETCH, "alice", 1.0, features(2), None, None)
    assert recorder.dropped == MOST_WAITING + 3


def test_a_disk_that_fails_costs_recordings_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "traffic"
    recorder = Recorder(directory, KEY)
    directory.rmdir()
    with caplog.at_level(logging.WARNING, "guard.recorder"):
        for route in ("digits", "loans"):
            recorder.note(route, SKETCH, "alice", 1.0, features(4), None, None)
        recorder.close()
    assert recorder.dropped == 8
    assert len(caplog.records) == 1
    assert "alice" not in caplog.text


def test_a_directory_that_cannot_be_made_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Recorder(tmp_path / "file" / "traffic", KEY)


def test_a_route_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "traffic", KEY)
    recorder.note("../../x y", Sketch(kind="text"), "alice", 1.0, features(1), None, None)
    recorder.close()
    (path,) = files_of(tmp_path / "traffic")
    assert path.name.startswith("_.._x_y-")
    assert read_logs([tmp_path / "traffic"]).route == "../../x y"


async def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY)
    await recorder.aclose()
    recorder.close()
    assert not files_of(tmp_path)


def test_the_notice_says_what_is_written_where_and_how_much(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, KEY)
    recorder.close()
    told = recorder.describe()
    for words in (str(tmp_path), "keyed hash of the client's name", "THE FEATURES", "1,024 MiB", "16 files", "scores"):
        assert words in told
