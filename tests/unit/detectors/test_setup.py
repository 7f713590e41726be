from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest

from guard.detectors import DETECTORS
from guard.detectors.base import Features
from guard.detectors.repeats import Repeats
from guard.detectors.setup import DEFAULT, Setup, make_setup, unavailable
from guard.detectors.sketch import Sketch
from guard.model.domain import Inputs
from guard.model.queries import Queries
from tests.support.detecting import SALT, WIDTH, profile

DECLARED = Inputs(size=WIDTH, low=-4, high=4)


def names(setup: Setup) -> list[str]:
    return [signal.name for signal in setup.null.signals]


def test_with_a_profile_all_run_in_the_order_of_its_null() -> None:
    setup = make_setup(DEFAULT[::-1], profile(), DECLARED, SALT)

    assert names(setup) == [signal.name for signal in profile().null.signals]
    assert (len(setup.queries), len(setup.answers), setup.query_signals) == (8, 1, 12)
    assert unavailable(DEFAULT, profile(), DECLARED) == ()


def test_fewer_detectors_take_their_part_of_the_null() -> None:
    some = tuple(detector for detector in DEFAULT if detector.kind in ("repeats", "kernel_mean"))
    setup = make_setup(some, profile(), None, SALT)
    known = names(make_setup(DEFAULT, profile(), None, SALT)).index("kernel_mean.extreme")

    assert names(setup) == ["repeats", "kernel_mean", "kernel_mean.extreme"]
    np.testing.assert_array_equal(setup.null.edges[2], profile().null.edges[known])


def test_without_a_profile_structure_runs_on_the_shipped_null_and_the_rest_is_off_with_a_reason() -> None:
    setup = make_setup(DEFAULT, None, DECLARED, SALT)
    bare = make_setup(DEFAULT, None, None, SALT)
    why = dict(unavailable(DEFAULT, None, None))

    assert names(setup) == [
        "repeats",
        "one_feature_varied",
        "one_feature_varied.any",
        "near_duplicates",
        "near_duplicates.fine",
        "line_walk",
    ]
    assert names(bare) == ["repeats", "one_feature_varied", "one_feature_varied.any", "line_walk"]
    assert set(why) == {kind for kind, spec in DETECTORS.items() if spec.profiled} | {"near_duplicates"}
    assert why["mahalanobis"] == "needs a profile"
    assert "inputs with size, low and high" in why["near_duplicates"]


def test_a_declared_domain_gives_the_scale() -> None:
    setup = make_setup(DEFAULT, None, Inputs(size=2, low=(0, 10), high=(12, 34)), SALT)
    found = setup.sketcher.features(Queries(2, [[6.0, 22.0], [12.0, 34.0]]))
    assert found.vectors is not None

    assert found.scaled
    np.testing.assert_allclose(found.vectors, [[0, 0], [np.sqrt(3), np.sqrt(3)]], rtol=1e-6)


def test_what_is_declared_to_be_text_is_read_as_text() -> None:
    setup = make_setup(DEFAULT, None, Inputs(kind="text"), SALT)
    found: Features = setup.sketcher.features(Queries(1, ["hello"]))

    assert found.vectors is not None
    assert not found.scaled


def test_nothing_that_can_run_is_a_setup_without_signals() -> None:
    setup = make_setup((DETECTORS["mahalanobis"](kind="mahalanobis"),), None, None, SALT)

    assert names(setup) == []
    assert setup.null.edges.shape[0] == 0


def test_a_profile_made_without_a_detector_is_refused() -> None:
    less = dataclasses.replace(profile(), references={"repeats": {}})
    with pytest.raises(ValueError, match="made without one_feature_varied, near_duplicates"):
        make_setup(DEFAULT, less, None, SALT)


def test_a_profile_of_other_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="queries of 8 features, and the route's have 9"):
        make_setup(DEFAULT, profile(), Inputs(size=9), SALT)
    with pytest.raises(ValueError, match="route's are texts"):
        make_setup(DEFAULT, profile(), Inputs(kind="text"), SALT)
    texts = dataclasses.replace(profile(), sketch=Sketch(kind="text"), mean=np.zeros(64), scale=np.ones(64))
    with pytest.raises(ValueError, match="profile is of texts"):
        make_setup(DEFAULT, texts, Inputs(kind="vector"), SALT)


def test_a_reference_that_does_not_fit_is_named() -> None:
    known = {**profile().references, "mahalanobis": {"mean": np.zeros(3)}}
    with pytest.raises(ValueError, match=r"mahalanobis: mean has shape \(3,\), and must have \(8,\)"):
        make_setup(DEFAULT, dataclasses.replace(profile(), references=known), None, SALT)


def test_a_detector_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="named twice"):
        make_setup((Repeats(), Repeats()), None, None, SALT)


def test_the_fingerprint_changes_with_what_counts_mean_and_not_with_the_salt() -> None:
    base = make_setup(DEFAULT, profile(), None, SALT).fingerprint
    other_null = dataclasses.replace(profile().null, edges=profile().null.edges * 2)
    changed = [
        make_setup(DEFAULT[:3], profile(), None, SALT),
        make_setup(DEFAULT, dataclasses.replace(profile(), mean=np.ones(WIDTH)), None, SALT),
        make_setup(DEFAULT, dataclasses.replace(profile(), null=other_null), None, SALT),
        make_setup(DEFAULT, None, None, SALT),
        make_setup(DEFAULT, None, DECLARED, SALT),
        make_setup(DEFAULT, None, Inputs(size=WIDTH, low=-4, high=5), SALT),
    ]

    assert len(base) == 12
    assert make_setup(DEFAULT, profile(), None, b"another salt").fingerprint == base
    assert len({base, *[setup.fingerprint for setup in changed]}) == 7


def test_plans_that_mean_the_same_share_one_setup_as_long_as_anybody_uses_it() -> None:
    """Clients in memory keep the setup that they came under, so each reload would leave a table of its own behind."""
    known, salt = profile(), b"of this test alone"  # another test may still hold a setup of the usual one
    one, other = (make_setup(DEFAULT, known, None, salt) for _ in range(2))
    assert one is other
    assert make_setup(DEFAULT, known, None, bytes(16)) is not one
    assert make_setup(DEFAULT[:3], known, None, salt) is not one
    gone = weakref.ref(one)
    del one, other
    gc.collect()
    assert gone() is None
