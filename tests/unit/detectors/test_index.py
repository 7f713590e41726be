from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.detectors.base import HORIZON, Keys
from guard.detectors.index import Index
from guard.model.arrays import Bools


def plain(keys: Keys) -> Bools:
    """Say what an index must find, with a dictionary."""
    hits = np.zeros(keys.shape, dtype=bool)
    for column in range(keys.shape[1]):
        last: dict[int, int] = {}
        for row, key in enumerate(keys[:, column].tolist()):
            hits[row, column] = key in last and row - last[key] <= HORIZON
            last[key] = row
    return hits


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 30, 700, 5000]),
    st.lists(st.sampled_from([1, 1, 2, 7, 20, 21, 64, 300, 512, 513, 900]), min_size=1, max_size=12),
)
def test_it_finds_what_a_dictionary_finds_however_rows_are_batched(seed: int, values: int, sizes: list[int]) -> None:
    keys = np.random.default_rng(seed).integers(0, values, size=(sum(sizes), 3)).astype(np.uint32)
    index, start = Index(3), 0
    found: list[Bools] = []
    for size in sizes:
        found.append(index.look(keys[start : start + size]))
        start += size

    np.testing.assert_array_equal(np.concatenate(found), plain(keys))


@pytest.mark.parametrize("batch", [1, 64])
def test_the_horizon_is_exact(batch: int) -> None:
    keys = np.arange(1, 2001, dtype=np.uint32)[:, None]
    keys[HORIZON + 9] = keys[9]
    keys[1500] = keys[1500 - HORIZON - 1]
    index = Index(1)
    hits = np.concatenate([index.look(keys[i : i + batch]) for i in range(0, len(keys), batch)])

    assert np.flatnonzero(hits).tolist() == [HORIZON + 9]


def test_a_key_of_0_is_no_hit_before_it_came() -> None:
    zero = np.zeros((1, 2), dtype=np.uint32)
    index = Index(2)

    assert not index.look(zero).any()
    assert index.look(zero).all()
    assert not Index(2).look(np.repeat(zero, 30, axis=0))[0].any()


def test_it_looks_nothing_up_where_nothing_is_asked() -> None:
    assert Index(0).look(np.zeros((3, 0), dtype=np.uint32)).shape == (3, 0)
