from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.errors import ClientError, UpstreamError
from guard.model.domain import Inputs
from guard.model.prediction import Release
from guard.wire.base import Codec
from guard.wire.open_inference import OpenInference
from tests.support import recorded
from tests.support.codecs import asked, call, one_hot, reader, release_labels, rendered, reply, rewritten

Json = Any  # JSON of a foreign API, deliberately wrong in many cases
PATH = "/v2/models/m/infer"
KNOWN: Codec = OpenInference(reader())
ALL: Codec = OpenInference(reader("all"))


def tensor(data: Json, shape: Json, datatype: Json = "FP32", name: Json = "x", **more: Json) -> Json:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def request(*inputs: Json, **more: Json) -> Json:
    return {"inputs": list(inputs), **more}


ONE = request(tensor([1.0, 2.0], [1, 2]))
TWO = request(tensor([1.0, 2.0, 3.0, 4.0], [2, 2]))


def answer(*outputs: Json, **more: Json) -> Json:
    return {"model_name": "m", "outputs": list(outputs), **more}


def refused(document: Json, codec: Codec = KNOWN, **headers: str) -> ClientError:
    with pytest.raises(ClientError) as caught:
        codec.read(call(PATH, document, **headers))
    return caught.value


def withheld(document: Json, upstream: Json, codec: Codec = KNOWN) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        asked(codec, PATH, document, upstream)
    assert caught.value.code == "unreadable_answer"
    return caught.value


MALFORMED: list[Json] = [
    b"{",
    b"[]",
    b"",
    b"\xff",
    {},
    {"inputs": {}},
    {"inputs": []},
    {"inputs": [1]},
    {"inputs": [{}]},
    request(tensor([1], [1, 1], name=7)),
    request(tensor([1], [1, 1], "FP31")),
    request(tensor([1], [1, 1], None)),
    request(tensor([1], [])),
    request(tensor([], [0, 1])),
    request(tensor([1], [-1, -1])),
    request(tensor([1], [True, 1])),
    request(tensor([1], [1.0, 1])),
    request(tensor([1], [1] * 17)),
    request(tensor([1], "1")),
    request(tensor("a", [1, 1])),
    request(tensor([1, 2], [1, 1])),
    request(tensor([1], [1, 2])),
    request(tensor([[1], [1, 2]], [1, 3])),
    request(tensor([[1, 2], 3], [1, 3])),
    request(tensor([[], []], [2, 1])),
    request(tensor([[1], [2], [3]], [2, 1])),
    request(tensor(["1.0", 2.0], [1, 2])),
    request(tensor([{"a": 1}, 2.0], [1, 2])),
    request(tensor(["a", 1], [2], "BYTES")),
    request(tensor(["!"], [1], "BYTES", parameters={"content_type": "base64"})),
    request(tensor([1], [1, 1]), tensor([1, 2], [2, 1], name="y")),
    request(tensor([1], [1, 1]), tensor([1], [1, 1])),
    request(tensor([1], [1, 1], parameters=[])),
    request(tensor([1], [1, 1], parameters={"content_type": 7})),
    request(tensor([1], [1, 1]), id=7),
    request(tensor([1], [1, 1]), outputs={}),
    request(tensor([1], [1, 1]), outputs=[{"name": 1}]),
    request(tensor([1], [1, 1]), outputs=[{"name": "p"}, {"name": "p"}]),
    request(tensor([1], [1, 1]), outputs=[{"name": "p", "parameters": {"classification": 0}}]),
    request(tensor([1], [1, 1]), outputs=[{"name": "p", "parameters": {"classification": True}}]),
]


class TestRead:
    def test_plain_request_is_forwarded_as_it_came(self) -> None:
        body = b'{"inputs": [ {"name":"x","shape":[1,2],"datatype":"FP32","data":[1, 2.0]} ], "id": "7"}'
        reading = KNOWN.read(call(PATH, body))
        assert reading.body is body
        assert reading.queries.rows == 1
        np.testing.assert_array_equal(reading.queries.matrix(), [[1.0, 2.0]])

    @pytest.mark.parametrize(
        "data", [[1, 2, 3, 4, 5, 6, 7, 8], [[1, 2, 3, 4], [5, 6, 7, 8]], [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]]
    )
    def test_flat_and_nested_data_are_the_same_query(self, data: Json) -> None:
        reading = KNOWN.read(call(PATH, request(tensor(data, [2, 2, 2]))))
        assert reading.queries.rows == 2
        np.testing.assert_array_equal(reading.queries.matrix(), [[1, 2, 3, 4], [5, 6, 7, 8]])

    def test_duplicate_member_is_encoded_again(self) -> None:
        body = b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1],"data":[2]}]}'
        reading = KNOWN.read(call(PATH, body))
        assert json.loads(reading.body) == request(tensor([2], [1, 1]))
        assert reading.body.count(b"data") == 2  # the member and its datatype

    @pytest.mark.parametrize("colons", ["a:b", 'a"b', "a[b", "a{b"])
    def test_structure_inside_a_text_is_no_structure(self, colons: str) -> None:
        reading = KNOWN.read(call(PATH, request(tensor([1, 2], [1, 2], name=colons))))
        assert json.loads(reading.body) == request(tensor([1, 2], [1, 2], name=colons))
        np.testing.assert_array_equal(reading.queries.matrix(), [[1.0, 2.0]])

    def test_missing_content_type_and_any_other_are_read(self) -> None:
        for kind in ("", "application/octet-stream", "application/json"):
            assert KNOWN.read(call(PATH, ONE, content_type=kind)).content_type == b"application/json"

    def test_outputs_chosen_by_the_client_are_passed_on(self) -> None:
        document = request(
            tensor([1.0, 2.0], [1, 2], parameters={"content_type": "np"}),
            outputs=[{"name": "p", "parameters": {"classification": 3, "binary_data": False}}, {"name": "q"}],
            parameters={"sequence_id": 7, "sequence_start": True, "binary_data_output": False},
            id="1",
        )
        call_ = call(PATH, document)
        assert KNOWN.read(call_).body is call_.body

    def test_unknown_members_are_left_out(self) -> None:
        document = request(
            tensor([1.0, 2.0], [1, 2], parameters={"function_to_apply": "none", "content_type": "np"}, extra=1),
            outputs=[{"name": "p", "parameters": {"top": 3}, "raw": True}],
            parameters=None,
            explain=True,
        )
        read = json.loads(KNOWN.read(call(PATH, document)).body)
        assert read == request(
            tensor([1.0, 2.0], [1, 2], parameters={"content_type": "np"}), outputs=[{"name": "p", "parameters": {}}]
        )
        kept = json.loads(ALL.read(call(PATH, document)).body)
        assert kept == {key: value for key, value in document.items() if key != "parameters"}

    def test_output_parameters_mean_nothing_in_an_input(self) -> None:
        document = request(tensor([1.0], [1, 1], parameters={"classification": None}))
        assert json.loads(ALL.read(call(PATH, document)).body) == document
        assert json.loads(KNOWN.read(call(PATH, document)).body)["inputs"][0]["parameters"] == {}

    def test_bare_nan_is_forwarded_when_members_are_left_out(self) -> None:
        body = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[NaN,1]}],"extra":1}'
        assert b"NaN" in KNOWN.read(call(PATH, body)).body

    def test_names_that_differ_in_case_only_are_refused_where_unknown_ones_pass(self) -> None:
        assert "case" in refused({**ONE, "Inputs": []}, ALL).message
        assert json.loads(KNOWN.read(call(PATH, {**ONE, "Inputs": []})).body) == ONE

    @pytest.mark.parametrize("document", MALFORMED)
    def test_malformed_request_is_400(self, document: Json) -> None:
        assert refused(document).status == 400

    def test_deep_nesting_is_refused(self) -> None:
        assert refused(b'{"inputs":' + b"[" * 900 + b"]" * 900 + b"}").code == "too_deep"

    def test_what_is_no_json_and_does_not_say_so_is_415(self) -> None:
        assert refused(b"\x00\x01", content_type="application/x-protobuf").status == 415

    @pytest.mark.parametrize(
        "document",
        [
            request(tensor([1], [1, 1], parameters={"binary_data_size": 4})),
            request(tensor([1], [1, 1], parameters={"binary_data": True})),
            request(tensor([1], [1, 1]), outputs=[{"name": "p", "parameters": {"binary_data": 1}}]),
            request(tensor([1], [1, 1]), outputs=[{"name": "p", "parameters": {"binary_data_output": True}}]),
            request(tensor([1], [1, 1]), parameters={"Binary_Data_Output": True}),
        ],
    )
    @pytest.mark.parametrize("codec", [KNOWN, ALL])
    def test_parameters_of_binary_tensors_where_they_say_nothing_are_refused(
        self, codec: Codec, document: Json
    ) -> None:
        error = refused(document, codec)
        assert (error.status, error.code) == (400, "bad_request")

    @pytest.mark.parametrize(
        "document",
        [
            request(tensor([1], [1, 1], parameters={"shared_memory_region": "r", "shared_memory_byte_size": 4})),
            request(tensor([1], [1, 1]), outputs=[{"name": "p", "parameters": {"shared_memory_region": "r"}}]),
            request(tensor([1], [1, 1]), parameters={"shared_memory_offset": 0}),
            b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"shared\\u005fmemory_region":"r"}}]}',
        ],
    )
    @pytest.mark.parametrize("codec", [KNOWN, ALL])
    def test_shared_memory_is_refused(self, codec: Codec, document: Json) -> None:
        assert refused(document, codec).code == "shared_memory"


class TestQueries:
    def bytes_of(self, document: Json) -> list[bytes]:
        return KNOWN.read(call(PATH, document)).queries.row_bytes()

    def test_spelling_does_not_make_another_query(self) -> None:
        same = [
            b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,0,1.0,-0.0]}]}',
            b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"INT8","data":[[1e0,0],[true,false]]}],"parameters":{}}',
            b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"BOOL","data":[true,false,true,false]}]}',
            b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[[1]],[[0]],[[1]],[[0]]]}]}',
        ]
        rows = [self.bytes_of(body) for body in same]
        assert all(row == rows[0] for row in rows)
        assert rows[0][0] == rows[0][1]

    def test_base64_texts_are_compared_by_their_bytes(self) -> None:
        def spelled(text: str) -> list[bytes]:
            return self.bytes_of(request(tensor([text], [1], "BYTES", parameters={"content_type": "base64"})))

        assert spelled("QQ==") == spelled("QR==") != spelled("Qg==")

    def test_missing_member_is_no_number_and_has_its_place(self) -> None:
        reading = KNOWN.read(call(PATH, request(tensor([1, None, 3, 4], [2, 2]))))
        with pytest.raises(ClientError) as caught:
            Inputs(kind="vector").admit(reading.queries)
        assert caught.value.path == "inputs[0].data[1]"
        assert caught.value.status == 422

    @pytest.mark.parametrize(
        ("item", "place"),
        [
            (tensor([1, 2, 3, 4], [2, 2]), "inputs[0].data[3]"),
            (tensor([[1, 2], [3, 4]], [2, 2]), "inputs[0].data[1][1]"),
            (tensor([[[1], [2]], [[3], [4]]], [2, 2, 1]), "inputs[0].data[1][1][0]"),
            (tensor([1, 4], [2]), "inputs[0].data[1]"),
        ],
    )
    def test_offending_number_is_named_by_its_path(self, item: Json, place: str) -> None:
        reading = KNOWN.read(call(PATH, request(item)))
        with pytest.raises(ClientError) as caught:
            Inputs(high=3.5).admit(reading.queries)
        assert caught.value.path == place

    def test_wrong_size_is_named_by_the_data(self) -> None:
        for data, place in (([1, 2, 3, 4], "inputs[0].data"), ([[1, 2], [3, 4]], "inputs[0].data[0]")):
            with pytest.raises(ClientError) as caught:
                Inputs(size=3).admit(KNOWN.read(call(PATH, request(tensor(data, [2, 2])))).queries)
            assert caught.value.path == place

    def test_several_numeric_tensors_stand_side_by_side_by_name(self) -> None:
        b, a = tensor([1, 2], [2, 1], name="b"), tensor([[3, 4], [5, 6]], [2, 2], "FP64", name="a")
        queries = KNOWN.read(call(PATH, request(b, a))).queries
        np.testing.assert_array_equal(queries.matrix(), [[3, 4, 1], [5, 6, 2]])
        assert queries.row_bytes() == KNOWN.read(call(PATH, request(a, b))).queries.row_bytes()
        assert [queries.place(1, 2), queries.place(1, 1), queries.place(0, -1), queries.place(0, 9)] == [
            "inputs[0].data[1]",
            "inputs[1].data[1][1]",
            "inputs",
            "inputs",
        ]

    def test_columns_of_one_feature_give_their_names(self) -> None:
        columns = [tensor([1], [1, 1], name="b"), tensor([2], [1], name="a")]
        assert KNOWN.read(call(PATH, request(*columns))).queries.names == ("a", "b")

    def test_texts_are_texts(self) -> None:
        queries = KNOWN.read(call(PATH, request(tensor([["a"], ["b"]], [2, 1], "BYTES")))).queries
        assert list(queries.values or ()) == ["a", "b"]
        assert queries.place(1, -1) == "inputs[0].data[1]"
        wide = KNOWN.read(call(PATH, request(tensor(["a", "b", "c", "d"], [2, 2], "BYTES")))).queries
        assert list(wide.values or ()) == [["a", "b"], ["c", "d"]]

    def test_texts_beside_numbers_make_rows_of_names(self) -> None:
        document = request(tensor(["a", "b"], [2], "BYTES", name="t"), tensor([1, 2, 3, 4], [2, 2], name="n"))
        queries = KNOWN.read(call(PATH, document)).queries
        assert list(queries.values or ()) == [{"n": [1, 2], "t": "a"}, {"n": [3, 4], "t": "b"}]
        assert queries.names == ("n", "t")
        assert (queries.place(1, 1), queries.place(0, -1)) == ("inputs[0].data", "inputs")


class TestRewrite:
    @pytest.mark.parametrize(
        ("item", "data"),
        [
            (tensor([1.2, 2.2, 3.2, 4.2], [2, 2]), [1.0, 2.0, 3.0, 4.0]),
            (tensor([[1.2, 2.2], [3.2, 4.2]], [2, 2]), [[1.0, 2.0], [3.0, 4.0]]),
            (tensor([1, 2, 3, 4], [2, 2], "INT64"), [1, 2, 3, 4]),
            (tensor([[[1], [2]], [[3], [4]]], [2, 2, 1], "UINT64"), [[[1], [2]], [[3], [4]]]),
        ],
    )
    def test_keeps_form_and_datatype(self, item: Json, data: Json) -> None:
        reading = KNOWN.read(call(PATH, request(item, id="7")))
        sent = rewritten(KNOWN, reading, np.array([[1.0, 2.0], [3.0, 4.0]]))
        assert sent == request({**item, "data": data}, id="7")
        assert json.dumps(sent["inputs"][0]["data"]) == json.dumps(data)

    def test_booleans_stay_booleans(self) -> None:
        reading = KNOWN.read(call(PATH, request(tensor([True, False], [1, 2], "BOOL"))))
        assert rewritten(KNOWN, reading, np.array([[0.0, 1.0]]))["inputs"][0]["data"] == [False, True]

    def test_several_tensors_get_their_own_shares(self) -> None:
        document = request(tensor([1, 2], [2, 1], name="b"), tensor([[3, 4], [5, 6]], [2, 2], name="a"))
        sent = rewritten(KNOWN, KNOWN.read(call(PATH, document)), np.array([[30.0, 40, 10], [50, 60, 20]]))
        assert [item["data"] for item in sent["inputs"]] == [[10, 20], [[30, 40], [50, 60]]]


P = [0.2, 0.5, 0.3]


class TestAnswer:
    def test_scores_labels_and_known_members_go_through(self) -> None:
        upstream = answer(
            tensor(P, [1, 3], "FP64", "proba"), tensor([1], [1, 1], "INT64", "predict"), model_version="1", id="7"
        )
        read = asked(KNOWN, PATH, ONE, upstream)
        assert read.rows == 1
        assert [p.name for p in read.predictions] == ["proba"]
        assert [slot.name for slot in read.labels] == ["predict"]
        assert rendered(KNOWN, read) == upstream

    @pytest.mark.parametrize("data", [P + P, [P, P]])
    def test_dropped_scores_read_zero_in_the_same_shape(self, data: Json) -> None:
        read = asked(KNOWN, PATH, TWO, answer(tensor(data, [2, 3], "FP32", "p")))
        release_labels(read)
        hot = [0.0, 1.0, 0.0]
        assert rendered(KNOWN, read) == answer(tensor([hot, hot] if data[0] == P else hot + hot, [2, 3], "FP32", "p"))

    def test_unknown_members_and_parameters_are_dropped(self) -> None:
        upstream = answer(
            tensor(P, [1, 3], "FP64", "p", parameters={"content_type": "np", "latency": 0.7}, extra=1),
            parameters={"usage": 3},
            timing=0.1,
            id=7,
        )
        read = asked(KNOWN, PATH, ONE, upstream)
        assert rendered(KNOWN, read) == answer(tensor(P, [1, 3], "FP64", "p", parameters={"content_type": "np"}))
        assert read.dropped == ["extra", "parameters", "timing"]

    def test_all_keeps_unknown_members_without_floats(self) -> None:
        upstream = answer(tensor(P, [1, 3], "FP64", "p", note="n"), parameters={"usage": 3}, timing=0.1, b={"x": [0.1]})
        read = asked(ALL, PATH, ONE, upstream)
        assert rendered(ALL, read) == answer(tensor(P, [1, 3], "FP64", "p", note="n"), parameters={"usage": 3})
        assert read.dropped == ["timing", "b"]

    def test_hidden_layers_and_side_tensors_are_dropped_or_refused(self) -> None:
        upstream = answer(
            tensor([1.5, -2.0], [1, 2], "FP32", "hidden"),
            tensor(P, [1, 3], "FP32", "p"),
            tensor([3, 4, 5], [3], "INT64", "leaves"),
            tensor([0.1] * 4, [4], "FP32", "stats"),
            tensor(["a", "b"], [1, 2], "BYTES", "names"),
            tensor(["0.93"], [1], "BYTES", "text"),
            tensor([0.5], [1], "BYTES", "numbers") | {"data": [0.5]},
        )
        read = asked(KNOWN, PATH, ONE, upstream)
        assert rendered(KNOWN, read) == answer(upstream["outputs"][1])
        assert read.dropped == ["hidden", "leaves", "stats", "names", "text", "numbers"]
        withheld(ONE, upstream, ALL)
        withheld(ONE, answer(upstream["outputs"][1], upstream["outputs"][3]), ALL)
        kept = asked(ALL, PATH, ONE, answer(upstream["outputs"][1], upstream["outputs"][2], upstream["outputs"][4]))
        assert [item["name"] for item in rendered(ALL, kept)["outputs"]] == ["p", "leaves"]

    def test_nothing_left_is_withheld_and_named(self) -> None:
        assert "hidden" in withheld(ONE, answer(tensor([1.5, -2.0], [1, 2], "FP32", "hidden"))).message
        assert "hidden" in withheld(ONE, answer(tensor(["a", "b"], [1, 2], "BYTES", "hidden"))).message

    @pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
    def test_whole_numbers_of_a_floating_tensor_are_scores(self, datatype: str) -> None:
        read = asked(KNOWN, PATH, ONE, answer(tensor([0, 1], [1, 2], datatype, "hidden")))
        assert read.predictions[0].scores.tolist() == [[0.0, 1.0]]

    def test_strings_in_a_floating_tensor_are_withheld(self) -> None:
        withheld(ONE, answer(tensor(["0.2", "0.8"], [1, 2], "FP32", "p")))

    def test_missing_scores_read_nan_and_stay_null(self) -> None:
        read = asked(KNOWN, PATH, TWO, answer(tensor([None, None, 0.5, 0.5], [2, 2], "FP32", "p")))
        assert np.isnan(read.predictions[0].scores[0]).all()
        read.predictions[0].write(Release(read.predictions[0].scores))
        assert rendered(KNOWN, read)["outputs"][0]["data"] == [None, None, 0.5, 0.5]

    def test_bare_nan_stays_bare(self) -> None:
        body = b'{"outputs":[{"name":"p","shape":[1,2],"datatype":"FP32","data":[NaN,0.5]}]}'
        read = KNOWN.answer(reply(body), KNOWN.read(call(PATH, ONE)))
        read.predictions[0].write(Release(read.predictions[0].scores))
        assert b"[NaN,0.5]" in KNOWN.render(read)[1].replace(b" ", b"")

    def test_two_class_score_and_copies(self) -> None:
        read = asked(KNOWN, PATH, TWO, answer(tensor([[0.2], [0.9]], [2, 1], "FP32", "p")))
        (prediction,) = read.predictions
        assert prediction.shape == "two_class"
        release_labels(read)
        assert rendered(KNOWN, read)["outputs"][0]["data"] == [[0.0], [1.0]]

    def test_value_of_whole_numbers_stays_whole(self) -> None:
        codec = OpenInference(reader(kind="value"))
        read = asked(codec, PATH, TWO, answer(tensor([3, 5], [2, 1], "INT32", "y")))
        read.predictions[0].write(Release(np.array([[2.7], [np.nan]])))
        assert codec.render(read)[1].endswith(b'"data":[3,0]}]}')

    def test_changed_labels_are_rewritten_in_their_own_datatype(self) -> None:
        codec = OpenInference(reader(classes=["cat", "dog"]))
        upstream = answer(
            tensor([0.9, 0.1], [1, 2], "FP32", "p"),
            tensor([["cat"]], [1, 1], "BYTES", "label"),
            tensor([0], [1], "INT64", "class"),
        )
        read = asked(codec, PATH, ONE, upstream)
        for slot in read.labels:
            slot.write(np.array([1]))
        assert [item["data"] for item in rendered(codec, read)["outputs"][1:]] == [[["dog"]], [1]]
        numbered = OpenInference(reader(classes=[10, 20]))
        read = asked(numbered, PATH, ONE, answer(upstream["outputs"][0], upstream["outputs"][2]))
        read.labels[0].write(np.array([1]))
        assert rendered(numbered, read)["outputs"][1]["data"] == [20]

    def test_boolean_label_goes_through(self) -> None:
        upstream = answer(tensor(P, [1, 3], "FP32", "p"), tensor([True], [1, 1], "BOOL", "label"))
        assert rendered(KNOWN, asked(KNOWN, PATH, ONE, upstream)) == upstream

    def test_huge_whole_numbers_do_not_overflow(self) -> None:
        upstream = answer(tensor(P, [1, 3], "FP32", "p"), tensor([2**64 - 1], [1], "UINT64", "label"))
        assert rendered(KNOWN, asked(KNOWN, PATH, ONE, upstream)) == upstream

    def test_declared_tensors_narrow_what_is_let_out(self) -> None:
        codec = OpenInference(reader(tensors=["p"]))
        upstream = answer(tensor(P, [1, 3], "FP32", "p"), tensor(P, [1, 3], "FP32", "q"))
        assert rendered(codec, asked(codec, PATH, ONE, upstream)) == answer(upstream["outputs"][0])
        withheld(ONE, answer(upstream["outputs"][1]), codec)
        withheld(ONE, answer(tensor(["0.5:1"], [1, 1], "BYTES", "q")), codec)
        withheld(ONE, answer(tensor([0.5, 7.0], [1, 2], "FP32", "p")), codec)

    def test_more_rows_than_asked_are_reported(self) -> None:
        extra = tensor(P + P, [2, 3], "FP32", "p")
        assert asked(KNOWN, PATH, ONE, answer(extra)).rows == 2
        assert asked(KNOWN, PATH, ONE, answer(extra, tensor([1], [1], "INT64", "label"))).rows == 2
        named = OpenInference(reader(tensors=["p"]))
        assert asked(named, PATH, ONE, answer(tensor([0.5, 0.5], [2], "FP32", "p"))).rows == 2

    def test_fewer_rows_than_asked_are_withheld(self) -> None:
        withheld(TWO, answer(tensor(P, [1, 3], "FP32", "p")))
        withheld(TWO, answer(tensor(["0.5:1"], [1, 1], "BYTES", "p"), tensor([1, 2], [2], "INT64", "label")))
        withheld(TWO, answer(tensor([], [0], "FP32", "p")))

    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b"oops",
            b"\x00\x00\x80\x3f",
            [],
            {},
            {"outputs": []},
            {"outputs": {}},
            {"error": "no"},
            answer(7),
            answer({}),
            answer(tensor([1.0], [1, 1], "FP31")),
            answer(tensor(None, [1, 1])),
            answer(tensor([1.0], [])),
            answer(tensor([1.0, 2.0], [1, 1])),
            answer(tensor([[1.0], [2.0, 3.0]], [1, 3])),
            answer(tensor(P, [1, 3]), tensor(P, [1, 3])),
            answer({"name": "p", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}),
            answer(tensor([{}, {}, {}], [1, 3])),
        ],
    )
    @pytest.mark.parametrize("codec", [KNOWN, ALL])
    def test_unreadable_answer_is_withheld(self, codec: Codec, document: Json) -> None:
        withheld(ONE, document, codec)

    def test_answer_without_content_type_or_with_a_wrong_one_is_read(self) -> None:
        upstream = answer(tensor(P, [1, 3], "FP32", "p"))
        reading = KNOWN.read(call(PATH, ONE))
        assert KNOWN.answer(reply(upstream, content_type="text/html"), reading).predictions

    def test_binary_answers_that_do_not_say_where_their_json_ends_are_withheld(self) -> None:
        reading = KNOWN.read(call(PATH, ONE))
        upstream = answer(tensor(P, [1, 3], "FP32", "p"))
        for headers in ({"content_type": "Application/Octet-Stream"}, {"inference_header_content_length": "9"}):
            with pytest.raises(UpstreamError):
                KNOWN.answer(reply(upstream, **headers), reading)
        withheld(ONE, answer(tensor(P, [1, 3], parameters={"binary_data_size": 12})), ALL)

    def test_deep_answer_is_withheld(self) -> None:
        withheld(ONE, b'{"outputs":[{"x":' + b"[" * 900 + b"]" * 900 + b"}]}", ALL)

    def test_error_envelope(self) -> None:
        assert KNOWN.error(ClientError('no "way"')) == (b"application/json", b'{"error":"no \\"way\\""}')


class TestClassification:
    def strings(self, read: Any) -> Json:
        return [(item["shape"], item["data"]) for item in rendered(KNOWN, read)["outputs"]]

    def test_scores_in_strings_are_a_sparse_prediction(self) -> None:
        data = ["0.7:2:cat", "0.2:0:a:b", "0.6:1", "0.3:2"]
        read = asked(KNOWN, PATH, TWO, answer(tensor(data, [2, 2], "BYTES", "p")))
        (prediction,) = read.predictions
        assert (prediction.shape, prediction.complete) == ("sparse", False)
        assert prediction.scores.tolist() == [[0.7, 0.2], [0.6, 0.3]]
        prediction.write(Release(np.array([[0.5, 0.5], [0.4, 0.6]])))
        assert self.strings(read) == [([2, 2], ["0.500000:0:a:b", "0.500000:2:cat", "0.600000:2", "0.400000:1"])]

    def test_dropped_scores_leave_and_the_shape_shrinks(self) -> None:
        read = asked(KNOWN, PATH, TWO, answer(tensor([["0.7:2", "0.2:0"], ["0.6:1", "0.4:2"]], [2, 2], "BYTES", "p")))
        release_labels(read)
        assert self.strings(read) == [([2, 1], [["1.000000:2"], ["1.000000:1"]])]

    def test_uneven_rows_are_filled_up_with_indexes_that_tell_nothing(self) -> None:
        read = asked(KNOWN, PATH, TWO, answer(tensor(["0.5:0", "0.3:7", "0.9:5", "0.1:9"], [2, 2], "BYTES", "p")))
        (prediction,) = read.predictions
        kept = np.array([[True, True], [True, False]])
        prediction.write(Release(prediction.scores * kept, kept))
        assert self.strings(read) == [([2, 2], ["0.500000:0", "0.300000:7", "0.900000:5", "0.000000:0"])]

    def test_one_row_without_a_batch(self) -> None:
        read = asked(KNOWN, PATH, ONE, answer(tensor(["0.7:2", "0.2:0"], [2], "BYTES", "p")))
        assert read.rows == 1
        release_labels(read)
        assert self.strings(read) == [([1], ["1.000000:2"])]
        withheld(TWO, answer(tensor(["0.7:2", "0.2:0"], [2], "BYTES", "p")))

    def test_whole_distribution_is_complete(self) -> None:
        read = asked(KNOWN, PATH, ONE, answer(tensor(["0.7:2", "0.3:0"], [1, 2], "BYTES", "p")))
        assert read.predictions[0].complete

    @pytest.mark.parametrize("data", [["7.5:1"], ["-1:1"], ["0:0"], ["nan:1:x", "0.5:2"], ["0.5:cat"], ["0.93 cat"]])
    def test_other_strings_with_numbers_are_never_let_out(self, data: list[str]) -> None:
        upstream = answer(tensor(data, [1, len(data)], "BYTES", "label"))
        for codec in (KNOWN, ALL):
            try:
                read = asked(codec, PATH, ONE, upstream)
            except UpstreamError:
                continue
            assert [p.shape for p in read.predictions] == ["sparse"]

    def test_logits_in_strings_are_read_under_that_kind(self) -> None:
        codec = OpenInference(reader(kind="logits"))
        read = asked(codec, PATH, ONE, answer(tensor(["7.5:1", "-2e1:0"], [1, 2], "BYTES", "p")))
        assert read.predictions[0].scores.tolist() == [[7.5, -20.0]]
        withheld(ONE, answer(tensor(["7.5:1"], [1, 1], "BYTES", "p")), OpenInference(reader(kind="value")))

    def test_labels_beside_classes_agree(self) -> None:
        upstream = answer(tensor(["0.7:2"], [1, 1], "BYTES", "p"), tensor([2], [1, 1], "INT64", "label"))
        read = asked(KNOWN, PATH, ONE, upstream)
        assert [slot.name for slot in read.labels] == ["label"]
        assert rendered(KNOWN, read) == upstream


class TestRecorded:
    @pytest.mark.parametrize("server", ["mlserver", "triton"])
    @pytest.mark.parametrize(
        "name", ["infer-batch-flat", "infer-batch-nested", "infer-no-content-type", "infer-version"]
    )
    def test_batch_of_scores_and_labels(self, server: str, name: str) -> None:
        _, asked_ = recorded.request(server, name)
        reading = KNOWN.read(asked_)
        assert reading.body is asked_.body
        assert reading.queries.rows == 2
        read = KNOWN.answer(recorded.reply(server, name), reading)
        assert [(p.shape, p.scores.shape) for p in read.predictions] == [("fixed", (2, 10))]
        assert len(read.labels) == 1
        release_labels(read)
        sent = rendered(KNOWN, read)
        assert "0.98" not in json.dumps(sent)
        assert sent["outputs"][0]["data"] == one_hot(read.predictions[0].scores).scores.ravel().tolist()

    @pytest.mark.parametrize("name", [case for case in recorded.cases("triton") if case.startswith("classification")])
    def test_triton_classification(self, name: str) -> None:
        reading = KNOWN.read(recorded.request("triton", name)[1])
        upstream = recorded.reply("triton", name)
        if name == "classification-of-label":
            with pytest.raises(UpstreamError):
                KNOWN.answer(upstream, reading)
            return
        read = KNOWN.answer(upstream, reading)
        assert json.loads(KNOWN.render(read)[1]) == json.loads(upstream.body)
        release_labels(read)
        item = rendered(KNOWN, read)["outputs"][0]
        assert item["shape"] == [reading.queries.rows, 1]
        assert all(text.startswith("1.000000:") for text in item["data"])

    @pytest.mark.parametrize("name", [case for case in recorded.cases("triton") if "shared" in case])
    def test_triton_shared_memory(self, name: str) -> None:
        method, asked_ = recorded.request("triton", name)
        if method == "POST" and asked_.path.endswith("/infer"):
            with pytest.raises(ClientError) as caught:
                KNOWN.read(asked_)
            assert caught.value.code == "shared_memory"
        else:
            assert not any(e.access != "closed" and e.template == asked_.path for e in KNOWN.endpoints)

    @pytest.mark.parametrize("name", [case for case in recorded.cases("kserve") if case.startswith("v2-")])
    def test_kserve_v2(self, name: str) -> None:
        method, asked_ = recorded.request("kserve", name)
        upstream = recorded.reply("kserve", name)
        if method == "GET" or not asked_.path.endswith("/infer") or upstream.status != 200:
            return
        read = KNOWN.answer(upstream, KNOWN.read(asked_))
        assert [p.name for p in read.predictions] == ["probabilities"]
        assert [slot.name for slot in read.labels] == ["label"]
