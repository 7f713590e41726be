"""A real model on real data, served over the Open Inference protocol: what `guard demo` puts Guard in front of.

`python -m guard.selftest.lab` trains a softmax regression on scikit-learn's handwritten digits (bundled with the
package) and serves it on 127.0.0.1. The data are split in three: half trains the model, a quarter is what an attacker
owns, a quarter is held out to measure.
"""

from __future__ import annotations

import argparse
import socket
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import orjson
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def untyped(module: str) -> Any:  # Any: scikit-learn and scipy have no types
    """Import a module of the demo extra when it is needed."""
    return import_module(module)


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: 1,797 images of 8 x 8 pixels from 0 to 16, ten classes, 650 unknowns.

    Args:
        seed: of the split.
    """

    seed: int = 0

    @cached_property
    def split(self) -> tuple[Floats, Ints, Floats, Ints, Floats, Ints]:
        """(training x, y, the attacker's x, y, held-out x, y); x of shape (n, 64)."""
        x, y = untyped("sklearn.datasets").load_digits(return_X_y=True)
        split = untyped("sklearn.model_selection").train_test_split
        train_x, rest_x, train_y, rest_y = split(x, y, test_size=0.5, random_state=self.seed, stratify=y)
        own_x, held_x, own_y, held_y = split(rest_x, rest_y, test_size=0.5, random_state=self.seed, stratify=rest_y)
        return train_x, train_y, own_x, own_y, held_x, held_y

    def fit(self, x: Floats, y: Ints) -> Any:  # Any: a scikit-learn estimator, which has no types
        """Train the softmax regression; pixels are scaled to [0, 1]."""
        return untyped("sklearn.linear_model").LogisticRegression(C=1.0, max_iter=2000).fit(x / 16.0, y)


def app(model: Any) -> Starlette:  # Any: a scikit-learn estimator
    """Return the model server: the part of the Open Inference protocol that a client needs."""

    async def infer(request: Request) -> Response:
        try:
            body = orjson.loads(await request.body())
            tensor = body["inputs"][0]
            x = np.asarray(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
            p = model.predict_proba(x / 16.0)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return Response(orjson.dumps({"error": str(error)}), 400, media_type="application/json")
        outputs = [
            {"name": "probabilities", "datatype": "FP64", "shape": list(p.shape), "data": p.ravel()},
            {"name": "label", "datatype": "INT64", "shape": [len(p)], "data": p.argmax(axis=1)},
        ]
        wanted = [output["name"] for output in body.get("outputs", [])]
        kept = [output for output in outputs if not wanted or output["name"] in wanted]
        answer = {"model_name": "digits", "model_version": "1", "outputs": kept}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    async def healthy(request: Request) -> Response:
        del request
        return Response(b"{}", media_type="application/json")

    return Starlette(
        routes=[
            Route("/v2/models/digits/infer", infer, methods=["POST"]),
            Route("/v2/health/live", healthy),
            Route("/v2/health/ready", healthy),
            Route("/v2/models/digits/ready", healthy),
        ]
    )


def main() -> None:
    """Train, then serve on 127.0.0.1; the first line on stdout is the port."""
    parser = argparse.ArgumentParser(prog="python -m guard.selftest.lab", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    digits = Digits(options.seed)
    train_x, train_y, *_ = digits.split
    model = digits.fit(train_x, train_y)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", options.port))
    sock.listen(128)
    print(sock.getsockname()[1], flush=True)  # noqa: T201 -- the parent process reads it
    config = uvicorn.Config(app(model), log_level="warning", access_log=False, lifespan="off", timeout_keep_alive=75)
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
