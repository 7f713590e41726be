"""A null refuses arrays that do not fit each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.nulls import a_null


def test_arrays_that_do_not_fit_are_refused() -> None:
    null = a_null()
    assert replace(null).terms.used.tolist() == [8, 7, 6, 5, 4]
    for name in ("edges", "prototypes", "log_weights", "log_bets", "mean"):
        with pytest.raises(ValueError, match="do not fit"):
            replace(null, **{name: np.zeros((2, 2, 2))})
    with pytest.raises(ValueError, match="do not fit"):
        replace(null, signals=null.signals[:2])
