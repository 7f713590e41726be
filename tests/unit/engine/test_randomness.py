"""Keyed randomness: what the same noise follows from, and what makes it another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest

from guard.defences.base import Reuse
from guard.engine.randomness import QueryNoise, normal_form
from guard.errors import InvariantError
from guard.model.arrays import Words
from guard.model.domain import Inputs
from guard.model.queries import Queries

SECRET = bytes(range(32))
ROWS = np.random.default_rng(5).random((7, 4))
WIDTHS = (1, 3, 32, 33, 40)
KEYED: tuple[Reuse, ...] = ("query", "cell")
UNIT = Inputs(kind="vector", size=4, low=0, high=1)


def numbers(rows: object) -> Queries:
    values = np.asarray(rows, dtype=np.float64)
    return Queries(len(values), values.tolist())


def uniform(
    queries: Queries,
    *,
    secret: bytes = SECRET,
    ledger: str = "model",
    client: str = "alice",
    inputs: Inputs | None = UNIT,
    reuse: Reuse = "query",
    width: int = 3,
    salt: bytes = b"0.0",
) -> Words:
    return QueryNoise(secret, ledger, client, queries, inputs).words(reuse, width, salt)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("reuse", ["query", "cell", "none"])
def test_words_have_the_rows_and_the_width_asked_for(reuse: Reuse, width: int) -> None:
    u = uniform(numbers(ROWS), reuse=reuse, width=width)
    assert u.shape == (7, width)
    assert len(np.unique(u)) > width  # not one number everywhere


def test_the_ends_of_the_words_stay_inside() -> None:
    for byte in (b"\0", b"\xff"):
        noise = QueryNoise(SECRET, "m", "a", numbers(ROWS), None, fresh=lambda n, byte=byte: byte * n)
        assert set(noise.words("none", 2, b"").ravel().tolist()) == {byte[0] * 257}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("reuse", KEYED)
def test_a_row_gets_its_noise_alone_in_any_batch_and_in_any_order(reuse: Reuse, width: int) -> None:
    batch = uniform(numbers(ROWS), reuse=reuse, width=width)
    for i in range(len(ROWS)):
        assert np.array_equal(uniform(numbers(ROWS[i : i + 1]), reuse=reuse, width=width)[0], batch[i])
    backwards = uniform(numbers(ROWS[::-1]), reuse=reuse, width=width)
    assert np.array_equal(backwards[::-1], batch)
    repeated = uniform(numbers(ROWS[[2, 0, 2]]), reuse=reuse, width=width)
    assert np.array_equal(repeated, batch[[2, 0, 2]])


@pytest.mark.parametrize("reuse", ["query", "cell"])
def test_fewer_numbers_are_the_beginning_of_more(reuse: Reuse) -> None:
    # Clients choose how many classes come back: another draw for every number of them could be averaged.
    most = uniform(numbers(ROWS), reuse=reuse, width=100)
    for width in (1, 2, 31, 32, 33, 40):
        assert np.array_equal(uniform(numbers(ROWS), reuse=reuse, width=width), most[:, :width])


@pytest.mark.parametrize("width", WIDTHS)
def test_every_part_of_the_key_matters(width: int) -> None:
    seen = [
        uniform(numbers(ROWS), width=width),
        uniform(numbers(ROWS), width=width, secret=bytes(32)),
        uniform(numbers(ROWS), width=width, secret=SECRET * 3),
        uniform(numbers(ROWS), width=width, ledger="other"),
        uniform(numbers(ROWS), width=width, client="bob"),
        uniform(numbers(ROWS), width=width, salt=b"1.0"),
        uniform(numbers(ROWS), width=width, reuse="cell"),
        uniform(numbers(ROWS + 1e-9), width=width),
        uniform(numbers(ROWS), width=width, ledger="modela", client="lice"),
    ]
    for i, one in enumerate(seen):
        for other in seen[i + 1 :]:
            # One pair of words in 65,536 agrees by chance.
            assert np.count_nonzero(one == other) <= 2


def test_spelling_does_not_matter_but_values_do() -> None:
    assert np.array_equal(uniform(Queries(1, [[1, 2]])), uniform(Queries(1, [1.0, 2.0], width=2)))
    assert np.array_equal(uniform(Queries(1, [{"b": 1, "a": "x"}])), uniform(Queries(1, [{"a": "x", "b": 1}])))
    assert not np.array_equal(uniform(Queries(1, ["a"])), uniform(Queries(1, ["b"])))


def test_moves_below_the_inputs_step_get_the_same_noise() -> None:
    inputs = Inputs(kind="vector", size=4, low=0, high=1, step=0.1)
    jittered, plain, far = numbers(ROWS.round(1) + 0.01), numbers(ROWS.round(1)), numbers(ROWS.round(1) / 2)
    inputs_high = inputs.model_copy(update={"high": 2})
    for queries in (jittered, plain, far):
        inputs_high.admit(queries)
    assert np.array_equal(uniform(jittered), uniform(plain))
    assert not np.array_equal(uniform(far), uniform(plain))


def test_without_reuse_nothing_repeats() -> None:
    noise = QueryNoise(SECRET, "model", "alice", numbers(ROWS[[0, 0]]), None)
    first, second = noise.words("none", 8, b"0"), noise.words("none", 8, b"0")
    assert len(np.unique(np.concatenate((first, second)), axis=0)) == 4


def test_rows_without_values_are_told_apart_by_their_bytes() -> None:
    one, other = uniform(Queries(1, None, opaque=b"x")), uniform(Queries(1, None, opaque=b"y"))
    assert not np.array_equal(one, other)
    assert np.array_equal(one, uniform(Queries(1, None, opaque=b"x")))
    cell = uniform(Queries(1, None, opaque=b"x"), reuse="cell")
    assert np.array_equal(cell, uniform(Queries(1, None, opaque=b"x"), reuse="cell"))


def test_neighbours_share_a_cell_and_the_domain_has_several() -> None:
    wide = Inputs(kind="vector", size=4, low=(0, 0, -5, 0), high=(16, 1, 5, 100))
    spread = np.array([16.0, 1.0, 10.0, 100.0])
    rows = np.random.default_rng(8).random((400, 4)) * spread + np.array([0, 0, -5, 0])
    u = uniform(numbers(rows), inputs=wide, reuse="cell", width=1)
    near = uniform(numbers(rows + 1e-6 * spread), inputs=wide, reuse="cell", width=1)
    assert 2 <= len(np.unique(u)) <= 25
    assert (u == near).mean() > 0.99


def test_cells_depend_on_the_secret() -> None:
    rows = np.random.default_rng(8).random((300, 4))
    groups = [uniform(numbers(rows), reuse="cell", secret=bytes([i]) * 32, width=1)[:, 0] for i in range(2)]
    together = [np.equal.outer(group, group) for group in groups]
    assert (together[0] != together[1]).any()


@pytest.mark.parametrize("inputs", [None, Inputs(), Inputs(kind="vector", size=3, low=0, high=1)])
def test_rows_outside_the_declared_domain_are_cells_of_their_own(inputs: Inputs | None) -> None:
    # In shadow nothing refuses them, so they must not fail here either.
    u = uniform(numbers(np.concatenate((ROWS, ROWS + 1e-9))), inputs=inputs, reuse="cell", width=1)
    assert len(np.unique(u)) == 14


def respellings() -> Iterator[str]:
    yield "Stra\u00dfe  one"
    yield "  strasse\tone\n"
    yield "\uff33TRASSE one"


def test_texts_share_a_cell_with_their_respellings() -> None:
    text = Inputs(kind="text")
    cells = {uniform(Queries(1, [s]), inputs=text, reuse="cell").tobytes() for s in respellings()}
    assert len(cells) == 1
    exact = {uniform(Queries(1, [s]), inputs=text).tobytes() for s in respellings()}
    assert len(exact) == 3
    other = uniform(Queries(1, ["strasse two"]), inputs=text, reuse="cell").tobytes()
    assert other not in cells


def test_rows_that_are_not_texts_keep_their_bytes_as_cells() -> None:
    queries = [Queries(1, [{"text": t}]) for t in ("a", "A")]
    one, other = (uniform(q, inputs=Inputs(), reuse="cell") for q in queries)
    assert not np.array_equal(one, other)


def test_the_normal_form_is_stable() -> None:
    for text in ("\u0390", "\u1fb3", "\u01c4 x", "K\u212a"):
        assert normal_form(normal_form(text)) == normal_form(text)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(InvariantError):
        QueryNoise(b"short", "model", "alice", numbers(ROWS), None)


def test_the_function_is_the_same_on_every_replica_and_version() -> None:
    # Written down from this implementation: a change re-draws the noise of all clients, who could average old and new.
    narrow, wide = uniform(numbers(ROWS)), uniform(numbers(ROWS), width=40)
    cells = uniform(numbers(ROWS), reuse="cell")
    found = [hashlib.sha256(np.ascontiguousarray(u).tobytes()).hexdigest()[:16] for u in (narrow, wide, cells)]
    assert found == ["403115429a5fb36b", "3a6a44e576908d9b", "fb7a09af02adf746"]
    assert QueryNoise(SECRET, "model", "alice", numbers(ROWS), None).constant(b"bin offset") == 0.4114934376618375


def test_a_constant_is_a_secret_of_the_ledger_alone() -> None:
    def constant(secret: bytes, ledger: str, client: str, rows: object, name: bytes = b"a") -> float:
        return QueryNoise(secret, ledger, client, numbers(rows), None).constant(name)

    here = constant(bytes(32), "model", "alice", ROWS)
    assert 0 < here < 1
    assert constant(bytes(32), "model", "bob", ROWS[:1]) == here
    others = [
        constant(bytes(31) + b"1", "model", "alice", ROWS),
        constant(bytes(32), "other", "alice", ROWS),
        constant(bytes(32), "model", "alice", ROWS, b"b"),
    ]
    assert len({here, *others}) == 4


def test_constants_are_uniform() -> None:
    found = [QueryNoise(bytes(32), str(i), "a", numbers(ROWS), None).constant(b"a") for i in range(1000)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    assert min(found) < 0.01
    assert max(found) > 0.99
