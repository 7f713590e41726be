"""Raw tensors under hypothesis: any bytes are read or refused, what is written is read again, labels stay labels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from guard.errors import ClientError
from guard.model.arrays import Floats
from guard.wire.raw_tensors import DTYPES, FLOATING, cast_numbers, cast_scores, matrix, pack_bytes, unpack, unpack_bytes

DATATYPES = st.sampled_from(sorted(DTYPES))
SMALL = st.sampled_from(sorted(FLOATING))
SHAPES = st.lists(st.integers(0, 2**70) | st.integers(0, 4), min_size=1, max_size=16)
SIZES = array_shapes(min_dims=2, max_dims=2, max_side=5)
CLOSE = st.floats(-1e-9, 1e-9).map(lambda off: 0.3 + off) | st.floats(-1e-40, 1e-40) | st.floats(0, 1)
SCORES = arrays(np.float64, SIZES, elements=CLOSE | st.floats(allow_nan=False) | st.sampled_from([0.0, -0.0, 0.5]))


def numbers_of(datatype: str, data: bytes, shape: tuple[int, ...]) -> Floats:
    return matrix(unpack(data, datatype, shape, ClientError), shape[0])


@given(DATATYPES, SHAPES, st.binary(max_size=64))
def test_any_bytes_of_any_shape_are_read_or_refused(datatype: str, shape: list[int], data: bytes) -> None:
    try:
        found = unpack(data, datatype, shape, ClientError)
    except ClientError:
        return
    assert found.nbytes <= 8 * len(data)
    assert found.size * DTYPES[datatype].itemsize == len(data)


@given(SHAPES, st.binary(max_size=64) | st.lists(st.binary(max_size=9)).map(pack_bytes))
def test_any_bytes_are_texts_or_refused(shape: list[int], data: bytes) -> None:
    try:
        found = unpack_bytes(data, shape, ClientError)
    except ClientError:
        return
    assert pack_bytes(found) == data


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_texts_come_back(members: list[bytes]) -> None:
    assert unpack_bytes(memoryview(pack_bytes(members)), [len(members)], ClientError) == members


@given(DATATYPES, st.binary(min_size=8, max_size=64))
def test_numbers_come_back(datatype: str, data: bytes) -> None:
    size = DTYPES[datatype].itemsize
    data = bytes(byte % 2 for byte in data) if datatype == "BOOL" else data
    data = data[: len(data) // size * size]
    found = numbers_of(datatype, data, (len(data) // size, 1))
    assert ((found != 0.0) | ~np.signbit(found)).all()
    if np.isnan(found).any() or abs(found).max() >= 2.0**53 or b"\x80" in data:
        return  # several spellings of one number
    assert cast_numbers(found, datatype).tobytes() == data


@given(DATATYPES, SCORES)
def test_the_label_stays_the_label_and_no_score_passes_another(datatype: str, scores: Floats) -> None:
    written = numbers_of(datatype, cast_scores(scores, datatype).tobytes(), scores.shape)
    if datatype in FLOATING and scores.shape[1] > 1:
        np.testing.assert_array_equal(written.argmax(axis=1), scores.argmax(axis=1))
    for before, after in zip(scores, written, strict=True):
        risen = after[np.argsort(before, kind="stable")]
        # Compared, not subtracted: below the least of all finite numbers there is -inf alone.
        assert (risen[1:] >= risen[:-1]).all()
    if scores.shape[1] == 1:
        np.testing.assert_array_equal(written < 0.5, np.where(datatype in FLOATING, scores < 0.5, written < 0.5))


@given(DATATYPES, arrays(np.float64, SIZES, elements=st.floats(0, 1)))
def test_probabilities_stay_between_0_and_1(datatype: str, scores: Floats) -> None:
    written = numbers_of(datatype, cast_scores(scores, datatype).tobytes(), scores.shape)
    assert written.min() >= 0.0
    assert written.max() <= 1.0
    np.testing.assert_allclose(written, scores, atol=1e-2 if datatype in FLOATING else 1.0)
    if scores.shape[1] > 1:
        np.testing.assert_array_equal(written.argmax(axis=1), scores.argmax(axis=1))


@given(SMALL, arrays(np.float64, SIZES, elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_rounded_to_the_nearest(datatype: str, numbers: Floats) -> None:
    written = numbers_of(datatype, cast_numbers(numbers, datatype).tobytes(), numbers.shape)
    assert np.isfinite(written).all()
    bits = cast_numbers(numbers, datatype).view(f"<u{DTYPES[datatype].itemsize}")
    read = partial(numbers_of, datatype, shape=numbers.shape)
    for neighbour in (bits + 1, bits - 1):
        other = read((neighbour.astype(bits.dtype)).tobytes())
        with np.errstate(over="ignore"):
            nearer = np.isfinite(other) & (abs(other - numbers) < abs(written - numbers))
        assert not nearer.any()


@pytest.mark.parametrize("datatype", sorted(FLOATING))
@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_so(datatype: str, number: float) -> None:
    numbers = np.array([[number, 1.0]])
    np.testing.assert_array_equal(numbers_of(datatype, cast_scores(numbers, datatype).tobytes(), (1, 2)), numbers)


def test_a_tie_below_the_least_number_lifts_the_label() -> None:
    scores = np.array([[0.0, 1e-300, 0.0]])
    assert cast_scores(scores, "FP16").view("<u2").tolist() == [[0, 1, 0]]


def test_every_spelling_of_nan_is_one() -> None:
    spellings = np.array([0x7F800001, 0x7FC00000, 0xFFC00001, 0x80000000], dtype="<u4").tobytes()
    assert len({row.tobytes() for row in numbers_of("FP32", spellings, (4, 1))[:3]}) == 1
    assert numbers_of("FP32", spellings, (4, 1))[3].tobytes() == bytes(8)
