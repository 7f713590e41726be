"""Binary tensors over HTTP: the same queries and answers as in JSON, in the form that the client asked for."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from guard.defences.round import Round
from guard.engine.release import release
from guard.errors import ClientError, UpstreamError
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.model.prediction import Answer
from guard.wire.base import Codec, Reading
from guard.wire.open_inference import OpenInference
from tests.support import recorded
from tests.support.binary import HEADER, binary, members_of, raw, readable
from tests.support.codecs import call, reader, release_labels, reply
from tests.support.randomness import Seeded

Json = Any  # JSON of a foreign API, deliberately wrong in many cases
PATH = "/v2/models/m/infer"
KNOWN: Codec = OpenInference(reader())
ALL: Codec = OpenInference(reader("all"))
P = [0.5625, 0.3125, 0.125]


def tensor(data: Json, shape: Json, datatype: str = "FP32", name: str = "x", **more: Json) -> Json:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def read(document: Json, codec: Codec = KNOWN, *, only: list[str] | None = None) -> Reading:
    body, length = binary(document, only=only)
    return codec.read(call(PATH, body, inference_header_content_length=length))


def refused(body: bytes, length: str, codec: Codec = KNOWN) -> ClientError:
    with pytest.raises(ClientError) as caught:
        codec.read(call(PATH, body, inference_header_content_length=length))
    assert caught.value.status == 400
    return caught.value


def forwarded(reading: Reading) -> Json:
    headers = {name.decode(): value.decode() for name, value in reading.headers}
    return json.loads(readable(headers, reading.body, "inputs"))


def asked(upstream: Json, codec: Codec = KNOWN, *, only: list[str] | None = None, **more: Json) -> Answer:
    """Read a binary answer to a request for binary tensors."""
    rows = upstream["outputs"][0]["shape"][0]
    request = {"inputs": [tensor([1.0] * rows, [rows, 1])], "parameters": {"binary_data_output": True}, **more}
    body, length = binary(upstream, "outputs", only=only)
    sent = reply(body, content_type="application/octet-stream", inference_header_content_length=length)
    return codec.answer(sent, codec.read(call(PATH, request)))


def told(answer: Answer, codec: Codec = KNOWN) -> Json:
    kind, body = codec.render(answer)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    assert (kind == b"application/octet-stream") == (HEADER in headers)
    return json.loads(readable(headers, body))


def answer(*outputs: Json) -> Json:
    return {"model_name": "m", "outputs": list(outputs)}


NUMBERS = {
    **{datatype: [[0.5, -2.0, 0.0], [1.5, 0.25, 8.0]] for datatype in ("FP16", "FP32", "FP64")},
    **{datatype: [[1, -2, 3], [0, 5, 100]] for datatype in ("INT8", "INT16", "INT32", "INT64")},
    **{datatype: [[1, 2, 3], [0, 5, 200]] for datatype in ("UINT8", "UINT16", "UINT32", "UINT64")},
    "BOOL": [[True, False, True], [False, False, True]],
}


class TestRead:
    @pytest.mark.parametrize("datatype", NUMBERS)
    @pytest.mark.parametrize("codec", [KNOWN, ALL])
    def test_numbers_are_the_same_query_as_in_json(self, codec: Codec, datatype: str) -> None:
        document = {"inputs": [tensor(NUMBERS[datatype], [2, 3], datatype)]}
        as_json, as_bytes = codec.read(call(PATH, document)), read(document, codec)
        assert as_bytes.queries.row_bytes() == as_json.queries.row_bytes()
        assert as_bytes.queries.place(1, 2) == "inputs[0].data[5]"
        assert as_bytes.content_type == b"application/octet-stream"
        assert forwarded(as_bytes)["inputs"][0]["data"] == np.ravel(NUMBERS[datatype]).tolist()

    def test_bf16_is_the_upper_half_of_fp32(self) -> None:
        head = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "BF16", "parameters": {"binary_data_size": 4}}]}
        text = json.dumps(head).encode()
        reading = KNOWN.read(
            call(PATH, text + bytes([0x80, 0x3F, 0x20, 0xC0]), inference_header_content_length=str(len(text)))
        )
        np.testing.assert_array_equal(reading.queries.matrix(), [[1.0, -2.5]])

    @pytest.mark.parametrize("shape", [[2, 1], [1, 2], [2], [2, 2]])
    def test_texts_are_the_same_query_as_in_json(self, shape: list[int]) -> None:
        texts = ["a", "\u00fc \U0001f600", "", "c"][: int(np.prod(shape))]
        document = {"inputs": [tensor(texts, shape, "BYTES")]}
        as_json, as_bytes = KNOWN.read(call(PATH, document)), read(document)
        assert as_bytes.queries.row_values() == as_json.queries.row_values()
        assert as_bytes.queries.row_bytes() == as_json.queries.row_bytes()
        assert forwarded(as_bytes)["inputs"][0]["data"] == texts

    def test_bytes_that_are_no_text_are_no_texts_query(self) -> None:
        opaque, text = (read({"inputs": [tensor([member], [1], "BYTES")]}) for member in (b"\xe9\x00", "\u00e9\x00"))
        assert opaque.queries.row_bytes() != text.queries.row_bytes()
        Inputs().admit(opaque.queries)
        with pytest.raises(ClientError):
            Inputs(kind="text").admit(opaque.queries)

    def test_base64_texts_are_the_same_query_as_in_json(self) -> None:
        document = {"inputs": [tensor(["QQ=="], [1], "BYTES", parameters={"content_type": "base64"})]}
        other = {"inputs": [tensor(["QR=="], [1], "BYTES", parameters={"content_type": "base64"})]}
        assert read(document).queries.row_bytes() == KNOWN.read(call(PATH, other)).queries.row_bytes()
        refused(*binary({"inputs": [tensor([b"\xff"], [1], "BYTES", parameters={"content_type": "base64"})]}))

    @pytest.mark.parametrize("only", [["a"], ["b"], ["c"], ["a", "c"], ["a", "b", "c"]])
    def test_json_and_binary_inputs_stand_together(self, only: list[str]) -> None:
        document = {
            "inputs": [
                tensor([1, 2, 3, 4], [2, 2], "INT64", "b"),
                tensor([0.5, 1.5], [2, 1], "FP32", "a"),
                tensor(["x", "y"], [2, 1], "BYTES", "c"),
            ]
        }
        for inputs in (document["inputs"], document["inputs"][:2]):
            wanted = [name for name in only if name in [item["name"] for item in inputs]]
            if not wanted:
                continue
            reading = read({"inputs": inputs}, only=wanted)
            assert reading.queries.row_bytes() == KNOWN.read(call(PATH, {"inputs": inputs})).queries.row_bytes()
            assert forwarded(reading)["inputs"] == inputs

    def test_what_is_forwarded_is_written_anew(self) -> None:
        data = struct.pack("<f", 1.0)
        head = (
            b'{"inputs":[{"name":"x","shape":[1],"shape":[1,1],"datatype":"FP32","extra":1,'
            b'"parameters":{"top":1,"binary_data_size":9,"binary_data_size":4}}],"explain":true}   '
        )
        reading = KNOWN.read(call(PATH, head + data, inference_header_content_length=f" {len(head)} "))
        text = b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}'
        assert reading.body == text + data
        assert reading.headers == ((HEADER.encode(), b"%d" % len(text)),)

    @pytest.mark.parametrize(
        "more",
        [
            {"explain": True, "parameters": {"binary_data_output": True, "top": 1}},
            {"parameters": {"binary_data_output": True, "top": 1}},
            {"explain": True, "id": "7"},
            {"parameters": {"top": 1}},
            {"outputs": [{"name": "p", "raw": True, "parameters": {"top": 1}}], "id": "7"},
        ],
    )
    def test_what_is_unknown_is_left_out_of_the_plainest_request_too(self, more: Json) -> None:
        document = {"inputs": [tensor([1.0], [1, 1])]}
        text = json.dumps(forwarded(read({**document, **more})))
        assert "top" not in text
        assert "raw" not in text
        assert "explain" not in text
        shared = {**more, "parameters": {**more.get("parameters", {}), "shared_memory_region": "r"}}
        assert refused(*binary({**document, **shared})).code == "shared_memory"

    @pytest.mark.parametrize("size", [1.0, True])
    def test_a_size_of_another_type_is_refused_though_it_is_equal(self, size: Json) -> None:
        item = {"name": "x", "shape": [1, 1], "datatype": "INT8", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [item]}).encode()
        refused(head + bytes(1), str(len(head)))

    def test_a_header_with_no_bytes_behind_the_json_is_a_json_request(self) -> None:
        body = json.dumps({"inputs": [tensor([1.0], [1, 1])]}).encode()
        reading = KNOWN.read(call(PATH, body, inference_header_content_length=str(len(body))))
        assert (reading.body, reading.headers, reading.content_type) == (body, (), b"application/json")

    @pytest.mark.parametrize("length", ["", "x", "-1", "+9", "1_0", "0", "0x5f", "1e2", "9" * 30, "\u0663", "4000"])
    def test_a_length_that_is_none_is_refused(self, length: str) -> None:
        body, _ = binary({"inputs": [tensor([1.0], [1, 1])]})
        refused(body, length)

    def test_two_lengths_are_refused(self) -> None:
        body, length = binary({"inputs": [tensor([1.0], [1, 1])]})
        twice = call(PATH, body, inference_header_content_length=length)
        twice.headers.append((HEADER.encode(), length.encode()))
        with pytest.raises(ClientError):
            KNOWN.read(twice)

    @pytest.mark.parametrize("size", [3, 5, -4, 0, 4.0, True, "4", None, [4], 2**63])
    def test_a_size_that_is_not_true_is_refused(self, size: Json) -> None:
        item = {"name": "x", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [item]}).encode()
        refused(head + bytes(4), str(len(head)))

    @pytest.mark.parametrize(
        ("datatype", "shape", "data"),
        [
            ("FP32", [1, 2**40, 2**40], bytes(4)),
            ("FP32", [4, 2**62], bytes(4)),
            ("INT8", [1, 2**32, 2**32], b""),
            ("BYTES", [4, 2**62], bytes(4)),
            ("BYTES", [2], bytes(4)),
            ("BYTES", [1, 10**18], bytes(4)),
            ("FP32", [-1, -1], bytes(4)),
            ("FP32", [0], b""),
            ("FP31", [1], bytes(4)),
            (None, [1], bytes(4)),
            ("BOOL", [2], b"\x00\x02"),
            ("BYTES", [1], b"\xff\xff\xff\xff"),
            ("BYTES", [1], b"\x05\x00\x00\x00abcd"),
            ("BYTES", [2], b"\x01\x00\x00\x00a\x00\x00"),
            ("BYTES", [1], b"\x01\x00\x00\x00ab"),
        ],
    )
    def test_a_tensor_that_is_not_what_it_says_is_refused(self, datatype: str, shape: list[int], data: bytes) -> None:
        item = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [item]}).encode()
        refused(head + data, str(len(head)))

    def test_bytes_too_many_and_too_few_are_refused(self) -> None:
        body, length = binary({"inputs": [tensor([1.0, 2.0], [1, 2])]})
        refused(body + b"\0", length)
        refused(body[:-1], length)
        refused(body, str(int(length) + 1))
        refused(body, str(int(length) - 1))

    def test_data_in_both_places_is_refused(self) -> None:
        item = tensor([1.0], [1, 1], parameters={"binary_data_size": 4})
        head = json.dumps({"inputs": [item]}).encode()
        refused(head + bytes(4), str(len(head)))

    def test_rows_beyond_the_limit_are_refused_before_they_are_read(self) -> None:
        body, length = binary({"inputs": [tensor([""] * 9, [9], "BYTES")]})
        asked_ = call(PATH, body, inference_header_content_length=length)
        asked_.max_rows = 8
        body, length = binary({"inputs": [tensor([1.0], [2**62, 1])]})
        gigantic = call(PATH, body, inference_header_content_length=length)
        for each in (asked_, gigantic):
            with pytest.raises(ClientError) as caught:
                KNOWN.read(each)
            assert caught.value.code == "too_many_rows"

    def test_shared_memory_beside_bytes_is_refused(self) -> None:
        for member in ({"outputs": [{"name": "p", "parameters": {"shared_memory_region": "r"}}]}, {}):
            parameters = {} if member else {"shared_memory_region": "r"}
            body, length = binary({"inputs": [tensor([1.0], [1, 1], parameters=parameters)], **member})
            assert refused(body, length).code == "shared_memory"

    def test_every_spelling_of_nan_and_zero_is_one_query(self) -> None:
        item = {"name": "x", "shape": [4, 1], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
        head = json.dumps({"inputs": [item]}).encode()
        body = head + struct.pack("<IIII", 0x7FC00000, 0x7F800001, 0, 0x80000000)
        rows = KNOWN.read(call(PATH, body, inference_header_content_length=str(len(head)))).queries.row_bytes()
        assert rows[0] == rows[1]
        assert rows[2] == rows[3]
        nan = KNOWN.read(call(PATH, b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}'))
        assert nan.queries.row_bytes() == rows[:1]


class TestRewrite:
    @pytest.mark.parametrize("datatype", [datatype for datatype in NUMBERS if datatype != "BOOL"])
    def test_snapped_numbers_go_in_the_datatype(self, datatype: str) -> None:
        reading = read({"inputs": [tensor([3, 5], [1, 2], datatype)], "id": "7"})
        snapped = Inputs(kind="vector", size=2, step=2, low=0).admit(reading.queries)
        assert snapped is not None
        reading.body = KNOWN.rewrite(reading, snapped)
        assert forwarded(reading) == {"inputs": [tensor([4, 4], [1, 2], datatype)], "id": "7"}

    @pytest.mark.parametrize("only", [["a"], ["b"], ["a", "b"]])
    def test_mixed_inputs_keep_their_form(self, only: list[str]) -> None:
        inputs = [tensor([3, 5], [1, 2], "INT64", "b"), tensor([0.4], [1, 1], "FP32", "a")]
        reading = read({"inputs": inputs}, only=only)
        reading.body = KNOWN.rewrite(reading, np.array([[0.5, 4.0, 6.0]]))
        moved = forwarded(reading)["inputs"]
        assert [item["data"] for item in moved] == [[4, 6], [0.5]]
        raw_ones = json.loads(reading.body[: int(reading.headers[0][1])])["inputs"]
        assert [item["name"] for item in raw_ones if "data" not in item] == [n for n in ("b", "a") if n in only]

    def test_numbers_beyond_the_datatype_stop_at_its_limit(self) -> None:
        reading = read({"inputs": [tensor([3], [1, 1], "UINT8")]})
        reading.body = KNOWN.rewrite(reading, np.array([[300.0]]))
        assert forwarded(reading)["inputs"][0]["data"] == [255]


class TestAnswer:
    @pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
    @pytest.mark.parametrize("codec", [KNOWN, ALL])
    def test_scores_are_defended_in_their_datatype(self, codec: Codec, datatype: str) -> None:
        upstream = answer(tensor([*P, *P[::-1]], [2, 3], datatype, "p"), tensor([0, 2], [2, 1], "INT64", "label"))
        for document in (upstream, answer(upstream["outputs"][0])):
            read_ = asked(document, codec)
            np.testing.assert_array_equal(read_.predictions[0].scores, [P, P[::-1]])
            assert told(read_, codec) == document
            read_ = asked(document, codec)
            release((Round(decimals=1),), Outputs(), read_, Seeded(2), labels_only=False)
            found = told(read_, codec)["outputs"]
            assert found[0]["datatype"] == datatype
            np.testing.assert_allclose(found[0]["data"], np.round([*P, *P[::-1]], 1), rtol=1e-3)
            assert found[1:] == document["outputs"][1:]

    @pytest.mark.parametrize("only", [["p"], ["label"], ["p", "label"]])
    def test_mixed_outputs_keep_their_form(self, only: list[str]) -> None:
        upstream = answer(tensor(P, [1, 3], name="p"), tensor(["cat"], [1], "BYTES", "label"))
        read_ = asked(upstream, only=only)
        release_labels(read_)
        kind, body = KNOWN.render(read_)
        head = json.loads(body[: int(read_.headers[0][1])])
        assert kind == b"application/octet-stream"
        assert [item["name"] for item in head["outputs"] if "data" not in item] == only
        assert [item["data"] for item in told(read_)["outputs"]] == [[1.0, 0.0, 0.0], ["cat"]]

    def test_outputs_of_another_kind_leave_with_their_bytes(self) -> None:
        hidden = tensor([7.5, -3.0, 0.25, 1.0], [1, 4], name="hidden")
        upstream = answer(hidden, tensor(P, [1, 3], name="p"), tensor(["0.62"], [1], "BYTES", "note"))
        read_ = asked(upstream)
        assert read_.dropped == ["hidden", "note"]
        _, body = KNOWN.render(read_)
        assert body.endswith(raw("FP32", P))
        assert raw("FP32", hidden["data"]) not in body
        assert b"0.62" not in body
        with pytest.raises(UpstreamError):
            asked(upstream, ALL)

    def test_unknown_members_and_parameters_leave(self) -> None:
        upstream = answer(tensor(P, [1, 3], name="p", parameters={"raw": 0.25}, extra=[0.75]))
        read_ = asked({**upstream, "parameters": {"logits": [1.5]}})
        assert sorted(read_.dropped) == ["extra", "parameters", "parameters"]
        assert told(read_) == answer(tensor(P, [1, 3], name="p"))

    def test_labels_are_written_anew_in_their_datatype(self) -> None:
        codec = OpenInference(reader(classes=["cat", "dog", "owl"]))
        upstream = answer(
            tensor(P, [1, 3], name="p"),
            tensor(["cat"], [1], "BYTES", "label"),
            tensor([0], [1, 1], "INT32", "class_id"),
        )
        read_ = asked(upstream, codec)
        assert len(read_.labels) == 2
        for slot in read_.labels:
            slot.write(np.array([2]))
        assert [item["data"] for item in told(read_, codec)["outputs"][1:]] == [["owl"], [2]]

    @pytest.mark.parametrize("shape", [[1, 3], [3]])
    def test_classification_is_a_sparse_prediction(self, shape: list[int]) -> None:
        upstream = answer(tensor(["0.56:2:owl", "0.31:0:cat", "0.12:1:dog"], shape, "BYTES", "p"))
        body, length = binary(upstream, "outputs")
        sent = reply(body, inference_header_content_length=length)
        document = {"inputs": [tensor([1.0], [1, 1])], "parameters": {"binary_data_output": True}}
        read_ = KNOWN.answer(sent, KNOWN.read(call(PATH, document)))
        assert read_.predictions[0].shape == "sparse"
        release_labels(read_)
        left = told(read_)["outputs"][0]
        assert (left["shape"], left["data"]) == ([1] * len(shape), ["1.000000:2:owl"])

    def test_a_request_for_json_is_answered_in_json(self) -> None:
        # A remembered release may have been asked for in another form.
        upstream = answer(tensor(P, [1, 3], "FP16", "p"), tensor(["cat"], [1], "BYTES", "label"))
        for document in (upstream, answer(upstream["outputs"][0])):
            read_ = asked(document, parameters={}, outputs=[{"name": "label", "parameters": {"binary_data": False}}])
            release_labels(read_)
            kind, body = KNOWN.render(read_)
            assert (kind, read_.headers) == (b"application/json", [])
            assert json.loads(body)["outputs"][0]["data"] == [1.0, 0.0, 0.0]
        named = [{"name": "p", "parameters": {"binary_data": True}}, {"name": "label"}]
        read_ = asked(upstream, parameters={}, outputs=named)
        KNOWN.render(read_)
        assert read_.headers

    @pytest.mark.parametrize(
        ("item", "data"),
        [
            ({"shape": [1, 3], "datatype": "FP32"}, bytes(8)),
            ({"shape": [1, 3], "datatype": "FP31"}, bytes(12)),
            ({"shape": [1, 3]}, bytes(12)),
            ({"shape": None, "datatype": "FP32"}, bytes(12)),
            ({"shape": [2**62, 2**62], "datatype": "FP32"}, bytes(12)),
            ({"shape": [1, 3], "datatype": "BYTES"}, bytes(8)),
            ({"shape": [1, 1], "datatype": "BYTES"}, b"\xff\0\0\0ab"),
            ({"shape": [1, 1], "datatype": "BYTES"}, b"\1\0\0\0\xff"),
            ({"shape": [1, 3], "datatype": "BOOL"}, b"\0\1\7"),
            ({"shape": [0, 3], "datatype": "FP32"}, b""),
        ],
    )
    @pytest.mark.parametrize("codec", [KNOWN, ALL])
    def test_a_tensor_that_is_not_what_it_says_is_withheld(self, codec: Codec, item: Json, data: bytes) -> None:
        output = {"name": "p", **item, "parameters": {"binary_data_size": len(data)}}
        head = json.dumps(answer(output)).encode()
        reading = KNOWN.read(call(PATH, {"inputs": [tensor([1.0], [1, 1])]}))
        sent = reply(
            head + data, content_type="application/octet-stream", inference_header_content_length=str(len(head))
        )
        with pytest.raises(UpstreamError) as caught:
            codec.answer(sent, reading)
        assert caught.value.code == "unreadable_answer"

    def test_bytes_too_many_and_too_few_are_withheld(self) -> None:
        reading = KNOWN.read(call(PATH, {"inputs": [tensor([1.0], [1, 1])]}))
        body, length = binary(answer(tensor(P, [1, 3])), "outputs")
        for bytes_, number in ((body + b"\0", length), (body[:-1], length), (body, str(int(length) + 1)), (body, "0")):
            with pytest.raises(UpstreamError):
                KNOWN.answer(reply(bytes_, inference_header_content_length=number), reading)

    def test_numbers_that_no_json_holds_come_back(self) -> None:
        codec = OpenInference(reader("all", kind="value"))
        upstream = answer(tensor([2**63 + 2**40], [1, 1], "UINT64", "v"))
        assert told(asked(upstream, codec), codec) == upstream

    @pytest.mark.parametrize("name", [case for case in recorded.cases("triton") if "binary" in case])
    def test_triton_binary(self, name: str) -> None:
        reading = KNOWN.read(recorded.request("triton", name)[1])
        upstream = recorded.reply("triton", name)
        headers = {key.decode(): value.decode() for key, value in upstream.headers}
        read_ = KNOWN.answer(upstream, reading)
        assert told(read_) == json.loads(readable(headers, upstream.body))
        release_labels(read_)
        (prediction,) = read_.predictions
        data = told(read_)["outputs"][0]["data"]
        assert data == ["1.000000:0"] if prediction.shape == "sparse" else data == [1.0] + [0.0] * 9


def test_the_second_writing_reads_what_it_writes() -> None:
    for datatype, rows in NUMBERS.items():
        assert members_of(datatype, raw(datatype, np.ravel(rows).tolist())) == np.ravel(rows).tolist()
