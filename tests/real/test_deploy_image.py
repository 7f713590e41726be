"""The image: built by a real engine, measured, and run as it is meant to be: read-only, without rights."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from tests.support.clients import admin, ask, infer
from tests.support.grpc_models import grpc
from tests.support.images import DOCKER, built
from tests.support.model import answer, model
from tests.support.processes import ROOT, Guard, free_port, venv_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.images import Image

pytestmark = pytest.mark.real
MOST_BYTES = 150_000_000
LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)
POLICY = """version: 1
name: container
routes:
  - name: digits
    api: open_inference
    inputs: {kind: vector, size: 2}
    defences: [{kind: round, decimals: 1}]
    budgets: [{kind: rows, per: client, limit: 3, then: deny}]
"""
ROW = infer([0.45, 1.1])
WRITES = """
import os
for path in ("/x", "/opt/guard/x", "/etc/x", "/usr/local/bin/x", "/tmp/x", "/var/lib/guard/x"):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        print(path)
    except OSError:
        pass
"""
WHO = "import os; print(os.getuid(), os.getgid(), os.getgroups()); print(open('/proc/self/status').read())"
ABSENT = """
import importlib.util, json
names = ("torch", "opacus", "sklearn", "matplotlib", "statsmodels", "pip", "setuptools", "pytest")
print(json.dumps([name for name in names if importlib.util.find_spec(name) is not None]))
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What `docker volume create` makes of the image's directory."""
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    os.chown(made, 65532, 65532)
    return made


def run(image: Image, state: Path, code: str) -> str:
    done = image.run("python", "-c", code, volumes={"/var/lib/guard": state})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    linter = venv_of("deploy").parent / "hadolint"
    done = subprocess.run([str(linter), str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_bases_have_a_version_and_nothing_is_fetched_by_url() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases == ["python:${PYTHON}${PYTHON_DIGEST}", "build", "python:${PYTHON}${PYTHON_DIGEST}"]
    assert re.findall(r"^ARG PYTHON=(.*)", text, re.MULTILINE) == ["3.13-slim-trixie"]
    assert not re.search(r"^ADD|curl|wget|apt", text, re.MULTILINE)


@pytest.mark.parametrize(("lock", "extra"), [("requirements.txt", "otel"), ("grpc.txt", "grpc"), ("model.txt", "demo")])
def test_locks_name_what_the_project_asks_for(lock: str, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"][extra]]
    locked = dict(LOCKED.findall((DOCKER / lock).read_text()))
    wrong = [str(one) for one in asked if not one.specifier.contains(locked.get(one.name, "0"))]
    assert wrong == [], "deploy/docker/lock names them again"
    assert len(asked) > 10


def test_only_what_the_image_is_made_of_goes_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    files = {name for line in copied for name in line.split()}
    assert {next((a for a in allowed if f == a or f.startswith(f"{a}/")), f) for f in files} == allowed


def test_the_image_runs_as_nobody_and_says_how_to_stop_and_probe_it(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Entrypoint"] + image.config["Cmd"] == ["/opt/guard/bin/guard", "serve"]
    assert image.config["Volumes"] == {"/var/lib/guard": {}}
    assert image.config["Healthcheck"]["Test"][-1] == "/opt/guard/healthcheck.py"
    assert not [text for text in image.config["Env"] if "SECRET" in text or "TOKEN" in text]


def test_it_adds_less_than_150_mb_to_its_base(image: Image) -> None:
    sizes = {path: path.lstat().st_size for path in (image.root / "opt").rglob("*")}
    packages = next(path for path in sizes if path.name == "site-packages")
    share: dict[str, int] = {}
    for path, size in sizes.items():
        name = path.relative_to(packages).parts[0] if path.is_relative_to(packages) and path != packages else "venv"
        share[name] = share.get(name, 0) + size
    total = sum(sizes.values())
    largest = sorted(share.items(), key=lambda item: -item[1])[:8]
    print(f"{total / 1e6:.1f} MB:", ", ".join(f"{name} {size / 1e6:.1f}" for name, size in largest))
    assert 50_000_000 < total < MOST_BYTES


def test_nothing_else_is_in_it(image: Image, state: Path) -> None:
    assert json.loads(run(image, state, ABSENT)) == []
    assert not list((image.root / "opt").rglob("tests"))
    assert not [path for path in (image.root / "opt").rglob("*") if path.is_file() and path.lstat().st_mode & 0o6002]


def test_its_commands_work(image: Image, state: Path) -> None:
    said = image.run("guard", "--version", volumes={"/var/lib/guard": state})
    assert re.fullmatch(r"guard \d+\.\d+\.\d+\n", said.stdout), said
    checked = image.run("guard", "check", "balanced", volumes={"/var/lib/guard": state})
    assert checked.returncode == 0, checked
    assert "balanced: fine" in checked.stdout


def test_it_writes_to_its_state_and_nowhere_else(image: Image, state: Path) -> None:
    assert run(image, state, WRITES).split() == ["/tmp/x", "/var/lib/guard/x"]
    who = run(image, state, WHO)
    assert who.startswith("65532 65532 []")
    assert set(re.findall(r"^Cap(?:Prm|Eff|Bnd):\s*(\w+)", who, re.MULTILINE)) == {"0" * 16}
    assert re.search(r"^NoNewPrivs:\s*1", who, re.MULTILINE)


async def test_it_guards_a_model_read_only_and_without_rights(image: Image, state: Path, tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "policy.yaml").write_text(POLICY)
    volumes, log = {"/var/lib/guard": state, "/srv": policies}, tmp_path / "guard.log"
    own = {"GUARD_LISTEN": "127.0.0.1:0", "GUARD_ADMIN": f"127.0.0.1:{free_port()}", "GUARD_LOG_FORMAT": "text"}
    with model(tmp_path) as upstream:
        env = own | {"GUARD_POLICY": "/srv/policy.yaml", "GUARD_UPSTREAM": upstream.url}
        with image.running(log, volumes, env) as process:
            guard = Guard(process, log)
            assert admin(guard, "/healthz").status == admin(guard, "/readyz").status == 200
            probed = image.run(*image.config["Healthcheck"]["Test"][1:], volumes=volumes, **env)
            assert probed.returncode == 0, probed
            got = await ask(guard.port, "/v2/models/m/infer", ROW)
            bare = answer(ROW, "m")["outputs"][0]["data"]
            assert (got.status, got.json["outputs"][0]["data"]) == (200, pytest.approx(bare, abs=0.1))
            assert got.json["outputs"][0]["data"] != bare
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0, log.read_text()
        gone = image.run(*image.config["Healthcheck"]["Test"][1:], volumes=volumes, **env)
        assert gone.returncode == 1, gone
        assert "does not answer" in gone.stderr
        with image.running(log, volumes, env) as process:
            statuses = [(await ask(Guard(process, log).port, "/v2/models/m/infer", ROW)).status for _ in range(3)]
    assert statuses == [200, 200, 429]  # the budget outlives the container


def test_grpc_comes_with_a_build_argument(image: Image, state: Path, tmp_path: Path) -> None:
    volumes, log = {"/var/lib/guard": state}, tmp_path / "guard.log"
    env = {"GUARD_POLICY": "observe", "GUARD_ADMIN": f"127.0.0.1:{free_port()}", "GUARD_LOG_FORMAT": "text"}
    env |= {"GUARD_GRPC_LISTEN": "127.0.0.1:0", "GUARD_GRPC_UPSTREAM": f"grpc://127.0.0.1:{free_port()}"}
    without = image.run(volumes=volumes, **env)
    assert (without.returncode, "pip install 'model-guard[grpc]'" in without.stderr) == (2, True), without
    with built(requirements="grpc.txt") as made, made.running(log, volumes, env) as process:
        guard = Guard(process, log)
        with grpc.insecure_channel(guard.grpc) as channel:
            asked = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
        assert asked == b"\x08\x02", "it serves; the model is not there"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, log.read_text()
