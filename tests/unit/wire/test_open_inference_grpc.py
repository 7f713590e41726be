"""Open Inference over gRPC: what a message says is what its JSON would, in every form and datatype."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pool

from guard.errors import ClientError, GuardError, UpstreamError
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.model.prediction import Release
from guard.wire import open_inference_messages as messages
from guard.wire.base import Fields, Reader, Reading
from guard.wire.open_inference import OpenInference
from guard.wire.open_inference_grpc import GrpcCall, OpenInferenceGrpc
from guard.wire.raw_tensors import DTYPES
from tests.support.grpc_messages import answer, asked, data_of, output, request, told

TYPED = [name for name in DTYPES if name not in ("FP16", "BF16")]
TWO = [[1, 0, 1], [0, 1, 1]]
SCORES = [[0.25, 0.75], [0.625, 0.375]]


def codec(fields: Fields = "known", **outputs: Any) -> OpenInferenceGrpc:
    return OpenInferenceGrpc(Reader(Outputs(**outputs), fields))


def call(body: bytes) -> Call:
    return Call("/v2/models/m/infer", {}, "application/grpc", body)


def read(body: bytes, fields: Fields = "known") -> Reading:
    return codec(fields).read(call(body))


def read_json(datatype: str, values: object) -> Reading:
    tensor = {"name": "x", "datatype": datatype, "shape": list(np.array(values).shape), "data": values}
    return OpenInference(Reader(Outputs())).read(
        Call("/v2/models/m/infer", {}, "application/json", json.dumps({"inputs": [tensor]}).encode())
    )


def reading(rows: int = 2) -> Reading:
    return read(request(("x", "FP32", [[1.0, 2.0]] * rows), id_="7"))


def answered(body: bytes, fields: Fields = "known", rows: int = 2, **outputs: Any) -> Any:
    return codec(fields, **outputs).answer(Reply(200, [], body), reading(rows))


def rendered(answer: Any, fields: Fields = "known") -> bytes:
    content_type, body = codec(fields).render(answer)
    assert content_type == b""
    return body


@pytest.mark.parametrize("datatype", list(DTYPES))
def test_the_same_numbers_are_the_same_query_in_every_form(datatype: str) -> None:
    expected = read_json(datatype, TWO).queries.row_bytes()
    assert read(request(("x", datatype, TWO))).queries.row_bytes() == expected
    if datatype in TYPED:
        assert read(request(("x", datatype, TWO), raw=False)).queries.row_bytes() == expected


@pytest.mark.parametrize("raw", [True, False])
def test_the_same_texts_are_the_same_query_in_every_form(raw: bool) -> None:
    texts = [["a", "é"], ["", "b"]]
    assert (
        read(request(("x", "BYTES", texts), raw=raw)).queries.row_bytes()
        == read_json("BYTES", texts).queries.row_bytes()
    )


@pytest.mark.parametrize("raw", [True, False])
def test_several_inputs_stand_in_one_row_by_name(raw: bool) -> None:
    found = read(request(("b", "FP32", [[3.0], [4.0]]), ("a", "INT64", [[1], [2]]), raw=raw)).queries
    assert (found.matrix() == [[1.0, 3.0], [2.0, 4.0]]).all()  # pyright: ignore[reportOptionalMemberAccess]
    assert found.names == ("a", "b")


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT32", "UINT8", "BOOL"])
def test_snapped_numbers_go_on_in_the_form_that_they_had(datatype: str, raw: bool) -> None:
    found = read(request(("x", datatype, TWO), raw=raw, id_="7"))
    body = codec().rewrite(found, np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]))
    again = read(body)
    assert (len(asked(body).raw_input_contents) == 1) is raw
    assert (again.queries.matrix() == [[0, 1, 0], [1, 1, 0]]).all()  # pyright: ignore[reportOptionalMemberAccess]
    assert asked(body).id == "7"


def test_what_is_forwarded_is_what_was_read() -> None:
    unknown = b"\xfa\x07\x01x"  # field 127
    body = request(
        ("x", "FP32", [[1.0]]),
        outputs={"p": {"classification": 3, "priority": 1}},
        parameters={"sequence_id": 4, "sequence_start": True, "priority": 9, "timeout": 1},
    )
    message: Any = asked(body + unknown)
    message.inputs[0].parameters["mystery"].string_param = "x"
    message.inputs[0].contents.SetInParent()
    forwarded: Any = asked(read(message.SerializeToString()).body)
    assert dict(forwarded.parameters).keys() == {"sequence_id", "sequence_start"}
    assert dict(forwarded.outputs[0].parameters).keys() == {"classification"}
    assert not forwarded.inputs[0].parameters
    assert not forwarded.inputs[0].HasField("contents")
    assert unknown not in forwarded.SerializeToString()


def test_everything_else_is_passed_on_where_the_policy_says_so() -> None:
    body = request(("x", "FP32", [[1.0]]), parameters={"priority": 9, "triton_enable_empty_final_response": True})
    assert dict(asked(read(body, "all").body).parameters).keys() == {"priority"}


@pytest.mark.parametrize("name", ["shared_memory_region", "shared_memory_byte_size", "Shared_Memory_Offset"])
@pytest.mark.parametrize("place", ["inputs", "outputs"])
def test_shared_memory_is_refused(name: str, place: str) -> None:
    message: Any = asked(request(("x", "FP32", [[1.0]]), outputs={"p": {}}))
    getattr(message, place)[0].parameters[name].string_param = "region"
    for fields in ("known", "all"):
        with pytest.raises(ClientError, match="shared memory"):
            read(message.SerializeToString(), fields)


def _both(message: Any) -> None:
    message.inputs[0].contents.fp32_contents.append(1.0)


def _other_field(message: Any) -> None:
    message.ClearField("raw_input_contents")
    message.inputs[0].contents.int_contents.append(1)


def _two_fields(message: Any) -> None:
    message.ClearField("raw_input_contents")
    message.inputs[0].contents.fp32_contents.append(1.0)
    message.inputs[0].contents.fp64_contents.append(2.0)


def _half_typed(message: Any) -> None:
    message.ClearField("raw_input_contents")
    message.inputs[0].datatype = "FP16"
    message.inputs[0].contents.fp32_contents.append(1.0)


def _too_many_raw(message: Any) -> None:
    message.raw_input_contents.append(b"")


def _short(message: Any) -> None:
    message.raw_input_contents[0] = b"\0\0\0"


def _empty(message: Any) -> None:
    message.ClearField("raw_input_contents")


def _gigantic(message: Any) -> None:
    message.inputs[0].shape[:] = [2**62, 2**62, 4]


def _negative(message: Any) -> None:
    message.inputs[0].shape[:] = [1, -1]


def _no_shape(message: Any) -> None:
    message.inputs[0].ClearField("shape")


def _odd_datatype(message: Any) -> None:
    message.inputs[0].datatype = "FP128"


def _cut_off(message: Any) -> None:
    message.ClearField("raw_input_contents")
    message.inputs[0].datatype = "INT8"
    message.inputs[0].contents.int_contents.append(300)


def _twice(message: Any) -> None:
    message.inputs.add().CopyFrom(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])


def _many(message: Any) -> None:
    for _ in range(2000):
        message.inputs.add()


def _no_inputs(message: Any) -> None:
    message.ClearField("inputs")
    message.ClearField("raw_input_contents")


def _no_choice(message: Any) -> None:
    message.parameters["sequence_id"].SetInParent()


WRONG = [
    _both, _other_field, _two_fields, _half_typed, _too_many_raw, _short, _empty, _gigantic, _negative, _no_shape,
    _odd_datatype, _cut_off, _twice, _many, _no_inputs, _no_choice,
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG)
def test_a_request_that_contradicts_itself_is_refused(change: Any) -> None:
    message: Any = asked(request(("x", "FP32", [[1.0]])))
    change(message)
    with pytest.raises(ClientError):
        read(message.SerializeToString())


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x01\xff", b"\x2a\x05\x0a", b"{}"])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ClientError, match="no ModelInferRequest"):
        read(body)
    with pytest.raises(ClientError, match="no ModelInferRequest"):
        codec().read(GrpcCall("", {}, "", body, message=None))


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_scores_are_read_and_written_in_their_own_form(datatype: str, raw: bool) -> None:
    found = answered(answer(("p", datatype, SCORES), raw=raw))
    assert (found.predictions[0].scores == SCORES).all()
    found.predictions[0].write(Release(np.array([[0.0, 1.0], [1.0, 0.0]])))
    body = rendered(found)
    assert output(body, "p") == [0.0, 1.0, 1.0, 0.0]
    assert (len(told(body).raw_output_contents) == 1) is raw
    assert (told(body).model_name, told(body).model_version, told(body).id) == ("m", "1", "7")


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_raw(datatype: str) -> None:
    found = answered(answer(("p", datatype, SCORES)))
    found.predictions[0].write(Release(np.array([[0.5, 0.5], [1.0, 0.0]])))
    assert output(rendered(found), "p") == [0.5, 0.5, 1.0, 0.0]


@pytest.mark.parametrize("raw", [True, False])
def test_labels_go_with_scores_and_other_tensors_stay(raw: bool) -> None:
    tensors = (("p", "FP32", SCORES), ("label", "INT64", [1, 0]), ("hidden", "FP32", [[9.5, 3.0], [8.0, 1.0]]))
    found = answered(answer(*tensors, raw=raw))
    assert [slot.name for slot in found.labels] == ["label"]
    assert found.dropped == ["hidden"]
    body = rendered(found)
    assert [one.name for one in told(body).outputs] == ["p", "label"]
    assert output(body, "label") == [1, 0]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in ("FP16", "BF16", "FP32", "FP64", "BOOL")])
def test_labels_of_every_whole_datatype_are_let_out(datatype: str, raw: bool) -> None:
    found = answered(answer(("p", "FP32", SCORES), ("label", datatype, [1, 0]), raw=raw))
    assert output(rendered(found), "p") == [0.25, 0.75, 0.625, 0.375]
    assert output(rendered(found), "label") == [1, 0]


@pytest.mark.parametrize("raw", [True, False])
def test_classification_strings_are_scores(raw: bool) -> None:
    found = answered(answer(("p", "BYTES", [["0.7:1:cat", "0.2:0:dog"], ["0.6:0:dog", "0.3:1:cat"]]), raw=raw))
    assert found.predictions[0].shape == "sparse"
    assert (found.predictions[0].scores == [[0.7, 0.2], [0.6, 0.3]]).all()
    kept = np.array([[True, False], [True, False]])
    found.predictions[0].write(Release(np.array([[1.0, 0.0], [1.0, 0.0]]), kept))
    body = rendered(found)
    assert output(body, "p") == [b"1.000000:1:cat", b"1.000000:0:dog"]
    assert list(told(body).outputs[0].shape) == [2, 1]


def test_parameters_of_an_answer_stay_behind_but_for_the_content_type() -> None:
    message: Any = told(answer(("p", "FP32", SCORES)))
    message.parameters["logits"].double_param = 0.123
    message.parameters["triton_final_response"].bool_param = True
    message.outputs[0].parameters["content_type"].string_param = "np"
    message.outputs[0].parameters["raw_score"].string_param = "0.123"
    body = message.SerializeToString() + b"\xfa\x07\x050.123"
    known: Any = told(rendered(answered(body)))
    assert not known.parameters
    assert {k: v.string_param for k, v in known.outputs[0].parameters.items()} == {"content_type": "np"}
    assert b"0.123" not in known.SerializeToString()
    every: Any = told(rendered(answered(body, "all"), "all"))
    assert b"\xfa\x07" not in every.SerializeToString()
    assert not any(value.HasField("double_param") for value in every.parameters.values())


def _answer_both(message: Any) -> None:
    message.outputs[0].contents.fp32_contents.append(1.0)


def _answer_fewer_raw(message: Any) -> None:
    message.outputs.add().CopyFrom(message.outputs[0])


def _answer_gigantic(message: Any) -> None:
    message.outputs[0].shape[:] = [2, 2**61]


def _answer_negative(message: Any) -> None:
    message.outputs[0].shape[:] = [-2, -2]


def _answer_odd(message: Any) -> None:
    message.outputs[0].datatype = "fp32"


def _answer_twice(message: Any) -> None:
    message.outputs.add().CopyFrom(message.outputs[0])
    message.raw_output_contents.append(message.raw_output_contents[0])


def _answer_nothing(message: Any) -> None:
    message.ClearField("outputs")
    message.ClearField("raw_output_contents")


def _answer_many(message: Any) -> None:
    for _ in range(2000):
        message.outputs.add()


def _answer_in_shared_memory(message: Any) -> None:
    message.outputs[0].parameters["shared_memory_region"].string_param = "r"
    message.ClearField("raw_output_contents")


@pytest.mark.parametrize(
    "change",
    [
        _answer_both, _answer_fewer_raw, _answer_gigantic, _answer_negative, _answer_odd, _answer_twice,
        _answer_nothing, _answer_many, _answer_in_shared_memory,
    ],
)  # fmt: skip
def test_an_answer_that_contradicts_itself_is_withheld(change: Any) -> None:
    message: Any = told(answer(("p", "FP32", SCORES)))
    change(message)
    with pytest.raises(UpstreamError) as caught:
        answered(message.SerializeToString())
    assert caught.value.code == "unreadable_answer"


def test_an_answer_that_is_none_is_withheld() -> None:
    with pytest.raises(UpstreamError, match="no ModelInferResponse"):
        answered(b"\xff\xff")
    with pytest.raises(UpstreamError, match="holds probabilities"):
        answered(answer(("hidden", "FP32", [[9.0, 4.0], [3.0, 2.0]])))


def test_more_rows_than_asked_are_seen() -> None:
    assert answered(answer(("p", "FP32", [*SCORES, *SCORES]))).rows == 4


def test_a_remembered_answer_takes_the_id_of_who_asks_again() -> None:
    first = rendered(answered(answer(("p", "FP32", SCORES), id_="other")))
    assert told(rendered(answered(first))).id == "7"


def test_errors_stand_in_no_body() -> None:
    assert codec().error(GuardError("no")) == (b"", b"")


def test_messages_live_beside_other_stubs() -> None:
    # tritonclient and MLServer put the same names into the library's own pool.
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
    assert messages.infer_request(request(("x", "FP32", [[1.0]]))) is not None


def test_data_of_is_the_protocols() -> None:
    assert data_of([1, 2], "INT16") == b"\1\0\2\0"
