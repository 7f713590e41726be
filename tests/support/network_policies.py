"""Who reaches which port of a pod, as Kubernetes' NetworkPolicies say where a network plugin enforces them.

A pod that no policy selects is open to everybody; one that policies select is open to what one of them allows. Covers
what this repository's chart renders, and refuses the rest (matchExpressions, ipBlock, named ports).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]  # Any: YAML
Labels = dict[str, str]


@dataclass(frozen=True)
class Pod:
    """A pod.

    Args:
        labels: its own.
        namespace: where it is; its namespace has the label that Kubernetes sets.
    """

    labels: Labels = field(default_factory=dict[str, str])
    namespace: str = "models"

    @property
    def around(self) -> Labels:
        """Labels of its namespace."""
        return {"kubernetes.io/metadata.name": self.namespace}


def reaches(policies: list[Manifest], source: Pod, target: Pod, port: int, namespace: str = "models") -> bool:
    """Say whether `source` reaches a port of `target`; all policies are in one namespace."""
    selecting = [
        policy["spec"]
        for policy in policies
        if target.namespace == namespace
        and "Ingress" in policy["spec"]["policyTypes"]
        and _matches(policy["spec"]["podSelector"], target.labels)
    ]
    rules = [rule for spec in selecting for rule in spec.get("ingress", [])]
    return not selecting or any(_allows(rule, source, port, namespace) for rule in rules)


def _allows(rule: Manifest, source: Pod, port: int, namespace: str) -> bool:
    assert set(rule) <= {"from", "ports"}, rule
    ports, peers = rule.get("ports"), rule.get("from")
    assert ports is None or all(isinstance(one["port"], int) and one["protocol"] == "TCP" for one in ports), ports
    fits = not ports or any(one["port"] == port for one in ports)
    return fits and (not peers or any(_is_peer(peer, source, namespace) for peer in peers))


def _is_peer(peer: Manifest, source: Pod, namespace: str) -> bool:
    assert set(peer) <= {"podSelector", "namespaceSelector"}, peer
    if "namespaceSelector" in peer:
        near = _matches(peer["namespaceSelector"], source.around)
    else:
        near = source.namespace == namespace
    return near and _matches(peer.get("podSelector", {}), source.labels)


def _matches(selector: Manifest, labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()
