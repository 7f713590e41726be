"""The format of recordings: what is written is read back; anything else is called what it is."""

from __future__ import annotations

import contextlib

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.evidence.recording import (
    HEADER_BYTES,
    KEYS,
    Header,
    RecordingError,
    read_header,
    read_records,
    record_type,
    write_header,
)

HEADER = Header("digits", {"kind": "vector", "size": 3, "shape": None, "salt": "00"}, 3, 2, "ab" * 8)


def edited(**members: object) -> bytes:
    return orjson.dumps({**orjson.loads(write_header(HEADER)), **members}) + b"\n"


def test_a_header_is_read_back_and_says_what_the_columns_are() -> None:
    line = write_header(HEADER)
    assert read_header(line) == HEADER
    columns = {name: (kind, shape) for name, kind, shape in orjson.loads(line)["columns"]}
    assert columns["client"] == ("<u8", [])
    assert columns["keys"] == ("<u4", [KEYS])
    assert columns["raw"] == ("<f4", [3])
    assert columns["scores"] == ("<f4", [2])


def test_whole_records_are_read_and_a_cut_one_is_not() -> None:
    records = np.zeros(3, dtype=record_type(3, 2))
    records["time"] = [1, 2, 3]
    data = records.tobytes()
    whole, cut = read_records(data, HEADER)
    assert whole["time"].tolist() == [1, 2, 3]
    assert cut == 0
    whole, cut = read_records(data[:-5], HEADER)
    assert whole["time"].tolist() == [1, 2]
    assert cut == records.itemsize - 5


def test_a_header_that_was_cut_off_is_none() -> None:
    assert read_header(write_header(HEADER)[:-1]) is None
    assert read_header(b"") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"text\n", "not a recording"),
        (b"[]\n", "not a recording"),
        (b"x" * HEADER_BYTES, "not a recording"),
        (b'{"format":"guard-recording","version":2}\n', "another version of Guard \\(2\\)"),
        (b'{"format":"guard-recording","version":1}\n', "damaged"),
        (edited(width=2**40), "damaged"),
        (edited(classes=-1), "damaged"),
    ],
)
def test_what_is_no_header_is_called_so(line: bytes, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        read_header(line)


JSON = st.none() | st.booleans() | st.integers(-5, 2**63) | st.text(max_size=5) | st.dictionaries(st.text(), st.none())


@given(st.binary(max_size=80) | st.dictionaries(st.sampled_from(HEADER._fields), JSON).map(lambda some: edited(**some)))
def test_no_first_line_leads_to_another_error(line: bytes) -> None:
    with contextlib.suppress(RecordingError):
        assert isinstance(read_header(line), Header | None)
