"""A real MLServer with a scikit-learn model, driven by tritonclient, directly and through Guard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.cli.doctor_around import WAYS, around_findings, asked_of
from guard.proxy.load import load_active
from tests.support.processes import SERVERS, client, free_port, guard, process, venv_of, wait_for_port

pytestmark = pytest.mark.real
POLICY = """version: 1
name: mlserver
routes:
  - name: digits
    api: open_inference
    inputs: {kind: vector, size: 64, low: 0, high: 1}
    defences:
      - {kind: top_k, k: 3}
      - {kind: round, decimals: 2}
    budgets:
      - {kind: rows, per: client, limit: 1000, window: 24h}
"""
Document = Any  # Any: the client's JSON document


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """A running server's ports: HTTP and gRPC."""
    folder: Path = tmp_path_factory.mktemp("mlserver")
    python, port, grpc = venv_of("mlserver"), free_port(), free_port()
    serve = [str(python), str(SERVERS / "mlserver" / "serve.py"), "--port", str(port), "--grpc-port", str(grpc)]
    with process(serve, folder / "server.log") as running:
        wait_for_port(port, running, folder / "server.log")
        # The model loads after the port opens.
        while client(python, "mlserver", f"http://127.0.0.1:{port}")["model_ready"] is not True:
            assert running.poll() is None
        yield port, grpc


@pytest.fixture(scope="module")
def documents(server: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Document, Document]]:
    """What the client got from the server itself, and through Guard."""
    folder: Path = tmp_path_factory.mktemp("guard")
    (folder / "policy.yaml").write_text(POLICY)
    python, url = venv_of("mlserver"), f"http://127.0.0.1:{server[0]}"
    with guard(folder / "policy.yaml", url, folder / "guard") as guarded:
        yield client(python, "mlserver", url), client(python, "mlserver", guarded.url)


async def test_doctor_finds_the_ways_around_guard(server: tuple[int, int], tmp_path: Path) -> None:
    port, grpc = server
    (tmp_path / "policy.yaml").write_text(POLICY)
    asked = asked_of(load_active(tmp_path / "policy.yaml", api=None, env={}))
    by_grpc = next(way for way in WAYS if way.what == "scoring by gRPC (MLServer)")
    by_http = next(way for way in WAYS if way.what == "scoring by HTTP (MLServer, KServe)")
    url, ways = f"http://127.0.0.1:{port}", (replace(by_grpc, port=grpc),)
    around, beside = await around_findings(url, asked, lambda: ["127.0.0.1"], ways=ways)
    assert (around.level, beside.level) == ("fail", "fail")
    assert "POST /v2/models/guard-doctor/infer without a credential is answered with 422" in around.message
    assert f"127.0.0.1:{grpc} is open beside Guard: scoring by gRPC (MLServer)" in beside.message
    elsewhere = f"http://localhost:{free_port()}"
    _, found = await around_findings(elsewhere, asked, lambda: ["127.0.0.1"], ways=(replace(by_http, port=port),))
    assert f"127.0.0.1:{port} is open beside Guard: scoring by HTTP" in found.message


def defended(scores: list[list[float]]) -> np.ndarray:
    p = np.array(scores)
    p[np.arange(len(p))[:, None], np.argsort(p, axis=1)[:, :-3]] = 0
    return p.round(2)


@pytest.mark.parametrize("call", ["single", "both", "reversed", "version", "gzip_request", "gzip_both"])
def test_scores_are_defended_whatever_the_client_asks(documents: tuple[Document, Document], call: str) -> None:
    direct, through = (document[call]["arrays"] for document in documents)
    assert np.abs(np.array(through["predict_proba"]) - defended(direct["predict_proba"])).max() <= 0.0101
    assert np.array_equal(np.argmax(through["predict_proba"], axis=1), np.argmax(direct["predict_proba"], axis=1))
    assert not np.allclose(through["predict_proba"], direct["predict_proba"], atol=1e-4)
    assert ((np.array(through["predict_proba"]) > 0).sum(axis=1) <= 3).all()


@pytest.mark.parametrize("call", ["both", "reversed", "gzip_both"])
def test_labels_go_through(documents: tuple[Document, Document], call: str) -> None:
    direct, through = (document[call]["arrays"] for document in documents)
    assert through["predict"] == direct["predict"]


def test_a_server_without_binary_tensors_answers_in_json(documents: tuple[Document, Document]) -> None:
    # Without named outputs tritonclient asks for binary tensors, of which MLServer knows nothing.
    direct, through = (document["default_outputs"] for document in documents)
    assert all("data" in output for output in direct["response"]["outputs"] + through["response"]["outputs"])
    assert through["arrays"] == direct["arrays"]
    assert list(through["arrays"]) == ["predict"]


def test_shapes_names_and_ids_are_the_servers(documents: tuple[Document, Document]) -> None:
    direct, through = (document["both"]["response"] for document in documents)
    assert through["id"] == direct["id"] == "both-1"
    assert [(o["name"], o["shape"], o["datatype"]) for o in through["outputs"]] == [
        (o["name"], o["shape"], o["datatype"]) for o in direct["outputs"]
    ]


def test_health_is_answered_and_metadata_is_closed(documents: tuple[Document, Document]) -> None:
    direct, through = documents
    for call in ("server_live", "server_ready", "model_ready"):
        assert through[call] is direct[call] is True
    assert "inputs" in direct["model_metadata"]
    assert through["model_metadata"]["error"]["status"] == "404"


def test_errors_are_clean_and_in_the_apis_envelope(documents: tuple[Document, Document]) -> None:
    direct, through = documents
    assert len(str(direct["bad_shape"])) > 1000, "MLServer sends a traceback; if it stopped, this test proves nothing"
    assert through["bad_shape"]["error"]["status"] == "422"
    assert "Traceback" not in str(through)
    assert through["unknown_output"]["error"]["status"] in ("400", "404", "500", "502")
