"""What the members of a model's answers mean: found out by looking at some answers, then used to read all others.

A label's column is its place in the model's own classes: the columns of a vector, the members of an object in their
order, or, where answers rank labels by score, the labels sorted. A model that answers labels alone has the classes that
were seen in its answers and in the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from guard.selftest.api import is_label
from guard.selftest.attacks.fit import softmax
from guard.selftest.base import Rows
from guard.selftest.measures import Floats
from guard.selftest.targets.answers import LABELS, Cell, Raw
from guard.selftest.targets.spec import Layout, Scale, TargetError
from guard.selftest.targets.wires import Wire

TOLERANCE = 0.02
SCALES: dict[str, Scale] = {"logits": "softmax", "logprobs": "exp"}


@dataclass(frozen=True)
class Declared:
    """What a policy says of its route's answers.

    Args:
        kind: of the scores; empty when nobody says.
        members: that carry scores; empty for whatever looks like it.
        classes: label of each column; empty when nobody says.
    """

    kind: str = ""
    members: tuple[str, ...] = ()
    classes: tuple[str | int, ...] = ()


class Reading:
    """A dialect: a wire and what its answers mean.

    Args:
        wire: how the API is asked.
        layout: how its answers are read.
    """

    def __init__(self, wire: Wire, layout: Layout) -> None:
        self.wire, self.layout = wire, layout
        self.path = wire.path
        self.headers: Mapping[str, str] = {"content-type": wire.content_type}

    def encode(self, x: Rows) -> bytes:
        """Return the request's body."""
        return self.wire.encode(x)

    def decode(self, body: bytes, rows: int) -> dict[str, Floats]:
        """Return every numeric member, the scores first.

        Raises:
            ValueError: the answer cannot be read.
        """
        found = matrices(self.wire.raw(body, rows), self.layout)
        if not found:
            raise ValueError("an answer without a number or a known label")
        first = self.layout.scores
        return {first: found[first]} | found if first in found else found


def matrices(raw: Raw, layout: Layout) -> dict[str, Floats]:
    """Return members as arrays of shape (rows, k).

    Labels become columns, maps the columns of the classes that they name (what they leave out reads 0), the lone
    probability of a class two, and logits probabilities.

    Raises:
        ValueError: a value is not a finite number.
    """
    found: dict[str, Floats] = {}
    for name, cells in raw.items():
        if layout.classes == 1 and all(isinstance(cell, dict) for cell in cells):
            found |= _apart(name, cells)
        elif (made := _matrix(cells, layout)) is not None:
            found[name] = made
    return {name: _meant(name, made, found, layout) for name, made in found.items()}


def _matrix(cells: Sequence[Cell], layout: Layout) -> Floats | None:
    if all(isinstance(cell, float) for cell in cells):
        return np.array(cells, dtype=np.float64)[:, None]
    if all(isinstance(cell, list) for cell in cells):
        lists = cast("Sequence[list[float]]", cells)
        made = np.zeros((len(cells), max(map(len, lists), default=0)))
        for row, numbers in zip(made, lists, strict=True):
            row[: len(numbers)] = numbers
        return made if made.shape[1] else None
    if all(isinstance(cell, dict) for cell in cells):
        maps = cast("Sequence[dict[str, float]]", cells)
        made = np.zeros((len(cells), len(layout.labels)))
        for row, scores in zip(made, maps, strict=True):
            for label, score in scores.items():
                if label in layout.labels:
                    row[layout.labels.index(label)] = score
        return made if made.shape[1] else None
    if all(isinstance(cell, str) for cell in cells):
        columns = [layout.column(_plain(cast("str", cell))) for cell in cells]
        return None if None in columns else np.array(columns, dtype=np.float64)[:, None]
    return None


def _plain(label: str) -> str | int:
    """Return a label as a number when it is one that is written as a text."""
    return int(label) if label.lstrip("-").isdigit() else label


def _apart(name: str, cells: Sequence[Cell]) -> dict[str, Floats]:
    maps = cast("Sequence[dict[str, float]]", cells)
    names = [key for key in maps[0] if all(key in row for row in maps)]
    return {f"{name}.{key}": np.array([row[key] for row in maps])[:, None] for key in names}


def _meant(name: str, made: Floats, all_: Mapping[str, Floats], layout: Layout) -> Floats:
    """Turn one member into what it means."""
    if layout.classes > 1:
        # A score that is not a number tells nothing of its class; for a value there is no such reading.
        made = np.nan_to_num(made, nan=0.0, posinf=1.0, neginf=0.0) if layout.scale == "" else made
        if name in layout.lone and made.shape[1] == 1:
            return _two(made[:, 0], _labels(all_, layout) if layout.lone_is_top else None)
        if layout.scale and made.shape[1] == layout.classes:
            return _probabilities(made, layout.scale)
        if layout.numbers and made.shape[1] == 1 and name not in layout.lone:
            return _columns(made, layout.numbers)
    if not np.isfinite(made).all():
        raise ValueError(f"an answer in which {name} is not a finite number")
    return made


def _two(scores: Floats, labels: Floats | None) -> Floats:
    second = scores if labels is None else np.where(labels == 1, scores, 1.0 - scores)
    return np.stack((1.0 - second, second), axis=1)


def _labels(members: Mapping[str, Floats], layout: Layout) -> Floats | None:
    for name, made in members.items():
        if name not in layout.lone and made.shape[1] == 1 and _whole(made):
            return _columns(made, layout.numbers)[:, 0] if layout.numbers else made[:, 0]
    return None


def _columns(made: Floats, numbers: tuple[int, ...]) -> Floats:
    places = {float(number): float(column) for column, number in enumerate(numbers)}
    return np.array([[places.get(number, number)] for number in made[:, 0].tolist()])


def _probabilities(made: Floats, scale: Scale) -> Floats:
    """Turn logits or log-probabilities into probabilities; what is one-hot already stays."""
    finite = np.nan_to_num(made, nan=-60.0, posinf=60.0, neginf=-60.0)
    turned = softmax(finite) if scale == "softmax" else np.exp(np.minimum(finite, 0.0))
    bare = is_label(made) & (made.max(axis=1) == 1.0)
    return np.where(bare[:, None], made, turned)


def look(answers: Sequence[Raw], declared: Declared, labels: Sequence[object] = ()) -> Layout:
    """Find out what answers mean.

    Args:
        answers: members of some answers.
        declared: what the policy says of them.
        labels: the sample's own, for models that answer labels alone.

    Raises:
        TargetError: they hold nothing that an attack could use.
    """
    raw = _merged(answers)
    names = tuple(map(str, declared.classes)) or _names(raw)
    base = Layout(labels=names, scale=SCALES.get(declared.kind, ""))
    if declared.kind == "embedding":
        raise TargetError("the route's outputs are embeddings, which no attack here is about")
    if declared.kind != "value":
        for found in (_vectors(raw, base, declared), _lone(raw, base, declared), _bare(raw, base, labels)):
            if found is not None:
                return found
    value = _value(raw, declared)
    if value is not None and declared.kind in ("value", ""):
        return value
    held = ", ".join(sorted(raw)) or "nothing"
    raise TargetError(f"no {declared.kind or 'scores or labels'} were found in the model's answers, which hold {held}")


def _merged(answers: Sequence[Raw]) -> Raw:
    names = [name for name in answers[0] if all(name in raw for raw in answers)] if answers else []
    return {name: [cell for raw in answers for cell in raw[name]] for name in names}


def _names(raw: Raw) -> tuple[str, ...]:
    """Return the classes that maps and labels name: in the maps' order when they agree on one, sorted otherwise."""
    orders: dict[tuple[str, ...], None] = {}
    seen: dict[str, None] = {}
    for cells in raw.values():
        for cell in cells:
            if isinstance(cell, dict):
                orders[tuple(cell)] = None
                seen |= dict.fromkeys(cell)
    if not seen:
        seen = {cell: None for cells in raw.values() for cell in cells if isinstance(cell, str)}
    if len(orders) == 1:
        order = next(iter(orders))
        return _sorted(order) if all(_is_number(name) for name in order) else order
    return _sorted(tuple(seen))


def _sorted(names: Sequence[str]) -> tuple[str, ...]:
    if all(_is_number(name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _vectors(raw: Raw, base: Layout, declared: Declared) -> Layout | None:
    """Return the layout of a member with a score for each class, the widest."""
    wide = {name: cells for name, cells in raw.items() if isinstance(cells[0], list | dict)}
    wide = {name: cells for name, cells in wide.items() if name in declared.members} or wide
    found: dict[str, Floats] = {}
    for name, cells in wide.items():
        made = _matrix(cells, base)
        if made is not None and made.shape[1] >= 2 and (base.scale or name in declared.members or _distributions(made)):
            found[name] = made
    if not found:
        return None
    name = max(found, key=lambda name: found[name].shape[1])
    scores, classes = found[name], found[name].shape[1]
    mapped = isinstance(raw[name][0], dict)
    if not mapped and len(base.labels) != classes:
        base = replace(base, labels=())
    made = replace(base, classes=classes, scores=name, graded=not bool(is_label(np.nan_to_num(scores)).all()))
    return replace(made, numbers=_numbers(raw, scores, made, declared))


def _numbers(raw: Raw, scores: Floats, layout: Layout, declared: Declared) -> tuple[int, ...]:
    """Return the numbers of the classes where labels are numbers other than the columns; empty otherwise."""
    if declared.classes and all(isinstance(number, int) for number in declared.classes):
        given = cast("tuple[int, ...]", declared.classes)
        return () if given == tuple(range(layout.classes)) else given
    top = scores.argmax(axis=1)
    for cells in raw.values():
        made = _matrix(cells, layout) if all(isinstance(cell, float) for cell in cells) else None
        if made is None or not _whole(made):
            continue
        pairs = {(int(column), int(label)) for column, label in zip(top, made[:, 0], strict=True)}
        known = dict(pairs)
        injective = len(set(known.values())) == len(known) == len(pairs) >= 2
        if injective and any(column != label for column, label in pairs):
            first = min(label - column for column, label in pairs)
            taken = [known.get(column, column + first) for column in range(layout.classes)]
            return tuple(taken) if len(set(taken)) == layout.classes else ()
    return ()


def _lone(raw: Raw, base: Layout, declared: Declared) -> Layout | None:
    """Return the layout of a two-class model that answers one probability."""
    names: list[str] = []
    for name, cells in raw.items():
        made = _matrix(cells, base) if all(isinstance(cell, float) for cell in cells) else None
        fits = made is not None and bool(np.isfinite(made).all()) and made.min() >= 0 and made.max() <= 1
        if made is not None and fits and not _whole(made) and name.lower() not in LABELS:
            names.append(name)
    names = [name for name in names if name in declared.members] or names
    if not names or declared.kind not in ("", "probabilities"):
        return None
    labels = base.labels if len(base.labels) == 2 else ()
    made = replace(base, classes=2, labels=labels, scores=names[0], lone=tuple(names))
    told = _labels(matrices(raw, replace(made, lone=())), made)
    scores = np.array(raw[names[0]], dtype=np.float64)
    # A probability that is never below one half whatever the label is that of the label.
    top = told is not None and bool((scores >= 0.5).all()) and bool((told == 0).any())
    return replace(made, lone_is_top=top)


def _bare(raw: Raw, base: Layout, labels: Sequence[object]) -> Layout | None:
    """Return the layout of a model that answers labels alone."""
    for name, cells in raw.items():
        texts = all(isinstance(cell, str) for cell in cells)
        made = _matrix(cells, base) if all(isinstance(cell, float) for cell in cells) else None
        if not texts and (made is None or not _whole(made)):
            continue
        seen = {str(cell if texts else int(cast("float", cell))) for cell in cells}
        told = {str(label) for label in labels if texts or _is_number(str(label))}
        if texts and told and seen.isdisjoint(told):
            continue  # a text, and none of the sample's labels
        seen |= told
        names = base.labels if seen <= set(base.labels) else _sorted(tuple(seen))
        if len(names) < 2:
            continue
        if not texts and all(_is_number(n) for n in names):
            numbers = tuple(map(int, names))
            whole = tuple(range(max(numbers) + 1))
            # 0, 1, 3: class 2 was merely not seen.
            if min(numbers) >= 0 and len(numbers) * 2 > len(whole):
                return replace(base, classes=len(whole), labels=(), scores=name, graded=False)
            return replace(base, classes=len(numbers), labels=(), numbers=numbers, scores=name, graded=False)
        return replace(base, classes=len(names), labels=names, scores=name, graded=False)
    return None


def _value(raw: Raw, declared: Declared) -> Layout | None:
    """Return the layout of a model that answers a number."""
    found = {name: made for name, made in matrices(raw, Layout(1)).items() if made.shape[1] == 1}
    found = {name: made for name, made in found.items() if name in declared.members} or found
    if not found:
        return None
    graded = [name for name in found if not _whole(found[name])]
    return Layout(1, scores=(graded or list(found))[0])


def _distributions(made: Floats) -> bool:
    """Say whether rows are distributions, or the larger parts of some."""
    finite = made[np.isfinite(made).all(axis=1)]
    if not len(finite) or finite.min() < -1e-6 or finite.max() > 1 + 1e-6:
        return False
    sums = finite.sum(axis=1)
    return bool(sums.max() <= 1 + TOLERANCE and sums.min() > 0.0)


def _whole(made: Floats) -> bool:
    return bool(np.isfinite(made).all() and (made == np.rint(made)).all())


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()
