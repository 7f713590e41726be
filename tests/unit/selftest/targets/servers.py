"""Model servers in process: a softmax regression behind each API, with whatever misbehaviour a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from guard.selftest.measures import Floats

Json = Any  # Any: JSON
WEIGHTS = np.random.default_rng(3).normal(size=(4, 3))
NAMES = ("cat", "dog", "owl")


def predict(x: Floats) -> Floats:
    """Return probabilities, shape (n, 3)."""
    e = np.exp(x @ WEIGHTS)
    return e / e.sum(axis=1, keepdims=True)


@dataclass
class Served:
    """A running server.

    Args:
        url: where.
        seen: (path, headers, body) of each request.
    """

    url: str = ""
    seen: list[tuple[str, dict[str, str], Json]] = field(default_factory=list[tuple[str, dict[str, str], Json]])

    @property
    def rows(self) -> int:
        """Rows that were sent."""
        return sum(len(rows_of(body)) for _, _, body in self.seen if body is not None)


Answer = Callable[[Served, Json], tuple[int, Json]]
"""The server and a request's JSON -> status and the answer's JSON."""


def rows_of(body: Json) -> Floats:
    """Return a request's rows, whichever API it is of."""
    if "inputs" in body and isinstance(body["inputs"][0], dict):
        tensor = body["inputs"][0]
        return np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"][0], -1)
    rows = body.get("instances", body.get("inputs", body.get("rows")))
    return np.array([row["x"] if isinstance(row, dict) else row for row in rows], dtype=np.float64)


def tensors(served: Served, body: Json) -> tuple[int, Json]:
    """Answer Open Inference."""
    del served
    p = predict(rows_of(body))
    label = {"name": "label", "datatype": "INT64", "shape": [len(p)], "data": p.argmax(axis=1).tolist()}
    scores = {"name": "p", "datatype": "FP64", "shape": list(p.shape), "data": p.ravel().tolist()}
    return 200, {"outputs": [label, scores]}


def objects(served: Served, body: Json) -> tuple[int, Json]:
    """Answer KServe V1 with objects."""
    del served
    p = predict(rows_of(body))
    return 200, {"predictions": [{"label": int(row.argmax()), "probabilities": row.tolist()} for row in p]}


def lists(served: Served, body: Json) -> tuple[int, Json]:
    """Answer TensorFlow Serving and MLflow with lists."""
    del served
    return 200, {"predictions": predict(rows_of(body)).tolist()}


def maps(served: Served, body: Json) -> tuple[int, Json]:
    """Answer TorchServe with maps."""
    del served
    return 200, [dict(zip(NAMES, row, strict=True)) for row in predict(rows_of(body)).tolist()]


def ranked(served: Served, body: Json) -> tuple[int, Json]:
    """Answer Hugging Face with the labels ranked."""
    del served
    return 200, [
        [{"label": name, "score": score} for score, name in sorted(zip(row, NAMES, strict=True), reverse=True)]
        for row in predict(rows_of(body)).tolist()
    ]


def containers(served: Served, body: Json) -> tuple[int, Json]:
    """Answer SageMaker with a score list and a label."""
    del served
    p = predict(rows_of(body))
    return 200, {"predictions": [{"score": row.tolist(), "predicted_label": int(row.argmax())} for row in p]}


def own(served: Served, body: Json) -> tuple[int, Json]:
    """Answer an API of the author's own."""
    del served
    return 200, {"y": [{"p": row, "took_ms": 3} for row in predict(rows_of(body)).tolist()]}


@contextlib.contextmanager
def serving(answer: Answer, metadata: Json = None) -> Generator[Served]:
    """Run a server on a free port of 127.0.0.1."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            served.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.reply(*answer(served, body))

        def do_GET(self) -> None:
            served.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, None))
            self.reply(404 if metadata is None else 200, metadata)

        def reply(self, status: int, made: Json) -> None:
            body = made if isinstance(made, bytes) else json.dumps(made).encode()
            # Head and body in one write: two would wait for each other's acknowledgement.
            head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # a client may keep its connection open

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
