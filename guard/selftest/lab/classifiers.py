"""Classifiers to copy: logistic regression on breast cancer, softmax regression and a network on digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from guard.selftest.base import Knowledge
from guard.selftest.lab import data
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim, classifier_of, trained
from guard.selftest.measures import Floats, Ints


def classifier(
    name: str,
    estimator: Any,  # Any: scikit-learn estimators have no types
    x: Floats,
    y: Ints,
    seed: int,
    *,
    scale: float = 1.0,
    secrets: Mapping[str, object] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Victim:
    """Train a classifier on half of the data; a quarter is the attacker's, a quarter is held out.

    Args:
        name: the victim's.
        estimator: unfitted.
        x: all data, shape (n, d).
        y: labels 0 to k - 1, shape (n,).
        seed: of the split.
        scale: what inputs are divided by before the estimator sees them.
        secrets: added to training data and class means.
        extra: what single attacks know besides.
    """
    inside, own, held = data.thirds(len(x), seed)
    fitted = trained(estimator, x[inside] / scale, y[inside])
    classes = int(y.max()) + 1
    training = scaled_training(estimator, x, y, inside, scale)
    knows = Knowledge(
        name, "vector", x.shape[1], classes, x.min(axis=0), x.max(axis=0), x[own].std(axis=0), x[own], y[own],
        dict(extra or {}),
    )  # fmt: skip
    known = {
        "train_x": x[inside],
        "train_y": y[inside],
        "class_means": np.array([x[inside][y[inside] == c].mean(axis=0) for c in range(classes)]),
    }
    if hasattr(fitted, "coef_"):
        known["weights"] = np.asarray(fitted.coef_, dtype=np.float64) / scale
    return Victim(
        training.whole(), "probabilities", knows, x[held], y[held], known | dict(secrets or {}), training=training
    )


def scaled_training(estimator: Any, x: Floats, y: Ints, inside: Ints, scale: float) -> Training:  # Any: as above
    """Return the training of a classifier on some rows of the data, divided by `scale`."""
    classes = int(y.max()) + 1

    def fit(rows: Ints) -> Predict:
        chosen = inside[rows]
        predict = classifier_of(estimator, x[chosen] / scale, y[chosen], classes)
        return lambda queries: predict(np.asarray(queries) / scale)

    return Training(inside, fit)


def breast_cancer(seed: int) -> Victim:
    """Logistic regression, 31 unknowns."""
    x, y = data.breast_cancer()
    return classifier("breast_cancer", untyped("sklearn.linear_model").LogisticRegression(max_iter=2000), x, y, seed)


def digits(seed: int) -> Victim:
    """Softmax regression, 650 unknowns."""
    x, y = data.digits()
    model = untyped("sklearn.linear_model").LogisticRegression(max_iter=2000)
    return classifier("digits", model, x, y, seed, scale=16.0)


def digits_mlp(seed: int) -> Victim:
    """A network with 64 hidden units, 4,810 unknowns."""
    x, y = data.digits()
    model = untyped("sklearn.neural_network").MLPClassifier((64,), max_iter=400, alpha=1e-3, random_state=seed)
    return classifier("digits_mlp", model, x, y, seed, scale=16.0)


def shadow(name: str) -> Callable[[int, str], Victim]:
    """Return the recipe of `NAME.shadow0` to `NAME.shadow3`: the attacker's own models of the same kind.

    Each is trained on a bootstrap of the attacker's quarter, with a weight decay of its own, so that together they
    answer more and less surely than the victim does.
    """

    def build(seed: int, suffix: str) -> Victim:
        number = suffix.removeprefix("shadow")
        if number not in map(str, range(SHADOWS)):
            raise KeyError(f"{name}.{suffix}")
        x, y = data.breast_cancer() if name == "breast_cancer" else data.digits()
        own = data.thirds(len(x), seed)[1]
        rng = np.random.default_rng([seed, 4, int(number)])
        chosen = np.concatenate(
            (own[rng.integers(len(own), size=len(own))], own[np.unique(y[own], return_index=True)[1]])
        )
        strength, scale = 10 ** rng.uniform(-1, 1.5), 1.0 if name == "breast_cancer" else 16.0
        if name == "digits_mlp":
            model = untyped("sklearn.neural_network").MLPClassifier(
                (64,), max_iter=400, alpha=1e-2 / strength, random_state=int(number)
            )
        else:
            model = untyped("sklearn.linear_model").LogisticRegression(C=strength, max_iter=2000)
        training, whole = scaled_training(model, x, y, chosen, scale), RECIPES[name](seed)
        knows = replace(whole.knows, name=f"{name}.{suffix}")
        return Victim(training.whole(), "probabilities", knows, whole.test_x, whole.test_y, training=training)

    return build


SHADOWS = 4

RECIPES: dict[str, Callable[[int], Victim]] = {
    "breast_cancer": breast_cancer,
    "digits": digits,
    "digits_mlp": digits_mlp,
}
VARIANTS: dict[str, Callable[[int, str], Victim]] = {name: shadow(name) for name in RECIPES}
