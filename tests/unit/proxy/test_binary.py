"""Binary tensors through the whole of Guard: headers both ways, compressed bodies, noise, remembered releases."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.errors import PolicyError
from guard.model.exchange import Reply
from tests.support.binary import HEADER, binary, readable
from tests.support.fakes import Answered, Guarded, Seen

PATH = "/v2/models/m/infer"
SCORES = [0.5625, 0.3125, 0.125]
PRIVATE = """version: 1
routes:
  - name: r
    api: open_inference
    outputs: {kind: probabilities, classes: [a, b, c]}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: 0.001, accept_lost_writes: a test}
    defences: [{kind: dp_gaussian, noise_multiplier: 30}]
    budgets: [{kind: privacy, per: model, epsilon: 1, delta: 1.0e-5}]
"""
NOISY = """version: 1
routes:
  - {name: r, api: open_inference, inputs: {kind: vector, low: 0, high: 1, step: 0.125},
     defences: [{kind: noise, mechanism: laplace, scale: 0.05, reuse: query}]}
"""
Json = Any  # Any: JSON


def request(row: list[float], *, wants_binary: bool) -> Json:
    inputs = [{"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}]
    return {"inputs": inputs, "parameters": {"binary_data_output": wants_binary}}


def model(seen: Seen) -> Reply:
    """Answer as Triton does: in the form that was asked for."""
    headers = {name.decode(): value.decode() for name, value in seen.headers}
    asked = json.loads(readable(headers, seen.body, "inputs"))
    document = {"outputs": [{"name": "p", "shape": [1, 3], "datatype": "FP32", "data": SCORES}]}
    if not asked.get("parameters", {}).get("binary_data_output"):
        return Reply(200, [(b"content-type", b"application/json")], json.dumps(document).encode())
    body, length = binary(document, "outputs")
    named = [(b"content-type", b"application/octet-stream"), (HEADER.encode(), length.encode())]
    return Reply(200, named, body)


def guarded(folder: Path, policy: str) -> Guarded:
    made = Guarded(policy, folder)
    made.upstream.answer = model
    return made


async def ask(made: Guarded, row: list[float], *, sends: bool, wants: bool) -> Answered:
    """Send a request, raw or not, for raw scores or not."""
    document = request(row, wants_binary=wants)
    if not sends:
        return await made.ask("POST", PATH, json.dumps(document).encode())
    body, length = binary(document)
    return await made.ask("POST", PATH, body, [(HEADER.encode(), length.encode())])


def scores(got: Answered) -> list[float]:
    assert got.status == 200, got.body
    return json.loads(readable(got.headers, got.body))["outputs"][0]["data"]


async def test_every_form_gets_the_same_noise_in_the_form_that_it_asks_for(tmp_path: Path) -> None:
    made = guarded(tmp_path, NOISY)
    found: list[list[float]] = []
    for sends, wants in ((False, False), (True, False), (False, True), (True, True)):
        got = await ask(made, [0.13, 0.5], sends=sends, wants=wants)
        assert (HEADER in got.headers) is wants
        assert got.headers["content-type"] == ("application/octet-stream" if wants else "application/json")
        found.append(scores(got))
        seen = {name.decode(): value.decode() for name, value in made.upstream.seen[-1].headers}
        sent = json.loads(readable(seen, made.upstream.seen[-1].body, "inputs"))
        assert sent["inputs"][0]["data"] == [0.125, 0.5]
        assert (HEADER in seen) is sends
        assert seen["content-type"] == ("application/octet-stream" if sends else "application/json")
    np.testing.assert_allclose(found, [found[0]] * 4, rtol=1e-6)
    assert not np.allclose(found[0], SCORES, atol=1e-4)


async def test_a_release_is_remembered_whatever_form_is_asked_for(tmp_path: Path) -> None:
    made = guarded(tmp_path, PRIVATE)
    first = await ask(made, [1.0, 2.0], sends=True, wants=True)
    for sends, wants in ((True, True), (False, False), (True, False), (False, True)):
        again = await ask(made, [1.0, 2.0], sends=sends, wants=wants)
        assert scores(again) == scores(first)
        if not wants:
            assert again.headers["content-type"] == "application/json"
    assert len(made.upstream.seen) == 1


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_request_counts_its_json_unpacked(tmp_path: Path, coding: str, pack: Any) -> None:
    made = guarded(tmp_path, NOISY)
    body, length = binary(request([0.25, 0.5], wants_binary=True))
    headers = [(HEADER.encode(), length.encode()), (b"content-encoding", coding.encode())]
    packed = await made.ask("POST", PATH, pack(body), headers)
    assert scores(packed) == scores(await ask(made, [0.25, 0.5], sends=True, wants=True))
    one, two = made.upstream.seen
    assert one.body == two.body
    assert dict(one.headers)[HEADER.encode()] == dict(two.headers)[HEADER.encode()]
    assert b"content-encoding" not in dict(one.headers)


@pytest.mark.parametrize("key", ["forward_headers: [{}]", "upstream_headers: [{{name: {}, value: {{env: N}}}}]"])
def test_no_policy_writes_the_length_that_guard_writes(tmp_path: Path, key: str) -> None:
    with pytest.raises(PolicyError, match="inference-header-content-length belongs to Guard's own"):
        Guarded(NOISY + key.format("Inference-Header-Content-Length") + "\n", tmp_path, env={"N": "1"})


async def test_what_cannot_be_read_is_an_error_in_the_apis_envelope(tmp_path: Path) -> None:
    made = guarded(tmp_path, NOISY)
    body, length = binary(request([0.25, 0.5], wants_binary=True))
    for sent, said in ((body[:-1], length), (body + b"x", length), (body, "9" * 9), (body, "zero"), (body, "0")):
        got = await made.ask("POST", PATH, sent, [(HEADER.encode(), said.encode())])
        assert got.status == 400
        assert set(json.loads(got.body)) == {"error"}
    assert not made.upstream.seen
