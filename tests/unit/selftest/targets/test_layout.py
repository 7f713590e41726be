"""What answers mean: found out once, and kept through whatever a defence does to them."""

from __future__ import annotations

import numpy as np
import pytest

from guard.selftest.targets.answers import Raw
from guard.selftest.targets.layout import Declared, look, matrices
from guard.selftest.targets.spec import Layout, TargetError

SURE: Raw = {"p": [[0.1, 0.9], [0.7, 0.3]], "label": [1.0, 0.0]}


def test_columns_are_classes_where_labels_agree() -> None:
    assert look([SURE], Declared()) == Layout(2, scores="p")


def test_labels_that_count_from_elsewhere_become_columns() -> None:
    layout = look([{"p": [[0.1, 0.9, 0.0], [0.7, 0.3, 0.0]], "label": [2.0, 1.0]}], Declared())
    assert layout.numbers == (1, 2, 3)
    assert matrices({"label": [3.0, 1.0]}, layout)["label"].tolist() == [[2.0], [0.0]]
    assert (layout.column(3), layout.column(0)) == (2, None)


def test_a_whole_number_that_is_no_label_moves_no_class() -> None:
    layout = look([{"p": [[0.1, 0.9], [0.7, 0.3], [0.8, 0.2]], "leaves": [5.0, 7.0, 9.0]}], Declared())
    assert layout.numbers == ()


def test_the_policy_names_classes_and_members() -> None:
    raw: Raw = {"a": [[0.5, 0.5], [0.4, 0.6]], "b": [[0.1, 0.9], [0.7, 0.3]]}
    layout = look([raw], Declared("probabilities", ("b",), ("ham", "spam")))
    assert (layout.scores, layout.labels, layout.column("spam")) == ("b", ("ham", "spam"), 1)
    numbered = look([raw], Declared("probabilities", ("b",), (7, 9)))
    assert (numbered.numbers, numbered.column(9)) == ((7, 9), 1)


def test_logits_and_log_probabilities_read_as_probabilities() -> None:
    logits = look([{"z": [[3.0, -1.0], [-2.0, 5.0]]}], Declared("logits"))
    np.testing.assert_allclose(matrices({"z": [[0.0, 0.0]]}, logits)["z"], [[0.5, 0.5]])
    assert matrices({"z": [[0.0, 1.0]]}, logits)["z"].tolist() == [[0.0, 1.0]]
    logs = look([{"z": [[np.log(0.3), np.log(0.7)], [np.log(0.5), np.log(0.5)]]}], Declared("logprobs"))
    np.testing.assert_allclose(matrices({"z": [[np.log(0.1), np.log(0.9)]]}, logs)["z"], [[0.1, 0.9]])


def test_truncated_maps_and_labels_that_nobody_saw() -> None:
    layout = look([{"s": [{"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.1, "b": 0.8, "c": 0.1}]}], Declared())
    assert layout.labels == ("a", "b", "c")
    assert matrices({"s": [{"b": 0.9}, {"z": 1.0}]}, layout)["s"].tolist() == [[0.0, 0.9, 0.0], [0.0, 0.0, 0.0]]
    assert matrices({"s": ["b"], "t": ["z"]}, layout).keys() == {"s"}


def test_a_lone_probability_is_of_class_one_or_of_the_class_beside_it() -> None:
    one = look([{"score": [0.2, 0.9], "label": [0.0, 1.0]}], Declared())
    assert matrices({"score": [0.25]}, one)["score"].tolist() == [[0.75, 0.25]]
    top = look([{"score": [0.8, 0.9], "label": [0.0, 1.0]}], Declared())
    assert top.lone_is_top
    found = matrices({"score": [0.75, 0.75], "label": [0.0, 1.0]}, top)
    assert found["score"].tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_labels_alone() -> None:
    texts = look([{"label": ["cat", "dog"]}], Declared(), ["owl", "cat"])
    assert (texts.labels, texts.graded) == (("cat", "dog", "owl"), False)
    assert matrices({"label": ["owl"]}, texts)["label"].tolist() == [[2.0]]
    sparse = look([{"label": [10.0, 500.0]}], Declared())
    assert (sparse.classes, sparse.numbers) == (2, (10, 500))
    gap = look([{"label": [0.0, 3.0, 1.0]}], Declared())
    assert (gap.classes, gap.numbers) == (4, ())


def test_one_hot_scores_are_not_graded() -> None:
    assert not look([{"p": [[0.0, 1.0], [1.0, 0.0]]}], Declared()).graded


def test_a_value() -> None:
    assert look([{"y": [3.5, 4.0]}], Declared()) == Layout(1, scores="y")
    layout = look([{"out": [{"price": 3.5, "rooms": 2.0}, {"price": 4.0, "rooms": 3.0}]}], Declared("value"))
    assert layout.scores == "out.price"
    with pytest.raises(ValueError, match="not a finite number"):
        matrices({"y": [float("nan")]}, Layout(1, scores="y"))


def test_a_score_that_is_not_a_number_tells_nothing() -> None:
    assert matrices({"p": [[float("nan"), 0.4]]}, Layout(2, scores="p"))["p"].tolist() == [[0.0, 0.4]]


@pytest.mark.parametrize(
    ("raw", "declared", "message"),
    [
        ({"z": [[3.0, -1.0], [-2.0, 5.0]]}, Declared("probabilities"), "no probabilities were found.* hold z"),
        ({"p": [[0.2, 0.8]]}, Declared("value"), "no value"),
        ({"p": [[0.2, 0.8]]}, Declared("embedding"), "embeddings"),
        ({}, Declared(), "hold nothing"),
    ],
)
def test_answers_that_hold_nothing_to_attack_are_an_error(raw: Raw, declared: Declared, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        look([raw], declared)
