"""What every detector promises: one suite for all that are registered, with no line for any of them."""

from __future__ import annotations

import doctest
import inspect
import sys
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from guard.detectors import DETECTORS
from guard.detectors.base import HORIZON, Bound, Detector, Features, Margins, Past, Reference
from guard.detectors.stream import Stream
from guard.evidence.values import MOST_SIGNALS
from guard.model.arrays import Floats
from guard.model.queries import Queries
from guard.policy.unions import AnyDetector
from tests.support.detecting import SALT, WIDTH, features, honest, honest_margins, learnt, sample, sketcher

ALL = list(DETECTORS)
ADAPTER: TypeAdapter[Detector] = TypeAdapter(AnyDetector)


def spec(kind: str) -> Detector:
    return DETECTORS[kind](kind=kind)


def reference(kind: str) -> Reference:
    return learnt(spec(kind))


@cache
def bound(kind: str) -> Bound:
    return spec(kind).bind(reference(kind), WIDTH, SALT)


def traffic() -> Floats:
    """Queries of all sorts: honest, repeats, walks, small steps, far out, and many of one feature."""
    rng = np.random.default_rng(4)
    base = honest(1, 120)
    walk = base[0] + np.arange(30.0)[:, None] * (base[1] - base[0]) / 30
    near = base[2] + rng.normal(size=(40, WIDTH)) * 1e-3
    varied = np.tile(base[3], (30, 1))
    varied[:, 2] = np.arange(30)
    far = rng.normal(size=(30, WIDTH)) * 10.0 ** rng.integers(-3, 7, size=(30, 1))
    return np.concatenate([base, base[:20], walk, near, varied, far, honest(2, HORIZON)])


def measured(kind: str, parts: list[Features]) -> Floats:
    stream = Stream([bound(kind)])
    return np.concatenate([stream.ask(part) for part in parts])


@pytest.mark.parametrize("kind", ALL)
def test_its_kind_is_its_name_everywhere(kind: str) -> None:
    detector = spec(kind)
    module = inspect.getmodule(type(detector))
    assert module is not None

    assert detector.kind == kind == detector.names[0] == module.__name__.rpartition(".")[2]
    assert all(name == kind or name.startswith(f"{kind}.") for name in detector.names)
    assert [signal.name for signal in detector.signals()] == list(detector.names)
    assert {(signal.detector, signal.tier) for signal in detector.signals()} == {(kind, detector.tier)}


def test_all_signals_have_a_place() -> None:
    names = [name for kind in ALL for name in DETECTORS[kind].names]

    assert len(set(names)) == len(names) <= MOST_SIGNALS


@pytest.mark.parametrize("kind", ALL)
def test_a_spec_survives_writing_and_reading(kind: str) -> None:
    written = spec(kind).model_dump(mode="json")

    assert ADAPTER.validate_python(written) == spec(kind)
    with pytest.raises(ValidationError):
        ADAPTER.validate_python({**written, "no_such_parameter": 1})


@pytest.mark.parametrize("kind", ALL)
def test_it_says_what_it_measures_what_moves_it_what_it_cannot_see_and_where_it_is_from(kind: str) -> None:
    text = inspect.getdoc(DETECTORS[kind]) or ""

    for words in ("Measures ", "Moves it: ", "Cannot see: ", "Source: "):
        assert words in text
    examples = doctest.DocTestFinder(recurse=False).find(DETECTORS[kind], kind, sys.modules[DETECTORS[kind].__module__])
    assert sum(len(example.examples) for example in examples) >= 2


@pytest.mark.parametrize("kind", ALL)
@given(cuts=st.lists(st.integers(0, len(traffic())), max_size=8))
def test_a_batch_is_its_rows(kind: str, cuts: list[int]) -> None:
    rows = traffic()
    if DETECTORS[kind].side == "answer":
        margins, detector = honest_margins(3, len(rows)), bound(kind)
        ones = [detector.measure_answers(Margins(margins[i : i + 1])) for i in range(len(rows))]
        np.testing.assert_allclose(detector.measure_answers(Margins(margins)), np.concatenate(ones))
        return
    ends = sorted({0, *cuts, len(rows)})
    parts = [features(rows[start:end]) for start, end in pairwise(ends)]

    np.testing.assert_allclose(measured(kind, parts), one_by_one(kind), atol=1e-3)


@cache
def one_by_one(kind: str) -> Floats:
    return measured(kind, [features(row[None]) for row in traffic()])


@pytest.mark.parametrize("kind", ALL)
def test_measures_are_finite_and_not_below_0(kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(20, WIDTH)) * 10.0**power for power in range(-300, 300, 60)])
    rows = np.concatenate([rows, [[np.nan] * WIDTH, [np.inf] * WIDTH, [-np.inf, 0, 0, 0, 0, 0, 0, np.inf]]])
    found = sketcher().features(Queries(len(rows), rows.tolist()))
    margins = Margins(np.array([0.0, 1.0, 1e-300, 1e300, np.inf, np.nan]))
    for part in (measured(kind, [found]), bound(kind).measure_answers(margins)):
        assert np.isfinite(part).all()
        assert (part >= 0).all()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("width", [None, WIDTH + 1])
def test_rows_without_vectors_that_fit_never_stop_it(kind: str, width: int | None) -> None:
    vectors = None if width is None else np.random.default_rng(0).normal(size=(5, width))
    detector = bound(kind)
    for n in (1, 5):
        keys = np.arange(n * 9, dtype=np.uint32).reshape(n, 9)
        rows = Features(keys, None if vectors is None else vectors[:n], width is not None)
        assert detector.keys(rows).shape == (n, detector.columns)
        for past in (Past(), Past(3, np.ones(WIDTH), np.ones(WIDTH), np.ones(WIDTH))):
            hits = np.zeros((n, detector.columns), dtype=bool)
            found = detector.measure(rows, np.zeros(n, dtype=bool), hits, past)
            assert found.shape == (n, len(spec(kind).names) if spec(kind).side == "query" else 0)
            assert kind == "line_walk" or found.sum() == 0


@pytest.mark.parametrize("kind", ALL)
def test_it_says_nothing_of_the_other_side(kind: str) -> None:
    detector, side = bound(kind), spec(kind).side
    asked = measured(kind, [features(honest(1, 3))])
    said = detector.measure_answers(Margins(np.zeros(3)))

    assert asked.shape == (3, len(spec(kind).names) if side == "query" else 0)
    assert said.shape == (3, len(spec(kind).names) if side == "answer" else 0)


@pytest.mark.parametrize("kind", ALL)
def test_it_learns_the_same_from_the_same_and_in_bounded_room(kind: str) -> None:
    one, two = spec(kind).learn(sample()), spec(kind).learn(sample())

    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert sum(array.nbytes for array in one.values()) < 2**20


@pytest.mark.parametrize("kind", [kind for kind in ALL if DETECTORS[kind].profiled])
def test_what_needs_a_profile_does_not_run_without(kind: str) -> None:
    with pytest.raises(ValueError, match="made without this detector"):
        spec(kind).bind({}, WIDTH, SALT)


@pytest.mark.parametrize("kind", ALL)
def test_honest_queries_move_it_less_than_an_attack_on_everything(kind: str) -> None:
    if DETECTORS[kind].side == "answer":
        attack = bound(kind).measure_answers(Margins(np.full(50, 1e-4)))
        benign = bound(kind).measure_answers(Margins(honest_margins(7)))
    else:
        attack = measured(kind, [features(traffic()[120:250])])
        benign = measured(kind, [features(honest(i)) for i in range(5)])

    assert (attack.mean(axis=0) > benign.mean(axis=0) + 0.02).all()
