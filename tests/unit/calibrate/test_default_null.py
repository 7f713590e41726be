"""The shipped null: complete, small, quiet with honest clients whom it never saw, and not with those who attack."""

from __future__ import annotations

import numpy as np
import pytest

from guard.calibrate import default_null
from guard.calibrate.courses import course
from guard.calibrate.simulated import LONGEST, SHORTEST, USUAL, Domain, Kind, client, coarse
from guard.calibrate.windows import View
from guard.detectors.setup import DEFAULT, make_setup
from guard.detectors.shipped import shipped_null
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from guard.model.queries import Queries

WIDTH = 8


def a_table() -> Domain:
    """Return data that the null was not made from."""
    rng = np.random.default_rng(3)
    rows = np.round(rng.normal(size=(600, WIDTH)) @ rng.normal(size=(WIDTH, WIDTH)), 1)
    near = np.argsort(((rows[:, None] - rows[None]) ** 2).sum(axis=2), axis=1)[:, 1:12]
    return Domain("new", "table", rows, (rows - rows.mean(axis=0)) / rows.std(axis=0), near)


TABLE = a_table()


def furthest(rows: Floats) -> float:
    """Return how far the structure tier's evidence gets on a route without a profile, as log10."""
    inputs = Inputs(size=WIDTH, low=tuple(TABLE.rows.min(axis=0)), high=tuple(TABLE.rows.max(axis=0)))
    setup = make_setup(DEFAULT, None, inputs, b"a salt of the deployment")
    features = setup.sketcher.features(Queries(len(rows), rows.tolist()))
    return float(course(setup, View(features, np.full(len(rows), np.nan))).structure.max()) / np.log(10)


def test_it_knows_every_signal_of_the_structure_tier_and_is_small() -> None:
    wanted = [signal for detector in default_null.structure() for signal in detector.signals()]
    assert list(shipped_null().signals) == wanted
    assert default_null.FILE.stat().st_size < 200_000


@pytest.mark.parametrize("kind", list(USUAL))
def test_honest_clients_of_new_data_are_let_be(kind: Kind) -> None:
    for seed in range(2):
        found, rows = client(TABLE, np.random.default_rng([5, seed]), {kind: 1.0})
        assert found == kind
        assert SHORTEST <= len(rows) <= LONGEST
        assert furthest(rows) < 3.0


def test_those_who_repeat_or_search_near_a_point_are_not() -> None:
    rng = np.random.default_rng(0)
    points = TABLE.rows[rng.integers(len(TABLE.rows), size=6)]
    averaging = np.repeat(points, 40, axis=0)
    assert furthest(averaging) > 3.0
    assert furthest(averaging + 0.01 * rng.normal(size=averaging.shape)) > 3.0


def test_a_route_without_a_scale_has_part_of_it() -> None:
    setup = make_setup(DEFAULT, None, None, b"a salt of the deployment")
    assert [signal.name for signal in setup.null.signals] == [
        "repeats",
        "one_feature_varied",
        "one_feature_varied.any",
        "line_walk",
    ]


def test_a_poorer_table_has_fewer_values_and_no_rows_of_chance_alone() -> None:
    poorer = coarse(TABLE, np.random.default_rng(1))
    assert max(len(np.unique(column)) for column in poorer.rows.T) <= 13
    assert len(np.unique(poorer.rows, axis=0)) > 50


def test_repeats_and_what_ifs_are_in_the_clients_that_should_have_them() -> None:
    def alike(kind: Kind, columns: int) -> float:
        _, rows = client(TABLE, np.random.default_rng(8), {kind: 1.0})
        return float((((rows[1:] == rows[:-1]).sum(axis=1)) == columns).mean())

    assert alike("retry", WIDTH) > 0.15 > alike("plain", WIDTH)
    assert alike("whatif", WIDTH - 1) > 0.15 > alike("plain", WIDTH - 1)
