"""Real servers over gRPC, MLServer and Triton, driven by `tritonclient.grpc`, directly and through Guard; the stubs."""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.authorities import Authority
from tests.support.processes import ROOT, SERVERS, client, free_port, guard, process, venv_of, wait_for_port
from tests.support.triton import Triton

pytestmark = pytest.mark.real
POLICY = """version: 1
name: grpc
routes:
  - name: digits
    api: open_inference
    defences: [{kind: top_k, k: 3}, {kind: round, decimals: 2}]
    budgets: [{kind: rows, per: client, limit: 10000, window: 24h}]
"""
TRITON = ("--input", "input-0", "--outputs", "probabilities,label")
CLOSED = ("server_metadata", "model_metadata", "model_config", "statistics", "repository", "shared_memory_status")
SCORED = ("single", "both", "reversed", "gzip", "deadline", "typed")
PROTOS = ROOT / "guard" / "wire" / "protos"
Document = Any  # Any: the client's JSON document


@pytest.fixture(scope="module")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int, int]]:
    """A running MLServer: its Python, its ports of HTTP and gRPC."""
    folder: Path = tmp_path_factory.mktemp("mlserver")
    python, port, grpc = venv_of("mlserver"), free_port(), free_port()
    serve = [str(python), str(SERVERS / "mlserver" / "serve.py"), "--port", str(port), "--grpc-port", str(grpc)]
    with process(serve, folder / "server.log") as running:
        wait_for_port(grpc, running, folder / "server.log")
        # The model loads after the ports open.
        while client(python, "mlserver", f"http://127.0.0.1:{port}")["model_ready"] is not True:
            assert running.poll() is None
        yield python, port, grpc


@pytest.fixture(scope="module")
def by_mlserver(
    mlserver: tuple[Path, int, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Document, Document]]:
    """What the client got from MLServer itself, and through Guard, which serves nothing but gRPC."""
    folder: Path = tmp_path_factory.mktemp("guard")
    (folder / "policy.yaml").write_text(POLICY)
    python, _, port = mlserver
    with guard(folder / "policy.yaml", None, folder / "guard", *grpc_to(port)) as guarded:
        yield client(python, "grpc", f"127.0.0.1:{port}", "--unary"), client(python, "grpc", guarded.grpc)


@pytest.fixture(scope="module")
def by_triton(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Document, Document]]:
    """What the client got from Triton itself, and through Guard."""
    folder: Path = tmp_path_factory.mktemp("guard")
    (folder / "policy.yaml").write_text(POLICY)
    with guard(folder / "policy.yaml", None, folder / "guard", *grpc_to(triton.grpc)) as guarded:
        direct = client(triton.python, "grpc", f"127.0.0.1:{triton.grpc}", *TRITON)
        yield direct, client(triton.python, "grpc", guarded.grpc, *TRITON)


def grpc_to(port: int) -> tuple[str, ...]:
    return "--grpc-listen", "127.0.0.1:0", "--grpc-upstream", f"grpc://127.0.0.1:{port}"


def scores_of(call: Document) -> np.ndarray:
    arrays = call["arrays"]
    return np.array(arrays.get("probabilities") or arrays["predict_proba"])


def defended(scores: np.ndarray) -> np.ndarray:
    kept = scores.copy()
    kept[np.arange(len(kept))[:, None], np.argsort(kept, axis=1)[:, :-3]] = 0
    return kept.round(2)


@pytest.mark.parametrize("call", SCORED)
@pytest.mark.parametrize("server", ["by_mlserver", "by_triton"])
def test_scores_are_defended_and_all_else_is_the_servers(
    server: str, call: str, request: pytest.FixtureRequest
) -> None:
    direct, through = (document[call] for document in request.getfixturevalue(server))
    assert {key: through[key] for key in through if key not in ("arrays", "parameters")} == {
        key: direct[key] for key in direct if key not in ("arrays", "parameters")
    }
    before, after = scores_of(direct), scores_of(through)
    assert np.abs(after - defended(before)).max() <= 0.0101
    assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert ((after > 0).sum(axis=1) <= 3).all()
    assert not np.allclose(after, before, atol=1e-4)
    labels = [name for name in through["arrays"] if name in ("label", "predict")]
    assert [through["arrays"][name] for name in labels] == [direct["arrays"][name] for name in labels]


def test_triton_writes_scores_as_text_and_guard_defends_them(by_triton: tuple[Document, Document]) -> None:
    direct, through = (document["classification"] for document in by_triton)
    before = [[text.split(":") for text in row] for row in direct["arrays"]["probabilities"]]
    after = [[text.split(":") for text in row] for row in through["arrays"]["probabilities"]]
    assert all(len(row) == 5 for row in before)
    assert all(len(row) == 3 for row in after)
    for row, original in zip(after, before, strict=True):
        # Of equal scores, the lower index comes first.
        expected = sorted((-round(float(score), 2), int(index)) for score, index in original[:3])
        assert [(-float(score), int(index)) for score, index in row] == expected


@pytest.mark.parametrize("server", ["by_mlserver", "by_triton"])
def test_a_stream_answers_every_request_and_names_what_failed(server: str, request: pytest.FixtureRequest) -> None:
    _, through = request.getfixturevalue(server)
    *found, failed = through["stream"]
    assert [one["id"] for one in found] == [f"s{i}" for i in range(6)]
    for one in found:
        assert np.allclose(scores_of(one), defended(scores_of(one)), atol=1e-7)
    assert failed["error"]["message"] == "the model refused this request"


def test_a_stream_is_as_tritons_but_for_the_scores(by_triton: tuple[Document, Document]) -> None:
    direct, through = (document["stream"][:-1] for document in by_triton)
    for before, after in zip(direct, through, strict=True):
        assert {k: v for k, v in before.items() if k != "arrays"} == {k: v for k, v in after.items() if k != "arrays"}


@pytest.mark.parametrize("server", ["by_mlserver", "by_triton"])
def test_whether_they_are_ready_is_answered_and_everything_else_is_closed(
    server: str, request: pytest.FixtureRequest
) -> None:
    _, through = request.getfixturevalue(server)
    for call in ("server_live", "server_ready", "model_ready"):
        assert through[call] is True
    for call in CLOSED:
        assert through[call]["error"] == {"status": "StatusCode.UNIMPLEMENTED", "message": "this method is closed"}
    assert through["shared_memory"]["error"]["message"] == "shared memory is not let through"


@pytest.mark.parametrize("server", ["by_mlserver", "by_triton"])
def test_errors_are_clean(server: str, request: pytest.FixtureRequest) -> None:
    direct, through = request.getfixturevalue(server)
    for call in ("unknown_model", "unknown_output", "bad_shape"):
        assert direct[call]["error"]["message"] not in json.dumps(through)
        assert through[call]["error"]["message"] in ("the model refused this request", "the model failed")
    assert through["unknown_model"]["error"]["status"] in ("StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT")


def test_both_listeners_charge_one_budget(mlserver: tuple[Path, int, int], tmp_path: Path) -> None:
    python, port, grpc = mlserver
    (tmp_path / "policy.yaml").write_text(POLICY.replace("10000", "130"))
    url = f"http://127.0.0.1:{port}"
    with guard(tmp_path / "policy.yaml", url, tmp_path / "guard", *grpc_to(grpc)) as guarded:
        by_http = client(python, "mlserver", guarded.url)
        by_grpc = client(python, "grpc", guarded.grpc)
    assert "arrays" in by_http["gzip_both"]
    assert "arrays" in by_grpc["both"]
    assert by_grpc["gzip"]["error"] == {
        "status": "StatusCode.RESOURCE_EXHAUSTED",
        "message": "the budget is spent",
    }


def test_tls_and_a_client_certificate(mlserver: tuple[Path, int, int], tmp_path: Path) -> None:
    python, _, grpc = mlserver
    owner = Authority(tmp_path, "owner")
    owner.server(tmp_path / "cert.pem", tmp_path / "key.pem")
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nidentity: [{kind: client_certificate, name: common_name}]\n" + POLICY[11:]
    )
    options = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    options += ("--tls-client-ca", str(owner.file), "--tls-client-required")
    pair = owner.client(name="nightly")
    with guard(tmp_path / "policy.yaml", None, tmp_path / "guard", *grpc_to(grpc), *options) as guarded:
        through = client(python, "grpc", guarded.grpc, "--ca", str(owner.file), "--pair", str(pair))
    assert np.array_equal(scores_of(through["both"]), defended(scores_of(through["both"])))
    assert len(through["stream"]) == 7


def test_the_descriptor_is_what_protoc_makes_of_the_proto(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    venv.create(tools, with_pip=True)
    python = tools / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "grpcio-tools"]
    subprocess.run(install, check=True, capture_output=True)
    made = tmp_path / "made.binpb"
    command = [str(python), "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"--descriptor_set_out={made}"]
    subprocess.run([*command, str(PROTOS / "open_inference.proto")], check=True)
    assert made.read_bytes() == (PROTOS / "open_inference.binpb").read_bytes()
    assert made.read_bytes() == resources.files("guard.wire").joinpath("protos", "open_inference.binpb").read_bytes()


FIELDS = """
import importlib, json, sys
from google.protobuf import descriptor_pb2
def fields(message, prefix=""):
    found = {prefix + message.name: {f.name: [f.number, f.type, f.label, f.type_name] for f in message.field}}
    for nested in message.nested_type:
        found |= fields(nested, prefix + message.name + ".")
    return found
file = descriptor_pb2.FileDescriptorProto()
if sys.argv[1].endswith(".binpb"):
    file = descriptor_pb2.FileDescriptorSet.FromString(open(sys.argv[1], "rb").read()).file[0]
else:
    importlib.import_module(sys.argv[1]).DESCRIPTOR.CopyToProto(file)
print(json.dumps({name: found for message in file.message_type for name, found in fields(message).items()}))
"""


def fields_of(python: Path, what: str) -> dict[str, dict[str, list[Any]]]:
    """Return message -> field -> number, type, label, type's name."""
    done = subprocess.run([str(python), "-c", FIELDS, what], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_field_numbers_are_tritonclients_and_mlservers() -> None:
    python = venv_of("mlserver")
    own = fields_of(python, str(PROTOS / "open_inference.binpb"))
    tritons, mlservers = (
        fields_of(python, name) for name in ("tritonclient.grpc.service_pb2", "mlserver.grpc.dataplane_pb2")
    )
    for name, fields in own.items():
        if name.startswith("HealthCheck"):
            continue
        assert tritons[name] == fields, name
        if name in mlservers:
            assert fields.items() >= mlservers[name].items(), name
    assert {"ModelInferRequest.InferInputTensor", "InferTensorContents"} <= own.keys() & mlservers.keys()
