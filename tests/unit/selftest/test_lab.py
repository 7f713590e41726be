"""The lab: real models on real data, trained once, served over the Open Inference protocol."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from guard.selftest.lab import victim as training
from guard.selftest.lab.registry import names, victim
from guard.selftest.lab.server import app
from guard.selftest.measures import Floats
from tests.support.asgi import AsgiReply, ask

Json = Any  # Any: JSON


@pytest.fixture(scope="module")
def server() -> Any:  # Any: an ASGI application
    return app(0)


async def post(
    server: Any, body: bytes, model: str = "digits", base: str = ""
) -> AsgiReply:  # Any: an ASGI application
    sent: list[Json] = []
    scope: dict[str, Json] = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"{base}/v2/models/{model}/infer",
        "raw_path": f"{base}/v2/models/{model}/infer".encode(),
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


def held() -> Floats:
    return cast("Floats", victim("digits", 0).test_x)


def infer(rows: int, *outputs: str, **changed: Json) -> bytes:
    tensor = {"name": "x", "datatype": "FP64", "shape": [rows, 64], "data": held()[:rows].ravel().tolist()} | changed
    return json.dumps({"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}).encode()


def test_the_split_leaves_nobody_the_others_data() -> None:
    model = victim("digits", 0)
    parts = [model.secrets["train_x"], model.knows.own_x, model.test_x]
    assert [len(cast("Floats", part)) for part in parts] == [898, 449, 450]
    rows = {row.tobytes() for part in parts for row in cast("Floats", part)}
    assert len(rows) == 1797
    assert not np.array_equal(victim("digits", 1).test_x, model.test_x)


@pytest.mark.parametrize("name", sorted(names()))
def test_every_model_answers_its_own_held_out_data(name: str) -> None:
    model = victim(name, 0)
    scores = model.predict(model.test_x)
    assert scores.shape == (len(model.test_x), model.knows.classes)
    assert np.isfinite(scores).all()
    if model.output == "probabilities":
        np.testing.assert_allclose(scores.sum(axis=1), 1.0)
    assert model.knows.own_x is not model.test_x


def test_a_model_is_trained_once_for_the_same_data_and_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2
    tree: Any = import_module("sklearn.tree").DecisionTreeClassifier  # Any: scikit-learn has no types
    first = training.trained(tree(random_state=0), x, y)
    (file,) = (tmp_path / "guard" / "lab").iterdir()
    again = training.trained(tree(random_state=0), x, y)
    assert again is not first
    np.testing.assert_array_equal(again.predict(x), first.predict(x))
    training.trained(tree(random_state=1), x, y)
    training.trained(tree(random_state=0), x, 1 - y)
    assert len(list(file.parent.iterdir())) == 3
    file.write_bytes(b"half a file")
    np.testing.assert_array_equal(training.trained(tree(random_state=0), x, y).predict(x), first.predict(x))


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    training.cache_folder().chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others"):
        training.cache_folder()


async def test_it_answers_scores_twice_and_a_label_that_agrees(server: Any) -> None:
    reply = await post(server, infer(5))
    assert reply.status == 200
    scores, copy, label = reply.json()["outputs"]
    p = np.reshape(scores["data"], scores["shape"])
    assert (p.shape, copy["data"]) == ((5, 10), scores["data"])
    np.testing.assert_allclose(p, victim("digits", 0).predict(held()[:5]))
    assert p.argmax(axis=1).tolist() == label["data"]


async def test_it_answers_texts(server: Any) -> None:
    spam = "URGENT! You have won a 1000 prize. Call 09061701461 to claim. Txt STOP"
    tensor = {"name": "x", "datatype": "BYTES", "shape": [2], "data": [spam, "see you at 5"]}
    reply = await post(server, json.dumps({"inputs": [tensor]}).encode(), "spam")
    assert reply.json()["outputs"][2]["data"] == [1, 0]


async def test_a_feature_that_is_left_out_is_only_for_models_that_can(server: Any) -> None:
    reply = await post(server, infer(1, data=[None] * 64))
    assert (reply.status, reply.json()["error"]) == (400, "this model needs every feature")


async def test_an_unknown_model_is_a_404(server: Any) -> None:
    assert (await post(server, infer(1), "digit")).status == 404
    assert (await post(server, infer(1), "digits.nothing")).status == 404


async def test_it_answers_the_outputs_that_were_asked_for(server: Any) -> None:
    reply = await post(server, infer(1, "label"))
    assert [output["name"] for output in reply.json()["outputs"]] == ["label"]


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"inputs": []}', infer(1, shape=[3, 64]), infer(1, data=["a"] * 64)])
async def test_what_it_cannot_read_is_a_400(server: Any, body: bytes) -> None:
    reply = await post(server, body)
    assert reply.status == 400
    assert reply.json()["error"]


async def test_it_is_healthy(server: Any) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready", "/shards/3/0/v2/health/ready"):
        assert (await ask(server, "GET", path)).status == 200


async def scores(server: Any, base: str) -> Floats:
    reply = await post(server, infer(5, "probabilities"), base=base)
    assert reply.status == 200
    (output,) = reply.json()["outputs"]
    return np.array(output["data"], dtype=np.float64).reshape(output["shape"])


async def test_each_shard_has_a_path_and_all_of_them_together_have_one(server: Any) -> None:
    each = [await scores(server, f"/shards/3/{i}") for i in range(3)]
    assert len({one.tobytes() for one in each}) == 3
    np.testing.assert_allclose(await scores(server, "/ensembles/3/mean"), np.mean(each, axis=0))
    votes = await scores(server, "/ensembles/3/vote")
    assert set(np.unique(np.rint(3 * votes))) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("base", ["/shards/3/3", "/shards/0/0", "/shards/9999/0", "/ensembles/3/median", "/shards/3"])
async def test_a_shard_that_there_is_not_is_a_404(server: Any, base: str) -> None:
    assert (await post(server, infer(1), base=base)).status == 404
