from __future__ import annotations

import numpy as np
import pytest

from guard.detectors.keys import RowKeys, canonical, number_codes
from tests.support.detecting import SALT


@pytest.mark.parametrize("width", [3, 8, 15, 64, 65, 200])
def test_one_changed_number_leaves_one_key_as_it_was(width: int) -> None:
    row = np.random.default_rng(0).normal(size=(1, width))
    changed = row.copy()
    changed[0, width // 2] += 1
    same = RowKeys(SALT).of_numbers(np.concatenate([row, changed]))
    agree = same[0] == same[1]

    assert not agree[0]
    assert agree[1:].sum() == 1


@pytest.mark.parametrize("width", [1, 2])
def test_short_rows_are_not_parted(width: int) -> None:
    keys = RowKeys(SALT).of_numbers(np.arange(20.0 * width).reshape(20, width))

    assert (keys == keys[:1]).sum() == keys.shape[1]


@pytest.mark.parametrize("width", [1, 8, 64, 65, 300])
def test_keys_of_a_batch_are_those_of_its_rows(width: int) -> None:
    rows = np.random.default_rng(1).normal(size=(17, width)) * 10.0 ** np.arange(17)[:, None]
    keys = RowKeys(SALT)

    np.testing.assert_array_equal(keys.of_numbers(rows), np.concatenate([keys.of_numbers(row[None]) for row in rows]))


def test_other_salts_give_other_keys() -> None:
    rows = np.random.default_rng(1).normal(size=(100, 8))

    assert not (RowKeys(b"one").of_numbers(rows) == RowKeys(b"two").of_numbers(rows)).any()


@pytest.mark.parametrize("width", [8, 200])
def test_rows_on_a_grid_do_not_collide(width: int) -> None:
    rows = np.zeros((4096, width))
    rows[:, :4] = np.stack(np.meshgrid(*[np.arange(8.0)] * 4), axis=-1).reshape(-1, 4) / 8
    rows[:, -1] = 1

    assert len(np.unique(RowKeys(SALT).of_numbers(rows)[:, 0])) == len(rows)


def test_a_jitter_changes_the_codes_of_about_one_number_in_5000() -> None:
    rng = np.random.default_rng(2)
    numbers = rng.normal(size=(1000, 100))
    changed = number_codes(numbers) != number_codes(numbers * (1 + rng.normal(size=numbers.shape) * 1e-6))

    assert 0.5 / 5000 < changed.mean() < 2 / 5000


def test_what_is_tiny_beside_the_row_and_in_itself_counts_as_nothing() -> None:
    codes = number_codes(np.array([[1.0, 1e-5, -1e-5, 1e-4], [1e-5, 1e-9, 5e-6, 0.0], [5e4, 0.1, 1e-3, 0.0]]))

    assert (codes > 0).tolist() == [
        [True, False, False, True],
        [True, False, True, False],
        [True, True, True, False],
    ]


def test_odd_numbers_have_codes_too() -> None:
    codes = number_codes(np.array([[np.nan, np.inf, -np.inf, 1e308, 5e-324]]))

    assert (codes < 2**32).all()


@pytest.mark.parametrize("value", ["\ud800", 2**80, float("nan"), {1: 2, "a": None}, [["x"]], b"raw", object])
def test_every_member_has_bytes(value: object) -> None:
    assert canonical(value)


def test_what_is_nested_too_deep_has_bytes_too() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]

    assert canonical(deep) == b""
