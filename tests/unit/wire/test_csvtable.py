"""Cells: every spelling of a number, of a missing value and of an infinite one, in linear time."""

from __future__ import annotations

import math
import time

import pytest

from guard.errors import ClientError
from guard.wire.csvtable import read_csv, value_of


@pytest.mark.parametrize("cell", ["1", " 1.", "+1.0", "1e0", ".1E1", "10e-1 "])
def test_a_number_has_many_spellings(cell: str) -> None:
    assert value_of(cell) == 1.0


@pytest.mark.parametrize("cell", ["", " ", "NaN", "-nan", "NAN", "1.#IND", "-1.#QNAN", "NA", "null", "None", "<NA>"])
def test_what_pandas_or_python_reads_as_missing_is_missing(cell: str) -> None:
    assert value_of(cell) is None


@pytest.mark.parametrize("cell", ["inf", "-Inf", "Infinity", " +INFINITY "])
def test_an_infinite_number_is_no_text(cell: str) -> None:
    assert value_of(cell) == math.inf


@pytest.mark.parametrize("cell", ["nan bread", "none", "1x", "1.2.3", "e5", ".", "1_000"])
def test_a_text_is_a_text(cell: str) -> None:
    assert value_of(cell) == cell


@pytest.mark.parametrize("cell", ["1" * 100_000 + "x", " " * 100_000 + "x", "1." + "1" * 100_000 + "e", "1e" * 50_000])
def test_a_long_cell_that_is_no_number_takes_linear_time(cell: str) -> None:
    began = time.perf_counter()
    value_of(cell)
    assert time.perf_counter() - began < 0.2


def test_rows_beyond_the_bound_are_not_read() -> None:
    body = b"1\n" * 2_000_000
    began = time.perf_counter()
    with pytest.raises(ClientError) as refused:
        read_csv(body, header=False, most=10)
    assert refused.value.status == 413
    assert time.perf_counter() - began < 0.5
    assert len(read_csv(b"a\n1\n\n2\n", header=True, most=2).cells) == 2
