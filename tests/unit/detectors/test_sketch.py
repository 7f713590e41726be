from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from guard.detectors.base import GROUPS
from guard.detectors.sketch import Sketch, Sketcher, sketch_of, sketch_salt
from guard.model.queries import Queries
from tests.support.detecting import SALT

SALTED = "5a" * 16
SKETCHES = (
    None,
    Sketch(size=3, salt=SALTED),
    Sketch(size=100, salt=SALTED),
    Sketch(kind="image", size=12, shape=(2, 2, 3), salt=SALTED),
    Sketch(kind="text", salt=SALTED),
    Sketch(kind="tokens", salt=SALTED),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(), st.floats(-1e3, 1e3), st.sampled_from([0.0, -0.0, 1e308, 5e-324])
)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)
MEMBERS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
NESTED = st.recursive(MEMBERS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))


@st.composite
def any_queries(draw: st.DrawFn) -> Queries:
    """Queries of whatever shape, of kinds that codecs make and of kinds that none should."""
    rows = draw(st.integers(1, 4))
    width = draw(st.integers(0, 4))
    item = draw(
        st.sampled_from(
            (
                NUMBERS,
                TEXTS,
                MEMBERS,
                NESTED,
                st.lists(NUMBERS, max_size=5),
                st.dictionaries(TEXTS, MEMBERS, max_size=4),
            )
        )
    )
    values = draw(st.none() | st.lists(item, max_size=16) | st.lists(item, min_size=rows, max_size=rows))
    return Queries(rows, values, width, opaque=draw(st.binary(max_size=8)))


@given(any_queries(), st.sampled_from(SKETCHES))
def test_whatever_a_client_sends_has_keys_and_finite_vectors_or_none(queries: Queries, sketch: Sketch | None) -> None:
    sketcher = Sketcher(sketch, SALT)
    found = sketcher.features(queries)

    assert found.keys.shape == (queries.rows, 1 + GROUPS)
    assert found.keys.dtype == np.uint32
    if found.vectors is not None:
        assert found.vectors.shape[0] == queries.rows
        assert found.vectors.shape[1] == (sketcher.width or found.vectors.shape[1])
        assert np.isfinite(found.vectors).all()
        assert np.abs(found.vectors).max() <= 1.1e15 * 64


@given(any_queries())
def test_the_same_queries_have_the_same_features(queries: Queries) -> None:
    again = Queries(queries.rows, queries.values, queries.width, opaque=queries.opaque)
    one, two = Sketcher(None, SALT).features(queries), Sketcher(None, SALT).features(again)

    np.testing.assert_array_equal(one.keys, two.keys)
    assert (one.vectors is None) == (two.vectors is None)


@pytest.mark.parametrize(
    ("sketch", "rows"),
    [
        (Sketch(size=5), np.random.default_rng(0).normal(size=(9, 5)).tolist()),
        (Sketch(size=100), np.random.default_rng(0).normal(size=(9, 100)).tolist()),
        (Sketch(size=5000), np.random.default_rng(0).normal(size=(9, 5000)).tolist()),
        (Sketch(kind="image", size=300, shape=(10, 10, 3)), np.random.default_rng(0).random((9, 300)).tolist()),
        (Sketch(kind="text"), ["one", "", "two words", "Ünïcode — ok", "a", "zz\0\0z", "\0", "x" * 40, "two words"]),
        (Sketch(kind="tokens"), [[1, 2, 3], [1], [9] * 20, [2**40], [0, 0], [1, 2], [5], [-1], [7]]),
        (None, [{"a": 1, "b": i / 7} for i in range(9)]),
        (None, [{"a": "x", "b": i / 7} for i in range(9)]),
        (None, [["x", None, i] for i in range(9)]),
    ],
)
def test_a_batch_is_its_rows(sketch: Sketch | None, rows: list[object]) -> None:
    sketcher = Sketcher(sketch, SALT)
    whole = sketcher.features(Queries(len(rows), rows))
    ones = [sketcher.features(Queries(1, [row])) for row in rows]

    np.testing.assert_array_equal(whole.keys, np.concatenate([one.keys for one in ones]))
    if whole.vectors is not None:
        vectors = [one.vectors for one in ones if one.vectors is not None]
        np.testing.assert_allclose(whole.vectors, np.concatenate(vectors), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [100, 784, 5000])
def test_a_projection_keeps_distances(size: int) -> None:
    rows = np.random.default_rng(0).normal(size=(40, size))
    folded = Sketcher(Sketch(size=size), SALT).raw(Queries(40, rows.tolist()))
    assert folded is not None
    ratio = np.linalg.norm(folded[1:] - folded[:-1], axis=1) / np.linalg.norm(rows[1:] - rows[:-1], axis=1)

    assert folded.shape == (40, 64)
    assert ratio.mean() == pytest.approx(1, abs=0.1)
    assert 0.6 < ratio.min() < ratio.max() < 1.4


def test_a_projection_depends_on_the_sketchs_salt_and_on_nothing_else() -> None:
    rows = Queries(1, np.arange(100.0)[None].tolist())
    one = Sketcher(Sketch(size=100, salt=SALTED), SALT).raw(rows)
    same = Sketcher(Sketch(size=100, salt=SALTED), b"another secret..").raw(rows)
    other = Sketcher(Sketch(size=100), SALT).raw(rows)
    assert one is not None
    assert other is not None

    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("size", [100, 5000])
def test_the_declared_scale_is_that_of_uniform_queries(size: int) -> None:
    rng = np.random.default_rng(0)
    high = rng.uniform(1, 3, size=size)
    sketcher = Sketcher(Sketch(size=size), SALT)
    mean, scale = sketcher.declared(high / 2, high / np.sqrt(12))
    found = Sketcher(Sketch(size=size), SALT, mean, scale).features(
        Queries(300, (rng.random((300, size)) * high).tolist())
    )
    assert found.vectors is not None

    assert found.scaled
    assert np.abs(found.vectors.mean(axis=0)).max() < 0.3
    assert found.vectors.std(axis=0).mean() == pytest.approx(1, abs=0.05)


def test_what_lies_far_out_stays_finite() -> None:
    sketcher = Sketcher(Sketch(size=3), SALT, np.zeros(3), np.full(3, 1e-6))
    found = sketcher.features(Queries(2, [[1e308, -1e308, float("inf")], [float("nan"), 1.0, 2.0]]))
    assert found.vectors is not None

    assert np.abs(found.vectors).max() <= 1e6


def test_named_features_are_read_in_the_order_of_their_names() -> None:
    sketcher = Sketcher(None, SALT)
    named = sketcher.features(Queries(1, [{"b": 2, "a": 1, "c": 3}]))
    other = sketcher.features(Queries(1, [{"c": 3, "a": 1, "b": 2}]))
    assert named.vectors is not None

    assert named.vectors.tolist() == [[1.0, 2.0, 3.0]]
    np.testing.assert_array_equal(named.keys, other.keys)


def test_a_changed_category_is_one_group() -> None:
    rows = [{"job": job, "age": 40, "city": "Ulm", "debt": 0.5} for job in ("clerk", "smith")]
    keys = Sketcher(None, SALT).features(Queries(2, rows)).keys
    agree = keys[0] == keys[1]

    assert not agree[0]
    assert agree.sum() == 1


def test_rows_that_cannot_be_read_have_a_key_for_all_columns() -> None:
    keys = Sketcher(None, SALT).features(Queries(1, None, opaque=b"jpeg")).keys

    assert (keys == keys[0, 0]).all()


def test_texts_with_a_word_changed_stay_close() -> None:
    sketcher = Sketcher(Sketch(kind="text"), SALT)
    texts = [
        "please find attached the report for the second quarter",
        "please find attached the report for the third quarter",
        "WINNER!! claim your prize, call 09061701461 now",
    ]
    vectors = sketcher.features(Queries(3, texts)).vectors
    assert vectors is not None
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]

    assert near > 0.8 > far
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_other_queries_than_the_sketchs_have_keys_only() -> None:
    sketcher = Sketcher(Sketch(size=3), SALT)

    assert sketcher.features(Queries(1, [[1, 2]])).vectors is None
    assert sketcher.features(Queries(1, ["text"])).vectors is None
    assert Sketcher(Sketch(kind="text"), SALT).features(Queries(1, [[1, 2]])).vectors is None
    assert Sketcher(None, SALT).features(Queries(1, [[0.0] * 3000])).vectors is None


def test_tokens_of_equal_length_are_tokens_where_the_sketch_says_so() -> None:
    tokens = Sketcher(Sketch(kind="tokens"), SALT)

    assert tokens.features(Queries(2, [[1, 2], [3, 4]])).vectors is not None
    assert tokens.features(Queries(2, [[1, 2.5], [3, 4]])).vectors is None


def test_images_are_scaled_down_by_means() -> None:
    image = np.zeros((16, 24, 3))
    image[:2, :3] = [3.0, 6.0, 9.0]
    raw = Sketcher(Sketch(kind="image", size=image.size, shape=(16, 24, 3)), SALT).raw(
        Queries(1, [image.ravel().tolist()])
    )
    assert raw is not None

    assert raw[0, 0] == 6.0
    assert raw[0, 1:].sum() == 0


@pytest.mark.parametrize(
    "words",
    [
        {"kind": "text", "size": 3},
        {"kind": "image", "size": 12},
        {"kind": "image", "size": 12, "shape": (2, 2, 2)},
        {"kind": "vector", "size": 12, "shape": (2, 2, 3)},
        {"kind": "vector", "salt": "xyz"},
        {"kind": "vector", "size": 0},
    ],
)
def test_sketches_that_cannot_be_are_refused(words: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sketch.model_validate(words)


def test_a_scale_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="scale must be 3 finite numbers"):
        Sketcher(Sketch(size=3), SALT, np.zeros(3), np.ones(2))
    with pytest.raises(ValueError, match="scale must be above 0"):
        Sketcher(Sketch(size=3), SALT, np.zeros(3), np.zeros(3))


def test_a_recording_learns_its_sketch_from_the_first_queries() -> None:
    assert sketch_of(Queries(1, [[1, 2, 3]]), SALTED) == Sketch(size=3, salt=SALTED)
    assert sketch_of(Queries(1, ["a"]), SALTED).kind == "text"
    assert sketch_of(Queries(2, [[1], [2, 3]]), SALTED).kind == "tokens"
    assert sketch_of(Queries(1, None, opaque=b"x"), SALTED).size is None
    assert len(sketch_salt(SALT)) == 32


@pytest.mark.parametrize("size", [3, 100])
def test_a_vector_is_what_a_recording_of_it_holds(size: int) -> None:
    rows = np.random.default_rng(0).normal(size=(5, size))
    raw = Sketcher(Sketch(size=size), SALT).raw(Queries(5, rows.tolist()))
    assert raw is not None

    np.testing.assert_array_equal(raw, raw.astype(np.float32).astype(np.float64))
