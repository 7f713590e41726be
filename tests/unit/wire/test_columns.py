"""Roles of columns: what is a score, what repeats one, what nobody asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from guard.errors import UpstreamError
from guard.model.outputs import Outputs
from guard.wire.columns import Column, classify, holds_floats, numbers

Json = Any  # decoded JSON
PROBS = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]


def roles(columns: dict[str, Json], fields: Json = "known", rows: int = 2, **outputs: Json) -> dict[str, str]:
    found = classify(columns, rows, Outputs.model_validate(outputs), fields)
    return {name: column.role for name, column in found.items()}


def test_a_distribution_is_a_score_whatever_its_name() -> None:
    assert roles({"x17": PROBS}) == {"x17": "scores"}
    assert roles({"x17": np.array(PROBS)}) == {"x17": "scores"}


def test_hidden_layers_leaf_counts_and_texts_are_dropped() -> None:
    columns: dict[str, Json] = {
        "probabilities": PROBS,
        "hidden": [[3.2, -1.0], [0.4, 9.0]],
        "leaf": [17, 4],
        "predict_leaf": [17, 4],
        "nodes": [[1, 2], [3, 4]],
        "note": ["a", "b"],
        "mixed": [1, "a"],
        "objects": [{}, {}],
        "nothing": None,
        "elapsed": [0.01, 0.02],
    }
    found = roles(columns)
    assert found.pop("probabilities") == "scores"
    assert set(found.values()) == {"drop"}


@pytest.mark.parametrize("kind", ["logits", "embedding", "logprobs", "value"])
def test_of_several_vectors_of_a_kind_without_a_sum_one_goes_out(kind: str) -> None:
    hinted = {"logits": "logits", "embedding": "embedding", "logprobs": "logprobs", "value": "predictions"}[kind]
    vector = [[-3.0, -1.0], [-2.0, -4.0]]
    assert roles({"hidden": vector, hinted: vector}, kind=kind) == {"hidden": "drop", hinted: "scores"}
    assert roles({"a": vector, "b": vector}, kind=kind) == {"a": "scores", "b": "drop"}
    assert roles({"a": vector, "b": vector}, kind=kind, tensors=["b"]) == {"a": "drop", "b": "scores"}
    assert roles({"a": vector, "b": vector}, kind=kind, tensors=["a", "b"]) == {"a": "scores", "b": "scores"}


def test_a_value_may_be_whole_and_has_no_label() -> None:
    assert roles({"prediction": [3, 4], "std": [0.2, 0.3]}, kind="value") == {"prediction": "scores", "std": "drop"}
    assert roles({"a": [3, 4], "b": [0.2, 0.3]}, kind="value") == {"a": "drop", "b": "scores"}
    assert roles({"a": [3, 4]}, kind="value") == {"a": "scores"}


def test_whole_numbers_are_no_logits_beside_others() -> None:
    assert roles({"a": [[3, 4], [5, 6]], "logits": [[0.5, -2.0], [1.5, 3.0]]}, kind="logits")["a"] == "drop"
    assert roles({"label": [3, 4]}, kind="logits") == {"label": "label"}
    assert roles({"margin": [0.3, -4.0]}, kind="logits") == {"margin": "scores"}


def test_labels_are_found_by_name_and_by_agreement() -> None:
    assert roles({"p": PROBS, "label": [5, 6]})["label"] == "label"
    assert roles({"p": PROBS, "out": [0, 2]})["out"] == "label"
    assert roles({"p": PROBS, "out": [0, 1]})["out"] == "drop"
    assert roles({"p": PROBS, "class": ["cat", "dog"]})["class"] == "label"
    assert roles({"p": PROBS, "out": ["cat", "dog"]})["out"] == "drop"
    assert roles({"p": PROBS, "label": np.array(["cat", "dog"])})["label"] == "label"
    assert roles({"p": PROBS, "label": np.array([[0], [2]])})["label"] == "label"
    assert roles({"p": PROBS, "predicted_label": [0.0, 2.0]})["predicted_label"] == "label"


def test_declared_labels_are_the_only_ones() -> None:
    found = roles({"p": PROBS, "label": [5, 6], "out": [1, 2]}, labels=["out"])
    assert found == {"p": "scores", "label": "drop", "out": "label"}
    assert roles({"p": PROBS, "out": [0.5, 0.7]}, labels=["out"])["out"] == "drop"


@pytest.mark.parametrize("text", ["0.417371:7", "0.97", "97.2%", "cat (0.93)", "1e-05", ".5"])
def test_scores_written_as_text_are_no_labels(text: str) -> None:
    assert roles({"label": [text, "b"]}) == {"label": "drop"}
    with pytest.raises(UpstreamError, match="text"):
        roles({"label": [text, "b"]}, fields="all")


@pytest.mark.parametrize("text", ["cat", "1", "1.0", "v2", "LABEL_1", "Dr. No"])
def test_ordinary_words_are_labels(text: str) -> None:
    assert roles({"label": [text, "b"]}) == {"label": "label"}


def test_a_number_named_like_a_score_is_no_label() -> None:
    assert roles({"p": PROBS, "class_confidence": [97, 80]})["class_confidence"] == "drop"


def test_copies_of_the_top_score_follow_it() -> None:
    assert roles({"p": PROBS, "confidence": [0.7, 0.8]})["confidence"] == "top_score"
    assert roles({"p": PROBS, "best": [0.7, 0.8]})["best"] == "top_score"
    assert roles({"p": PROBS, "best": [0.7, 0.5]})["best"] == "drop"
    assert roles({"p": PROBS, "score": [7.0, 8.5]})["score"] == "drop"
    assert roles({"p": PROBS, "score": [0.7, 0.8]}, tensors=["p"])["score"] == "drop"
    assert roles({"p": PROBS, "score": [0.7, 0.8]}, tensors=["p", "score"])["score"] == "top_score"
    logits = [[3.0, 1.5], [2.0, 0.5]]
    found = roles(
        {"logits": logits, "top": [[3.0], [2.0]], "best": [[1.0], [2.5]]}, kind="logits", tensors=["logits", "top"]
    )
    assert found == {"logits": "scores", "top": "scores", "best": "drop"}


def test_one_probability_a_row_is_the_second_classes_unless_labels_say_otherwise() -> None:
    outputs = Outputs()
    alone = classify({"predictions": [0.9, 0.2]}, 2, outputs, "known")["predictions"]
    assert alone.role == "two_class"
    assert alone.scores is not None
    np.testing.assert_allclose(alone.scores, [[0.1, 0.9], [0.8, 0.2]])
    agreeing = classify({"score": [0.9, 0.2], "label": [1, 0]}, 2, outputs, "known")["score"]
    assert agreeing.role == "two_class"
    for labels in (["dog", "cat"], [0, 0]):
        column = classify({"score": [0.9, 0.8], "label": labels}, 2, outputs, "known")["score"]
        assert (column.role, column.complete) == ("scores", False)


def test_of_several_lone_numbers_the_best_named_one_goes_out() -> None:
    assert roles({"drift": [0.1, 0.2], "score": [0.9, 0.8]}) == {"drift": "drop", "score": "two_class"}
    assert roles({"a": [0.1, 0.2], "b": [0.9, 0.8]}) == {"a": "two_class", "b": "drop"}
    assert roles({"a": [0.1, 0.2], "b": [0.9, 0.8]}, tensors=["a", "b"]) == {"a": "two_class", "b": "two_class"}
    assert roles({"a": [3.1, 0.2]}) == {"a": "drop"}


def test_labels_written_as_floats() -> None:
    assert roles({"predictions": [7.0, 1.0]}) == {"predictions": "label"}
    assert roles({"predictions": [1.0, 0.0]}) == {"predictions": "two_class"}
    assert roles({"predictions": [1.0, 0.0]}, kind="labels") == {"predictions": "label"}
    assert roles({"predictions": [1.0, 0.5]}, kind="labels") == {"predictions": "drop"}
    assert roles({"score": [0.7, 0.9], "label": [1.0, 1.0]}) == {"score": "two_class", "label": "label"}


def test_kind_labels_lets_out_labels_alone() -> None:
    assert roles({"p": PROBS, "label": [0, 2]}, kind="labels") == {"p": "drop", "label": "label"}


def test_all_fields_refuses_floats_of_another_kind_and_keeps_the_rest() -> None:
    assert roles({"p": PROBS, "leaf": [17, 4], "note": ["a", "b"]}, fields="all") == {
        "p": "scores",
        "leaf": "keep",
        "note": "keep",
    }
    for hidden in ([[3.2, -1.0], [0.4, 9.0]], [{"a": [0.5]}, {}], np.array([[7.5], [1.0]]), [None, [0.5]]):
        with pytest.raises(UpstreamError) as refused:
            roles({"p": PROBS, "hidden": hidden}, fields="all")
        assert refused.value.code == "unreadable_answer"


def test_numbers_reads_null_as_nan_beside_numbers_only() -> None:
    matrix, floating = numbers([[0.5, None], [1, 2]], 2)
    assert floating
    assert matrix is not None
    assert np.isnan(matrix[0, 1])
    others: list[Json] = [
        [None, None],
        ["1", None],
        [[1], [2, 3]],
        [],
        [1],
        "ab",
        None,
        [[], []],
        [1, [2]],
        np.array(["a", "b"]),
    ]
    for values in others:
        assert numbers(values, 2) == (None, False)


def test_holds_floats_looks_everywhere() -> None:
    assert holds_floats({"a": [{"b": (1, 2.5)}]})
    assert holds_floats(np.array([1.5]))
    assert not holds_floats({"a": [1, "x", None, np.array([1])]})


def test_scores_found_elsewhere_are_the_principal() -> None:
    found = classify({"confidence": [0.7, 0.8]}, 2, Outputs(), "known", np.array(PROBS))
    assert found["confidence"].role == "top_score"
    assert found["confidence"] != Column("drop")
