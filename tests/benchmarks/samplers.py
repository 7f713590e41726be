"""`python -m tests.benchmarks.samplers`: samples a second in batches of 1,000, beside numpy's inexact normal.

Process time, the best of rounds in which all take turns, since machines are shared. The ratio is numpy's time over the
sampler's in the same run. Then where the time goes: the operating system's bytes, against everything else.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from guard.privacy import discrete, rejection

BATCH = 1000
GOAL = 1e6
SIGMA = 2**32 + 12345
PARTS = "  parts of it: "


def contenders() -> dict[str, tuple[int, Callable[[], object]]]:
    """Return what is timed, by name: samples a call, and the call."""
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 1000, (BATCH, 10))
    wide = generator.integers(0, 1000, (10, 4096))
    tops = scores.argmax(axis=1)
    held = generator.bytes(16 * 2 * BATCH)
    source = rejection.envelope(2, SIGMA)
    proposals = BATCH + BATCH // 8 + 32
    return {
        "numpy normal, for the ratio": (BATCH, partial(generator.normal, 0.0, SIGMA, BATCH)),
        "gaussian, sigma 2^32 + 12345": (BATCH, partial(discrete.gaussian, SIGMA, BATCH, os.urandom)),
        PARTS + "os.urandom": (BATCH, partial(os.urandom, 16 * proposals)),
        PARTS + "all else": (BATCH, partial(source.kept, proposals, lambda size: held[:size])),
        "gaussian, sigma 3": (BATCH, partial(discrete.gaussian, 3, BATCH, os.urandom)),
        "gaussian, batches of 10": (10, partial(discrete.gaussian, SIGMA, 10, os.urandom)),
        "gaussian, batches of 100,000": (100_000, partial(discrete.gaussian, SIGMA, 100_000, os.urandom)),
        "laplace, scale 2^32 + 12345": (BATCH, partial(discrete.laplace, SIGMA, BATCH, os.urandom)),
        "keep, 1/3": (BATCH, partial(discrete.keep, 1, 3, BATCH, os.urandom)),
        "randomised_response, 10 columns": (
            BATCH,
            partial(discrete.randomised_response, tops, 10, 1.0, os.urandom),
        ),
        "exponential, 10 columns": (BATCH, partial(discrete.exponential, scores, 1, 100, os.urandom)),
        "exponential, 4,096 columns, batches of 10": (10, partial(discrete.exponential, wide, 1, 100, os.urandom)),
    }


def seconds(call: Callable[[], object], times: int) -> float:
    """Return process time a call."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def main() -> int:
    """Print the table; 1 when the discrete Gaussian misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    timed = contenders()
    best = dict.fromkeys(timed, float("inf"))
    for _ in range(rounds):
        for name, (size, call) in timed.items():
            best[name] = min(best[name], seconds(call, max(1, 100_000 // max(size, 300))))
    rates = {name: timed[name][0] / took for name, took in best.items()}
    normal = rates["numpy normal, for the ratio"]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{'':46}{'us a call':>12}{'samples/s':>16}{'of numpy normal':>18}")
    for name, rate in rates.items():
        print(f"{name:46}{best[name] * 1e6:12.1f}{rate:16,.0f}{rate / normal:18.2f}")
    return int(rates["gaussian, sigma 2^32 + 12345"] < GOAL)


if __name__ == "__main__":
    raise SystemExit(main())
