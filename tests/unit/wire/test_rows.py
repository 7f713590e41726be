"""Answers that are rows: columns of records, maps of label -> score, and their agreement after a change."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from guard.errors import UpstreamError
from guard.model.prediction import Answer, Prediction, Release
from guard.wire.base import Fields
from guard.wire.rows import read_columns, read_map, read_rows, rows_of
from guard.wire.sparse import group_rows, rank
from tests.support.codecs import one_hot, reader, release_labels

Json = Any  # decoded JSON


def read(items: list[Json], fields: Fields = "known", **outputs: Json) -> tuple[Answer, list[Json]]:
    answer = Answer(len(items), None)
    return answer, read_rows(items, reader(fields, **outputs), answer)


def halve(prediction: Prediction) -> None:
    prediction.write(Release(prediction.scores / 2))


def test_vectors_and_numbers_are_written_back_in_their_form() -> None:
    for items in ([[0.2, 0.8], [0.5, 0.5]], [[[0.2], [0.8]], [[0.5], [0.5]]], [[0.5], [0.75]], [0.5, 0.75]):
        answer, out = read(copy.deepcopy(items))
        (prediction,) = answer.predictions
        prediction.write(Release(prediction.scores))
        assert out == items


def test_a_two_class_number_takes_the_second_column() -> None:
    answer, out = read([0.9, 0.2])
    assert answer.predictions[0].shape == "two_class"
    release_labels(answer)
    assert out == [1.0, 0.0]


def test_no_rows_stay_no_rows() -> None:
    answer, out = read([])
    assert (answer.predictions, out) == ([], [])


@pytest.mark.parametrize(
    "items", [["0.97", "0.2"], [[7.5, 2.0]], [[0.5, 0.5], [1.0]], [None], [{}], [{"a": []}], [[0.5, 0.5], {}]]
)
def test_rows_without_scores_are_withheld(items: list[Json]) -> None:
    for fields in ("known", "all"):
        with pytest.raises(UpstreamError) as refused:
            read(copy.deepcopy(items), fields)
        assert refused.value.code == "unreadable_answer"


def test_records_keep_scores_and_labels_and_lose_the_rest() -> None:
    items = [
        {"label": 1, "probabilities": [0.1, 0.9], "confidence": 0.9, "leaf": 7, "hidden": [4.5, 2.0]} for _ in range(2)
    ]
    answer, out = read(items)
    assert sorted(answer.dropped) == ["hidden", "leaf"]
    assert [p.shape for p in answer.predictions] == ["fixed", "top_score"]
    assert out == [{"label": 1, "probabilities": [0.1, 0.9], "confidence": 0.9}] * 2


def test_labels_are_rewritten_by_class() -> None:
    answer, out = read([{"label": "cat", "p": [0.9, 0.1]}, {"label": "dog", "p": [0.2, 0.8]}], classes=["cat", "dog"])
    answer.labels[0].write(np.array([1, 0]))
    assert [item["label"] for item in out] == ["dog", "cat"]
    answer, out = read([3, 4])
    answer.labels[0].write(np.array([1, 0]))
    assert out == [1, 0]


def test_a_copy_of_the_scores_is_written_with_them() -> None:
    answer, out = read([{"probabilities": [0.2, 0.8], "scores": [0.2, 0.8]}])
    (prediction,) = answer.predictions
    halve(prediction)
    assert out == [{"probabilities": [0.1, 0.4], "scores": [0.1, 0.4]}]


def test_another_distribution_is_a_prediction_of_its_own() -> None:
    answer, _ = read([{"colour": [0.2, 0.8], "size": [0.5, 0.5]}])
    assert len(answer.predictions) == 2


def test_vectors_that_are_no_columns_beside_labels() -> None:
    answer, out = read([{"label": "cat", "score": 0.75}, {"label": "dog", "score": 0.5}], classes=["cat", "dog"])
    answer.labels[0].write(np.array([1, 1]))
    assert out == [{"label": "dog", "score": 0.75}, {"label": "dog", "score": 0.5}]


def test_a_distribution_spread_over_members_is_one_prediction() -> None:
    answer, out = read([{"label": 0, "malignant": 0.75, "benign": 0.25}])
    (prediction,) = answer.predictions
    assert (prediction.name, prediction.shape) == ("malignant+benign", "fixed")
    assert len(answer.labels) == 1
    release_labels(answer)
    assert out == [{"label": 0, "malignant": 1.0, "benign": 0.0}]


def test_a_spread_distribution_leads_its_top_score() -> None:
    answer, _ = read([{"prediction_label": 1, "prediction_score": 0.75, "p0": 0.25, "p1": 0.75}])
    assert [(p.name, p.shape) for p in answer.predictions] == [("p0+p1", "fixed"), ("prediction_score", "top_score")]
    assert [slot.name for slot in answer.labels] == ["prediction_label"]
    answer, _ = read([{"label": 1, "drift": 0.1, "p0": 0.25, "p1": 0.75}])
    assert [p.name for p in answer.predictions] == ["drift"]
    answer, _ = read([{"label": 0, "a": 0.75, "b": 0.25, "z": 0.5, "c": 3}], tensors=["a", "b"])
    assert [(p.name, p.shape) for p in answer.predictions] == [("a+b", "fixed")]
    answer, _ = read([{"label": 0, "a": 1.75, "b": 0.25}], kind="logits")
    assert [p.name for p in answer.predictions] == ["a"]


def test_maps_lose_what_was_dropped_and_are_ranked() -> None:
    answer, out = read([{"a": 0.1, "b": 0.7, "c": 0.2}])
    (prediction,) = answer.predictions
    assert (prediction.shape, prediction.complete, prediction.rows) == ("sparse", True, None)
    kept = np.array([[True, True, False]])
    prediction.write(Release(np.array([[0.5, 0.5, 0.0]]), kept))
    assert list(out[0].items()) == [("a", 0.5), ("b", 0.5)]


def test_maps_of_different_labels_are_one_prediction_when_equally_long() -> None:
    answer, out = read([{"a": 0.6, "b": 0.3}, {"c": 0.5, "d": 0.4}])
    (prediction,) = answer.predictions
    assert (prediction.complete, prediction.rows) == (False, None)
    release_labels(answer)
    assert out == [{"a": 1.0}, {"c": 1.0}]


def test_maps_of_different_lengths_know_their_rows() -> None:
    answer, out = read([{"a": 0.6, "b": 0.4}, {"c": 1.0}, {"d": 0.5, "e": 0.5}, {}])
    rows = [None if p.rows is None else p.rows.tolist() for p in answer.predictions]
    assert rows == [[0, 2], [1]]
    halve(answer.predictions[1])
    assert out == [{"a": 0.6, "b": 0.4}, {"c": 0.5}, {"d": 0.5, "e": 0.5}, {}]


def test_maps_of_which_one_is_no_distribution_register_nothing() -> None:
    answer = Answer(2, None)
    assert not read_map([{"a": 0.6, "b": 0.4}, {"c": 7.0}], reader(), answer, "p")
    assert not answer.predictions


@pytest.mark.parametrize(
    "item", [{"label": 0, "score": 0.4}, {"leaf": 3, "p": 0.4}, {"count": 0, "a": 0.4}, {"score": 0.5, "label": 0.5}]
)
def test_records_are_not_mistaken_for_maps(item: Json) -> None:
    assert not read_map([item], reader(), Answer(1, None), "p")


def test_maps_of_logits_and_one_hot_maps() -> None:
    assert read_map([{"a": 3, "b": -1.5}], reader(kind="logprobs"), Answer(1, None), "p") is False
    assert read_map([{"a": 3.5, "b": -1.5}], reader(kind="logits"), Answer(1, None), "p")
    assert read_map([{"a": 0, "b": 1}], reader(), Answer(1, None), "p")
    assert not read_map([{"a": 0.5, "b": 0.5}], reader(kind="value"), Answer(1, None), "p")
    assert not read_map([{"a": 0.5, "b": 0.5}], reader(tensors=["q"]), Answer(1, None), "p")
    assert read_map([{"label": 0.5, "b": 0.9}], reader(tensors=["p"]), Answer(1, None), "p")


def test_nested_maps_lead_labels_and_top_scores() -> None:
    answer, out = read([{"label": "a", "score": 0.9, "probabilities": {"a": 0.9, "b": 0.1}}])
    assert [p.shape for p in answer.predictions] == ["sparse", "top_score"]
    assert [slot.name for slot in answer.labels] == ["label"]
    answer.predictions[0].write(one_hot(answer.predictions[0].scores))
    assert out[0]["probabilities"] == {"a": 1.0}
    answer, _ = read([{"p": {"a": 0.9}}, {"p": {"a": 0.5, "b": 0.5}}])
    assert len(answer.predictions) == 2


def test_zero_shot_lists_are_ranked_together() -> None:
    item = {"sequence": "text", "labels": ["a", "b", "c"], "scores": [0.6, 0.3, 0.1]}
    answer, out = read([item])
    assert answer.dropped == ["sequence"]
    answer.predictions[0].write(Release(np.array([[0.4, 0.6, 0.0]]), np.array([[True, True, False]])))
    assert out == [{"labels": ["b", "a"], "scores": [0.6, 0.4]}]
    for labels in (["a"], [1, 2, 3], "abc"):
        answer, _ = read([{"labels": labels, "scores": [0.6, 0.3, 0.1]}])
        assert [p.shape for p in answer.predictions] == ["fixed"]
    with pytest.raises(UpstreamError):
        read([{**item, "scores": [7.0, 0.3, 0.1]}])
    answer, _ = read([item], tensors=["scores"])
    assert answer.predictions[0].shape == "sparse"


def test_members_of_some_rows_only() -> None:
    items = [{"p": [0.2, 0.8], "note": "x"}, {"p": [0.5, 0.5]}]
    answer, out = read(copy.deepcopy(items))
    assert (answer.dropped, out) == (["note"], [{"p": [0.2, 0.8]}, {"p": [0.5, 0.5]}])
    with pytest.raises(UpstreamError, match="some rows"):
        read(items, "all")


def test_all_fields_keeps_what_is_no_number() -> None:
    item = {"p": [0.2, 0.8], "note": {"leaf": 3}}
    answer, out = read([copy.deepcopy(item)], "all")
    assert (answer.dropped, out) == ([], [item])


def test_columns_of_as_many_rows_as_asked() -> None:
    columns: dict[str, Json] = {"probs": [[0.2, 0.8], [0.5, 0.5]], "label": [1, 0], "leaf": [9, 9]}
    answer = Answer(0, None)
    read_columns(columns, reader(), answer, 2)
    assert (answer.rows, answer.dropped, columns.keys()) == (2, ["leaf"], {"probs", "label"})
    release_labels(answer)
    answer.labels[0].write(np.array([1, 0]))
    assert columns == {"probs": [[0.0, 1.0], [1.0, 0.0]], "label": [1, 0]}
    with pytest.raises(UpstreamError, match="leaf"):
        read_columns({"leaf": [9, 9], "x": [3, 4]}, reader(), Answer(0, None), 2)
    alone = Answer(0, None)
    read_columns({"probs": [0.2, 0.8]}, reader(), alone, 1)
    assert alone.rows == 1


def test_a_list_of_numbers_is_one_row_only_if_it_is_a_vector() -> None:
    outputs = reader().outputs
    assert rows_of([0.2, 0.8], outputs, 1) == [[0.2, 0.8]]
    others: list[list[Json]] = [[0.9, 0.8], [0.5], [1, 0], [[0.2, 0.8]], ["a"], [None, None]]
    for items in others:
        assert rows_of(items, outputs, 1) is items
    assert rows_of([0.2, 0.8], outputs, 2) == [0.2, 0.8]
    assert rows_of([0.2, 0.8], reader(kind="value").outputs, 1) == [0.2, 0.8]
    assert rows_of([3.2, -0.8], reader(kind="embedding").outputs, 1) == [[3.2, -0.8]]


def test_ranks_follow_released_scores_and_then_labels() -> None:
    release = Release(np.array([[0.5, 0.5, 0.7]]))
    assert rank(["z", "a", "m"], release, 0) == [("m", 0.7), ("a", 0.5), ("z", 0.5)]


def test_empty_groups() -> None:
    assert group_rows([[]], [[]], reader().outputs, named=True) is None
    assert group_rows([["a"]], [[0.5]], reader(kind="value").outputs, named=True) is None


def test_spread_scores_leave_labels_to_their_slots() -> None:
    answer, out = read([{"label": 0, "a": 0.75, "b": 0.25}], classes=["x", "y"])
    answer.labels[0].write(np.array([1]))
    assert out == [{"label": "y", "a": 0.75, "b": 0.25}]


def test_of_two_numbers_that_are_no_distribution_one_goes_out() -> None:
    answer, out = read([{"score": 0.9, "drift": 0.3}])
    assert (answer.dropped, out, answer.predictions[0].shape) == (["drift"], [{"score": 0.9}], "two_class")
