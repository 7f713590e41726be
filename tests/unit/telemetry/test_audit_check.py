"""Everything that can be done to a log without the key is found, at the line where it was done."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.telemetry.audit_chain import Chain, digest, link, parted
from guard.telemetry.audit_head import Keys, read_head
from guard.telemetry.audit_keys import verifies
from tests.support.audits import KEY, OTHER, Made, check, entry, made_of

KINDS = st.text("dddcr", min_size=1, max_size=8)
FEW = settings(max_examples=40)


def places(data: bytes, head: bytes) -> set[int]:
    """Numbers in the chain at which something is wrong."""
    return {problem.seq for problem in check(data, head).problems}


@FEW
@given(KINDS)
def test_what_was_written_is_sound(kinds: str) -> None:
    made = made_of(kinds)
    checker = check(made.data, made.head())
    assert (checker.problems, checker.notes, checker.found) == ([], [], 0)
    assert (checker.first, checker.seq, checker.signed_to) == (1, len(made.lines), len(made.lines))


@FEW
@given(KINDS, st.data())
def test_any_changed_byte_is_found_at_its_line(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    at = data.draw(st.integers(0, len(made.data) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != made.data[at]))
    changed = made.data[:at] + bytes([other]) + made.data[at + 1 :]
    seq = made.data[:at].count(b"\n") + 1
    # Without its newline a line runs into the next one.
    assert places(changed, made.head()) & {seq, min(seq + 1, len(made.lines))}


@FEW
@given(KINDS, st.data())
def test_any_changed_byte_of_the_head_is_found(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    head = made.head()
    at = data.draw(st.integers(0, len(head) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != head[at]))
    keys = Keys(verifies, frozenset((KEY.public,)))
    assert isinstance(read_head(head[:at] + bytes([other]) + head[at + 1 :], keys), str)


@FEW
@given(KINDS, st.data())
def test_any_deleted_line_is_found_at_its_place(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    gone = data.draw(st.integers(0, len(made.lines) - 1))
    left = b"".join(line for number, line in enumerate(made.lines) if number != gone)
    assert gone + 1 in places(left, made.head())


@FEW
@given(KINDS, st.data())
def test_any_cut_tail_is_found_where_it_was_cut(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    left = made.data[: data.draw(st.integers(0, len(made.data) - 1))]
    assert left.count(b"\n") + 1 in places(left, made.head())


@FEW
@given(KINDS, st.data())
def test_any_two_lines_that_changed_places_are_found(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    one, two = sorted(data.draw(st.lists(st.integers(0, len(made.lines) - 1), min_size=2, max_size=2, unique=True)))
    lines = list(made.lines)
    lines[one], lines[two] = lines[two], lines[one]
    assert {one + 1, two + 1} & places(b"".join(lines), made.head())


@FEW
@given(KINDS, st.data())
def test_any_repeated_line_is_found(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    again, where = (data.draw(st.integers(0, len(made.lines) - 1)) for _ in range(2))
    lines = [*made.lines[: where + 1], made.lines[again], *made.lines[where + 1 :]]
    assert {again + 1, where + 2} & places(b"".join(lines), made.head())


@FEW
@given(KINDS, st.data())
def test_any_line_that_was_put_in_is_found(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    where = data.draw(st.integers(1, len(made.lines)))
    forged = Chain(where, digest(made.lines[where - 1][:-1])).add(orjson.dumps(entry(99)))
    data_ = b"".join((*made.lines[:where], forged, *made.lines[where:]))
    checker = check(data_, made.head())
    if where < len(made.lines):
        assert where + 1 in {problem.seq for problem in checker.problems}
    else:  # Behind the head nothing vouches for a line but its hash, and that is said.
        assert "1 lines behind the last head" in checker.notes[0]


@FEW
@given(KINDS, st.data())
def test_a_tail_that_was_written_anew_with_good_hashes_is_found(kinds: str, data: st.DataObject) -> None:
    made = made_of(kinds)
    at = data.draw(st.integers(0, len(made.lines) - 1))
    chain = Chain(at, digest(made.lines[at - 1][:-1]) if at else b"0" * 64)
    again = list(made.lines[:at])
    for line in made.lines[at:]:
        said = json.loads(line) | {"time": "2020-01-01T00:00:00.000+00:00"}
        del said["seq"], said["prev"]
        again.append(chain.add(json.dumps(said, separators=(",", ":")).encode()))
    assert places(b"".join(again), made.head())


def test_a_whole_log_that_somebody_else_signed_is_found() -> None:
    forged = made_of("dddcdd", key=OTHER)
    checker = check(forged.data, forged.head())
    assert f"start line, seq 1: it is signed with another key, {OTHER.public}" in [p.text for p in checker.problems]
    assert check(forged.data, forged.head(), OTHER).problems == []


def test_a_forged_checkpoint_is_found() -> None:
    made = made_of("ddcd")
    body, signature = parted(made.lines[3][:-1]) or (b"", "")
    forged = b'%b,"sig":"%b"}\n' % (body, KEY.sign(b"else").encode())
    texts = [p.text for p in check(made.data.replace(made.lines[3], forged), made.head()).problems]
    assert signature
    assert "checkpoint line, seq 4: its signature is forged, or it was changed" in texts


def test_a_line_of_another_log_of_the_same_guard_is_found() -> None:
    made, other = made_of("ddcd"), made_of("ddcd", log="ffffffffffffffff")
    data = made.data.replace(made.lines[3], other.lines[3])
    assert 4 in places(data, made.head())
    assert places(other.data, made.head()) == {6}


def test_lines_behind_the_head_are_noted_and_are_no_problem() -> None:
    made = made_of("dd")
    head = made.head()
    made.start(state="clean").add(3).add(4)
    checker = check(made.data, head)
    assert checker.problems == []
    assert checker.notes == ["3 lines behind the last head (seq 4) are held by their hashes alone"]


def test_an_unfinished_line_behind_the_head_is_noted() -> None:
    made = made_of("dd")
    checker = check(made.data + b'{"seq":5,"pr', made.head())
    assert checker.problems == []
    assert checker.notes == ["behind seq 4 stand 12 bytes of an unfinished line"]


def test_a_crash_that_the_next_start_tells_of_is_noted() -> None:
    made = Made().start().add(1).start(state="crash", unsigned=1, torn_bytes=7).seal("stop")
    checker = check(made.data, made.head())
    assert checker.problems == []
    assert checker.notes == [
        "seq 3: the guard before had not ended in order: 1 lines before it were never signed, 7 bytes of an unfinished "
        "line were removed"
    ]


def test_what_a_start_found_wrong_stays_a_problem() -> None:
    made = Made().start().start(state="mismatch", problem="the head is gone").seal("stop")
    assert [p.text for p in check(made.data, made.head()).problems] == [
        "seq 2: the guard that started here found the head is gone"
    ]


def test_a_new_key_is_noted_when_both_are_trusted_and_a_problem_when_not() -> None:
    made = Made(key=OTHER).start().add(1).seal("stop")
    made.key = KEY
    made.start(state="other_key", key=OTHER.public).add(2).seal("stop")
    both = check(made.data, made.head(), KEY, OTHER)
    assert (both.problems, both.notes) == ([], ["seq 4: from here on another key signs"])
    alone = {problem.seq for problem in check(made.data, made.head(), KEY).problems}
    assert alone == {1, 3, 4}


def test_rotation_may_remove_the_oldest_lines_and_nobody_else_may() -> None:
    made = Made().start().add(1).add(2).seal("rotate", oldest=1).add(3).seal("rotate", oldest=4).add(4).seal("stop")
    removed = check(b"".join(made.lines[3:]), made.head())
    assert (removed.problems, removed.notes) == (
        [],
        ["the chain begins at seq 4: what came before was rotated away, or moved"],
    )
    more = check(b"".join(made.lines[5:]), made.head())
    assert [p.text for p in more.problems] == ["seq 4 to 5 are missing, and no rotation has removed them"]


def test_a_stream_holds_several_logs_and_says_when_one_did_not_end() -> None:
    one, two = made_of("dcd", log="1111111111111111"), made_of("dd", log="2222222222222222")
    assert check(one.data + two.data, None, stream=True).problems == []
    cut = check(b"".join(one.lines[:-1]) + two.data, None, stream=True)
    assert cut.problems == []
    assert cut.notes == ["a new log begins behind seq 4, and the one before did not say that it ends"]
    late = check(b"".join(one.lines[2:]), None, stream=True)
    assert late.notes == ["the chain begins at seq 3: what came before is not here"]
    assert 3 in {p.seq for p in check(one.data.replace(one.lines[2], b""), None, stream=True).problems}


def test_other_lines_in_a_stream_are_passed_over() -> None:
    made = made_of("ddd")
    mixed = made.data.replace(b"\n", b"\n2027-01-31 WARNING guard: something\n")
    checker = check(mixed, None, stream=True)
    assert (checker.problems, checker.notes) == ([], ["5 other lines were passed over"])
    assert check(mixed, made.head()).found == 5


def test_one_wrong_number_does_not_condemn_what_follows() -> None:
    made = made_of("dddddd")
    data = made.data.replace(b'{"seq":3,', b'{"seq":999,')
    found = check(data, made.head()).problems
    assert {problem.seq for problem in found} <= {3, 4, 999}


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b'{"seq":0,"prev":"' + b"0" * 64 + b'","kind":"x"}', b"\x00" * 50],
    ids=["empty", "object", "zeroth", "zeros"],
)
def test_what_is_no_line_is_no_link(line: bytes) -> None:
    assert link(line) is None
