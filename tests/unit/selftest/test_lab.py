"""The lab's model: real data, split in three, served over the Open Inference protocol."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from guard.selftest.lab import Digits, app
from tests.support.asgi import AsgiReply, ask

DIGITS = Digits(0)
Json = Any  # Any: JSON


@pytest.fixture(scope="module")
def server() -> Any:  # Any: an ASGI application
    train_x, train_y, *_ = DIGITS.split
    return app(DIGITS.fit(train_x, train_y))


async def post(server: Any, body: bytes) -> AsgiReply:  # Any: an ASGI application
    sent: list[Json] = []
    scope: dict[str, Json] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v2/models/digits/infer",
        "raw_path": b"/v2/models/digits/infer",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> Json:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Json) -> None:
        sent.append(message)

    await server(scope, receive, send)
    return AsgiReply(sent[0]["status"], {}, [message.get("body", b"") for message in sent[1:]])


def infer(rows: int, *outputs: str, **changed: Json) -> bytes:
    x = DIGITS.split[4][:rows]
    tensor = {"name": "x", "datatype": "FP64", "shape": [rows, 64], "data": x.ravel().tolist()} | changed
    return json.dumps({"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}).encode()


def test_the_split_leaves_nobody_the_others_data() -> None:
    train_x, train_y, own_x, own_y, held_x, held_y = DIGITS.split
    assert [len(part) for part in DIGITS.split] == [898, 898, 449, 449, 450, 450]
    whole = np.concatenate((train_x, own_x, held_x))
    assert whole.shape == (1797, 64)
    assert (whole.min(), whole.max()) == (0.0, 16.0)
    assert set(train_y) == set(own_y) == set(held_y) == set(range(10))
    assert not np.array_equal(Digits(1).split[0], train_x)


async def test_it_answers_scores_and_labels_that_agree(server: Any) -> None:
    reply = await post(server, infer(5))
    assert reply.status == 200
    scores, label = reply.json()["outputs"]
    p = np.reshape(scores["data"], scores["shape"])
    assert p.shape == (5, 10)
    np.testing.assert_allclose(p.sum(axis=1), 1.0)
    assert p.argmax(axis=1).tolist() == label["data"]
    assert (p.argmax(axis=1) == DIGITS.split[5][:5]).mean() >= 0.8


async def test_it_answers_the_outputs_that_were_asked_for(server: Any) -> None:
    reply = await post(server, infer(1, "label"))
    assert [output["name"] for output in reply.json()["outputs"]] == ["label"]


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"inputs": []}', infer(1, shape=[3, 64]), infer(1, data=["a"] * 64)])
async def test_what_it_cannot_read_is_a_400(server: Any, body: bytes) -> None:
    reply = await post(server, body)
    assert reply.status == 400
    assert reply.json()["error"]


async def test_it_is_healthy(server: Any) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
        assert (await ask(server, "GET", path)).status == 200
