"""The log on the disk: where it goes on, rotation, what a crash or a stranger leaves, and who may write."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guard.telemetry.audit_file import AuditFile, rotated
from guard.telemetry.audit_head import Keys
from guard.telemetry.audit_keys import verifies
from guard.telemetry.audit_log import AuditLog
from tests.support.audits import FAST, KEY, OTHER, Losses, check_files, entries_of, entry, until

if TYPE_CHECKING:
    from guard.telemetry.audit_keys import SigningKey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def opened(path: Path, key: SigningKey = KEY, **options: int) -> AuditLog:
    target = AuditFile(path, Keys(verifies, frozenset((key.public,))), **options)
    return AuditLog(target, key, Losses(), {"instance": "host/1"}, pace=FAST)


def write(path: Path, count: int = 3, key: SigningKey = KEY, **options: int) -> None:
    """Write some entries, from start to end."""
    log = opened(path, key, **options)
    for number in range(count):
        log.add(entry(number))
    log.close()


def found(path: Path) -> dict[str, object]:
    """What the last start said of the log that it found."""
    return [made["found"] for made in entries_of(path) if made["kind"] == "start"][-1]


def test_the_chain_goes_on_after_a_restart(path: Path) -> None:
    write(path)
    write(path)
    checker = check_files(path)
    assert (checker.problems, checker.notes, checker.seq) == ([], [], 10)
    assert found(path) == {"state": "clean"}
    assert len({made["log"] for made in entries_of(path) if "log" in made}) == 1


def test_files_are_for_their_owner_alone(path: Path) -> None:
    write(path)
    assert {one.name for one in path.parent.iterdir()} == {"audit.jsonl", "audit.jsonl.head", "audit.jsonl.lock"}
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}


def test_what_an_operator_allowed_to_read_stays_readable(path: Path) -> None:
    write(path)
    path.chmod(0o640)
    write(path, 30, max_bytes=1)
    assert {stat.S_IMODE(one.stat().st_mode) for one in (path, *rotated(path))} == {0o640}


def test_two_guards_cannot_write_one_log(path: Path) -> None:
    log = opened(path)
    with pytest.raises(OSError, match="another guard writes the audit log"):
        opened(path)
    log.close()
    write(path)
    assert check_files(path).problems == []


@pytest.mark.parametrize("make", ["directory", "link", "fifo"])
def test_what_is_no_plain_file_is_refused(path: Path, make: str) -> None:
    if make == "directory":
        path.mkdir()
    elif make == "link":
        path.symlink_to(path.with_name("elsewhere"))
    else:
        os.mkfifo(path)
    with pytest.raises(OSError, match=r"audit\.jsonl cannot be written"):
        opened(path)


def test_a_link_in_the_heads_place_is_replaced_and_not_followed(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("untouched")
    path.with_name("audit.jsonl.head.new").symlink_to(victim)
    write(path)
    assert victim.read_text() == "untouched"
    assert check_files(path).problems == []


def test_another_file_is_not_taken_for_a_log(path: Path) -> None:
    path.write_text('{"at":"2027-01-31","act":"reset"}\n')
    with pytest.raises(OSError, match="is there already, and is no audit log"):
        opened(path)
    assert path.read_text() == '{"at":"2027-01-31","act":"reset"}\n'


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="there is no directory"):
        opened(tmp_path / "nowhere" / "audit.jsonl")


def turned(path: Path, times: int, keep: int) -> None:
    """Rotate a log some times."""
    log = opened(path, max_bytes=1, keep=keep)
    until(lambda: any(int(one.suffix[1:]) >= times for one in rotated(path)))
    log.add(entry(1))
    log.close()


def test_a_log_is_rotated_and_checked_as_a_whole(path: Path) -> None:
    write(path)
    turned(path, 3, keep=99)
    write(path)
    checker = check_files(path)
    assert (checker.problems, checker.notes) == ([], [])
    assert len(rotated(path)) >= 3
    first = json.loads(path.read_bytes().splitlines()[0])
    assert (first["kind"], first["oldest"]) == ("rotate", 1)


def test_the_oldest_files_are_deleted_and_that_is_not_taken_for_tampering(path: Path) -> None:
    turned(path, 4, keep=2)
    assert len(rotated(path)) == 2
    checker = check_files(path)
    assert checker.problems == []
    assert "what came before was rotated away" in checker.notes[0]
    rotated(path)[0].unlink()
    assert "are missing, and no rotation has removed them" in check_files(path).problems[0].text


def test_files_that_somebody_plants_are_not_kept_in_the_place_of_genuine_ones(path: Path) -> None:
    turned(path, 2, keep=99)
    genuine = rotated(path)
    planted = [Path(f"{path}.000{number}") for number in range(900, 910)]
    for number, forged in enumerate(planted):
        line = b'{"seq":99999,"prev":"' + b"0" * 64 + b'","kind":"rotate"}\n'
        forged.write_bytes(genuine[-1].read_bytes() if number % 2 else line)
    target = AuditFile(path, Keys(verifies, frozenset((KEY.public,))), keep=len(genuine) + 1)
    assert target.rotate() == 1
    target.prune()
    target.close()
    assert all(one.exists() for one in (*genuine, *planted))


def test_rotation_does_not_cover_up_what_somebody_has_deleted(path: Path) -> None:
    turned(path, 3, keep=99)
    rotated(path)[0].unlink()
    turned(path, 5, keep=99)
    assert "and no rotation has removed them" in check_files(path).problems[0].text


def test_a_rotated_file_that_is_gone_or_changed_is_found(path: Path) -> None:
    turned(path, 3, keep=99)
    middle = rotated(path)[1]
    kept = middle.read_bytes()
    middle.write_bytes(kept.replace(b'"time":"2', b'"time":"3', 1))
    assert {problem.file for problem in check_files(path).problems} == {middle.name}
    middle.unlink()
    assert "missing" in check_files(path).problems[0].text


def test_a_crash_between_the_steps_of_a_rotation_loses_nothing(path: Path) -> None:
    write(path)
    path.rename(path.with_name("audit.jsonl.000001"))
    write(path)
    checker = check_files(path)
    assert (checker.problems, checker.seq) == ([], 10)
    path.rename(path.with_name("audit.jsonl.000002"))
    path.touch()
    path.with_name("audit.jsonl.next").touch()
    write(path)
    assert (check_files(path).problems, found(path)) == ([], {"state": "clean"})


def crash(path: Path, torn: bytes = b"") -> None:
    """Leave a log as kill -9 does: lines behind the head, and perhaps half a line."""
    write(path)
    head = path.with_name("audit.jsonl.head").read_bytes()
    write(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + torn)
    path.with_name("audit.jsonl.head").write_bytes(head)


@pytest.mark.parametrize("torn", [b"", b'{"seq":9,"prev":"00', b"\x00" * 40], ids=["whole", "half", "zeros"])
def test_after_a_crash_the_chain_goes_on_and_says_so(path: Path, torn: bytes) -> None:
    crash(path, torn)
    assert check_files(path).problems == []
    write(path)
    assert found(path) == {"state": "crash", "unsigned": 3, "torn_bytes": len(torn)}
    checker = check_files(path)
    assert checker.problems == []
    assert "3 lines before it were never signed" in checker.notes[0]


def test_a_cut_tail_is_found_by_the_next_start_and_stays_found(path: Path) -> None:
    write(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    write(path)
    assert found(path)["state"] == "mismatch"
    texts = [problem.text for problem in check_files(path).problems]
    assert texts[0] == "seq 4 to 5 are missing"
    assert "the guard that started here found the end was cut off" in texts[1]


@pytest.mark.parametrize("what", ["log", "head"])
def test_a_log_without_its_head_or_the_other_way_round_is_told(path: Path, what: str) -> None:
    write(path)
    (path if what == "log" else path.with_name("audit.jsonl.head")).unlink()
    write(path)
    assert found(path)["state"] == "mismatch"
    assert check_files(path).problems


def test_a_head_that_nobody_signed_is_told(path: Path) -> None:
    write(path)
    path.with_name("audit.jsonl.head").write_text("{}\n")
    write(path)
    assert found(path) == {"state": "mismatch", "problem": "the head: its signature is missing or damaged"}


def test_a_log_that_was_written_anew_with_another_key_is_told(path: Path) -> None:
    write(path, key=OTHER)
    write(path, key=KEY)
    assert found(path) == {"state": "other_key", "key": OTHER.public}
    assert {1, 6} <= {problem.seq for problem in check_files(path).problems}
    assert check_files(path, KEY, OTHER).problems == []


def test_a_file_that_is_moved_away_while_it_is_written_is_replaced(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = opened(path)
    log.add(entry(1))
    until(lambda: log.sequence)
    path.rename(path.with_name("away"))
    log.add(entry(2))
    until(lambda: log.sequence == 3)
    log.add(entry(3))
    log.close()
    assert "was moved or deleted while it was written" in caplog.text
    assert [made["kind"] for made in entries_of(path)] == ["decision", "stop"]
    assert "seq 1 to 3 are missing" in check_files(path).problems[0].text


def test_a_file_that_others_write_to_is_told_at_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = opened(path)
    until(lambda: path.stat().st_size)
    with path.open("ab") as file:
        file.write(b"{}\n")
    log.add(entry(1))
    log.close()
    assert "was changed by somebody else" in caplog.text
    assert [p.text for p in check_files(path).problems] == ["this is no line of an audit log"]


def test_a_full_disk_leaves_no_half_line_and_goes_on_afterwards(path: Path) -> None:
    target = AuditFile(path, Keys(verifies, frozenset((KEY.public,))))
    target.write(b"a" * 99 + b"\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            target.write(b"b" * 99 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failed.value.errno == errno.EFBIG
    assert path.stat().st_size == 100
    target.write(b"c" * 99 + b"\n")
    assert path.read_bytes() == b"a" * 99 + b"\n" + b"c" * 99 + b"\n"
    target.close()
