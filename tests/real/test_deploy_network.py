"""Who reaches what in a cluster that enforces NetworkPolicy: the model through Guard only."""

from __future__ import annotations

import pytest
import yaml

from tests.support.charts import CHART, Manifest, guard_of, one, render
from tests.support.network_policies import Pod, reaches

pytestmark = pytest.mark.real
SIDECAR, GATEWAY = (CHART / "ci" / f"{name}-values.yaml" for name in ("sidecar", "gateway"))
STRANGERS = {
    "a neighbour": Pod({"app": "shop"}),
    "another namespace": Pod({"app": "shop"}, "shops"),
    "prometheus": Pod({"app": "prometheus"}, "monitoring"),
    "guard's namesake elsewhere": Pod(
        {"app.kubernetes.io/name": "guard", "app.kubernetes.io/instance": "rel"}, "shops"
    ),
    "another release": Pod({"app.kubernetes.io/name": "guard", "app.kubernetes.io/instance": "other"}),
}
MODEL = Pod({"app": "model", "version": "3"})


def policies(manifests: list[Manifest]) -> list[Manifest]:
    found = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    assert found
    assert {policy["metadata"].get("namespace", "models") for policy in found} == {"models"}
    return found


def own_pod(manifests: list[Manifest]) -> Pod:
    """The pod that the chart runs."""
    return Pod(one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"])


def ports(manifests: list[Manifest]) -> dict[str, int]:
    spec = one(manifests, "Deployment")["spec"]["template"]["spec"]
    return {port["name"]: port["containerPort"] for port in guard_of(spec)["ports"]}


@pytest.mark.parametrize("source", STRANGERS.values(), ids=STRANGERS)
def test_beside_guard_in_one_pod_the_models_port_is_closed(source: Pod) -> None:
    manifests = render(SIDECAR)
    rules, pod, own = policies(manifests), own_pod(manifests), ports(manifests)
    assert reaches([], source, pod, 8080)  # without the policy it would be open
    assert not reaches(rules, source, pod, 8080)
    assert reaches(rules, source, pod, own["guard"])
    assert reaches(rules, source, pod, own["admin"]) == (source.namespace == "monitoring")
    open_ports = {port for port in range(1, 65536) if reaches(rules, source, pod, port)}
    assert open_ports <= {own["guard"], own["admin"]}


@pytest.mark.parametrize("source", STRANGERS.values(), ids=STRANGERS)
def test_a_model_behind_a_gateway_is_open_to_guard_alone(source: Pod) -> None:
    manifests = render(GATEWAY)
    rules, guard = policies(manifests), own_pod(manifests)
    assert reaches([], source, MODEL, 8080)
    assert not reaches(rules, source, MODEL, 8080)
    assert reaches(rules, source, MODEL, 8082) == (source.namespace == "monitoring")  # what alsoAllow says
    assert reaches(rules, guard, MODEL, 8080)
    assert not reaches(rules, guard, MODEL, 22)


def test_a_gateways_policies_leave_other_pods_alone() -> None:
    rules = policies(render(GATEWAY))
    assert reaches(rules, STRANGERS["another namespace"], Pod({"app": "shop"}), 80)
    assert reaches(rules, STRANGERS["a neighbour"], Pod({"app": "model"}, "elsewhere"), 8080)


def test_clients_can_be_named() -> None:
    manifests = render(GATEWAY)
    rules, guard = policies(manifests), own_pod(manifests)
    assert reaches(rules, Pod({"app": "shop"}), guard, 9000)
    assert reaches(rules, Pod({"app": "controller"}, "ingress"), guard, 9000)
    assert not reaches(rules, Pod({"app": "batch"}), guard, 9000)


def test_in_a_pod_of_your_own_the_models_port_is_closed_too() -> None:
    values = yaml.safe_load(SIDECAR.read_text())
    labels = {"app": "scorer"}
    del values["model"]["container"]
    rules = policies(render(**values | {"mode": "embedded", "embedded": {"selector": labels}}))
    for source in STRANGERS.values():
        assert not reaches(rules, source, Pod(labels), 8080)
        assert reaches(rules, source, Pod(labels), 9000)
