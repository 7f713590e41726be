"""compose.yaml: read by the real docker-compose, and every service's own command run as a process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.clients import Answered, ask, infer, until
from tests.support.debian import program
from tests.support.processes import ROOT, Guard, free_port, process, venv_of, wait_for_port
from tests.support.valkey import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.images import Image

pytestmark = pytest.mark.real
Json = Any  # Any: JSON
CONFIDENTIAL = ("noise_secret", "admin_token", "api_keys", "grafana_password")
ROW = infer([float(pixel % 17) for pixel in range(64)])


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/ with secrets of its own."""
    copy = tmp_path_factory.mktemp("compose") / "deploy"
    # What an operator has made there stays out.
    shutil.copytree(ROOT / "deploy", copy, ignore=shutil.ignore_patterns(*CONFIDENTIAL))
    made = subprocess.run([str(copy / "secrets" / "make")], capture_output=True, text=True, check=True)
    (copy / "key").write_text(made.stdout.rsplit(" ", 1)[1].strip())
    return copy


@pytest.fixture(scope="module")
def services(deploy: Path) -> dict[str, Json]:
    """What docker-compose makes of the file."""
    compose = venv_of("deploy").parent / "docker-compose"
    command = [str(compose), "-f", str(deploy / "compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    return {**document["services"], "networks": document["networks"]}


def names(services: dict[str, Json]) -> list[str]:
    return [name for name in services if name != "networks"]


def mounted(deploy: Path, service: Json, inside: str) -> Path:
    """Return the file that a service sees as `inside`."""
    for secret in service.get("secrets", []):
        if secret["target"] in (inside, Path(inside).name):
            return deploy / "secrets" / secret["source"]
    volume = next(v for v in service["volumes"] if v["type"] == "bind" and Path(inside).is_relative_to(v["target"]))
    return Path(volume["source"]) / Path(inside).relative_to(volume["target"])


def test_secrets_are_made_once_and_only_their_owner_gets_to_them(deploy: Path) -> None:
    before = {name: (deploy / "secrets" / name).read_bytes() for name in CONFIDENTIAL}
    again = subprocess.run([str(deploy / "secrets" / "make")], capture_output=True, text=True, check=True)
    assert again.stdout == ""
    assert {name: (deploy / "secrets" / name).read_bytes() for name in CONFIDENTIAL} == before
    assert len(set(before.values())) == len(CONFIDENTIAL)
    assert (deploy / "secrets").stat().st_mode & 0o777 == 0o700
    asked = ["git", "check-ignore", *(f"deploy/secrets/{name}" for name in CONFIDENTIAL)]
    ignored = subprocess.run(asked, cwd=ROOT, capture_output=True, check=False)
    assert len(ignored.stdout.splitlines()) == len(CONFIDENTIAL)


def test_the_model_is_on_one_network_without_a_way_out_and_with_guard_alone(services: dict[str, Json]) -> None:
    assert list(services["model"]["networks"]) == ["model"]
    assert "ports" not in services["model"]
    assert services["networks"]["model"]["internal"] is True
    assert [name for name in names(services) if "model" in services[name]["networks"]] == ["guard", "model"]
    assert [name for name in names(services) if "state" in services[name]["networks"]] == ["guard", "redis"]


def test_ports_are_published_on_loopback_only(services: dict[str, Json]) -> None:
    published = {
        (name, port["host_ip"], port["published"])
        for name in names(services)
        for port in services[name].get("ports", [])
    }
    assert published == {
        ("guard", "127.0.0.1", "9000"),
        ("guard", "127.0.0.1", "9001"),
        ("grafana", "127.0.0.1", "3000"),
    }


def test_every_service_is_confined_bounded_and_probed(services: dict[str, Json]) -> None:
    for name in names(services):
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert name == "guard" or service["healthcheck"]["test"], name  # Guard's is the image's
        assert not service.get("privileged"), name
        assert not re.search(r":latest$|^[^:]+$", service["image"]), name


def test_guard_waits_for_the_ledger_and_never_for_the_model(services: dict[str, Json]) -> None:
    waits = {name: set(services[name].get("depends_on", {})) for name in names(services)}
    assert waits == {"model": set(), "guard": {"redis"}, "redis": set(), "prometheus": set(), "grafana": {"prometheus"}}


def test_grafana_finds_its_dashboards_and_its_prometheus(deploy: Path, services: dict[str, Json]) -> None:
    grafana = services["grafana"]
    provider = yaml.safe_load(mounted(deploy, grafana, "/etc/grafana/provisioning/dashboards/guard.yaml").read_text())
    folder = mounted(deploy, grafana, provider["providers"][0]["options"]["path"])
    assert len([json.loads(path.read_text())["uid"] for path in folder.glob("*.json")]) == 2
    sources = yaml.safe_load(
        mounted(deploy, grafana, "/etc/grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    assert set(grafana["networks"]) & set(services["prometheus"]["networks"]) == {"watch"}


class Stack:
    """The services as processes on free ports.

    Args:
        guard: its process.
        key: the API key that deploy/secrets/make printed.
        token: the admin token.
        prometheus: its URL.
        ledger: the ledger's port.
    """

    def __init__(self, guard: Guard, key: str, token: str, prometheus: str, ledger: int) -> None:
        self.guard, self.key, self.token, self.prometheus, self.ledger = guard, key, token, prometheus, ledger

    def admin(self, page: str, token: str = "") -> Answered:
        request = urllib.request.Request(self.guard.admin + page)
        if token:
            request.add_header("authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return Answered(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answered(error.code, dict(error.headers), error.read())

    def up(self) -> list[str]:
        """Return what Prometheus says of its targets."""
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/targets", timeout=10) as reply:
            return [target["health"] for target in json.load(reply)["data"]["activeTargets"]]


def guard_env(deploy: Path, services: dict[str, Json], folder: Path, model: int, ledger: int) -> dict[str, str]:
    """Return the service's own environment; addresses and paths are those of this machine."""
    service = services["guard"]
    env: dict[str, str] = dict(service["environment"])
    for name in ("GUARD_POLICY", "GUARD_SECRET_FILE", "GUARD_ADMIN_TOKEN_FILE"):
        env[name] = str(mounted(deploy, service, env[name]))
    policy = Path(env["GUARD_POLICY"])
    keys = str(mounted(deploy, service, "/run/secrets/api_keys"))
    policy.write_text(policy.read_text().replace("/run/secrets/api_keys", keys))
    env["GUARD_UPSTREAM"] = env["GUARD_UPSTREAM"].replace("model:8080", f"127.0.0.1:{model}")
    env["GUARD_STATE"] = env["GUARD_STATE"].replace("redis:6379", f"127.0.0.1:{ledger}")
    env["GUARD_AUDIT"] = env["GUARD_AUDIT"].replace("/var/lib/guard", str(folder))
    for name in ("GUARD_LISTEN", "GUARD_ADMIN"):
        assert env[name].startswith("0.0.0.0:")
        env[name] = "127.0.0.1:0"
    return env


def prometheus_command(deploy: Path, service: Json, folder: Path, admin: int, port: int) -> list[str]:
    """Lay out /etc/prometheus as in the container, and return the service's command for it."""
    home = folder / "prometheus"
    home.mkdir()
    for name in ("prometheus.yml", "rules.yml", "guard-admin-token"):
        shutil.copy(mounted(deploy, service, f"/etc/prometheus/{name}"), home / name)
    config = home / "prometheus.yml"
    promtool = [str(program("promtool", "prometheus")), "check", "config", str(config)]
    assert subprocess.run(promtool, capture_output=True, check=False).returncode == 0
    text = config.read_text()
    changed = text.replace("guard:9001", f"127.0.0.1:{admin}").replace("scrape_interval: 15s", "scrape_interval: 1s")
    changed = changed.replace("scrape_timeout: 5s", "scrape_timeout: 1s")
    assert changed.count(f"127.0.0.1:{admin}") == 1
    config.write_text(changed)
    words = [
        word.replace("=/etc/prometheus", f"={home}").replace("=/prometheus", f"={home}") for word in service["command"]
    ]
    return [str(program("prometheus", "prometheus")), *words, f"--web.listen-address=127.0.0.1:{port}"]


def model_command(image: Image, port: int) -> list[str]:
    """Return what the model's image runs, on a port of this machine."""
    command = image.config["Entrypoint"]
    assert command[-4:] == ["--host", "0.0.0.0", "--port", "8080"]
    return [*command[:-4], "--host", "127.0.0.1", "--port", str(port)]


@pytest.fixture(scope="module")
def stack(
    deploy: Path, services: dict[str, Json], model_image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    model, ledger, watcher = free_port(), free_port(), free_port()
    server, *options = services["redis"]["command"]
    assert server == "redis-server"
    redis = [str(get_binary_path()), *options, "--port", str(ledger), "--bind", "127.0.0.1", "--dir", str(folder)]
    with contextlib.ExitStack() as running:
        started = running.enter_context(process(redis, folder / "redis.log"))
        wait_for_port(ledger, started, folder / "redis.log")
        env = guard_env(deploy, services, folder, model, ledger)
        command = [sys.executable, "-m", "guard", "serve"]
        guard = Guard(running.enter_context(process(command, folder / "guard.log", env)), folder / "guard.log")
        admin = int(guard.admin.rsplit(":", 1)[1])
        prometheus = prometheus_command(deploy, services["prometheus"], folder, admin, watcher)
        started = running.enter_context(process(prometheus, folder / "prometheus.log"))
        wait_for_port(watcher, started, folder / "prometheus.log")
        stack = Stack(
            guard,
            (deploy / "key").read_text(),
            (deploy / "secrets" / "admin_token").read_text(),
            f"http://127.0.0.1:{watcher}",
            ledger,
        )
        # Guard is up before the model is, as compose.yaml lets it be.
        assert stack.admin("/healthz").status == 200
        assert stack.admin("/readyz").status == 503
        command = model_command(model_image, model)
        started = running.enter_context(model_image.running(folder / "model.log", {}, {}, *command))
        wait_for_port(model, started, folder / "model.log")
        yield stack


async def test_clients_with_a_key_get_guarded_answers(stack: Stack) -> None:
    target = "/v2/models/digits/infer"
    await until(lambda: stack.admin("/readyz").status == 200)
    got = await ask(stack.guard.port, target, ROW, key=stack.key)
    assert got.status == 200, got
    scores = got.json["outputs"][0]["data"]
    assert all(abs(score / 0.05 - round(score / 0.05)) < 1e-9 for score in scores)
    assert sum(scores) == pytest.approx(1)
    assert (await ask(stack.guard.port, target, ROW, key="guessed")).status == 401
    outside = infer([17.0] * 64)
    assert (await ask(stack.guard.port, target, outside, key=stack.key)).status == 422


def test_the_token_opens_the_admin_listener_to_who_has_it(stack: Stack) -> None:
    assert stack.admin("/clients").status == 401
    assert stack.admin("/clients", "guessed-guessed-guessed").status == 401
    assert stack.admin("/clients", stack.token).status == 200


async def test_prometheus_scrapes_guard_with_the_mounted_token(stack: Stack) -> None:
    await until(lambda: stack.up() == ["up"])


def test_doctor_finds_nothing_wrong_with_the_ledger(stack: Stack, deploy: Path) -> None:
    options = ["--policy", str(deploy / "policy" / "policy.yaml"), "--state", f"redis://127.0.0.1:{stack.ledger}"]
    options += ["--secret-file", str(deploy / "secrets" / "noise_secret")]
    command = [sys.executable, "-m", "guard", "doctor", *options]
    done = subprocess.run(command, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=False)
    findings = [
        line for line in done.stdout.splitlines() if re.match(r"(ok|warn|fail|down)\s+(state|durability)", line)
    ]
    assert findings, done
    assert [line for line in findings if not line.startswith("ok")] == []
