"""YAML with file and line: what it reads, and what it refuses."""

from __future__ import annotations

import math

import pytest
import yaml

from guard.errors import PolicyError, Problem
from guard.policy.yamlmap import MAX_DEPTH, Node, locate, merge, path_of, read_yaml, resolve

LOADERS: list[type] = [yaml.SafeLoader, yaml.CSafeLoader]


def refused(text: str, loader: type = yaml.CSafeLoader) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        read_yaml(text, "p.yaml", loader)
    return caught.value.problems


def plain(node: Node) -> object:
    match node.value:
        case dict() as items:
            return {key: plain(item) for key, item in items.items()}
        case list() as items:
            return [plain(item) for item in items]
        case value:
            return value


def test_reads_maps_lists_and_scalars() -> None:
    root = read_yaml("a: 1\nb: [x, {c: true}]\nd:\n  - e: ~\n    f: 'on'\n", "p.yaml")
    assert plain(root) == {"a": 1, "b": ["x", {"c": True}], "d": [{"e": None, "f": "on"}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2027-01-31", "2027-01-31"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-7", -7),
        ("1_000", "1_000"),
        ("", None),
        ("null", None),
        ("False", False),
        ("-.inf", -math.inf),
        ("9" * 400, float("inf")),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert resolve(text) == value


def test_nan_is_nan() -> None:
    assert math.isnan(float(str(resolve(".nan"))))


def test_a_node_stands_on_the_line_of_its_key_and_an_item_on_its_own() -> None:
    root = read_yaml("a:\n\n  b:\n    - 1\n    - c: 2\n", "p.yaml")
    assert [locate(root, path).line for path in ("a", "a.b", "a.b[0]", "a.b[1]", "a.b[1].c")] == [1, 3, 4, 5, 5]


@pytest.mark.parametrize("path", ["a.zzz", "a.b[9]", "a.b.c", "a.b[0].x"])
def test_locating_what_is_missing_gives_the_nearest_node_above(path: str) -> None:
    root = read_yaml("a:\n  b: [1]\n", "p.yaml")
    assert locate(root, path).line in (1, 2)


def test_all_duplicate_keys_are_named_with_both_lines() -> None:
    problems = refused("a: 1\nb: {c: 1, c: {d: 1}}\nl:\n  - {x: 1, x: 2}\na: 3\n")
    assert [(p.path, p.line) for p in problems] == [("b.c", 2), ("l[0].x", 4), ("a", 5)]
    assert "first on line 1" in problems[2].hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: 2\n", "anchors"),
        ("b: *x\n", "aliases"),
        ("a: !!python/object:os.system 1\n", "tags"),
        ("a: !!int '3'\n", "tags"),
        ("? [a, b]\n: 1\n", "key must be a word"),
        ("1: x\n", "key 1 is not a word"),
        ("~: x\n", "not a word"),
        ("true: x\n", "not a word"),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("[" * (MAX_DEPTH + 1), "deeper"),
        ("a: [1\nb: 2\n", "not YAML"),
        ("a: \x07\n", "control character"),
        ("\tb: 1\n", "not YAML"),
        ("a: b: c\n", "not YAML"),
    ],
)
@pytest.mark.parametrize("loader", LOADERS)
def test_refuses(text: str, words: str, loader: type) -> None:
    problems = refused(text, loader)
    assert words in " ".join(f"{p.message} {p.hint}" for p in problems)
    assert all(p.file == "p.yaml" for p in problems)


@pytest.mark.parametrize("loader", LOADERS)
def test_half_a_character_is_refused(loader: type) -> None:
    assert refused('a: "\\ud800"\n', loader)


def test_a_syntax_error_names_line_and_column() -> None:
    (problem,) = refused("a: 1\nb: [1, 2\n")
    assert problem.line >= 2
    assert "column" in problem.message


def test_a_tab_gets_its_own_hint() -> None:
    (problem,) = refused("a:\n\tb: 1\n")
    assert "spaces" in problem.hint


def test_a_thousand_levels_do_not_exhaust_the_stack() -> None:
    assert "deeper" in refused("[" * 200_000)[0].message


def test_a_fatal_problem_keeps_the_duplicates_that_were_found_before() -> None:
    assert [p.path for p in refused("a: 1\na: 2\nb: *c\n")] == ["a", "b"]


def test_an_empty_file_is_nothing() -> None:
    assert read_yaml("# nothing\n", "p.yaml").value is None


def test_maps_merge_and_lists_replace() -> None:
    base = read_yaml("a: {x: 1, y: 2}\nl: [1, 2]\ns: 1\n", "base.yaml")
    over = read_yaml("a: {y: 3}\nl: [9]\ns: {t: 1}\n", "over.yaml")
    merged = merge(base, over)
    assert plain(merged) == {"a": {"x": 1, "y": 3}, "l": [9], "s": {"t": 1}}
    assert locate(merged, "a.x").file == "base.yaml"
    assert locate(merged, "a.y").file == "over.yaml"


def test_paths_are_written_as_in_messages() -> None:
    assert path_of(["a", 0, "b"]) == "a[0].b"
    assert path_of([]) == ""
