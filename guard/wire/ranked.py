"""Answers of classification pipelines: lists of `{"label": "cat", "score": 0.9}`, flat or nested, greatest first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

from guard.model.arrays import Ints
from guard.model.prediction import Answer, LabelSlot
from guard.wire.base import Reader
from guard.wire.body import unreadable
from guard.wire.rows import check_rest
from guard.wire.sparse import Ranked, add_groups, group_rows

Pair = dict[str, object]
Form = Literal["nested", "row", "column"]
_PAIR = {"label", "score"}


@dataclass(slots=True)
class Ranking:
    """What is let out of such an answer.

    Args:
        rows: each row's pairs; writes replace them.
        form: `nested`: a list a row; `row`: one list for the one row; `column`: one pair a row.
    """

    rows: list[list[Pair]]
    form: Form
    surplus: list[dict[str, Pair]] = field(default_factory=list[dict[str, Pair]])
    """For each row, what stands beside label and score under `fields: all`, by label."""

    def document(self) -> list[object]:
        """Return the list in its own form."""
        if self.form == "nested":
            return [*self.rows]
        return [pair for row in self.rows for pair in row]

    def put(self, row: int, ranked: Ranked) -> None:
        """Replace a row's pairs."""
        beside = self.surplus[row] if self.surplus else {}
        self.rows[row] = [{"label": label, "score": score, **beside.get(label, {})} for label, score in ranked]


def is_pairs(items: object, *, more: bool = False) -> bool:
    """Say whether these are objects of a text label and a score, and nothing else, or with `more` whatever else."""
    return (
        isinstance(items, list)
        and bool(cast("list[object]", items))
        and all(
            isinstance(pair, dict)
            and (cast("Pair", pair).keys() >= _PAIR if more else cast("Pair", pair).keys() == _PAIR)
            and isinstance(cast("Pair", pair)["label"], str)
            for pair in cast("list[object]", items)
        )
    )


def read_ranked(items: list[object], reader: Reader, answer: Answer, asked: int) -> Ranking | None:
    """Read pairs of label and score into `answer` and return what to let out; None when they are something else.

    A nested list holds one list a row. A flat list holds the pairs of the one row that was asked for; when several were
    asked for, one pair a row.

    Raises:
        UpstreamError: scores of another kind, or a label twice in one row.
    """
    # A flat list of objects with more members may be rows of another kind; a nested one can be nothing else.
    nested = bool(items) and all(is_pairs(item, more=True) for item in items)
    if not nested and not is_pairs(items):
        return None
    form: Form = "nested" if nested else "row" if asked == 1 else "column"
    pairs = cast("list[Pair]", items)
    rows = cast("list[list[Pair]]", items) if nested else [pairs] if form == "row" else [[pair] for pair in pairs]
    answer.rows = len(rows)
    labels = [[cast("str", pair["label"]) for pair in row] for row in rows]
    if any(len(set(names)) != len(names) for names in labels):
        raise unreadable("a label stands twice in one row")
    scores = [[pair["score"] for pair in row] for row in rows]
    if reader.outputs.kind == "labels":
        return _labels_only(labels, scores, form, answer)
    groups = group_rows(labels, scores, reader.outputs, named=True)
    if groups is None:
        raise unreadable(f"the scores are not {reader.outputs.kind}")
    ranking = Ranking(rows, form, _surplus(rows, reader, answer))
    add_groups(answer, "score", groups, len(rows), ranking.put)
    return ranking


def _surplus(rows: list[list[Pair]], reader: Reader, answer: Answer) -> list[dict[str, Pair]]:
    """Take what stands beside labels and scores: dropped under `fields: known`, given back under `all`.

    Raises:
        UpstreamError: under `fields: all`, it holds floating numbers.
    """
    if all(len(pair) == len(_PAIR) for row in rows for pair in row):
        return []
    found: list[dict[str, Pair]] = []
    for i, row in enumerate(rows):
        beside = {cast("str", pair["label"]): {k: v for k, v in pair.items() if k not in _PAIR} for pair in row}
        rows[i] = [{"label": pair["label"], "score": pair["score"]} for pair in row]
        found.append(beside)
    names = dict.fromkeys(name for row in found for pair in row.values() for name in pair)
    if reader.fields == "known":
        answer.dropped += names
        return []
    for i, row in enumerate(found):
        for pair in row.values():
            check_rest(pair, reader)
        rows[i] = [{**pair, **row[cast("str", pair["label"])]} for pair in rows[i]]
    return found


def _labels_only(labels: list[list[str]], scores: list[list[object]], form: Form, answer: Answer) -> Ranking:
    """Let out each row's first label alone: the order of the others would tell their ranks."""
    if any(type(score) not in (float, int) for row in scores for score in row):
        raise unreadable("a score is not a number")
    best = [max(zip(cast("list[float]", s), names, strict=True))[1] for s, names in zip(scores, labels, strict=True)]
    answer.labels.append(LabelSlot("label", _keep))
    answer.dropped.append("score")
    return Ranking([[{"label": label}] for label in best], form)


def _keep(tops: Ints) -> None:
    """Leave labels alone: without scores no argmax can change."""
    del tops
