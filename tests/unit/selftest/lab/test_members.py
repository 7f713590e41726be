"""The models that overfit: members are drawn and the owner's secret, shadows' members are the attacker's."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.lab import members
from guard.selftest.lab.data import untyped
from guard.selftest.lab.registry import victim
from guard.selftest.measures import auc


def test_a_forest_as_arrays_answers_as_the_forest_does() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 5)), rng.integers(3, size=80)
    forest = untyped("sklearn.ensemble").RandomForestClassifier(7, random_state=0, n_jobs=1).fit(x, y)
    asked = rng.normal(size=(50, 5)) * 2
    np.testing.assert_allclose(members.Flat(forest).probabilities(asked), forest.predict_proba(asked), atol=1e-12)


def test_the_forest_leaks_its_half_of_the_candidates() -> None:
    model = victim("digits_forest", 0)
    x, y = np.asarray(model.knows.extra["candidates_x"]), np.asarray(model.knows.extra["candidates_y"])
    inside = np.asarray(model.secrets["members"])
    assert (len(x), inside.sum()) == (900, 450)
    assert auc(model.predict(x)[np.arange(900), y], inside) > 0.85
    assert (model.predict(model.test_x).argmax(axis=1) == model.test_y).mean() > 0.85
    whole = {row.tobytes() for part in (x, model.knows.own_x, model.test_x) for row in np.asarray(part)}
    assert len(whole) >= 1790  # a few images are twice in the data, none is on two sides by design
    assert "members" not in model.knows.extra


def test_shadows_are_halves_that_the_attacker_drew() -> None:
    masks = members.shadow_members(0, 12)
    assert masks.shape == (12, 900)
    assert (masks.sum(axis=0) == 6).all()
    assert abs(np.corrcoef(masks[0], members.members(0))[0, 1]) < 0.1
    shadow = victim("digits_forest.shadow3", 0)
    np.testing.assert_array_equal(np.asarray(shadow.secrets["members"]), masks[3])


@pytest.mark.parametrize("name", ["digits_forest.shadow12", "digits_forest.shadow", "digits_forest.other"])
def test_there_are_no_others(name: str) -> None:
    with pytest.raises(KeyError):
        victim(name, 0)
