from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.errors import ClientError, UpstreamError
from guard.model.domain import Inputs
from guard.model.prediction import Release
from guard.wire.base import Codec
from guard.wire.tensorflow_serving import TensorFlowServing
from tests.support import recorded
from tests.support.codecs import asked, call, reader, release_labels, rendered, reply, rewritten

Json = Any  # JSON of a foreign API, deliberately wrong in many cases
PREDICT, CLASSIFY, REGRESS = (f"/v1/models/m:{verb}" for verb in ("predict", "classify", "regress"))
KNOWN: Codec = TensorFlowServing(reader())
ALL: Codec = TensorFlowServing(reader("all"))
VALUE: Codec = TensorFlowServing(reader(kind="value"))
ROWS = {"instances": [[1.0, 2.0], [3.0, 4.0]]}
COLUMNS = {"inputs": {"b": [1, 2], "a": [[3, 4.5], [5, 6]]}}
EXAMPLES = {"examples": [{"x": 1.0}, {"x": [2.0]}]}
P, Q = [0.2, 0.5, 0.3], [0.7, 0.1, 0.2]
MALFORMED: list[tuple[str, Json]] = [
    (PREDICT, b"{"),
    (PREDICT, []),
    (PREDICT, {}),
    (PREDICT, {**ROWS, "inputs": [1]}),
    (PREDICT, {"instances": []}),
    (PREDICT, {"inputs": []}),
    (PREDICT, {"inputs": 1.0}),
    (PREDICT, {"inputs": {}}),
    (PREDICT, {"inputs": {"a": 1}}),
    (PREDICT, {"inputs": {"b64": "QQ=="}}),
    (PREDICT, {"inputs": {"a": [1], "b": [1, 2]}}),
    (PREDICT, {**ROWS, "signature_name": 7}),
    (CLASSIFY, {}),
    (CLASSIFY, {"examples": {}}),
    (CLASSIFY, {"examples": []}),
    (CLASSIFY, {"examples": [1]}),
    (CLASSIFY, {**EXAMPLES, "context": []}),
    (CLASSIFY, {**EXAMPLES, "context": {"x": 1}}),
    (REGRESS, {"instances": [1]}),
]
UNREADABLE: list[tuple[str, Json, Json]] = [
    (PREDICT, ROWS, b"oops"),
    (PREDICT, ROWS, []),
    (PREDICT, ROWS, {"outputs": [P, Q]}),
    (PREDICT, ROWS, {"predictions": []}),
    (PREDICT, ROWS, {"predictions": [P]}),
    (PREDICT, COLUMNS, {"predictions": [P, Q]}),
    (PREDICT, COLUMNS, {"outputs": []}),
    (PREDICT, COLUMNS, {"outputs": 0.5}),
    (PREDICT, COLUMNS, {"outputs": [P]}),
    (PREDICT, COLUMNS, {"outputs": {"h": [[5.0, 7.0], [1.0, 2.0]]}}),
    (PREDICT, COLUMNS, {"outputs": {"n": ["0.93", "0.94"]}}),
    (CLASSIFY, EXAMPLES, {}),
    (CLASSIFY, EXAMPLES, {"result": [], "results": []}),
    (CLASSIFY, EXAMPLES, {"result": [], "results": [[["a", 1]], [["a", 1]]]}),
    (CLASSIFY, EXAMPLES, {"result": [[["a", 0.5]]]}),
    (CLASSIFY, EXAMPLES, {"result": [[["a", 0.5]], []]}),
    (CLASSIFY, EXAMPLES, {"result": [[["a", 0.5]], [0.5]]}),
    (CLASSIFY, EXAMPLES, {"result": [[["a", 0.5]], [["b", True]]]}),
    (CLASSIFY, EXAMPLES, {"result": [[["a", 0.5]], [["b", "0.5"]]]}),
    (CLASSIFY, EXAMPLES, {"result": [[["a", 7.5]], [["b", 0.5]]]}),
    (REGRESS, EXAMPLES, {"result": [[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]]}),
    (REGRESS, EXAMPLES, {"result": [5.5, 7.5]}),
]


@pytest.mark.parametrize(("path", "document"), MALFORMED)
@pytest.mark.parametrize("codec", [KNOWN, ALL])
def test_malformed_request_is_400(codec: Codec, path: str, document: Json) -> None:
    with pytest.raises(ClientError) as caught:
        codec.read(call(path, document))
    assert caught.value.status == 400


@pytest.mark.parametrize(("path", "document", "answer"), UNREADABLE)
def test_unreadable_answer_is_withheld(path: str, document: Json, answer: Json) -> None:
    with pytest.raises(UpstreamError) as caught:
        asked(KNOWN, path, document, answer)
    assert caught.value.code == "unreadable_answer"


class TestSignature:
    @pytest.mark.parametrize("name", ["logits", "serving_default_raw", "", "classify"])
    def test_another_signature_is_refused(self, name: str) -> None:
        with pytest.raises(ClientError) as caught:
            KNOWN.read(call(PREDICT, {**ROWS, "signature_name": name}))
        assert caught.value.code == "signature_closed"
        assert ALL.read(call(PREDICT, {**ROWS, "signature_name": name})).queries.rows == 2

    def test_usual_signatures_pass(self) -> None:
        for path, document, name in (
            (PREDICT, ROWS, "serving_default"),
            (CLASSIFY, EXAMPLES, "tensorflow/serving/classify"),
            (REGRESS, EXAMPLES, "tensorflow/serving/regress"),
        ):
            asked_ = call(path, {"signature_name": name, **document})
            assert KNOWN.read(asked_).body is asked_.body


class TestColumns:
    def test_features_stand_in_the_order_of_the_names(self) -> None:
        asked_ = call(PREDICT, COLUMNS)
        reading = KNOWN.read(asked_)
        assert reading.body is asked_.body
        np.testing.assert_array_equal(reading.queries.matrix(), [[3, 4.5, 1], [5, 6, 2]])
        places = [reading.queries.place(1, 1), reading.queries.place(1, 2), reading.queries.place(0, -1)]
        assert places == ["inputs.a[1][1]", "inputs.b[1]", "inputs"]

    def test_rewrite_keeps_the_form(self) -> None:
        reading = KNOWN.read(call(PREDICT, COLUMNS))
        sent = rewritten(KNOWN, reading, np.array([[3.0, 4.0, 1.0], [5.0, 6.0, 3.0]]))
        assert json.dumps(sent) == json.dumps({"inputs": {"b": [1, 3], "a": [[3.0, 4.0], [5.0, 6.0]]}})
        reading = KNOWN.read(call(PREDICT, {"inputs": [[1.2], [2.2]], "signature_name": "serving_default"}))
        sent = rewritten(KNOWN, reading, np.array([[1.0], [2.0]]))
        assert sent == {"inputs": [[1.0], [2.0]], "signature_name": "serving_default"}

    def test_one_column_is_named_by_its_path(self) -> None:
        with pytest.raises(ClientError) as caught:
            Inputs(high=3).admit(KNOWN.read(call(PREDICT, {"inputs": [[1, 2], [3, 4]]})).queries)
        assert caught.value.path == "inputs[1][1]"

    def test_texts_beside_numbers_make_rows_of_names(self) -> None:
        queries = KNOWN.read(call(PREDICT, {"inputs": {"n": [1, 2], "t": [{"b64": "QQ=="}, {"b64": "QR=="}]}})).queries
        assert list(queries.values or ()) == [{"n": 1, "t": {"b64": "QQ=="}}, {"n": 2, "t": {"b64": "QQ=="}}]
        assert queries.place(1, 1) == "inputs.t[1]"

    def test_answer_is_one_array_or_arrays_by_name(self) -> None:
        read = asked(KNOWN, PREDICT, COLUMNS, {"outputs": [P, Q]})
        release_labels(read)
        assert rendered(KNOWN, read) == {"outputs": [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]}
        outputs = {
            "p": [P, Q],
            "classes": [["cat"], ["dog"]],
            "hidden": [[5.0, 1.0], [2.0, 9.0]],
            "n": 7,
            "all": ["a"] * 3,
        }
        read = asked(KNOWN, PREDICT, COLUMNS, {"outputs": outputs, "time": 0.1})
        assert rendered(KNOWN, read) == {"outputs": {"p": [P, Q], "classes": [["cat"], ["dog"]]}}
        assert read.dropped == ["time", "hidden", "n", "all"]

    def test_changed_labels_are_rewritten(self) -> None:
        codec = TensorFlowServing(reader(classes=["cat", "dog", "cow"]))
        read = asked(codec, PREDICT, COLUMNS, {"outputs": {"p": [P, Q], "classes": [["cat"], ["dog"]]}})
        read.labels[0].write(np.array([2, 0]))
        assert rendered(codec, read)["outputs"]["classes"] == [["cow"], ["cat"]]

    def test_all_keeps_members_without_floats_and_refuses_the_others(self) -> None:
        kept = {"p": [P, Q], "n": 7, "ids": [1, 2, 3]}
        assert rendered(ALL, asked(ALL, PREDICT, COLUMNS, {"outputs": kept})) == {"outputs": kept}
        for extra in ({"t": 0.5}, {"h": [[5.0, 1.0], [2.0, 9.0]]}, {"h": [0.1, 0.2, 0.3]}):
            with pytest.raises(UpstreamError):
                asked(ALL, PREDICT, COLUMNS, {"outputs": {"p": [P, Q], **extra}})

    def test_more_rows_than_asked_are_reported(self) -> None:
        assert asked(KNOWN, PREDICT, COLUMNS, {"outputs": {"p": [P, Q, P], "classes": [0, 1]}}).rows == 3


class TestRows:
    def test_rows_and_rewrite(self) -> None:
        reading = KNOWN.read(call(PREDICT, ROWS))
        assert rewritten(KNOWN, reading, np.array([[1.0, 2.0], [3.0, 5.0]])) == {"instances": [[1.0, 2.0], [3.0, 5.0]]}

    def test_bare_not_a_number_stays_bare(self) -> None:
        body = b'{"predictions": [[NaN, Infinity], [0.5, 0.5]]}'
        read = KNOWN.answer(reply(body), KNOWN.read(call(PREDICT, ROWS)))
        assert KNOWN.render(read)[1] == b'{"predictions":[[NaN,Infinity],[0.5,0.5]]}'
        (prediction,) = read.predictions
        scores = prediction.scores.copy()
        scores[0] = np.nan
        prediction.write(Release(scores))
        assert KNOWN.render(read)[1] == b'{"predictions":[[NaN,NaN],[0.5,0.5]]}'

    def test_unknown_members_are_left_out(self) -> None:
        body = KNOWN.read(call(PREDICT, {**ROWS, "output_filter": ["logits"]})).body
        assert json.loads(body) == ROWS


class TestClassify:
    def test_context_belongs_to_every_example(self) -> None:
        document = {"context": {"c": 9}, **EXAMPLES, "signature_name": "classify"}
        reading = KNOWN.read(call(CLASSIFY, document))
        np.testing.assert_array_equal(reading.queries.matrix(), [[9, 1], [9, 2]])
        sent = rewritten(KNOWN, reading, np.array([[9.0, 1.5], [9.0, 2.5]]))
        assert sent == {"examples": [{"c": 9, "x": 1.5}, {"c": 9, "x": 2.5}], "signature_name": "classify"}

    def test_brackets_around_one_value_do_not_make_another_query(self) -> None:
        rows = [KNOWN.read(call(CLASSIFY, {"examples": [{"x": x, "t": "a"}]})).queries.row_bytes() for x in (1, [1.0])]
        assert rows[0] == rows[1]

    @pytest.mark.parametrize("key", ["result", "results"])
    def test_pairs_are_ranked_by_what_is_released(self, key: str) -> None:
        pairs = [[["a", 0.5], ["b", 0.3], ["c", 0.1]], [["b", 0.9], ["a", 0.05], ["", 0]]]
        read = asked(KNOWN, CLASSIFY, EXAMPLES, {key: pairs, "model": "m"})
        (prediction,) = read.predictions
        assert (prediction.shape, prediction.complete, read.dropped) == ("sparse", False, ["model"])
        kept = np.array([[True, True, False], [True, False, True]])
        prediction.write(Release(np.array([[0.4, 0.4, 0.0], [0.1, 0.0, 0.8]]), kept))
        assert rendered(KNOWN, read) == {key: [[["a", 0.4], ["b", 0.4]], [["", 0.8], ["b", 0.1]]]}

    def test_rows_of_different_lengths_are_groups(self) -> None:
        read = asked(KNOWN, CLASSIFY, EXAMPLES, {"result": [[["a", 0.5], ["b", 0.3]], [["b", 0.9]]]})
        assert [None if p.rows is None else p.rows.tolist() for p in read.predictions] == [[0], [1]]
        release_labels(read)
        assert rendered(KNOWN, read) == {"result": [[["a", 1.0]], [["b", 1.0]]]}

    def test_declared_tensors_and_kind_hold(self) -> None:
        pairs = {"result": [[["a", 0.5]], [["b", 0.9]]]}
        declared: list[Json] = [{"tensors": ["p"]}, {"kind": "value"}, {"kind": "labels"}]
        for outputs in declared:
            with pytest.raises(UpstreamError):
                asked(TensorFlowServing(reader(**outputs)), CLASSIFY, EXAMPLES, pairs)
        assert asked(TensorFlowServing(reader(tensors=["result"])), CLASSIFY, EXAMPLES, pairs).predictions


class TestRegress:
    def test_values(self) -> None:
        read = asked(VALUE, REGRESS, EXAMPLES, {"results": [3.5, 4.25]})
        read.predictions[0].write(Release(np.array([[3.0], [4.0]])))
        assert rendered(VALUE, read) == {"results": [3.0, 4.0]}

    def test_two_classes(self) -> None:
        assert asked(KNOWN, REGRESS, EXAMPLES, {"result": [0.5, 0.25]}).predictions[0].shape == "two_class"


def test_error_envelope() -> None:
    assert KNOWN.error(ClientError("no")) == (b"application/json", b'{"error":"no"}')


def test_versions_and_labels_are_open_and_metadata_is_closed() -> None:
    access = {(e.method, e.template): e.access for e in KNOWN.endpoints}
    for place in ("", "/versions/{version}", "/labels/{label}"):
        for verb in ("predict", "classify", "regress"):
            assert access["POST", f"/v1/models/{{model}}{place}:{verb}"] == "scoring"
        assert access["GET", f"/v1/models/{{model}}{place}"] == "status"
        assert access["GET", f"/v1/models/{{model}}{place}/metadata"] == "closed"


@pytest.mark.parametrize("name", recorded.cases("tensorflow_serving"))
def test_recorded(name: str) -> None:
    method, asked_ = recorded.request("tensorflow_serving", name)
    upstream = recorded.reply("tensorflow_serving", name)
    if method == "GET" or upstream.status != 200:
        return
    value = "regress" in name or name == "predict-row-values"
    codec: Codec = TensorFlowServing(
        reader("all" if "bytes" in name else "known", kind="value" if value else "probabilities")
    )
    reading = codec.read(asked_)
    assert reading.body is asked_.body
    read = codec.answer(upstream, reading)
    assert read.rows == reading.queries.rows == len(read.predictions[0].scores)
    assert json.dumps(json.loads(codec.render(read)[1])) == json.dumps(json.loads(upstream.body))
    if not value:
        release_labels(read)
        assert b"0.98" not in codec.render(read)[1]
