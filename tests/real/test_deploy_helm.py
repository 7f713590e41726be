"""The Helm chart: linted and rendered by Helm, held to Kubernetes' schemas; what cannot work is refused."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.charts import CHART, Manifest, guard_of, one, render, run, template
from tests.support.processes import ROOT, client, venv_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real
CI = sorted((CHART / "ci").glob("*.yaml"))
VERSIONS = ("1.29.0", "1.37.0")  # the oldest that the chart takes, and the newest there is
SIDECAR, GATEWAY, SQLITE, MEMORY = (
    CHART / "ci" / f"{n}-values.yaml" for n in ("sidecar", "gateway", "sqlite", "memory")
)
Values = dict[str, Any]  # Any: YAML


def pod_of(manifests: list[Manifest]) -> Manifest:
    return one(manifests, "Deployment")["spec"]["template"]["spec"]


def test_every_example_is_linted_and_rendered_as_every_kubernetes_expects(tmp_path: Path) -> None:
    assert len(CI) == 4
    for values in CI:
        linted = run("lint", "--strict", str(CHART), "--values", str(values))
        assert linted.returncode == 0, linted.stdout
    files: dict[str, list[str]] = {version: [] for version in VERSIONS}
    for version in VERSIONS:
        for values in CI:
            path = tmp_path / f"{version}-{values.name}"
            path.write_text(yaml.safe_dump_all(render(values, kubernetes=version)))
            files[version].append(str(path))
    for version, paths in files.items():
        found = client(venv_of("deploy"), "deploy", version, *paths)
        assert found["problems"] == []
        assert found["checked"] > 25


def test_a_manifest_that_is_wrong_would_be_found(tmp_path: Path) -> None:
    manifests = render(GATEWAY)
    pod_of(manifests)["containers"][0]["readinesProbe"] = {}
    one(manifests, "ServiceMonitor")["spec"]["endpoints"][0]["intervall"] = "1s"
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    found = client(venv_of("deploy"), "deploy", "1.35.0", str(path))
    assert len(found["problems"]) == 2
    assert "readinesProbe" in found["problems"][0]
    assert "intervall" in found["problems"][1]


def test_guard_is_a_native_sidecar_that_starts_before_the_model_and_waits_for_nothing() -> None:
    pod = pod_of(render(SIDECAR))
    first, *rest = pod["initContainers"]
    assert (first["name"], first["restartPolicy"], rest) == ("guard", "Always", [])
    assert [container["name"] for container in pod["containers"]] == ["model"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert first[probe]["httpGet"] == {"path": "/healthz", "port": "admin"}


def test_the_models_own_init_containers_run_behind_guard() -> None:
    pod = pod_of(render(SQLITE))
    assert [container["name"] for container in pod["initContainers"]] == ["guard", "fetch"]
    assert pod["containers"][0]["name"] == "scorer"
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"exec": {"command": ["/bin/drain"]}}}


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem)
def test_guards_container_has_no_rights(values: Path) -> None:
    pod = pod_of(render(values))
    assert guard_of(pod)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert "memory" in guard_of(pod)["resources"]["limits"]
    writable = [m["mountPath"] for m in guard_of(pod)["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["/var/lib/guard", "/tmp"]


def test_no_secret_is_in_a_manifest_and_the_model_sees_none() -> None:
    manifests = render(SIDECAR)
    assert not [m for m in manifests if m["kind"] == "Secret"]
    env = {entry["name"]: entry for entry in guard_of(pod_of(manifests))["env"]}
    assert env["GUARD_STATE"]["valueFrom"] == {"secretKeyRef": {"name": "guard", "key": "redis-url"}}
    assert env["GUARD_SECRET_FILE"]["value"] == "/etc/guard/secrets/noise-secret"
    assert "volumeMounts" not in pod_of(manifests)["containers"][0]
    assert "env" not in pod_of(manifests)["containers"][0]


def test_the_policy_is_mounted_as_a_directory_that_the_kubelet_updates() -> None:
    manifests = render(SIDECAR)
    pod = pod_of(manifests)
    (place,) = (m for m in guard_of(pod)["volumeMounts"] if m["name"] == "guard-policy")
    assert place == {"name": "guard-policy", "mountPath": "/etc/guard/policy", "readOnly": True}
    # No checksum of it is in the pod: an edit must reload, not restart.
    assert "annotations" not in one(manifests, "Deployment")["spec"]["template"]["metadata"]
    values = yaml.safe_load(SIDECAR.read_text())
    assert one(manifests, "ConfigMap")["data"] == {"policy.yaml": values["policy"]["inline"]}


def test_files_beside_the_policy_keep_their_text() -> None:
    profile = json.dumps({"a": "{{ no template }}", "b": [1, 2]}, indent=1) + "\n"
    policy = yaml.safe_load(SIDECAR.read_text())["policy"]
    manifests = render(SIDECAR, policy=policy | {"files": {"digits.profile.json": profile}})
    assert one(manifests, "ConfigMap")["data"]["digits.profile.json"] == profile


def test_the_pod_stops_later_than_requests_in_flight_may_take() -> None:
    for values, kubernetes in ((SIDECAR, "1.30.0"), (GATEWAY, "1.29.0")):
        pod = pod_of(render(values, kubernetes=kubernetes))
        assert pod["terminationGracePeriodSeconds"] >= 5 + 20 + 5
    gateway = pod_of(render(GATEWAY))["containers"][0]
    assert gateway["lifecycle"] == {"preStop": {"exec": {"command": ["/bin/sleep", "5"]}}}
    # The kubelet stops sidecars after the containers: it is the model that has to wait for the endpoints.
    assert pod_of(render(SIDECAR))["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert "lifecycle" not in pod_of(render(SIDECAR, kubernetes="1.29.0"))["containers"][0]


def test_the_ledger_on_a_volume_has_one_replica_and_is_kept() -> None:
    manifests = render(SQLITE)
    assert one(manifests, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert one(manifests, "PersistentVolumeClaim")["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert pod_of(manifests)["securityContext"]["fsGroup"] == 65532


def test_an_admin_listener_on_loopback_is_probed_from_inside_and_has_no_service() -> None:
    manifests = render(SQLITE)
    guard = guard_of(pod_of(manifests))
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert guard[probe]["exec"]["command"][-1] == "/opt/guard/healthcheck.py"
    assert [m["metadata"]["name"] for m in manifests if m["kind"] == "Service"] == ["rel-guard"]


def test_both_listeners_take_ipv6_where_pods_have_it() -> None:
    env = {
        entry["name"]: entry.get("value") for entry in guard_of(pod_of(render(SIDECAR, admin={"address": "::"})))["env"]
    }
    assert (env["GUARD_LISTEN"], env["GUARD_ADMIN"]) == ("[::]:9000", "[::]:9001")


def test_prometheus_finds_the_admin_service_and_brings_the_token() -> None:
    manifests = render(GATEWAY)
    spec = one(manifests, "ServiceMonitor")["spec"]
    service = one(manifests, "Service", "-admin")
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    clients = next(m for m in manifests if m["kind"] == "Service" and m != service)
    assert not spec["selector"]["matchLabels"].items() <= clients["metadata"]["labels"].items()
    assert spec["endpoints"][0]["authorization"]["credentials"] == {"name": "guard-secrets", "key": "token"}
    served = f"{service['metadata']['name']}.models.svc"
    assert (spec["endpoints"][0]["scheme"], spec["endpoints"][0]["tlsConfig"]["serverName"]) == ("https", served)
    assert guard_of(pod_of(manifests))["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert spec["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    # The alert GuardDown looks for jobs with guard in their name; the job is the Service's name.
    assert one(render(MEMORY), "Service", "-admin")["metadata"]["name"] == "front-guard-admin"


def test_rules_and_dashboards_are_the_repositorys_own() -> None:
    manifests = render(GATEWAY)
    text = (ROOT / "deploy/prometheus/rules.yml").read_text()
    own = yaml.safe_load(text.replace("runbook_url: docs/", "runbook_url: https://docs.example/docs/"))
    assert one(manifests, "PrometheusRule")["spec"] == own
    assert "https://docs.example/docs/runbooks/" in json.dumps(own)
    for name in ("overview", "security"):
        (dashboard,) = one(manifests, "ConfigMap", f"-dashboard-{name}")["data"].values()
        assert json.loads(dashboard) == json.loads((ROOT / f"deploy/grafana/{name}.json").read_text())


def test_a_chart_of_your_own_takes_guards_container(tmp_path: Path) -> None:
    parent = tmp_path / "app"
    (parent / "templates").mkdir(parents=True)
    shutil.copytree(CHART, parent / "charts" / "guard")  # follows the links to rules and dashboards
    (parent / "Chart.yaml").write_text("{apiVersion: v2, name: app, version: 0.1.0}")
    labels = {"app": "scorer"}
    inner: Values = yaml.safe_load(SIDECAR.read_text()) | {"mode": "embedded", "embedded": {"selector": labels}}
    inner["model"] = {"port": 8123}
    (parent / "values.yaml").write_text(yaml.safe_dump({"guard": inner}))
    pod = {"containers": [{"name": "scorer", "image": "scorer:1"}]}
    whole = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "scorer"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    taken = """      initContainers:
        - {{ include "guard.sidecar" .Subcharts.guard | nindent 10 | trim }}
      volumes:
        {{- include "guard.volumes" .Subcharts.guard | nindent 8 }}
"""
    (parent / "templates" / "app.yaml").write_text(yaml.safe_dump(whole, sort_keys=False) + taken)
    manifests = render(chart=parent)
    own = pod_of(manifests)
    assert guard_of(own)["restartPolicy"] == "Always"
    env = {entry["name"]: entry.get("value") for entry in guard_of(own)["env"]}
    assert env["GUARD_UPSTREAM"] == "http://127.0.0.1:8123"
    assert {m["name"] for m in guard_of(own)["volumeMounts"]} == {volume["name"] for volume in own["volumes"]}
    for kind in ("NetworkPolicy", "PodDisruptionBudget"):
        spec = one(manifests, kind)["spec"]
        assert spec.get("podSelector", spec.get("selector"))["matchLabels"] == labels
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(manifests))
    assert client(venv_of("deploy"), "deploy", "1.35.0", str(path))["problems"] == []


REFUSED: dict[str, tuple[Path, Values, str]] = {
    "typo": (SIDECAR, {"replica": 3}, "'replica' not allowed"),
    "typo inside": (SIDECAR, {"image": {"tga": "1"}}, "'tga' not allowed"),
    "not a mode": (SIDECAR, {"mode": "ambassador"}, "'sidecar', 'gateway', 'embedded'"),
    "latest": (SIDECAR, {"image": {"tag": "latest"}}, "/image/tag"),
    "a digest cut short": (SIDECAR, {"image": {"digest": "sha256:abc"}}, "/image/digest"),
    "a port as text": (SIDECAR, {"port": "9000"}, "/port"),
    "no secret": (SIDECAR, {"secrets": {"existingSecret": ""}}, "secrets.existingSecret is missing"),
    "redis without a url": (SIDECAR, {"secrets": {"redisUrlKey": ""}}, "state.kind redis needs secrets.redisUrlKey"),
    "open admin without a token": (SIDECAR, {"secrets": {"adminTokenKey": ""}}, "needs a token"),
    "no noise secret": (SIDECAR, {"secrets": {"noiseKey": ""}}, "secrets.noiseKey is missing"),
    "sqlite for two": (SIDECAR, {"state": {"kind": "sqlite"}}, "each grant the whole budget"),
    "memory that scales": (MEMORY, {"autoscaling": {"enabled": True}}, "each grant the whole budget"),
    "a volume for two": (SQLITE, {"replicas": 2}, "replicas: 1"),
    "a volume for redis": (SIDECAR, {"state": {"persistence": {"enabled": True}}}, "there is neither"),
    "two policies": (SIDECAR, {"policy": {"preset": "balanced"}}, "policy needs one of"),
    "no policy": (MEMORY, {"policy": {"preset": ""}}, "policy needs one of"),
    "an empty model": (MEMORY, {"model": {"container": None}}, "model.container.image is missing"),
    "no model": (GATEWAY, {"mode": "sidecar", "upstreams": []}, "model.container.image is missing"),
    "the model on guard's port": (SIDECAR, {"model": {"port": 9001}}, "model.port 9001 is Guard's own"),
    "the model with guard's name": (SIDECAR, {"model": {"container": {"name": "guard"}}}, "/model/container/name"),
    "guard's volumes for the model": (
        SIDECAR,
        {"model": {"container": {"volumeMounts": [{"name": "guard-secrets", "mountPath": "/x"}]}}},
        "volume guard-secrets is Guard's",
    ),
    "a gateway to nowhere": (GATEWAY, {"upstreams": []}, "mode gateway needs upstreams"),
    "a gateway with an open model": (GATEWAY, {"gateway": {"modelSelector": None}}, "gateway.modelSelector"),
    "an ensemble without names": (GATEWAY, {"upstreams": [{"url": "http://a"}, {"url": "http://b"}]}, "/upstreams"),
    "upstreams for a sidecar": (SIDECAR, {"upstreams": [{"url": "http://a:1"}]}, "upstreams are for mode gateway"),
    "embedded nowhere": (GATEWAY, {"mode": "embedded", "upstreams": []}, "embedded.selector"),
    "client certificates without tls": (SIDECAR, {"tls": {"clients": "required"}}, "tls.existingSecret is missing"),
    "scrapes of loopback": (SQLITE, {"metrics": {"serviceMonitor": {"enabled": True}}}, "cannot be 127.0.0.1"),
    "killed while draining": (SIDECAR, {"terminationGracePeriodSeconds": 5}, "must be longer"),
}


@pytest.mark.parametrize(("values", "given", "message"), REFUSED.values(), ids=REFUSED)
def test_values_that_cannot_work_are_refused_in_words(values: Path, given: Values, message: str) -> None:
    done = template(values, **given)
    assert done.returncode != 0
    assert message in done.stderr, done.stderr


def paths(node: Values, path: str = "") -> dict[str, Values]:
    """Return every object of the schema that names its members, by path."""
    found = {path: node} if "properties" in node else {}
    for name, inner in node.get("properties", {}).items():
        found |= paths(inner, f"{path}.{name}".strip("."))
    return found


def test_the_schema_names_exactly_the_values_that_there_are() -> None:
    schema = paths(json.loads((CHART / "values.schema.json").read_text()))
    del schema["model.container"]  # Kubernetes' own
    assert len(schema) > 20
    for path, node in schema.items():
        value: Values = yaml.safe_load((CHART / "values.yaml").read_text())
        for name in path.split(".") if path else ():
            value = value[name]
        assert node["additionalProperties"] is False, path
        assert set(node["properties"]) - {"global"} == set(value), path


def test_the_values_on_the_page_work() -> None:
    blocks = re.findall(r"```yaml[^\n]*\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    shown = [block for block in blocks if "existingSecret" in block]
    assert len(shown) == 2
    for values in shown:
        assert one(render(values), "Deployment")


def test_notes_say_what_to_look_at_and_warn_of_budgets_that_a_restart_gives_back() -> None:
    done = run("install", "rel", str(CHART), "--dry-run=client", "--values", str(MEMORY))
    assert done.returncode == 0, done.stderr
    assert "must time out" in done.stdout
    assert "WARNING: budgets begin anew with every pod" in done.stdout
    quiet = run("install", "rel", str(CHART), "--dry-run=client", "--values", str(SIDECAR))
    assert "NOTES:" in quiet.stdout
    assert "WARNING" not in quiet.stdout
