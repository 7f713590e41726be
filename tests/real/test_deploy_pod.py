"""The pod that the chart describes, run as the kubelet would: the image, its environment, its files, its probes."""

from __future__ import annotations

import hashlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.charts import CHART, Manifest, environment, guard_of, mount, one, render, swap
from tests.support.clients import Answered, admin, ask, infer, until
from tests.support.model import model
from tests.support.processes import Guard, free_port
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.images import Image

pytestmark = pytest.mark.real
KEY = "key-of-a-customer"
TARGET, ROW = "/v2/models/m/infer", infer([3.0, 4.0])
Json = Any  # Any: JSON


def policy(decimals: int, extra: str = "") -> str:
    return f"""version: 1
name: decimals-{decimals}
identity: [{{kind: api_key, header: x-api-key, keys_file: /etc/guard/secrets/api-keys}}]
routes:
  - name: digits
    api: open_inference
    inputs: {{kind: vector, size: 2}}
    defences: [{{kind: round, decimals: {decimals}}}]
    budgets: [{{kind: rows, per: client, limit: 1000}}]
{extra}"""


@dataclass(frozen=True)
class Kubelet:
    """What it knows of the pod.

    Args:
        guard: Guard's container.
        env: its environment.
        volumes: its mounted directories, by where they are seen.
        model_port: where the model is going to listen.
    """

    guard: Manifest
    env: dict[str, str]
    volumes: dict[str, Path]
    model_port: int

    def probe(self, running: Guard, name: str) -> int:
        """Ask what a probe asks, without a token, and return the status."""
        found = self.guard[name]["httpGet"]
        (port,) = (one["containerPort"] for one in self.guard["ports"] if one["name"] == found["port"])
        assert running.admin.endswith(f":{port}")
        return admin(running, found["path"]).status


@pytest.fixture
def kubelet(tmp_path: Path) -> Kubelet:
    """The chart's pod, with ports that are free here and a Secret of its own."""
    values = yaml.safe_load((CHART / "ci" / "sidecar-values.yaml").read_text())
    model_port, port, admin_port = free_port(), free_port(), free_port()
    values["model"]["port"] = model_port
    values["policy"]["inline"] = policy(1)
    manifests = render(**values | {"port": port, "admin": {"port": admin_port}})
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    guard = guard_of(pod)
    secrets = {
        "guard": {
            "noise-secret": "n" * 32,
            "admin-token": "t" * 32,
            "redis-url": "redis://nobody",
            "api-keys": f"customer:{hashlib.sha256(KEY.encode()).hexdigest()}\n",
        }
    }
    env = environment(guard, secrets)
    assert (env["GUARD_LISTEN"], env["GUARD_ADMIN"]) == (f"0.0.0.0:{port}", f"0.0.0.0:{admin_port}")
    assert env["GUARD_UPSTREAM"] == f"http://127.0.0.1:{model_port}"
    # Tests listen on loopback only, and read the log.
    env |= {"GUARD_LISTEN": f"127.0.0.1:{port}", "GUARD_ADMIN": f"127.0.0.1:{admin_port}", "GUARD_LOG_FORMAT": "text"}
    return Kubelet(guard, env, mount(pod, guard, manifests, secrets, tmp_path), model_port)


async def scored(running: Guard, key: str = KEY) -> Answered:
    return await ask(running.port, TARGET, ROW, key=key)


async def test_guard_starts_before_the_model_and_follows_its_config_map(
    image: Image, kubelet: Kubelet, tmp_path: Path
) -> None:
    log = tmp_path / "guard.log"
    assert kubelet.guard["args"] == image.config["Cmd"]
    assert {"/etc/guard/policy", "/etc/guard/secrets", "/var/lib/guard"} == set(kubelet.volumes)
    with Valkey(tmp_path / "valkey") as ledger:
        env = kubelet.env | {"GUARD_STATE": ledger.url}
        with image.running(log, kubelet.volumes, env) as process:
            running = Guard(process, log)
            for name in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert kubelet.probe(running, name) == 200  # no model is there yet
            assert admin(running, "/readyz").status == 503
            assert (await scored(running)).status == 502
            with model(tmp_path, kubelet.model_port):
                await until(lambda: admin(running, "/readyz").status == 200)
                assert await decimals(running) == 1
                assert (await scored(running, "guessed")).status == 401
                assert admin(running, "/policy").status == 401  # the token is asked for
                swap(kubelet.volumes["/etc/guard/policy"], {"policy.yaml": policy(3)})
                await until_decimals(running, 3)
                swap(kubelet.volumes["/etc/guard/policy"], {"policy.yaml": policy(2, "limts: {}\n")})
                await until(lambda: "policy not reloaded" in log.read_text())
                assert await decimals(running) == 3
            ledger.kill()
            assert (await scored(running)).status == 503
            assert kubelet.probe(running, "livenessProbe") == 200  # a restart would not bring the ledger back
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0


async def decimals(running: Guard) -> int:
    """Return how many decimals the answers have."""
    got = await scored(running)
    assert got.status == 200, got
    return max(len(str(score).partition(".")[2]) for score in got.json["outputs"][0]["data"])


async def until_decimals(running: Guard, wanted: int) -> None:
    for _ in range(2000):
        if await decimals(running) == wanted:
            return
    raise AssertionError("the new policy did not come into force")
