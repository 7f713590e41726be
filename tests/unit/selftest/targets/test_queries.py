"""The operator's file of rows: what it may hold, and what is said when it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.selftest.targets.knowledge import Prepared, prepare
from guard.selftest.targets.queries import MAX_ROWS, read_rows
from guard.selftest.targets.spec import Files, Layout, TargetError

Json = Any  # Any: JSON
THREE = Layout(3, scores="p")


def write(folder: Path, lines: list[Json], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def rows(n: int, **more: Json) -> list[Json]:
    return [{"x": [float(i), float(i % 7)], **more} for i in range(n)]


def test_lists_texts_and_objects(tmp_path: Path) -> None:
    plain = read_rows(write(tmp_path, [[1, 2.5], [3, 4]]), 2)
    assert (np.asarray(plain.x).tolist(), plain.y, plain.size) == ([[1.0, 2.5], [3.0, 4.0]], None, 2)
    texts = read_rows(write(tmp_path, ['"hi"', "", {"x": "there"}]), 2)
    assert (texts.x, texts.size, texts.lines) == (["hi", "there"], 0, (1, 3))
    labelled = read_rows(write(tmp_path, [{"x": [1], "y": "a", "member": True}, {"x": [2], "y": True}]), 2)
    assert (labelled.y, labelled.member) == (("a", 1), (True, None))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: this is not JSON"),
        ("[1, NaN]", "line 2: this is not JSON"),
        ("[1, 1e400]", "line 2: "),
        ([1, 2, 3], "line 2: 3 features, and line 1 has 2"),
        ([1, None], r"line 2: x\[1\] is missing"),
        ([1, "2"], r"line 2: x\[1\] is no number"),
        ([1, True], r"line 2: x\[1\] is no number"),
        ([[1, 2], [3, 4]], r"line 2: x\[0\] is a list: rows are flat"),
        ([], "line 2: the row is empty"),
        ('""', "line 2: the text is empty"),
        ("7", "line 2: a row is a list of numbers or a text"),
        ('"text"', "line 2: a text, and line 1 is a list of numbers"),
        ({"y": 1}, "line 2: an object needs x"),
        ({"x": [1, 2], "z": 1}, "line 2: z: an object has"),
        ({"x": [1, 2], "y": [1]}, "line 2: y is one label"),
        ({"x": [1, 2], "member": 1}, "line 2: member is true or false"),
        ({"x": [1, 2], "y": 1}, "line 2: a y, unlike line 1"),
    ],
)
def test_a_wrong_line_is_named(line: Json, message: str, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=message):
        read_rows(write(tmp_path, [[1, 2], line]), 1)


def test_many_wrong_lines_are_counted(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        read_rows(write(tmp_path, ["{"] * 12))
    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1].endswith("7 more lines are wrong")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be read: No such file"):
        read_rows(str(tmp_path / "none"))
    with pytest.raises(TargetError, match="has 39 rows, and at least 40"):
        read_rows(write(tmp_path, rows(39)))
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(TargetError, match="larger than 64 MB"):
        read_rows(str(big))
    assert len(read_rows(write(tmp_path, ["[1]"] * (MAX_ROWS + 5)))) == MAX_ROWS


def prepared(folder: Path, lines: list[Json], layout: Layout = THREE, seed: int = 0, **files: str) -> Prepared:
    return prepare(Files(write(folder, lines), **files), layout, "toy", seed)


def test_halves_are_disjoint_and_repeatable(tmp_path: Path) -> None:
    one = prepared(tmp_path, [{"x": [i, i % 7], "y": i % 3} for i in range(60)])
    own, held = np.asarray(one.knows.own_x), np.asarray(one.held_x)
    assert (own.shape, held.shape) == ((30, 2), (30, 2))
    assert {*own[:, 0], *held[:, 0]} == set(range(60))
    assert (one.knows.low.tolist(), one.knows.high.tolist()) == ([0, 0], [59, 6])
    np.testing.assert_array_equal(one.held_y, held[:, 0] % 3)
    np.testing.assert_array_equal(one.knows.own_y, own[:, 0] % 3)
    files = Files(str(tmp_path / "rows.jsonl"))
    prepare.cache_clear()
    np.testing.assert_array_equal(prepare(files, THREE, "toy", 0).held_x, held)
    assert not np.array_equal(prepare(files, THREE, "toy", 1).held_x, held)
    assert len(prepare(files, THREE, "toy", 1, 10).held_x) == 10


def test_labels_become_columns(tmp_path: Path) -> None:
    lines = [{"x": [i], "y": ["ham", "spam"][i % 2]} for i in range(40)]
    found = prepared(tmp_path, lines, Layout(2, ("ham", "spam")))
    np.testing.assert_array_equal(found.held_y, np.asarray(found.held_x)[:, 0] % 2)
    prepare.cache_clear()
    counted = prepared(tmp_path, [{"x": [i], "y": 1 + i % 3} for i in range(40)])
    np.testing.assert_array_equal(counted.held_y, np.asarray(counted.held_x)[:, 0] % 3)
    prepare.cache_clear()
    value = prepared(tmp_path, [{"x": [i], "y": i / 2} for i in range(40)], Layout(1))
    np.testing.assert_array_equal(value.held_y, np.asarray(value.held_x)[:, 0] / 2)


@pytest.mark.parametrize(
    ("label", "layout", "message"),
    [
        ("zebra", Layout(2, ("cat", "dog")), r"line 40: the label 'zebra' is none of the model's classes \(cat, dog\)"),
        (7, THREE, r"line 40: the label 7 is none of the model's classes \(0, 1, 2\)"),
        (1.5, THREE, "line 40: the label 1.5"),
        ("x", Layout(1), "line 40: the model answers a value, and y is a text"),
    ],
)
def test_a_label_that_the_model_has_not_is_named(label: object, layout: Layout, message: str, tmp_path: Path) -> None:
    good = layout.labels[0] if layout.labels else 0
    with pytest.raises(TargetError, match=message):
        prepared(tmp_path, [{"x": [i], "y": good if i < 39 else label} for i in range(40)], layout)


def test_candidates_come_from_the_rows_or_from_files(tmp_path: Path) -> None:
    lines = rows(50, y=1) + [{"x": [100.0 + i, 1], "y": 2, "member": i % 2 == 0} for i in range(60)]
    found = prepared(tmp_path, lines)
    x = np.asarray(found.knows.extra["candidates_x"])
    assert found.members is not None
    assert (len(x), int(found.members.sum())) == (60, 30)
    np.testing.assert_array_equal(found.members, x[:, 0] % 2 == 0)
    assert np.asarray(found.knows.extra["candidates_y"]).tolist() == [2] * 60
    assert np.asarray(found.knows.own_x)[:, 0].max() < 50 > np.asarray(found.held_x)[:, 0].max()
    prepare.cache_clear()
    inside = write(tmp_path, [[1000, 1]] * 41, "in.jsonl")
    outside = write(tmp_path, [[2000, 1]] * 43, "out.jsonl")
    other = prepared(tmp_path, rows(50), members=inside, non_members=outside)
    assert other.members is not None
    assert np.asarray(other.knows.extra["candidates_x"])[other.members][:, 0].tolist() == [1000.0] * 41
    assert "candidates_y" not in other.knows.extra


def test_rows_that_cannot_be_shared_out(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="has 39 rows that do not say member"):
        prepared(tmp_path, rows(39) + rows(5, member=True))
    with pytest.raises(TargetError, match="every row is the same"):
        prepared(tmp_path, [[1, 2]] * 40, Layout(3, scores="q"))
    short = write(tmp_path, [[1]], "in.jsonl")
    with pytest.raises(TargetError, match=r"rows of 1, and .* has 2"):
        prepared(tmp_path, rows(50), members=short, non_members=short)


def test_texts_have_no_ranges(tmp_path: Path) -> None:
    found = prepared(tmp_path, [json.dumps(f"message {i}") for i in range(40)])
    assert (found.knows.kind, found.knows.size, len(found.knows.own_x), found.knows.low.shape) == ("text", 0, 20, (0,))
