"""RFC 9535 paths (JSONPath) over decoded JSON: compiled once, and matches that can be written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, cast

from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError

NAMES = ("queries", "scores", "labels")
_ENVIRONMENT = JSONPathEnvironment(strict=True)
Key = str | int


@dataclass(slots=True)
class Node:
    """A match.

    Args:
        keys: the way from the root: member names and list positions.
        value: what stands there.
        parent: the container that holds it; None for the root.
    """

    keys: tuple[Key, ...]
    value: object
    parent: dict[str, object] | list[object] | None

    def put(self, value: object) -> None:
        """Replace the match in its container."""
        cast("dict[Key, object]", self.parent)[self.keys[-1]] = value


class SelectError(ValueError):
    """A path that cannot be used."""


@dataclass(frozen=True)
class Path:
    """A compiled path.

    Args:
        text: as the policy has it.
        compiled: the library's form of it.
        singular: it can only match once.
    """

    text: str
    compiled: JSONPath
    singular: bool

    def nodes(self, document: object, most: int | None = None) -> list[Node]:
        """Return the matches in document order, each place once; none in a document too deep to be searched.

        Args:
            document: decoded JSON.
            most: stop after so many.
        """
        found: dict[tuple[Key, ...], Node] = {}
        try:
            found_here = self.compiled.finditer(cast("Any", document))  # Any: the library's name for decoded JSON
            for match in islice(found_here, most):
                keys = match.parts
                parent = None if match.parent is None else match.parent.obj
                found[keys] = Node(keys, match.obj, cast("Any", parent))
        except (JSONPathError, RecursionError):
            return []
        return list(found.values())


@lru_cache(maxsize=256)
def compile_path(text: str) -> Path:
    """Compile an RFC 9535 path.

    Raises:
        SelectError: it is none.
    """
    try:
        compiled = _ENVIRONMENT.compile(text)
    except JSONPathError as error:
        reason = str(error.args[0]) if error.args else "it is not valid"
        raise SelectError(f"{text!r} is no RFC 9535 path: {reason}") from None
    path = cast("JSONPath", compiled)
    return Path(text, path, path.singular_query())


def check_select(select: Mapping[str, str]) -> list[str]:
    """Return what is wrong with `select`, a sentence each.

    >>> check_select({"scores": "$.y[*].p"}), check_select({"scores": "y"})
    ([], ["scores: 'y' is no RFC 9535 path: expected 'TOKEN_ROOT', found 'TOKEN_NAME'"])
    """
    wrong = [f"{name} is not one of {', '.join(NAMES)}" for name in select if name not in NAMES]
    if "scores" not in select and "labels" not in select:
        wrong.append("select must say where scores or labels are")
    for name, text in select.items():
        try:
            compile_path(text)
        except SelectError as error:
            wrong.append(f"{name}: {error}")
    return wrong


def overlap(nodes: Sequence[Node]) -> bool:
    """Say whether one match stands inside another, or twice."""
    keys = {node.keys for node in nodes}
    return len(keys) < len(nodes) or any(key[:i] in keys for key in keys for i in range(len(key)))


def prune(document: object, nodes: Sequence[Node]) -> list[str]:
    """Leave of a document the matches and the containers on the way to them; returns the names of the members left out.

    Members of objects go; items of lists become null, since the others must keep their places.
    """
    dropped: dict[str, None] = {}
    tree: dict[Key, Any] = {}  # Any: a tree of trees
    for node in nodes:
        branch = tree
        for key in node.keys:
            branch = branch.setdefault(key, {})
    stack: list[tuple[object, dict[Key, Any]]] = [(document, tree)]
    while stack:
        value, branch = stack.pop()
        if not branch:
            continue
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            for name in [name for name in members if name not in branch]:
                dropped[name] = None
                del members[name]
        else:
            items = cast("list[object]", value)
            for i in range(len(items)):
                if i not in branch and items[i] is not None:
                    items[i] = None
        container = cast("dict[Key, object]", value)
        stack += [(container[key], below) for key, below in branch.items()]
    return list(dropped)


def outside(document: object, nodes: Sequence[Node]) -> list[object]:
    """Return the scalars and the lists of numbers that stand outside the matches."""
    inside = {node.keys for node in nodes}
    found: list[object] = []
    stack: list[tuple[tuple[Key, ...], object]] = [((), document)]
    while stack:
        keys, value = stack.pop()
        if keys in inside:
            continue
        if isinstance(value, dict):
            stack += [((*keys, name), member) for name, member in cast("dict[str, object]", value).items()]
        elif isinstance(value, list):
            items = cast("list[object]", value)
            if float in map(type, items) and not any((*keys, i) in inside for i in range(len(items))):
                found.append(items)
            else:
                stack += [((*keys, i), item) for i, item in enumerate(items)]
        else:
            found.append(value)
    return found
