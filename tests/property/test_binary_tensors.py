"""Binary tensors under hypothesis: what is broken is an error, what is read is forwarded as it was read."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.errors import ClientError, GuardError, UpstreamError
from guard.model.outputs import Outputs
from guard.wire.base import Codec, Reader, Reading
from guard.wire.open_inference import OpenInference
from tests.support.binary import HEADER, binary, raw, readable
from tests.support.codecs import call, release_labels, reply

Json = Any  # JSON of a foreign API, deliberately wrong in many cases
T = TypeVar("T")
PATH = "/v2/models/m/infer"
CODECS = [OpenInference(Reader(Outputs(), fields)) for fields in ("known", "all")]
SCORES = (0.6231, 0.2694, 0.1075)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4) | st.just("FP32"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": st.floats(width=bits, allow_nan=False, allow_infinity=False) for bits in (16, 32, 64)},
    "BOOL": st.booleans(),
    "BYTES": st.text(max_size=5),
}


@st.composite
def inputs(draw: st.DrawFn) -> list[Json]:
    """Draw tensors that are right: one to three, all of as many rows."""
    rows, found = draw(st.integers(1, 3)), list[Json]()
    for name in draw(st.lists(st.text('abc\u00fc:"[', max_size=3), min_size=1, max_size=3, unique=True)):
        datatype, shape = draw(st.sampled_from(sorted(MEMBERS))), [rows, *draw(st.lists(st.integers(1, 2), max_size=2))]
        size = int(np.prod(shape))
        data = draw(st.lists(MEMBERS[datatype], min_size=size, max_size=size))
        found.append({"name": name, "shape": shape, "datatype": datatype, "data": data})
    return found


@st.composite
def broken(draw: st.DrawFn, body: bytes, length: str, member: str) -> tuple[bytes, str]:
    """Draw a body that something is wrong with, mostly, and the header beside it."""
    end = int(length)
    head, tail = body[:end], body[end:]
    match draw(st.sampled_from(["header", "size", "member", "bytes", "tail", "head", "names"])):
        case "header":
            return body, draw(st.text(max_size=6) | st.integers(-5, len(body) + 5).map(str) | st.just("9" * 40))
        case "tail":
            cut = draw(st.integers(0, len(tail)))
            return head + tail[:cut] + draw(st.binary(max_size=5)) + tail[cut + draw(st.integers(0, 3)) :], length
        case "bytes":
            return head + draw(st.binary(min_size=len(tail), max_size=len(tail))), length
        case "head":
            at = draw(st.integers(0, end - 1))
            return head[:at] + draw(st.binary(min_size=1, max_size=1)) + head[at + 1 :] + tail, length
        case "names":
            document = json.loads(head)
            document[member] += document[member]
            text, rest = json.dumps(document).encode(), tail + tail
            return text + rest, str(len(text))
        case kind:
            document = json.loads(head)
            tensor = draw(st.sampled_from(document[member]))
            huge = st.lists(st.integers(-(2**65), 2**65) | st.integers(0, 3), max_size=17)
            if kind == "size" and "parameters" in tensor:
                tensor["parameters"]["binary_data_size"] = draw(ANY_JSON | st.integers(-1, 2**65) | st.integers(0, 9))
            else:
                key = draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters", "more"]))
                tensor[key] = draw(ANY_JSON | huge | st.sampled_from(["FP16", "BF16", "BYTES", "BOOL", "INT8"]))
            text = json.dumps(document).encode()
            return text + tail, str(len(text))


def read(codec: Codec, body: bytes, length: str) -> Reading:
    return codec.read(call(PATH, body, inference_header_content_length=length))


def tried(work: Callable[[], T]) -> T | GuardError:
    """Return what the work returns, or Guard's error; anything else is a bug."""
    try:
        return work()
    except GuardError as error:
        return error


def forwarded(reading: Reading) -> Json:
    headers = {name.decode(): value.decode() for name, value in reading.headers}
    return json.loads(readable(headers, reading.body, "inputs"))


@given(inputs(), st.data())
def test_bytes_and_json_are_the_same_query_and_are_forwarded(tensors: list[Json], data: st.DataObject) -> None:
    only = data.draw(st.lists(st.sampled_from([tensor["name"] for tensor in tensors]), min_size=1))
    for codec in CODECS:
        reading = read(codec, *binary({"inputs": tensors}, only=only))
        assert reading.queries.row_bytes() == codec.read(call(PATH, {"inputs": tensors})).queries.row_bytes()
        for before, after in zip(tensors, forwarded(reading)["inputs"], strict=True):
            assert raw(before["datatype"], after["data"]) == raw(before["datatype"], before["data"])


PLACES = st.sampled_from(["request", "parameters", "input", "input parameters"])


@given(inputs(), st.sets(PLACES), st.booleans(), st.data())
def test_nothing_unknown_is_forwarded(tensors: list[Json], places: set[str], wants: bool, data: st.DataObject) -> None:
    only = data.draw(st.lists(st.sampled_from([tensor["name"] for tensor in tensors]), min_size=1))
    inputs_: list[Json] = [{**tensor, "parameters": {}} for tensor in tensors[: data.draw(st.integers(1, 3))]]
    parameters: Json = {"binary_data_output": True} if wants else {}
    document: Json = {"inputs": inputs_, **({"parameters": parameters} if wants or "parameters" in places else {})}
    first = inputs_[0]
    owners = {"request": document, "parameters": parameters, "input": first, "input parameters": first["parameters"]}
    for place in places:
        owners[place].update(dict.fromkeys(data.draw(st.sets(st.sampled_from(["zz1", "zz2", "zz3"]), min_size=1)), 1))
    reading = read(CODECS[0], *binary(document, only=only))
    assert b"zz" not in reading.body[: int(reading.headers[0][1]) if reading.headers else None]


@given(inputs(), st.data())
def test_a_broken_request_is_refused_or_forwarded_as_it_was_read(tensors: list[Json], data: st.DataObject) -> None:
    only = data.draw(st.lists(st.sampled_from([tensor["name"] for tensor in tensors])))
    body, length = data.draw(broken(*binary({"inputs": tensors}, only=only), "inputs"))
    for codec in CODECS:
        reading = tried(partial(read, codec, body, length))
        if isinstance(reading, GuardError):
            assert isinstance(reading, ClientError)
            assert 400 <= reading.status < 500
            continue
        rows = reading.queries.row_bytes()
        assert len(rows) == reading.queries.rows >= 1
        again = read(codec, reading.body, reading.headers[0][1].decode()) if reading.headers else None
        if again is not None:
            assert (again.body, again.headers, again.queries.row_bytes()) == (reading.body, reading.headers, rows)
        matrix = reading.queries.matrix()
        if matrix is not None:
            codec.rewrite(reading, np.nan_to_num(matrix))


@st.composite
def answers(draw: st.DrawFn) -> Json:
    """Draw an answer with scores, and maybe a copy, a label, a hidden layer."""
    datatype = draw(st.sampled_from(["FP16", "FP32", "FP64"]))
    scores = list(draw(st.permutations(SCORES)))
    top = int(np.argmax(scores))
    found: list[Json] = [
        {"name": "scores", "shape": [1, 3], "datatype": datatype, "data": scores},
        {"name": "copy", "shape": [1, 3], "datatype": "FP32", "data": scores},
        {"name": "label", "shape": [1, 1], "datatype": "INT64", "data": [top]},
        {"name": "text", "shape": [1], "datatype": "BYTES", "data": [f"c{top}"]},
        {"name": "strings", "shape": [1, 3], "datatype": "BYTES", "data": [f"{p}:{i}" for i, p in enumerate(scores)]},
        {"name": "hidden", "shape": [1, 2], "datatype": "FP32", "data": [SCORES[0] + 3, -SCORES[1]]},
    ]
    return [found[0], *draw(st.lists(st.sampled_from(found[1:]), unique_by=lambda tensor: tensor["name"]))]


TELLING = (*(raw(datatype, [p]) for datatype in ("FP32", "FP64") for p in SCORES), b"6231", b"2694", b"1075")


@given(answers(), st.booleans(), st.data())
def test_a_broken_answer_is_withheld_or_shows_no_score_but_the_label(
    tensors: Json, breaks: bool, data: st.DataObject
) -> None:
    only = data.draw(st.lists(st.sampled_from([tensor["name"] for tensor in tensors])))
    body, length = binary({"outputs": tensors}, "outputs", only=only)
    if breaks:
        body, length = data.draw(broken(body, length, "outputs"))
    asks = {"parameters": {"binary_data_output": data.draw(st.booleans())}}
    one = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}], **asks}
    for codec in CODECS:
        reading = codec.read(call(PATH, one))
        sent = reply(body, content_type="application/octet-stream", inference_header_content_length=length)
        answer = tried(partial(codec.answer, sent, reading))
        if isinstance(answer, GuardError):
            assert isinstance(answer, UpstreamError)
            assert answer.code == "unreadable_answer"
            continue
        if not answer.predictions:
            continue
        release_labels(answer)
        kind, text = codec.render(answer)
        headers = {name.decode(): value.decode() for name, value in answer.headers}
        assert (kind == b"application/octet-stream") == (HEADER in headers)
        json.loads(text[: int(headers.get(HEADER, len(text)))])
        assert int(headers.get(HEADER, 0)) <= len(text)
        assert not [secret for secret in TELLING if secret in text], text


@pytest.mark.parametrize("datatype", ["FP16", "FP64", "INT8", "BOOL", "BYTES", "BF16"])
@pytest.mark.parametrize("shape", [[2**31, 2**31], [1, 2**62], [2**40], [1] * 15 + [2**63], [3, 2**33, 2**33]])
def test_gigantic_shapes_take_no_memory(datatype: str, shape: list[int]) -> None:
    item = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": 48}}
    head = json.dumps({"inputs": [item], "outputs": [item]}).encode()
    read(CODECS[0], *binary({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}))
    tracemalloc.start()
    try:
        for codec in CODECS:
            with pytest.raises(ClientError):
                read(codec, head + bytes(48), str(len(head)))
            one = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}
            sent = reply(head + bytes(48), inference_header_content_length=str(len(head)))
            with pytest.raises(UpstreamError):
                codec.answer(sent, codec.read(call(PATH, one)))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
