"""Any JSON API: the policy says where queries, scores and labels are, as RFC 9535 paths.

A path to queries or scores matches once a row; a path that can match only once (`$.rows`) may lead to the list of all
rows. Scores that matched are a number, a list of numbers or an object of label -> score each. Under `fields: known`
nothing goes out but the scores, the labels and the containers around them. Without a path to queries a body is one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, cast

import numpy as np

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats, Ints
from guard.model.exchange import Call, Reply
from guard.model.nested import flatten
from guard.model.outputs import CLASS_KINDS
from guard.model.prediction import Answer, LabelSlot
from guard.model.queries import Queries
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import decode_reply, decode_request, encode, forwardable, require_utf8, too_many_rows, unreadable
from guard.wire.columns import Column, holds_floats, lone_score, numbers, several
from guard.wire.problem import problem_json
from guard.wire.row_lists import inside, list_queries, snapped_like, snapped_rows
from guard.wire.rows import add_column, label_of
from guard.wire.selectors import Node, Path, check_select, compile_path, outside, overlap, prune
from guard.wire.sparse import Ranked, add_groups, map_groups

__all__ = ["JsonApi", "check_select"]
Put = Callable[[list[object]], None]


@dataclass(slots=True)
class _Document:
    """A decoded request: its matches, and whether the only one is the list of all rows."""

    body: object
    nodes: list[Node]
    whole: bool


@dataclass(slots=True)
class _Body:
    """A decoded answer."""

    value: object
    bare_nan: bool


@dataclass(frozen=True)
class JsonApi:
    """An API of the author's own; its endpoints are the route's `match`.

    Args:
        reader: the route's outputs, fields and `select`.

    Raises:
        ValueError: `select` cannot be used.
    """

    name: ClassVar[str] = "json"
    reader: Reader
    endpoints: tuple[Endpoint, ...] = ()
    paths: dict[str, Path] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        wrong = check_select(self.reader.select)
        if wrong:
            raise ValueError("; ".join(wrong))
        object.__setattr__(self, "paths", {name: compile_path(text) for name, text in self.reader.select.items()})

    def read(self, call: Call) -> Reading:
        """Decode JSON; what `select.queries` matches are the rows."""
        if call.content_type not in ("", "application/json") and not call.content_type.endswith("+json"):
            raise ClientError("this API takes application/json", code="unsupported_media_type", status=415)
        require_utf8(call)
        body: object = decode_request(call.body)
        path = self.paths.get("queries")
        if path is None:
            canonical = Queries(1, [body]).row_bytes()[0]
            return Reading(Queries(1, None, opaque=canonical), forwardable(call.body, body))
        nodes = path.nodes(body, call.max_rows + 1)
        if len(nodes) > call.max_rows:
            raise too_many_rows()
        if not nodes or overlap(nodes):
            raise ClientError("the request has no queries where they should be", code="no_rows", path=path.text)
        document = _Document(body, nodes, path.singular and _is_batch(nodes[0].value))
        queries = _queries(document, path)
        queries.context = _context(document)
        return Reading(queries, forwardable(call.body, body), document=document)

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Put snapped numbers back where they were read."""
        document = cast("_Document | None", reading.document)
        if document is None:
            return reading.body
        nodes, values = document.nodes, reading.queries.values or ()
        if document.whole:
            new: list[object] = [snapped_rows(cast("list[object]", nodes[0].value), reading.queries, snapped)]
        else:
            new = snapped_like(values, snapped)
        if nodes[0].parent is None:
            return encode(new[0])
        for node, value in zip(nodes, new, strict=True):
            node.put(value)
        body = encode(document.body)
        for node in nodes:
            node.put(node.value)
        return body

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode JSON and read what `select.scores` and `select.labels` match."""
        del reading
        value, bare_nan = decode_reply(reply.body)
        root: list[object] = [value]
        scores, labels = self._nodes("scores", root), self._nodes("labels", root)
        if self.reader.outputs.kind == "labels":
            scores = []
        if overlap([*scores, *labels]):
            raise unreadable("the paths of select overlap in it")
        answer = Answer(0, _Body(root, bare_nan))
        if self.reader.fields == "known":
            answer.dropped += prune(root, [*scores, *labels])
        elif self._leaks(root, scores, labels):
            raise unreadable("it holds numbers beside those that select names")
        if scores:
            self._read_scores(scores, [node.value for node in labels], answer)
        if labels:
            self._read_labels(labels, answer)
        if not scores and not labels:
            raise unreadable("nothing stands where select says")
        return answer

    def _nodes(self, name: str, root: list[object]) -> list[Node]:
        path = self.paths.get(name)
        if path is None:
            return []
        nodes = path.nodes(root[0])
        # Below a list of one, so that the root has a place to write to as well.
        return [Node((0, *node.keys), node.value, root if node.parent is None else node.parent) for node in nodes]

    def _leaks(self, root: list[object], scores: list[Node], labels: list[Node]) -> bool:
        """Say whether lists of floating numbers, or copies of a score, stand outside what was selected."""
        rest = outside(root, [*scores, *labels])
        if any(isinstance(item, list) for item in rest):
            return True
        loose = [item for item in rest if isinstance(item, float)]
        known = [n for node in scores for n in _leaves(node.value) if isinstance(n, float)]
        return bool(loose and known and np.isclose(np.array(loose)[:, None], np.array(known), atol=1e-6).any())

    def _read_scores(self, nodes: list[Node], labels: list[object], answer: Answer) -> None:
        path, outputs = self.paths["scores"], self.reader.outputs
        whole = path.singular and _is_rows(
            nodes[0].value, outputs.kind == "value" or not self._is_vector(nodes[0].value)
        )
        values = cast("list[object]", nodes[0].value) if whole else [node.value for node in nodes]
        answer.rows = len(values)
        if not values:
            raise unreadable(f"{path.text} is empty in it")
        if isinstance(values[0], dict):
            named = outputs.model_copy(update={"tensors": (path.text,)})
            groups = map_groups(values, named, path.text)
            if groups is None:
                raise unreadable(f"{path.text} holds no {outputs.kind}")
            maps = cast("list[dict[str, object]]", values)
            add_groups(answer, path.text, groups, len(maps), partial(_put_map, maps))
            return
        matrix, _ = numbers(values, len(values))
        many = outputs.kind in CLASS_KINDS and several(values)
        if matrix is None or many or not outputs.accepts(matrix, complete=True, named=True):
            raise unreadable(f"{path.text} holds no {outputs.kind}")
        column = Column("scores", matrix)
        if matrix.shape[1] == 1 and outputs.kind == "probabilities":
            column = lone_score(matrix, [labels] if len(labels) == len(values) else [])
        put = nodes[0].put if whole else partial(_put_each, nodes)
        _add(answer, path.text, column, values, cast("Put", put))

    def _is_vector(self, value: object) -> bool:
        """Say whether a list of numbers is one row: were any taken for one, a batch could pass for a single query."""
        matrix, _ = numbers([value], 1)
        return matrix is not None and self.reader.outputs.accepts(matrix, complete=True, named=False)

    def _read_labels(self, nodes: list[Node], answer: Answer) -> None:
        path = self.paths["labels"]
        whole = path.singular and isinstance(nodes[0].value, list)
        values = cast("list[object]", nodes[0].value) if whole else [node.value for node in nodes]
        if any(
            isinstance(value, dict | list) or (holds_floats(value) and value % 1)
            for value in cast("list[float]", values)
        ):
            raise unreadable(f"{path.text} holds no labels")
        answer.rows = answer.rows or len(values)
        if len(values) != answer.rows:
            raise unreadable(f"{path.text} does not hold one label a row")
        put = cast("Put", nodes[0].put if whole else partial(_put_each, nodes))

        def write(tops: Ints) -> None:
            put([label_of(self.reader, int(top)) for top in tops])

        answer.labels.append(LabelSlot(path.text, write))

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer as JSON."""
        body = cast("_Body", answer.document)
        return b"application/json", encode(cast("list[object]", body.value)[0], bare_nan=body.bare_nan)

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return problem+json."""
        return problem_json(error)


def _context(document: _Document) -> bytes:
    """Return canonical bytes of the request without its queries."""
    if document.nodes[0].parent is None:
        return b""
    for node in document.nodes:
        node.put(None)
    context = Queries(1, [document.body]).row_bytes()[0]
    for node in document.nodes:
        node.put(node.value)
    return context


def _queries(document: _Document, path: Path) -> Queries:
    nodes = document.nodes
    if document.whole:
        return list_queries(cast("list[object]", nodes[0].value), _shown(nodes[0], path))
    rows = [node.value for node in nodes]

    def place(row: int, feature: int) -> str:
        return f"{_shown(nodes[row], path)}{inside(rows[row], feature)}"

    return Queries(len(rows), rows, place=place)


def _shown(node: Node, path: Path) -> str:
    """Return a match's place; names that are no words are not repeated."""
    if not all(isinstance(key, int) or key.isidentifier() for key in node.keys):
        return path.text
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in node.keys)


def _is_batch(value: object) -> bool:
    """Say whether a value holds several rows: a list of anything but numbers."""
    items: list[object] = cast("list[object]", value) if isinstance(value, list) else []
    return bool(items) and not {float, int, bool, type(None)}.issuperset(map(type, items))


def _is_rows(value: object, numbers_are_rows: bool) -> bool:
    return isinstance(value, list) and (_is_batch(cast("object", value)) or numbers_are_rows)


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for member in cast("dict[str, object]", value).values() for leaf in _leaves(member)]
    if isinstance(value, list):
        return [leaf for item in cast("list[object]", value) for leaf in _leaves(item)]
    return [value]


def _put_map(maps: list[dict[str, object]], row: int, ranked: Ranked) -> None:
    maps[row].clear()
    maps[row].update(ranked)


def _put_each(nodes: list[Node], values: list[object]) -> None:
    for node, value in zip(nodes, values, strict=True):
        node.put(value)


def _add(answer: Answer, name: str, role: Column, values: list[object], put: Put) -> None:
    flat = flatten(values)
    shape = (len(values),) if flat is None else flat[1]

    def write(scores: Floats) -> None:
        put(scores.reshape(shape).tolist())

    add_column(answer, name, role, write)
