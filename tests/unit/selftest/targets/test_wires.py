"""Requests as clients of each API write them, and real servers' recorded answers as clients read them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.selftest.targets.layout import Declared, Reading, look
from guard.selftest.targets.spec import TargetError
from guard.selftest.targets.wires import APIS, TensorWire, template_of, wire
from guard.wire.registry import API_NAMES, TEXT_APIS
from tests.support.recorded import reply

X = np.array([[1.0, 2.5], [3.0, 4.0]])
Json = Any  # Any: JSON


def test_every_api_that_guard_speaks_can_be_asked() -> None:
    assert set(APIS) == set(API_NAMES) - TEXT_APIS


@pytest.mark.parametrize(
    ("api", "path", "body"),
    [
        ("kserve_v1", "/v1/models/m:predict", {"instances": X.tolist()}),
        ("tensorflow_serving", "/v1/models/m:predict", {"instances": X.tolist()}),
        ("torchserve", "/predictions/m", {"instances": X.tolist()}),
        ("mlflow", "/invocations", {"inputs": X.tolist()}),
        ("sagemaker", "/invocations", {"instances": X.tolist()}),
        ("huggingface", "/models/m", {"inputs": X.tolist()}),
    ],
)
def test_rows_are_written_as_the_api_has_them(api: str, path: str, body: Json) -> None:
    made = wire(api, model="m")
    assert (made.path, made.content_type, made.one_row) == (path, "application/json", False)
    assert json.loads(made.encode(X)) == body
    assert json.loads(made.encode(["a", "b"])) == {next(iter(body)): ["a", "b"]}


def test_a_tensor_has_its_declared_name_type_and_shape() -> None:
    made = TensorWire("/v2/models/m/infer", "pixels", "INT64", (1, 2))
    assert json.loads(made.encode(np.array([[1.0, 2.0]])))["inputs"] == [
        {"name": "pixels", "datatype": "INT64", "shape": [1, 1, 2], "data": [1, 2]}
    ]
    assert json.loads(wire("open_inference", model="m").encode(np.array([[np.nan, 2.0]])))["inputs"] == [
        {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [None, 2.0]}
    ]
    assert json.loads(wire("open_inference", model="m").encode(["hi"]))["inputs"] == [
        {"name": "x", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
    ]


@pytest.mark.parametrize(
    ("template", "one_row", "body"),
    [
        ('{"dataframe_split": {"columns": ["a", "b"], "data": "$rows"}}', False,
         {"dataframe_split": {"columns": ["a", "b"], "data": X.tolist()}}),
        ('{"instances": [{"pixels": "$row"}]}', False, {"instances": [{"pixels": r} for r in X.tolist()]}),
        ('{"data": {"values": "$row"}}', True, {"data": {"values": [1.0, 2.5]}}),
    ],
)  # fmt: skip
def test_a_template_writes_any_other_request(template: str, one_row: bool, body: Json) -> None:
    made = wire("mlflow", template=template)
    assert made.one_row == one_row
    assert json.loads(made.encode(X)) == body


def test_csv_is_lines_of_numbers() -> None:
    made = wire("sagemaker", template="csv")
    assert (made.encode(X), made.content_type, made.one_row) == (b"1.0,2.5\n3.0,4.0\n", "text/csv", False)


def test_a_json_api_is_asked_where_its_route_says() -> None:
    select = {"queries": "$.rows[*].x", "scores": "$.y[*].p", "labels": "$.y[*].name"}
    made = wire("json", path="/score", select=select)
    assert json.loads(made.encode(X)) == {"rows": [{"x": [1.0, 2.5]}, {"x": [3.0, 4.0]}]}
    answer = {"y": [{"p": [0.2, 0.8], "name": "b", "seen": 7}, {"p": [0.6, 0.4], "name": "a", "seen": 9}]}
    raw = made.raw(json.dumps(answer).encode(), 2)
    assert raw == {"scores": [[0.2, 0.8], [0.6, 0.4]], "labels": ["b", "a"]}
    whole = wire("json", path="/score", select={"queries": "$['in']", "scores": "$.out"})
    assert json.loads(whole.encode(X)) == {"in": X.tolist()}
    assert whole.raw(b'{"out": [[0.2, 0.8], [0.6, 0.4]]}', 2) == {"scores": [[0.2, 0.8], [0.6, 0.4]]}
    assert whole.raw(b'{"out": [0.2, 0.8]}', 1) == {"scores": [[0.2, 0.8]]}
    with pytest.raises(ValueError, match="does not hold 2 rows"):
        whole.raw(b'{"elsewhere": []}', 2)


@pytest.mark.parametrize("path", ["$..x", "$.a[0].b", "$.a.b[*]['c'][*]", "", "x"])
def test_a_path_that_shows_no_request_asks_for_a_template(path: str) -> None:
    with pytest.raises(TargetError, match="--template"):
        template_of(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api": "grpc"}, "no API grpc"),
        ({"api": "kserve_v1"}, "--model"),
        ({"api": "json", "template": '{"a": "$rows"}'}, "--path"),
        ({"api": "json", "path": "/s", "template": '"$rows"', "select": {"scores": "y"}}, "no RFC 9535 path"),
        ({"api": "mlflow", "template": "{"}, "neither JSON nor csv"),
        ({"api": "mlflow", "template": '{"a": "$rows", "b": "$row"}'}, "once"),
        ({"api": "mlflow", "template": '{"a": 1}'}, "once"),
        ({"api": "mlflow", "path": "invocations"}, "no path"),
        ({"api": "mlflow", "path": "/{x}/y"}, "no path"),
        ({"api": "open_inference", "model": "m", "template": '"$rows"'}, "tensors"),
    ],
)
def test_what_cannot_be_asked_is_said(options: Json, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        wire(**options)


# Server, API, case, rows, what is found first, its shape, the first row's label or None.
RECORDED = [
    ("mlserver", "open_inference", "infer-batch-flat", 2, "predict_proba", (2, 10)),
    ("mlserver", "open_inference", "infer-batch-nested", 2, "predict_proba", (2, 10)),
    ("mlserver", "open_inference", "infer-gzip-answer", 9, "predict_proba", (9, 10)),
    ("triton", "open_inference", "infer-batch-flat", 2, "probabilities", (2, 10)),
    ("triton", "open_inference", "infer-batch-labels-first", 3, "probabilities", (3, 10)),
    ("triton", "open_inference", "classification-all", 2, "probabilities", (2, 10)),
    ("kserve", "open_inference", "v2-batch-flat", 2, "probabilities", (2, 10)),
    ("kserve", "kserve_v1", "v1-single", 1, "probabilities", (1, 10)),
    ("kserve", "kserve_v1", "v1-batch", 2, "probabilities", (2, 10)),
    ("kserve", "kserve_v1", "v1-batch-lists", 2, "predictions", (2, 10)),
    ("kserve", "kserve_v1", "v1-single-lists", 1, "predictions", (1, 10)),
    ("mlflow", "mlflow", "dataframe-split", 2, "predictions", (2, 2)),
    ("mlflow", "mlflow", "records-single", 1, "predictions", (1, 2)),
    ("mlflow", "mlflow", "records-batch", 2, "predictions", (2, 2)),
    ("torchserve", "torchserve", "single", 1, "scores", (1, 10)),
    ("torchserve", "torchserve", "list-of-one", 1, "scores", (1, 10)),
    ("torchserve", "torchserve", "list", 2, "scores", (2, 10)),
    ("tensorflow_serving", "tensorflow_serving", "predict-row-batch", 2, "predictions", (2, 10)),
    ("tensorflow_serving", "tensorflow_serving", "predict-row-single", 1, "predictions", (1, 10)),
    ("tensorflow_serving", "tensorflow_serving", "predict-row-objects", 2, "probabilities", (2, 10)),
    ("tensorflow_serving", "tensorflow_serving", "predict-row-bytes", 2, "probabilities", (2, 10)),
    ("tensorflow_serving", "tensorflow_serving", "predict-columnar", 2, "outputs", (2, 10)),
    ("tensorflow_serving", "tensorflow_serving", "predict-columnar-named", 2, "probabilities", (2, 10)),
    ("tensorflow_serving", "tensorflow_serving", "classify", 2, "result", (2, 6)),
    ("tensorflow_serving", "tensorflow_serving", "classify-key-results", 2, "results", (2, 6)),
    ("tensorflow_serving", "tensorflow_serving", "regress", 2, "results", (2, 1)),
    ("tensorflow_serving", "tensorflow_serving", "predict-row-values", 3, "predictions", (3, 1)),
    ("bentoml", "json", "classify-single", 1, "scores", (1, 10)),
    ("bentoml", "json", "classify-batch", 2, "scores", (2, 10)),
    ("bentoml", "json", "classify-json-batch", 2, "probabilities", (2, 10)),
    ("ray", "json", "single", 1, "probs", (1, 10)),
    ("ray", "json", "batch-longer", 60, "probs", (60, 10)),
]


@pytest.mark.parametrize(("server", "api", "case", "rows", "first", "shape"), RECORDED)
def test_real_answers_are_read(server: str, api: str, case: str, rows: int, first: str, shape: tuple[int, int]) -> None:
    made = wire(api, model="m", path="/x" if api == "json" else "", template='"$rows"' if api == "json" else "")
    body = reply(server, case).body
    layout = look([made.raw(body, rows)], Declared())
    found = Reading(made, layout).decode(body, rows)
    assert next(iter(found)) == layout.scores == first
    assert found[first].shape == shape
    if shape[1] > 1:
        np.testing.assert_allclose(found[first].sum(axis=1), 1.0, atol=0.02)
        for name in ("label", "predict", "classes"):
            if name in found:
                assert found[name][:, 0].tolist() == found[first].argmax(axis=1).tolist()
    with pytest.raises(ValueError, match="hold"):
        made.raw(body, rows + 1)


def test_classes_of_ranked_answers_keep_their_columns() -> None:
    made = wire("tensorflow_serving", model="m")
    body = reply("tensorflow_serving", "classify").body
    layout = look([made.raw(body, 2)], Declared())
    assert layout.labels == ("eight", "five", "four", "nine", "one", "zero")
    scores = Reading(made, layout).decode(body, 2)["result"]
    assert [layout.labels[column] for column in scores.argmax(axis=1)] == ["zero", "one"]
    assert layout.column("one") == 4


@pytest.mark.parametrize(
    ("server", "api", "case", "rows"),
    [("kserve", "kserve_v1", "v1-batch-labels", 2), ("mlserver", "open_inference", "infer-default-outputs", 2)],
)
def test_labels_alone_have_the_samples_classes(server: str, api: str, case: str, rows: int) -> None:
    made = wire(api, model="m")
    body = reply(server, case).body
    layout = look([made.raw(body, rows)], Declared(), list(range(10)))
    assert (layout.classes, layout.graded) == (10, False)
    assert Reading(made, layout).decode(body, rows)[layout.scores].tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("body", "rows", "expected"),
    [
        (b'[{"label":"POSITIVE","score":0.9},{"label":"NEGATIVE","score":0.1}]', 1,
         [{"NEGATIVE": 0.1, "POSITIVE": 0.9}]),
        (b'[[{"label":"POSITIVE","score":0.9},{"label":"NEGATIVE","score":0.1}]]', 1,
         [{"NEGATIVE": 0.1, "POSITIVE": 0.9}]),
        (b'[[{"label":"POSITIVE","score":0.9},{"label":"NEGATIVE","score":0.1}],'
         b'[{"label":"NEGATIVE","score":0.7},{"label":"POSITIVE","score":0.3}]]', 2,
         [{"NEGATIVE": 0.1, "POSITIVE": 0.9}, {"NEGATIVE": 0.7, "POSITIVE": 0.3}]),
        (b'[{"label":"POSITIVE","score":0.9},{"label":"NEGATIVE","score":0.7}]', 2,
         [{"NEGATIVE": 0.0, "POSITIVE": 0.9}, {"NEGATIVE": 0.7, "POSITIVE": 0.0}]),
    ],
)  # fmt: skip
def test_hugging_face_lists_are_read(body: bytes, rows: int, expected: Json) -> None:
    made = wire("huggingface")
    assert made.path == "/predict"
    layout = look([made.raw(body, rows)], Declared())
    found = Reading(made, layout).decode(body, rows)[layout.scores].tolist()
    assert [dict(zip(layout.labels, row, strict=True)) for row in found] == expected


@pytest.mark.parametrize(
    ("body", "rows", "member"),
    [
        (b'{"predictions":[{"score":0.8,"predicted_label":1},{"score":0.3,"predicted_label":0}]}', 2, "score"),
        (b'{"score":0.8}\n{"score":0.3}\n', 2, "score"),
        (b"0.8\n0.3\n", 2, "scores"),
    ],
)
def test_sagemaker_containers_are_read(body: bytes, rows: int, member: str) -> None:
    made = wire("sagemaker")
    layout = look([made.raw(body, rows)], Declared("probabilities"))
    assert (layout.classes, layout.lone) == (2, (member,))
    found = Reading(made, layout).decode(body, rows)[member]
    np.testing.assert_allclose(found, [[0.2, 0.8], [0.7, 0.3]])


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1,2", b'{"outputs": 3}', b'{"outputs": [{"name": "y"}]}', b"null"])
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="an answer"):
        wire("open_inference", model="m").raw(body, 2)
    with pytest.raises(ValueError, match="an answer"):
        wire("kserve_v1", model="m").raw(body, 2)
