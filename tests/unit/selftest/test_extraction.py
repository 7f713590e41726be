"""Equation solving: it copies an undefended model exactly, a rounded one less, and goes on with what it was told."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from guard.selftest.extraction import Floats, ModelApi, Refused, agreement, fits, harvest, surrogate_l1

GENERATOR = np.random.default_rng(3)
WEIGHTS = GENERATOR.normal(size=(3, 5))


def model(x: Floats) -> Floats:
    """A softmax regression on four features in 0..16."""
    z = np.concatenate((x / 16.0, np.ones((len(x), 1))), axis=1) @ WEIGHTS.T
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


HELD = np.random.default_rng(4).uniform(0, 16, (200, 4))


def stolen(answers: Floats, x: Floats) -> dict[str, float]:
    return {copy.method: surrogate_l1(copy.probabilities(HELD), model(HELD)) for copy in fits(x, answers, 16.0)}


def asked(queries: int) -> Floats:
    return np.random.default_rng(5).uniform(0, 16, (queries, 4))


def test_full_scores_give_the_model_away() -> None:
    x = asked(15)
    found = stolen(model(x), x)
    assert found["equations"] < 1e-9
    assert min(found.values()) == found["equations"]


def test_rounded_scores_give_a_worse_copy_and_labels_a_worse_one_still() -> None:
    x = asked(60)
    y = model(x)
    rounded = min(stolen(np.round(y, 1), x).values())
    labels = min(stolen(np.eye(3)[y.argmax(axis=1)], x).values())
    assert 1e-3 < rounded < labels


def test_truncated_scores_are_completed_and_graded_answers_fitted_apart() -> None:
    x = asked(60)
    y = model(x)
    top = np.where(y == y.max(axis=1, keepdims=True), y, 0.0)
    top[:20] = np.eye(3)[y[:20].argmax(axis=1)]  # a budget was spent: labels alone
    found = stolen(top, x)
    assert not any(method.startswith("equations") for method in found)
    assert any("to graded answers" in method for method in found)
    assert min(found.values()) < surrogate_l1(np.full((200, 3), 1 / 3), model(HELD))


def test_distances() -> None:
    a, b = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.6, 0.4], [0.6, 0.4]])
    assert surrogate_l1(a, b) == pytest.approx(0.5)
    assert agreement(a, b) == 0.5


def test_a_harvest_ends_when_the_api_refuses() -> None:
    told: list[int] = []

    def ask(x: Floats) -> Floats:
        if len(told) == 4:
            raise Refused("429")
        return model(x)

    x, y = harvest(ask, 10, 0.0, 16.0, 4, np.random.default_rng(0), told.append)
    assert (x.shape, y.shape, told) == ((4, 4), (4, 3), [1, 2, 3, 4])
    np.testing.assert_allclose(model(x), y)


def test_a_harvest_without_one_answer_fails() -> None:
    def ask(x: Floats) -> Floats:
        raise Refused("403")

    with pytest.raises(Refused):
        harvest(ask, 10, 0.0, 16.0, 4, np.random.default_rng(0))


@contextmanager
def api(status: int) -> Generator[tuple[str, list[tuple[str, str | None, object]]]]:
    seen: list[tuple[str, str | None, object]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, self.headers.get("x-api-key"), asked))
            outputs = [{"name": "label", "data": [1]}, {"name": "probabilities", "shape": [1, 2], "data": [0.25, 0.75]}]
            body = json.dumps({"outputs": outputs}).encode()
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join()


def test_an_outsider_asks_over_http() -> None:
    with api(200) as (url, seen):
        outsider = ModelApi(url, key="k")
        assert outsider.scores(np.array([[1.0, 2.0]])).tolist() == [[0.25, 0.75]]
        outsider.close()
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.0]}
    assert seen == [("/v2/models/digits/infer", "k", {"inputs": [tensor]})]


def test_any_other_status_is_a_refusal() -> None:
    with api(429) as (url, seen):
        outsider = ModelApi(url)
        with pytest.raises(Refused, match="429"):
            outsider.ask(np.array([[1.0]]))
        outsider.close()
    assert seen[0][1] is None
