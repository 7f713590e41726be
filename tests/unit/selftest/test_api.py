"""The attacker's client reads scores as scores, whatever else an answer holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from guard.selftest.api import HttpApi, OpenInference

COUNTS = [[3.0, 1.0], [2.0, 5.0]]
SHARES = [[0.75, 0.25], [0.25, 0.75]]


@pytest.fixture
def url() -> Generator[str]:
    """A model that answers leaf counts beside probabilities, as wide as they are and of more different values."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            members = {"leaf_counts": COUNTS, "probabilities": SHARES}
            outputs = [{"name": n, "datatype": "FP64", "shape": [2, 2], "data": m} for n, m in members.items()]
            body = json.dumps({"outputs": outputs}).encode()
            self.send_response_only(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_counts_beside_probabilities_are_no_scores(url: str) -> None:
    api = HttpApi(url, OpenInference("tree"), 2)
    np.testing.assert_array_equal(api.ask(np.zeros((2, 3))), SHARES)
    np.testing.assert_array_equal(api.ask_all(np.zeros((2, 3)))["leaf_counts"], COUNTS)
    api.close()
