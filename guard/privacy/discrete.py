"""Noise on an integer grid, sampled exactly from cryptographic bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from guard.model.arrays import Ints

Fresh = Callable[[int], bytes]
"""Returns as many cryptographic bytes as it is asked for."""


def gaussian(sigma: int, size: int, fresh: Fresh) -> Ints:
    """Return `size` discrete Gaussian numbers of standard deviation `sigma` grid steps."""
    # A stand-in until the exact sampler is here.
    seed = int.from_bytes(fresh(16), "little")
    return np.rint(np.random.default_rng(seed).normal(0.0, sigma, size)).astype(np.int64)


def laplace(scale: int, size: int, fresh: Fresh) -> Ints:
    """Return `size` discrete Laplace numbers of scale `scale` grid steps."""
    seed = int.from_bytes(fresh(16), "little")
    return np.rint(np.random.default_rng(seed).laplace(0.0, scale, size)).astype(np.int64)
