"""The affairs tree answers whole rows as scikit-learn does, and partial ones from where they end."""

from __future__ import annotations

import numpy as np

from guard.selftest.lab.data import untyped
from guard.selftest.lab.registry import victim
from guard.selftest.lab.trees import partial


def test_whole_rows_are_answered_as_the_library_answers_them() -> None:
    model = victim("affairs", 0)
    tree = untyped("sklearn.tree").DecisionTreeClassifier(max_depth=8, min_samples_leaf=5, random_state=0)
    tree.fit(model.secrets["train_x"], model.secrets["train_y"])
    assert model.secrets["leaves"] == tree.get_n_leaves()
    np.testing.assert_allclose(model.predict(model.test_x), tree.predict_proba(model.test_x))


def test_a_row_without_features_is_answered_by_the_root() -> None:
    model = victim("affairs", 0)
    assert model.partial
    answer = model.predict(np.full((1, 8), np.nan))[0]
    assert answer[1] == np.mean(np.asarray(model.secrets["train_y"]))


def test_a_row_ends_where_its_first_missing_feature_is_needed() -> None:
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]] * 10)
    tree = untyped("sklearn.tree").DecisionTreeClassifier(random_state=0)
    tree.fit(x, np.array([0, 1, 1, 1] * 10))
    root = tree.tree_.feature[0]
    known = np.full((1, 2), np.nan)
    known[0, root] = 0.0
    answer = partial(tree.tree_)
    np.testing.assert_allclose(answer(known), [[0.5, 0.5]])
    known[0, root] = 1.0
    np.testing.assert_allclose(answer(known), [[0.0, 1.0]])
