"""Noise has the scale and the independence that its spec states.

Every test has a fixed seed, so it passes or fails for good. Critical values are those of an error rate of 1e-6 a
statistic, were the seed drawn at random; each test has a negative control, which the same statistic must refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from guard.defences.base import Reuse
from guard.defences.noise import Noise
from guard.engine.randomness import QueryNoise
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from guard.model.queries import Queries
from tests.support.randomness import batch_of

SECRET = bytes(range(32))
N, K = 3000, 10
QUERIES = np.random.default_rng(11).random((N, 5))
ERROR_RATE = 1e-6
KS_LIMIT = math.sqrt(math.log(2 / ERROR_RATE) / 2)
"""Of sqrt(n) times the Kolmogorov distance: P(above) <= 2 exp(-2 x^2) (Massart 1990)."""
NORMAL_LIMIT = 4.8917
"""Two-sided quantile of the normal at 1e-6, for correlations times sqrt(n)."""


def fresh(seed: int) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


def noise_of(
    spec: Noise,
    rows: Floats = QUERIES,
    *,
    client: str = "alice",
    salt: bytes = b"0.0",
    inputs: Inputs | None = None,
    seed: int = 0,
) -> Floats:
    """Noise that `spec` adds to logits of 0, shape (n, K)."""
    queries = Queries(len(rows), rows.tolist())
    rng = QueryNoise(SECRET, "model", client, queries, inputs, fresh=fresh(seed))
    return spec.apply(batch_of(np.zeros((len(rows), K)), "embedding"), rng, salt).scores


def normal_cdf(x: Floats, scale: float) -> Floats:
    return np.array([0.5 * math.erfc(-v / scale / math.sqrt(2)) for v in x])


def laplace_cdf(x: Floats, scale: float) -> Floats:
    tail = 0.5 * np.exp(-np.abs(x) / scale)
    return np.where(x < 0, tail, 1 - tail)


def kolmogorov(sample: Floats, cdf: Callable[[Floats, float], Floats], scale: float) -> float:
    """Return sqrt(n) times the greatest distance between the sample's distribution and `cdf`."""
    x = np.sort(sample.ravel())
    n = len(x)
    f = cdf(x, scale)
    above, below = np.arange(1, n + 1) / n - f, f - np.arange(n) / n
    return float(math.sqrt(n) * max(above.max(), below.max()))


@pytest.mark.parametrize("reuse", ["query", "none"])
@pytest.mark.parametrize(("mechanism", "cdf"), [("gaussian", normal_cdf), ("laplace", laplace_cdf)])
@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_noise_has_the_stated_distribution(
    scale: float, mechanism: str, cdf: Callable[[Floats, float], Floats], reuse: Reuse
) -> None:
    spec = Noise.model_validate({"kind": "noise", "mechanism": mechanism, "scale": scale, "reuse": reuse})
    sample = noise_of(spec)
    assert kolmogorov(sample, cdf, scale) < KS_LIMIT
    assert kolmogorov(sample, cdf, scale * 1.1) > KS_LIMIT  # control: a tenth more is told apart
    other = normal_cdf if cdf is laplace_cdf else laplace_cdf
    assert kolmogorov(sample, other, scale) > KS_LIMIT  # control: so is the other mechanism


def test_noise_has_the_stated_moments() -> None:
    sample = noise_of(Noise(scale=0.02)).ravel()
    n = sample.size
    assert abs(sample.mean()) * math.sqrt(n) / 0.02 < NORMAL_LIMIT
    z = (sample.var() / 0.02**2 - 1) / math.sqrt(2 / n)
    assert abs(z) < NORMAL_LIMIT
    control = (sample.var() / 0.021**2 - 1) / math.sqrt(2 / n)
    assert abs(control) > NORMAL_LIMIT


def correlation(one: Floats, other: Floats) -> float:
    """Return sqrt(n) times the correlation."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1] * math.sqrt(one.size))


def test_clients_steps_columns_and_queries_get_independent_noise() -> None:
    spec = Noise(scale=1)
    base = noise_of(spec)
    others = {
        "client": noise_of(spec, client="bob"),
        "step": noise_of(spec, salt=b"1.0"),
        "prediction": noise_of(spec, salt=b"0.1"),
        "query": noise_of(spec, QUERIES + 1e-9),
        "row": np.roll(base, 1, axis=0),
        "column": np.roll(base, 1, axis=1),
        "the other half of a pair": base.reshape(-1, K // 2, 2)[:, :, ::-1].reshape(-1, K),
    }
    for what, other in others.items():
        assert abs(correlation(base, other)) < NORMAL_LIMIT, what
        # Their sizes are independent too: a shared radius would show here.
        assert abs(correlation(np.abs(base), np.abs(other))) < NORMAL_LIMIT, what
    control = noise_of(spec) + 20 * others["client"]  # shares a twentieth
    assert correlation(base, control) > NORMAL_LIMIT


def test_pairs_from_one_radius_are_independent() -> None:
    base = noise_of(Noise(scale=1))
    first, second = base[:, 0::2], base[:, 1::2]
    assert abs(correlation(first**2, second**2)) < NORMAL_LIMIT
    control = first * np.sign(second)  # as large as the first, whatever its sign
    assert correlation(first**2, control**2) > NORMAL_LIMIT


def test_moves_below_the_step_change_nothing_and_above_it_all() -> None:
    inputs = Inputs(kind="vector", size=5, low=0, high=1, step=0.1)
    rng = np.random.default_rng(2)
    centre: Floats = np.multiply(rng.integers(1, 9, (500, 5)), 0.1, dtype=np.float64)

    def released(rows: Floats) -> Floats:
        queries = Queries(len(rows), rows.tolist())
        inputs.admit(queries)
        noise = QueryNoise(SECRET, "model", "alice", queries, inputs)
        return Noise(scale=1).apply(batch_of(np.zeros((len(rows), K)), "embedding"), noise, b"").scores

    base = released(centre)
    assert np.array_equal(base, released(centre + rng.uniform(-0.049, 0.049, centre.shape)))
    assert abs(correlation(base, released(centre + 0.1))) < NORMAL_LIMIT


def repeats_error(spec: Noise, repeats: int) -> float:
    """RMS error of the mean of `repeats` answers to the same 300 queries."""
    inputs = Inputs(kind="vector", size=5, low=0, high=1)
    answers = [noise_of(spec, QUERIES[:300], inputs=inputs, seed=i) for i in range(repeats)]
    return float(np.sqrt((np.mean(answers, axis=0) ** 2).mean()))


@pytest.mark.parametrize("reuse", ["query", "cell"])
def test_repeating_a_query_does_not_average_keyed_noise(reuse: Reuse) -> None:
    assert np.isclose(repeats_error(Noise(scale=0.1, reuse=reuse), 25), repeats_error(Noise(scale=0.1, reuse=reuse), 1))


def test_repeating_a_query_averages_fresh_noise() -> None:
    # The control of the test above: 25 repeats leave a fifth.
    once, mean = (repeats_error(Noise(scale=0.1, reuse="none"), k) for k in (1, 25))
    assert 0.9 < once / mean / 5 < 1.1


def test_the_last_bits_do_not_tell_discrete_scores_apart() -> None:
    # A forest of 100 trees answers j/100. What is left when the right j/100 is taken off is a single-precision number.
    scores = np.random.default_rng(4).integers(0, 101, (N, 1)) / 100
    rng = QueryNoise(SECRET, "model", "alice", Queries(N, QUERIES.tolist()), None)
    released = Noise(scale=0.05).apply(batch_of(scores, "value"), rng, b"").scores
    candidates = np.arange(101) / 100

    def guessed(answers: Floats) -> float:
        left = answers - candidates
        off = np.abs(left - left.astype(np.float32).astype(np.float64))
        return float((off.argmin(axis=1) == np.rint(scores[:, 0] * 100)).mean())

    assert guessed(released) < 0.05
    plain = (0.05 * np.random.default_rng(5).standard_normal((N, 1))).astype(np.float32)
    assert guessed(scores + plain) > 0.8  # control: the same noise without the lattice
