"""A real MLflow scoring server, driven by MLflow's own clients, directly and through Guard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.processes import SERVERS, client, free_port, guard, process, venv_of, wait_for_port

pytestmark = pytest.mark.real
POLICY = """version: 1
name: mlflow
routes:
  - name: cancer
    api: mlflow
    inputs: {kind: vector, size: 30}
    defences: [{kind: grid, step: 0.1}]
    budgets: [{kind: rows, per: client, limit: 1000, window: 24h}]
"""
Document = Any  # Any: the client's JSON document
FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Document, Document]]:
    """What the clients got from the server itself, and through Guard."""
    folder: Path = tmp_path_factory.mktemp("mlflow")
    python, port = venv_of("mlflow"), free_port()
    (folder / "policy.yaml").write_text(POLICY)
    serve = [str(python), str(SERVERS / "mlflow" / "serve.py"), "--port", str(port), "--endpoint", "cancer"]
    with process(serve, folder / "server.log") as running:
        wait_for_port(port, running, folder / "server.log")
        url = f"http://127.0.0.1:{port}"
        direct = client(python, "mlflow", url, "--endpoint", "cancer")
        with guard(folder / "policy.yaml", url, folder / "guard") as guarded:
            yield direct, client(python, "mlflow", guarded.url, "--endpoint", "cancer")


def scores(answer: Any) -> np.ndarray:  # Any: decoded JSON
    return np.array(answer["predictions"])


@pytest.mark.parametrize("form", [*FORMS, "frame"])
def test_every_input_form_is_defended(documents: tuple[Document, Document], form: str) -> None:
    direct, through = (scores(document["scoring"][form]) for document in documents)
    assert through.shape == direct.shape == (3, 2)
    assert np.allclose(through * 10, np.rint(through * 10))
    assert not np.allclose(direct * 10, np.rint(direct * 10), atol=0, rtol=0), "nothing to defend proves nothing"
    assert (through.argmax(axis=1) == direct.argmax(axis=1)).all()


def test_csv_is_defended(documents: tuple[Document, Document]) -> None:
    direct, through = (scores(document["scoring"]["csv"]["body"]) for document in documents)
    assert np.allclose(through * 10, np.rint(through * 10))
    assert (through.argmax(axis=1) == direct.argmax(axis=1)).all()


def test_health_is_answered_and_the_version_is_closed(documents: tuple[Document, Document]) -> None:
    direct, through = (document["scoring"] for document in documents)
    assert "error" not in str(direct["version"])
    assert "404" in str(through["version"]) or "error" in str(through["version"])
    assert "error" not in str(through["ping"]).lower()


def test_errors_do_not_echo_the_input(documents: tuple[Document, Document]) -> None:
    direct, through = documents
    assert "mean radius" in str(direct["scoring"]["csv_bad_shape"]), "if MLflow stopped, this test proves nothing"
    assert through["scoring"]["csv_bad_shape"]["status"] == 422
    assert set(through["scoring"]["csv_bad_shape"]["body"]) == {"error_code", "message"}
    assert "mean radius" not in str(through["scoring"]["csv_bad_shape"])
    assert "Traceback" not in str(through)


@pytest.mark.parametrize("form", FORMS)
def test_the_deployments_path_is_guarded_too(documents: tuple[Document, Document], form: str) -> None:
    # The scoring server itself has no such path; Guard opens it and the server's own 404 comes back clean.
    answer = documents[1]["deployments"][form]
    assert "Traceback" not in str(answer)
