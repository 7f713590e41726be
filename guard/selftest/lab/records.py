"""Models of people, each with an answer that is nobody's business: the affair, the marriage, the sex.

Half of the records train the model, a quarter is the attacker's, a quarter is held out. The targets are people of the
training half beside as many held-out ones, mixed: what an attack finds of the first beyond the second, the model has
memorised. The attacker knows a target's other answers and true label, how common each sensitive answer is, and how
often the model errs (`Knowledge.extra`); the sensitive answers and who was a member are the owner's secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from guard.selftest.base import Knowledge, Rows
from guard.selftest.lab import data
from guard.selftest.lab.data import untyped
from guard.selftest.lab.victim import Predict, Training, Victim, classifier_of, trained
from guard.selftest.measures import Floats, Ints


@dataclass(frozen=True)
class Records:
    """What a model of people is trained on.

    Args:
        name: the victim's.
        x: everybody's answers, shape (n, d), the sensitive one among them.
        y: what the model predicts: labels 0 to k - 1, or values, shape (n,).
        column: the sensitive answer's.
        targets: how many members are attacked, and at most how many non-members.
    """

    name: str
    x: Floats
    y: Ints | Floats
    column: int
    targets: int

    def victim(self, estimator: Any, seed: int) -> Victim:  # Any: scikit-learn estimators have no types
        """Train a model and choose its targets."""
        inside, own, held = data.thirds(len(self.x), seed)
        fitted = trained(estimator, self.x[inside], self.y[inside])
        training = Training(inside, self._fit(estimator, inside))
        predict = training.whole()
        chosen, members = self._targets(inside, held, seed)
        values, counts = np.unique(self.x[inside, self.column], return_counts=True)
        blank = self.x[chosen].copy()
        blank[:, self.column] = np.nan
        known: dict[str, object] = {
            "sensitive": self.column,
            "values": values,
            "prior": counts / counts.sum(),
            "targets_x": blank,
            "targets_y": self.y[chosen],
        }
        classes = 1
        if self.y.dtype == np.int64:
            classes = int(self.y.max()) + 1
            known["confusion"] = _confusion(self.y[inside], predict(self.x[inside]), classes)
        else:
            known["error_std"] = float((self.y[inside] - predict(self.x[inside])[:, 0]).std())
        secrets = {
            "train_x": self.x[inside],
            "train_y": self.y[inside],
            "targets_sensitive": self.x[chosen, self.column],
            "targets_member": members,
        }
        low, high = self.x.min(axis=0), self.x.max(axis=0)
        knows = Knowledge(
            self.name, "vector", self.x.shape[1], classes, low, high, self.x[own].std(axis=0), self.x[own], self.y[own],
            known,
        )  # fmt: skip
        output = "value" if classes == 1 else "probabilities"
        return Victim(
            predict, output, knows, self.x[held], self.y[held], secrets, _leaf_counts(fitted), training=training
        )

    def _fit(self, estimator: Any, inside: Ints) -> Callable[[Ints], Predict]:  # Any: as above
        classes = int(self.y.max()) + 1 if self.y.dtype == np.int64 else 1

        def fit(rows: Ints) -> Predict:
            x, y = self.x[inside[rows]], self.y[inside[rows]]
            if classes > 1:
                return classifier_of(estimator, x, y.astype(np.int64), classes)
            if not len(y):
                return lambda queries: np.zeros((len(queries), 1))
            fitted = trained(estimator, x, y)
            return lambda queries: np.asarray(fitted.predict(queries), dtype=np.float64)[:, None]

        return fit

    def _targets(self, inside: Ints, held: Ints, seed: int) -> tuple[Ints, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Return the targets' row numbers, and which of them were trained on."""
        rng = np.random.default_rng([seed, 3])
        of_members, of_others = rng.permutation(inside)[: self.targets], rng.permutation(held)[: self.targets]
        chosen = np.concatenate((of_members, of_others))
        members = np.arange(len(chosen)) < len(of_members)
        mixed = rng.permutation(len(chosen))
        return chosen[mixed], members[mixed]


def _confusion(y: Ints | Floats, scores: Floats, classes: int) -> Floats:
    """Return how often the model names each class (columns) when the truth is another (rows); rows sum to 1."""
    counts = np.ones((classes, classes))  # so that nothing is impossible
    np.add.at(counts, (y.astype(np.int64), scores.argmax(axis=1)), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def _leaf_counts(fitted: Any) -> Callable[[Rows], dict[str, Floats]] | None:  # Any: as above
    """Return what gives a tree's leaves by their training records in each class; None for other models."""
    if not hasattr(fitted, "tree_"):
        return None

    def counts(rows: Rows) -> dict[str, Floats]:
        leaves = fitted.apply(np.asarray(cast("Floats", rows), dtype=np.float64))
        shares = np.asarray(fitted.tree_.value[leaves, 0, :], dtype=np.float64)
        shares = shares / shares.sum(axis=1, keepdims=True)  # counts before scikit-learn 1.3, shares since
        return {"leaf_counts": np.rint(shares * fitted.tree_.n_node_samples[leaves][:, None])}

    return counts


def affairs_marriage(seed: int) -> Victim:
    """A tree that tells an unhappy, a happy and a very happy marriage from seven answers and from having had an affair.

    It is the lab's kin of Fredrikson's survey model (happiness of a marriage; the sensitive answer about a film seen).
    Leaves hold three records or more: it leaks as such trees do.
    """
    answers, affair, _ = data.affairs()
    x = np.column_stack((answers[:, 1:], affair.astype(np.float64)))
    y = np.clip(answers[:, 0] - 3, 0, 2).astype(np.int64)
    return Records("affairs_marriage", x, y, 7, 400).victim(_tree(3, seed), seed)


def affairs_rating(seed: int) -> Victim:
    """A tree that tells an affair from eight answers; the sensitive one is how the marriage is rated, from 1 to 5."""
    x, y, _ = data.affairs()
    return Records("affairs_rating", x, y, 0, 250).victim(_tree(5, seed), seed)


def diabetes(seed: int) -> Victim:
    """Linear regression of progression on ten measurements and their products; the sensitive one is the sex.

    Without products the attack gains as much from strangers as from members, and too little for 221 of them to show it.
    """
    x, y = data.diabetes()
    products: Any = untyped("sklearn.preprocessing").PolynomialFeatures(2, interaction_only=True, include_bias=False)
    line: Any = untyped("sklearn.linear_model").LinearRegression()
    return Records("diabetes", x, y, 1, 400).victim(untyped("sklearn.pipeline").make_pipeline(products, line), seed)


def diabetes_classes(seed: int) -> Victim:
    """An overfit network that tells slow, middling and fast progression (terciles); the sensitive answer is the sex."""
    x, values = data.diabetes()
    y = np.digitize(values, np.quantile(values, [1 / 3, 2 / 3])).astype(np.int64)
    network: Any = untyped("sklearn.neural_network").MLPClassifier(
        (64,), max_iter=2000, alpha=0.1, learning_rate_init=0.01, random_state=seed
    )
    scaled = untyped("sklearn.pipeline").make_pipeline(untyped("sklearn.preprocessing").StandardScaler(), network)
    return Records("diabetes_classes", x, y, 1, 400).victim(scaled, seed)


def _tree(leaf: int, seed: int) -> Any:  # Any: as above
    return untyped("sklearn.tree").DecisionTreeClassifier(min_samples_leaf=leaf, random_state=seed)


RECIPES: dict[str, Callable[[int], Victim]] = {
    "affairs_marriage": affairs_marriage,
    "affairs_rating": affairs_rating,
    "diabetes": diabetes,
    "diabetes_classes": diabetes_classes,
}
