"""YAML as nodes that remember their file and line.

Scalars follow YAML 1.2's core schema, so `on` and `1:30` are texts and `1e-3` is a number. Anchors, aliases, tags,
several documents and keys that are not words are refused: a policy says one thing in one way, and nothing expands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import yaml

from guard.errors import PolicyError, Problem

Scalar = str | int | float | bool | None
Step = str | int

MAX_DEPTH = 32
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_PREFIXED = re.compile(r"0o[0-7]{1,60}|0x[0-9a-fA-F]{1,60}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a YAML file and where it stands.

    Args:
        value: a scalar, nodes by key, or a list of nodes.
        file: the file's path.
        line: from 1; the line of its key when it has one.
    """

    value: Scalar | dict[str, Node] | list[Node]
    file: str
    line: int


@dataclass(slots=True)
class _Frame:
    """A map or list that is being read; `key` is None where the next scalar is a key."""

    items: dict[str, Node] | list[Node]
    line: int
    key: str | None = None
    key_line: int = 0
    ignored: set[str] = field(default_factory=set[str])


def read_yaml(text: str, file: str, loader: type = _LOADER) -> Node:
    """Read one document.

    Args:
        text: the file's text.
        file: its name, for messages and nodes.
        loader: PyYAML's, in C or in Python.

    Raises:
        PolicyError: what cannot be read, with line and column; all duplicate keys at once.
    """
    try:
        events = cast("Iterator[yaml.Event]", yaml.parse(text, Loader=loader))  # pyright: ignore[reportUnknownMemberType]
        return _Builder(file).build(events)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        what = " ".join(str(part) for part in (error.context, error.problem) if part)
        if "nesting depth" in what:  # newer releases of PyYAML stop by themselves, before our own bound is reached
            raise PolicyError([_too_deep(line, file)], file) from error
        message = f"this is not YAML: {what} (column {column})"
        tab = re.match(r"\s*\t", "".join(text.splitlines()[line - 1 : line]))
        hint = "indent with spaces" if tab else "a text that holds ': ' or '#', or starts with a sign, needs quotes"
        raise PolicyError([Problem(message, line=line, hint=hint, file=file)], file) from error
    except yaml.YAMLError as error:
        raise PolicyError([Problem("this is not YAML: it holds a control character", file=file)], file) from error


def _too_deep(line: int, file: str) -> Problem:
    return Problem(f"nested deeper than {MAX_DEPTH} levels", line=line, file=file)


class _Builder:
    """Turns parser events into nodes without recursion, so that depth is bounded by `MAX_DEPTH` alone."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.stack: list[_Frame] = []
        self.root: Node | None = None
        self.problems: list[Problem] = []

    def build(self, events: Iterator[yaml.Event]) -> Node:
        for event in events:
            line = event.start_mark.line + 1 if event.start_mark else 0
            match event:
                case yaml.AliasEvent():
                    raise self._fatal(
                        "aliases (*) are not part of the policy language", line, "write it out, or use extends"
                    )
                case yaml.DocumentStartEvent() if self.root is not None:
                    raise self._fatal("one file holds one document", line, "drop everything from the second --- on")
                case yaml.ScalarEvent() | yaml.CollectionStartEvent():
                    self._refuse_extras(event, line)
                    if isinstance(event, yaml.ScalarEvent):
                        self._scalar(event, line)
                    else:
                        self._open(event, line)
                case yaml.CollectionEndEvent():
                    frame = self.stack.pop()
                    self._place(Node(frame.items, self.file, frame.line))
                case _:
                    pass
        if self.problems:
            raise PolicyError(self.problems, self.file)
        return self.root or Node(None, self.file, 1)

    def _refuse_extras(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        if event.anchor is not None:
            raise self._fatal("anchors (&) are not part of the policy language", line, "write it out, or use extends")
        if event.tag is not None:
            raise self._fatal("tags (!) are not part of the policy language", line, "drop the tag")

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> None:
        frame = self.stack[-1] if self.stack else None
        if frame is not None and isinstance(frame.items, dict) and frame.key is None:
            raise self._fatal("a key must be a word", line, "a list or map cannot be a key")
        if len(self.stack) >= MAX_DEPTH:
            deep = _too_deep(line, self.file)
            raise self._fatal(deep.message, line, deep.hint)
        items: dict[str, Node] | list[Node] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self.stack.append(_Frame(items, line))

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        text: str = event.value
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise self._fatal("half of a surrogate pair is not a character", line, "")
        value = resolve(text) if event.implicit[0] else text
        frame = self.stack[-1] if self.stack else None
        if frame is None and not text:
            line = 1  # an empty document stands nowhere: PyYAML's two scanners give it different lines
        if frame is None or isinstance(frame.items, list) or frame.key is not None:
            self._place(Node(value, self.file, line))
            return
        if not isinstance(value, str):
            raise self._fatal(f"the key {text or '(empty)'} is not a word", line, "keys are words, such as name")
        frame.key, frame.key_line = value, line
        if value in frame.items:
            first = frame.items[value].line
            path = path_of(self._steps())
            self.problems.append(
                Problem(f"{value} stands here twice", path, line, f"first on line {first}: keep one", self.file)
            )
            frame.ignored.add(value)

    def _place(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        if isinstance(frame.items, list):
            frame.items.append(node)
        elif frame.key is not None:
            if frame.key not in frame.ignored:
                frame.items[frame.key] = Node(node.value, self.file, frame.key_line)
            frame.key = None

    def _steps(self) -> list[Step]:
        steps: list[Step] = []
        for frame in self.stack:
            step = len(frame.items) if isinstance(frame.items, list) else frame.key
            steps += [] if step is None else [step]
        return steps

    def _fatal(self, message: str, line: int, hint: str) -> PolicyError:
        path = path_of(self._steps())
        return PolicyError([*self.problems, Problem(message, path, line, hint, self.file)], self.file)


def resolve(text: str) -> Scalar:
    """Return what a plain scalar means under YAML 1.2's core schema.

    >>> resolve("1e-3"), resolve("on"), resolve("0x10"), resolve("~")
    (0.001, 'on', 16, None)
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def merge(base: Node, over: Node) -> Node:
    """Return `over` on top of `base`: maps merge, everything else is replaced."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    value = dict(base.value)
    for key, node in over.value.items():
        value[key] = merge(value[key], node) if key in value else node
    return Node(value, over.file, over.line)


def path_of(steps: list[Step]) -> str:
    """Return steps as a path.

    >>> path_of(["routes", 0, "defences", 1, "k"])
    'routes[0].defences[1].k'
    """
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).lstrip(".")


def locate(root: Node, path: str) -> Node:
    """Return the node at `path`, or the nearest one above it that exists."""
    node = root
    for index, key in re.findall(r"\[(\d+)\]|([^.\[]+)", path):
        if isinstance(node.value, list) and index and int(index) < len(node.value):
            node = node.value[int(index)]
        elif isinstance(node.value, dict) and key in node.value:
            node = node.value[key]
        else:
            break
    return node
