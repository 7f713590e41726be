from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guard.defences.rotate import Rotate, Rotations, hartley, size_of
from guard.engine.randomness import QueryNoise
from guard.errors import PolicyError
from guard.model.arrays import Floats
from guard.model.queries import Queries
from guard.policy.load import load_plan
from tests.support.randomness import batch_of

SECRET = bytes(range(32))
SIZES = [1, 2, 3, 8, 17, 64, 251, 384]


def turned(vectors: Floats, client: str = "alice", ledger: str = "model", secret: bytes = SECRET) -> Floats:
    queries = Queries(len(vectors), [f"text {i}" for i in range(len(vectors))])
    noise = QueryNoise(secret, ledger, client, queries, None)
    return Rotate().apply(batch_of(vectors, "embedding"), noise, b"0.0").scores


def matrix(d: int, client: str = "alice") -> Floats:
    """Return the client's whole matrix: row i is where the i-th axis goes."""
    return turned(np.eye(d), client)


def unit(n: int, d: int, seed: int = 5) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("d", SIZES)
def test_inner_products_are_kept_inside_a_client(d: int) -> None:
    vectors = unit(20, d) * np.linspace(0.1, 10, 20)[:, None]
    after = turned(vectors)
    assert np.abs(after @ after.T - vectors @ vectors.T).max() < 1e-12 * 100
    assert np.abs(matrix(d) @ matrix(d).T - np.eye(d)).max() < 1e-12
    sent = after.astype(np.float32).astype(np.float64)
    assert np.abs(sent @ sent.T - vectors @ vectors.T).max() < 1e-6 * 100


def test_inner_products_survive_two_decimals_as_well_as_two_decimals_let_them() -> None:
    vectors = unit(60, 384)
    after = np.rint(turned(vectors) * 100) / 100
    apart = ~np.eye(60, dtype=bool)
    # Each product's error has a standard deviation of 0.01 / sqrt 12 * sqrt 2: 5 of them.
    assert np.abs(after @ after.T - vectors @ vectors.T)[apart].max() < 5 * 0.01 * np.sqrt(2 / 12)


def test_all_queries_of_a_client_share_one_rotation_in_any_batch_and_step() -> None:
    vectors = unit(7, 48)
    after = turned(vectors)
    for i in range(7):
        assert np.array_equal(turned(vectors[i : i + 1])[0], after[i])
    noise = QueryNoise(SECRET, "model", "alice", Queries(7, ["other"] * 7), None)
    assert np.array_equal(Rotate().apply(batch_of(vectors, "embedding"), noise, b"9.3").scores, after)


def test_other_clients_ledgers_secrets_and_dimensions_have_other_rotations() -> None:
    vectors = unit(1, 1024)
    views = [
        turned(vectors),
        turned(vectors, "bob"),
        turned(vectors, ledger="other"),
        turned(vectors, secret=bytes(32)),
        np.pad(turned(vectors[:, :1023]), ((0, 0), (0, 1))),
        vectors,
    ]
    cosines = np.concatenate(views) @ np.concatenate(views).T
    # Nothing in common: 5 standard deviations of N(0, 1 / 1024).
    assert np.abs(cosines - np.eye(6)).max() < 5 / 32 + 1e-9


@pytest.mark.parametrize("plain", ["axis", "constant", "wave", "smooth"])
def test_vectors_that_a_fixed_transform_would_leave_plain_are_mixed(plain: str) -> None:
    d = 256
    shapes = {
        "axis": np.eye(d)[0],
        "constant": np.ones(d),
        "wave": np.cos(2 * np.pi * 7 * np.arange(d) / d),
        "smooth": np.exp(-np.arange(d) / 40),
    }
    vector = shapes[plain][None] / np.linalg.norm(shapes[plain])
    after = turned(vector)
    assert np.abs(after).max() < 5.5 / np.sqrt(d)
    assert abs(float((turned(vector, "bob") * after).sum())) < 5 / np.sqrt(d)


def test_a_permutation_is_not_read_off_a_single_pair_by_sorting() -> None:
    # One round alone would show it: undo the public transform, and the entries are those of the plain vector.
    vector = unit(1, 64)
    after = turned(vector)
    undone = np.sort(np.abs(hartley(after)[0]))
    assert np.abs(undone - np.sort(np.abs(vector[0]))).max() > 0.01


def test_as_many_known_pairs_as_dimensions_give_the_rotation_away() -> None:
    """The attack that the docs name: least squares over pairs of the model's vector and the client's."""
    d = 96
    known, unknown = unit(2 * d, d, seed=1), unit(50, d, seed=2)
    seen, want = turned(known), turned(unknown)
    for pairs in (d, d // 2):
        solved, *_ = np.linalg.lstsq(known[:pairs], seen[:pairs], rcond=None)
        error = np.linalg.norm(unknown @ solved - want, axis=1).mean()
        if pairs == d:
            assert error < 1e-9
        else:
            # Only what lies in the span of the known vectors: half the length squared is missing.
            assert error == pytest.approx(np.sqrt(1 - pairs / d), abs=0.05)
            basis = np.linalg.qr(known[:pairs].T)[0]
            inside = unknown @ basis @ basis.T
            assert np.linalg.norm(inside @ solved - turned(inside), axis=1).max() < 1e-9


def test_stores_of_the_same_texts_align_by_their_axes_without_a_pair() -> None:
    """The other attack that the docs name: principal axes, their signs by third moments."""
    d, n = 24, 4000
    generator = np.random.default_rng(6)
    texts = (generator.exponential(size=(n, d)) - 1) * np.geomspace(1, 3, d)
    mine, theirs = turned(texts), turned(texts[generator.permutation(n)], "bob")

    def axes(store: Floats) -> Floats:
        found = np.linalg.eigh(np.cov(store.T))[1]
        return found * np.sign((((store - store.mean(axis=0)) @ found) ** 3).mean(axis=0))

    guessed = mine @ axes(mine) @ axes(theirs).T
    assert np.abs(guessed - turned(texts, "bob")).max() < 1e-6
    assert np.abs(mine - turned(texts, "bob")).max() > 1


def test_what_is_kept_of_clients_is_bounded_in_bytes() -> None:
    kept = Rotations(100_000)
    first = [kept.of(bytes([i]) * 32, 300) for i in range(40)]
    assert kept.bytes <= 100_000
    assert kept.bytes > 100_000 - size_of(first[0])
    # One that was let go of is derived again, the same.
    again = kept.of(bytes(32), 300)
    assert again is not first[0]
    assert all(np.array_equal(a, b) for x, y in zip(again, first[0], strict=True) for a, b in zip(x, y, strict=True))
    assert kept.of(bytes(32), 300) is again
    Rotations(10).of(bytes(32), 300)


@pytest.mark.parametrize(
    ("steps", "sound"),
    [
        ("{kind: rotate}, {kind: round, decimals: 2}", True),
        ("{kind: round, decimals: 2}, {kind: rotate}", False),
        ("{kind: clip}, {kind: noise, scale: 0.01}, {kind: rotate}, {kind: round, decimals: 3}", True),
    ],
)
def test_it_goes_before_what_rounds(steps: str, sound: bool, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nroutes:\n  - api: tei\n    outputs: {kind: embedding}\n    defences: [" + steps + "]\n"
    )
    if sound:
        load_plan(policy, api=None, env={})
    else:
        with pytest.raises(PolicyError, match="rotate after round"):
            load_plan(policy, api=None, env={})
