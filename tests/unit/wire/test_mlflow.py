"""MLflow: four JSON forms and CSV in, `predictions` out."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from guard.errors import ClientError, GuardError, UpstreamError
from guard.model.domain import Inputs
from guard.wire.base import Codec
from guard.wire.mlflow import Mlflow
from tests.support import recorded
from tests.support.codecs import asked, call, reader, release_labels, rendered, rewritten

Json = Any  # JSON of a foreign API
PATH = "/invocations"
KNOWN: Codec = Mlflow(reader())
ALL: Codec = Mlflow(reader("all"))
CSV = "text/csv"
GOOD = [
    case
    for case in recorded.cases("mlflow")
    if recorded.reply("mlflow", case).status == 200
    and recorded.request("mlflow", case)[0] == "POST"
    and case != "params"
]
FORMS: list[Json] = [
    {"dataframe_split": {"columns": ["b", "a"], "data": [[2, 1], [4, 3]]}},
    {"dataframe_records": [{"b": 2, "a": 1}, {"a": 3, "b": 4}]},
    {"instances": [{"b": 2, "a": 1}, {"a": 3, "b": 4}]},
    {"inputs": {"b": [2, 4], "a": [1, 3]}},
    {"instances": [[1, 2], [3, 4]]},
    {"inputs": [[1, 2], [3, 4]]},
    {"dataframe_split": {"data": [[1, 2], [3, 4]]}},
    b"b,a\n2,1\n4,3\n",
]
PLACES = [
    "dataframe_split.data[1][0]",
    "dataframe_records[1].b",
    "instances[1].b",
    "inputs.b[1]",
    "instances[1][1]",
    "inputs[1][1]",
    "dataframe_split.data[1][1]",
    "line 3, b",
]


def sent(body: Json, codec: Codec = KNOWN) -> Any:
    return codec.read(call(PATH, body, content_type=CSV if isinstance(body, bytes) else "application/json"))


@pytest.mark.parametrize(("body", "place"), list(zip(FORMS, PLACES, strict=True)))
def test_every_form_holds_the_same_queries_in_alphabetical_order(body: Json, place: str) -> None:
    queries = sent(body).queries
    assert queries.matrix().tolist() == [[1, 2], [3, 4]]
    assert queries.row_bytes() == sent(FORMS[0]).queries.row_bytes()
    assert queries.place(1, 1) == place
    assert queries.place(1, -1)


def test_the_order_of_columns_does_not_make_another_query() -> None:
    values = {"x": 1.5, "y": "red", "z": None}
    keys: set[bytes] = set()
    for names in itertools.permutations(values):
        row = [values[name] for name in names]
        keys.add(sent({"dataframe_split": {"columns": names, "data": [row]}}).queries.row_bytes()[0])
        keys.add(sent({"dataframe_records": [dict(zip(names, row, strict=True))]}).queries.row_bytes()[0])
        keys.add(sent(f"{','.join(names)}\n{','.join(str(v or 'NA') for v in row)}\n".encode()).queries.row_bytes()[0])
    assert len(keys) == 1


def test_snapped_numbers_go_back_to_their_columns() -> None:
    snapped = np.array([[1.0, 2.5], [3.5, 4.0]])
    expected: list[Json] = [
        {"dataframe_split": {"columns": ["b", "a"], "data": [[2.5, 1], [4, 3.5]]}},
        {"dataframe_records": [{"b": 2.5, "a": 1}, {"a": 3.5, "b": 4}]},
        {"instances": [{"b": 2.5, "a": 1}, {"a": 3.5, "b": 4}]},
        {"inputs": {"b": [2.5, 4], "a": [1, 3.5]}},
        {"instances": [[1, 2.5], [3.5, 4]]},
        {"inputs": [[1, 2.5], [3.5, 4]]},
        {"dataframe_split": {"data": [[1, 2.5], [3.5, 4]]}},
    ]
    for body, new in zip(FORMS, expected, strict=False):
        assert rewritten(KNOWN, sent(body), snapped) == new
    assert KNOWN.rewrite(sent(FORMS[-1]), snapped) == b"b,a\n2.5,1\n4,3.5\n"
    one = sent({"inputs": {"a": 1.2}})
    assert (one.queries.rows, one.queries.matrix(), one.queries.place(0, 0)) == (1, None, "inputs.a")
    assert rewritten(KNOWN, sent({"inputs": 1.2}), np.array([[1.0]])) == {"inputs": 1.0}


def test_a_missing_or_foreign_cell_is_named() -> None:
    inputs = Inputs(kind="vector", size=2, low=0, high=9)
    for body, place in (
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [1, None]]}}, "dataframe_split.data[1][1]"),
        ({"dataframe_split": {"columns": ["b", "a"], "data": [[99, 2]]}}, "dataframe_split.data[0][0]"),
        (b"a,b\n1,2\n1,\n", "line 3, b"),
        ({"inputs": {"a": [1], "b": [99]}}, "inputs.b[0]"),
    ):
        with pytest.raises(ClientError) as outside:
            inputs.admit(sent(body).queries)
        assert (outside.value.status, outside.value.path) == (422, place)


MALFORMED: list[Json] = [
    [],
    {},
    {"instances": 3},
    {"instances": []},
    {"instances": [1], "inputs": [2]},
    {"instances": [1], "signature_name": "raw"},
    {"instances": [1], "params": {"raw_scores": True}},
    {"inputs": []},
    {"dataframe_records": {}},
    {"dataframe_split": 3},
    {"dataframe_split": {"columns": ["a"]}},
    {"dataframe_split": {"columns": ["a"], "data": []}},
    {"dataframe_split": {"data": []}},
    {"dataframe_split": {"columns": "a", "data": [[1]]}},
    {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
    {"dataframe_split": {"columns": [0, "0"], "data": [[1, 2]]}},
    {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
    {"dataframe_split": {"columns": ["a"], "data": [1]}},
    {"dataframe_split": {"columns": ["a"], "data": [[1]], "dtype": "int8"}},
    {"dataframe_split": {"columns": ["a"], "data": [[1]], "index": [1, 2]}},
    {"dataframe_split": {"columns": ["a"], "data": [[1]], "index": 3}},
    b"",
    b"a,b\n",
    b"a,a\n1,2\n",
    b"a,b\n1\n",
    b'a\n"1\n',
    b"a\n\xff\n",
    b"a\n1\x00\n",
    b"a\n" + b"1" * 200_000,
]


@pytest.mark.parametrize("body", MALFORMED)
def test_what_cannot_be_read_is_a_client_error(body: Json) -> None:
    with pytest.raises(ClientError) as refused:
        sent(body)
    assert refused.value.status == 400


def test_params_need_all_fields() -> None:
    body = {"inputs": [[1, 2]], "params": {"temperature": 2}}
    assert sent(body, ALL).queries.rows == 1
    assert sent({"inputs": [[1, 2]], "params": {}}).queries.rows == 1
    with pytest.raises(ClientError) as refused:
        sent(body)
    assert (refused.value.code, refused.value.path) == ("unsupported_parameter", "params")


def test_csv_is_always_written_anew() -> None:
    reading = sent(b'"a","b"\r\n\r\n 1,"2"\r\n')
    assert reading.content_type == b"text/csv"
    assert reading.body.endswith(b" 1,2\n")
    assert reading.queries.matrix().tolist() == [[1, 2]]


@pytest.mark.parametrize("cell", ["", "NA", "nan", "null", " NaN ", "None"])
def test_all_spellings_of_a_missing_cell_are_one(cell: str) -> None:
    assert sent(f"a,b\n1,{cell}\n".encode()).queries.values == [[1.0, None]]


def test_other_content_types_and_character_sets_are_refused() -> None:
    for kind, header in (("text/html", "text/html"), ("application/json", "application/json; charset=utf-16")):
        request = call(PATH, {"inputs": [1]}, content_type=kind)
        request.headers = [(b"content-type", header.encode())]
        with pytest.raises(ClientError) as refused:
            KNOWN.read(request)
        assert refused.value.status == 415


@pytest.mark.parametrize(
    ("predictions", "rows"),
    [
        ([[0.25, 0.75], [0.5, 0.5]], 2),
        ([0.25, 0.75], 2),
        ([1, 0], 2),
        ([{"label": 1, "benign": 0.25, "malignant": 0.75}] * 2, 2),
        ([{"label": "a", "score": 0.75}] * 2, 2),
        ({"probs": [[0.25, 0.75], [0.5, 0.5]], "label": [1, 0]}, 2),
        ({"probs": [0.25, 0.75]}, 2),
        ({"benign": 0.25, "malignant": 0.75}, 1),
        (0.75, 1),
    ],
)
def test_answers_go_through_unchanged_and_know_their_rows(predictions: Json, rows: int) -> None:
    for codec in (KNOWN, ALL):
        read = asked(codec, PATH, FORMS[0], {"predictions": predictions})
        assert read.rows == rows
        assert rendered(codec, read) == {"predictions": predictions}


def test_members_beside_predictions() -> None:
    answer = {"predictions": [[0.25, 0.75]], "model": "m"}
    read = asked(KNOWN, PATH, FORMS[0], answer)
    assert (read.dropped, rendered(KNOWN, read)) == (["model"], {"predictions": [[0.25, 0.75]]})
    assert rendered(ALL, asked(ALL, PATH, FORMS[0], answer)) == answer


@pytest.mark.parametrize(
    "answer", [b"", [], [[0.25, 0.75]], {}, {"predictions": []}, {"predictions": "0.97"}, {"predictions": {"a": [7.5]}}]
)
def test_what_cannot_be_read_is_withheld(answer: Json) -> None:
    for codec in (KNOWN, ALL):
        with pytest.raises(UpstreamError) as withheld:
            asked(codec, PATH, FORMS[0], answer)
        assert withheld.value.code == "unreadable_answer"


def test_the_version_is_closed() -> None:
    access = {e.template: e.access for e in KNOWN.endpoints}
    assert (access["/version"], access["/ping"], access["/health"]) == ("closed", "status", "status")
    assert access["/endpoints/{name}/invocations"] == "scoring"


def test_errors_have_mlflows_envelope() -> None:
    assert json.loads(KNOWN.error(ClientError("no", status=422))[1]) == {
        "error_code": "INVALID_PARAMETER_VALUE",
        "message": "no",
    }
    assert json.loads(KNOWN.error(GuardError("x"))[1])["error_code"] == "INTERNAL_ERROR"


@pytest.mark.parametrize("case", GOOD)
def test_recorded_exchanges(case: str) -> None:
    _, request = recorded.request("mlflow", case)
    answer = recorded.reply("mlflow", case)
    codec = Mlflow(reader(kind="labels")) if case.startswith("labels") else KNOWN
    reading = codec.read(request)
    matrix = reading.queries.matrix()
    assert matrix is not None
    assert matrix.shape == (reading.queries.rows, 30)
    read = codec.answer(answer, reading)
    assert read.rows == reading.queries.rows
    assert rendered(codec, read) == json.loads(answer.body)
    release_labels(read)
    if case.startswith("records"):
        assert rendered(codec, read)["predictions"][0] == {"label": 0, "malignant": 1.0, "benign": 0.0}
    elif not case.startswith("labels"):
        assert rendered(codec, read)["predictions"][0] == [1.0, 0.0]


def test_recorded_params_are_refused() -> None:
    with pytest.raises(ClientError, match="params"):
        KNOWN.read(recorded.request("mlflow", "params")[1])


def test_recorded_forms_of_the_same_rows_are_the_same_queries() -> None:
    same = ("dataframe-split", "dataframe-records", "instances", "inputs", "csv", "csv-charset", "endpoint")
    keys = {tuple(KNOWN.read(recorded.request("mlflow", case)[1]).queries.row_bytes()) for case in same}
    assert len(keys) == 1
