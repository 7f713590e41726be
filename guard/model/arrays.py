"""Array types used throughout: numpy only, float64 unless said otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Words = NDArray[np.uint16]
Longs = NDArray[np.uint64]
