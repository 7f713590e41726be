"""The lab's model server: every lab model over the Open Inference protocol, each trained when it is first asked.

`/shards/K/I` before a path is the server of shard I of K: the same models, each trained on that part of its data;
`/ensembles/K/mean` (or `vote`) answers for all K of them together, as bare as a model.

An answer holds `probabilities` (or `value`), the same once more as `scores`, since real servers often answer a score
twice and a proxy that hardens one copy hardens nothing, and the label. Models that generate text answer OpenAI's API
besides: `guard.selftest.lab.text_server`.
"""

from __future__ import annotations

import socket
from typing import Any, cast

import numpy as np
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from guard.selftest.base import Rows
from guard.selftest.lab.registry import victim
from guard.selftest.lab.shards import MOST, ensemble, shards
from guard.selftest.lab.text_server import routes as text_routes
from guard.selftest.lab.victim import Victim
from guard.selftest.measures import Floats


def app(seed: int) -> Starlette:
    """Return the server's application for models of one seed."""

    async def infer(request: Request) -> Response:
        try:
            model = _asked(request, seed)
        except KeyError:
            return _json({"error": "there is no such model"}, 404)
        try:
            body = orjson.loads(await request.body())
            outputs = answer(model, read(model, body["inputs"][0]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return _json({"error": str(error)}, 400)
        wanted = [output["name"] for output in body.get("outputs", [])]
        kept = [output for output in outputs if not wanted or output["name"] in wanted]
        return _json({"model_name": request.path_params["model"], "model_version": "1", "outputs": kept})

    async def healthy(request: Request) -> Response:
        del request
        return _json({})

    routes = [
        Route("/v2/models/{model}/infer", infer, methods=["POST"]),
        Route("/v2/health/live", healthy),
        Route("/v2/health/ready", healthy),
        Route("/v2/models/{model}/ready", healthy),
    ]
    parts = ("/shards/{count:int}/{shard:int}", "/ensembles/{count:int}/{aggregate}")
    return Starlette(routes=[*routes, *text_routes(seed), *(Mount(part, routes=routes) for part in parts)])


def _asked(request: Request, seed: int) -> Victim:
    """Return the model that a path names, its shard, or its shards together.

    Raises:
        KeyError: there is none.
    """
    asked: dict[str, Any] = request.path_params  # Any: as the routes convert them
    name: str = asked["model"]
    count: int | None = asked.get("count")
    if count is None:
        return victim(name, seed)
    number: int = asked.get("shard", 0)
    if not 0 <= number < count <= MOST:
        raise KeyError(name)
    return shards(name, seed, count)[number] if "shard" in asked else ensemble(name, seed, count, asked["aggregate"])


def read(model: Victim, tensor: dict[str, object]) -> Rows:
    """Decode the input tensor to rows; null is a feature that is left out.

    Raises:
        ValueError: it does not fit the model.
    """
    data = tensor["data"]
    if model.knows.kind == "text":
        return list(map(str, cast("list[object]", data)))
    x = np.asarray(data, dtype=np.float64).reshape(cast("list[int]", tensor["shape"]))
    if x.ndim != 2 or x.shape[1] != model.knows.size:
        raise ValueError(f"this model takes rows of {model.knows.size} features")
    if not model.partial and not np.isfinite(x).all():
        raise ValueError("this model needs every feature")
    return x


def answer(model: Victim, x: Rows) -> list[dict[str, object]]:
    """Return the output tensors for some rows."""
    scores = model.predict(x)
    name = "probabilities" if model.output == "probabilities" else "value"
    outputs = [_tensor(name, scores), _tensor("scores", scores)]
    if model.output == "probabilities":
        label = scores.argmax(axis=1)
        outputs.append({"name": "label", "datatype": "INT64", "shape": [len(label)], "data": label})
    if model.extras is not None:
        outputs += [_tensor(extra, members) for extra, members in model.extras(x).items()]
    return outputs


def _tensor(name: str, members: Floats) -> dict[str, object]:
    return {"name": name, "datatype": "FP64", "shape": list(members.shape), "data": members.ravel()}


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")


def serve(seed: int, port: int = 0, host: str = "127.0.0.1") -> None:
    """Serve; the first line on stdout is the port."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(128)
    print(sock.getsockname()[1], flush=True)  # noqa: T201 -- the parent process reads it
    config = uvicorn.Config(
        app(seed), log_level="warning", access_log=False, lifespan="off", timeout_keep_alive=600, ws="none"
    )
    uvicorn.Server(config).run(sockets=[sock])
