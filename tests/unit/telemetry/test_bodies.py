"""The recorder of bodies: bounded, rotated, for its owner alone, and told of loudly."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.evidence.bodies import HEAD, MOST_BYTES, Asked, Said, pack, read_line, unpack
from guard.evidence.recording import RecordingError
from guard.telemetry.bodies import MOST_WAITING_BYTES, BodyRecorder
from tests.support.traffic import ticking

KEY = "0123456789abcdef"


def asked(now_s: float = 1.5, body: bytes = b"{}") -> Asked:
    said = (Said(200, [(b"content-type", b"application/json")], b"[0.5]"), None)
    names = ("ab" * 8, "cd" * 8, "api_key", "digits", "shadow", "POST", "/v2/models/digits/infer")
    return Asked(now_s, *names, [(b"content-type", b"application/json")], body, said)


def frames(path: Path) -> list[Asked]:
    data = path.read_bytes()
    at = data.index(b"\n") + 1
    assert read_line(data[:at]) == KEY
    found: list[Asked] = []
    while at < len(data):
        stored, _, _ = HEAD.unpack_from(data, at)
        found.append(unpack(data[at : at + HEAD.size + stored]))
        at += HEAD.size + stored
    return found


def test_what_was_noted_is_read_back(tmp_path: Path) -> None:
    recorder = BodyRecorder(tmp_path / "new", KEY)
    for now_s in (1.0, 2.0):
        recorder.note(asked(now_s))
    recorder.close()
    (path,) = (tmp_path / "new").iterdir()
    assert frames(path) == [asked(1.0), asked(2.0)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711, 0o755])
def test_a_directory_that_others_can_look_into_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match="chmod 700"):
        BodyRecorder(tmp_path, KEY)
    assert not list(tmp_path.iterdir())


def test_a_full_file_is_followed_by_another_and_the_oldest_go(tmp_path: Path) -> None:
    size = len(pack(asked()))
    (tmp_path / "dir").mkdir(mode=0o700)
    (tmp_path / "dir" / "default-00000000000000000001-7.rec").write_bytes(b"a recording")
    recorder = BodyRecorder(tmp_path / "dir", KEY, max_file_bytes=3 * size, max_files=2, clock_ns=ticking().__next__)
    for number in range(9):
        recorder.note(asked(float(number)))
    recorder.close()
    files = sorted((tmp_path / "dir").glob("*.bodies"))
    assert [[one.now_s for one in frames(file)] for file in files] == [[4.0, 5.0], [6.0, 7.0], [8.0]][-2:]
    assert (tmp_path / "dir" / "default-00000000000000000001-7.rec").exists()


def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    recorder = BodyRecorder(tmp_path / "dir", KEY)
    recorder.note(asked(body=bytes(MOST_BYTES)))
    assert recorder.dropped == 1
    many = MOST_WAITING_BYTES // 2**22 + 8
    for _ in range(many):
        recorder.note(asked(body=bytes(2**22)))
    recorder.close()
    recorder.note(asked())
    (path,) = (tmp_path / "dir").iterdir()
    assert len(frames(path)) + recorder.dropped == many + 2


def test_a_disk_that_fails_costs_recordings_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = BodyRecorder(tmp_path / "dir", KEY)
    (tmp_path / "dir").rmdir()
    recorder.note(asked())
    recorder.close()
    assert recorder.dropped == 1
    assert "failed, nothing else did" in caplog.text


def test_it_says_loudly_what_is_written(tmp_path: Path) -> None:
    recorder = BodyRecorder(tmp_path / "dir", KEY)
    recorder.close()
    said = recorder.describe()
    assert said.startswith("RECORDING BODIES to ")
    assert "WHOLE REQUESTS AND THE MODEL'S WHOLE ANSWERS" in said
    assert "16 files, 4,096 MiB" in said


def _damages(frame: bytes) -> list[bytes]:
    stored, now_s, size = HEAD.unpack_from(frame)
    longer = HEAD.pack(stored, now_s, size - 1) + frame[HEAD.size :]
    return [frame[:10], frame[:-4], frame[:20] + bytes(4) + frame[24:], longer]


@pytest.mark.parametrize("number", range(4))
def test_a_damaged_frame_is_an_error(number: int) -> None:
    with pytest.raises(RecordingError):
        unpack(_damages(pack(asked()))[number])


def test_a_client_that_is_no_pseudonym_is_damage() -> None:
    with pytest.raises(RecordingError, match="pseudonym"):
        unpack(pack(asked()._replace(client="\x1b[2Jalice")))


@pytest.mark.parametrize("line", [b'{"format":"other"}\n', b"\x00\n", b'{"format":"guard-bodies","version":2}\n'])
def test_another_file_is_an_error(line: bytes) -> None:
    with pytest.raises(RecordingError):
        read_line(line)
