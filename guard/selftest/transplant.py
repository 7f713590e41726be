"""From the operator's policy to one that the lab can attack: what ties it to a place goes, what it decides stays.

Outputs, ensemble, claim, defences, budgets, detectors, ladder, fields and mode are the policy's. Match, selectors,
identity, upstream headers, limits of time, exceptions and the profile belong to where the policy is deployed, and are
replaced, and so is what needs a profile's answers; every replacement is said. Inputs are the victim's as far as the
policy declares its own: a policy that bounds nothing is tested with nothing bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from pydantic import SecretStr

from guard.errors import PolicyError, Problem
from guard.model.domain import Bound
from guard.policy.privacy import Ensemble
from guard.policy.private import mechanism_of
from guard.policy.schema import Policy, Route
from guard.policy.suggest import did_you_mean
from guard.selftest.base import Knowledge
from guard.selftest.lab.shards import MOST

ACCOUNTS = 48
"""Keys that an attacker holds: the first 32 are customers of their own, the others belong to one customer."""
ALONE = 32
KEY_HEADER = "x-api-key"
CODED = 0.1
"""Step of the grid that stands for a codebook."""
PATIENCE_S = 30.0
"""How long the lab's Guard waits for all models of an ensemble."""
CANARIES = "SELFTEST_CANARIES"
"""Environment variables that begin like this hold canaries: no policy spells a secret."""
_DECIDES = (
    "name", "mode", "ledger", "fields", "parameters", "outputs", "ensemble", "privacy", "defences", "budgets",
    "detectors", "ladder",
)  # fmt: skip
"""What the lab takes of a route."""


@dataclass(frozen=True)
class Transplant:
    """A policy that guards a lab model.

    Args:
        document: the policy, ready to be written as YAML.
        substitutions: what was replaced, in words.
        env: environment variables that the document refers to; they hold secrets.
        shards: how many models the policy's ensemble asks; 0 without one.
    """

    document: dict[str, object]
    substitutions: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    shards: int = 0

    def models(self, url: str) -> str | Sequence[str]:
        """Return what Guard stands in front of, given the lab server's URL."""
        return model_urls(url, self.shards)

    def write(self, folder: Path) -> Path:
        """Write the policy and the accounts' keys into `folder`; returns the policy's path."""
        lines = [f"{account_name(i)}:{hashlib.sha256(key(i).encode()).hexdigest()}" for i in range(ACCOUNTS)]
        (folder / "keys").write_text("\n".join(lines) + "\n")
        path = folder / "policy.yaml"
        path.write_text(yaml.safe_dump(self.document, sort_keys=False))
        return path


def account_name(number: int) -> str:
    """Return an account's name and group: the first `ALONE` have groups of their own, the others share one."""
    return f"attacker{number}@customer{number}" if number < ALONE else f"attacker{number}@shared"


def key(number: int) -> str:
    """Return an account's key. It opens nothing but the lab's own Guard."""
    return f"lab-account-{number}"


def choose_route(policy: Policy, name: str | None) -> Route:
    """Return the route called `name`, or the first.

    Raises:
        PolicyError: there is none of that name.
    """
    if name is None:
        return policy.routes[0]
    for route in policy.routes:
        if route.name == name:
            return route
    known = [route.name for route in policy.routes]
    raise PolicyError([Problem(f"there is no route called {name}", hint=did_you_mean(name, known) or ", ".join(known))])


def transplant(
    policy: Policy, route: Route, victim: Knowledge, *, budgets: bool = True, canaries: Sequence[str] = ()
) -> Transplant:
    """Return the policy around a lab model.

    Args:
        policy: the operator's, resolved.
        route: the one that is tested.
        victim: the lab model.
        budgets: False for an attacker's own deployment, which nobody rations.
        canaries: what an operator of the lab model would list.
    """
    said = [
        f"api and match: were {route.api or 'left out'} and {_words(route.match)}, are the lab's endpoint",
        f"identity: was {', '.join(i.kind for i in policy.identity) or 'the peer address'}, is {ACCOUNTS} lab keys, of "
        f"which {ALONE} are customers of their own",
        "secret: one drawn from the seed",
    ]
    made = route.model_dump(mode="json", exclude_unset=True)
    made = {k: v for k, v in made.items() if k in _DECIDES}
    made["api"] = "openai" if route.outputs.kind == "logprobs" else "open_inference"
    if not budgets:
        _unrationed(made)
    if route.select is not None:
        said.append("select: dropped, the lab's protocol says where scores are")
    if route.profile is not None:
        if "detectors" in made:
            made["detectors"] = "default"  # what needs a profile has none here
        said.append("profile: dropped, nobody has recorded the lab's customers; detection runs on the shipped null")
    said += _uncalibrated(made, profiled=route.profile is not None)
    if policy.upstream_headers or policy.forward_headers:
        said.append("upstream_headers and forward_headers: dropped")
    outputs = cast("dict[str, Any]", made.get("outputs", {}))  # Any: plain YAML data
    for name in ("tensors", "labels"):
        if outputs.pop(name, None) is not None:
            said.append(f"outputs.{name}: dropped, the lab's tensors have other names")
    if outputs.get("classes"):
        outputs["classes"] = list(range(victim.classes))
        said.append("outputs.classes: the lab model's")
    if mechanism_of(route) is not None:
        outputs["tensors"] = ["probabilities" if victim.classes > 1 else "value"]
        said.append("outputs.tensors: one of the two copies of the scores that the lab's server answers")
    shards = 0
    if route.ensemble is not None:
        made["ensemble"], shards, about = _ensemble(route.ensemble)
        said.append(about)
    inputs, about = _inputs(route, victim)
    if inputs is not None:
        made["inputs"] = inputs
    said.append(about)
    listed = [canaries for defence in route.defences if defence.kind == "secrets"]
    if listed:
        said.append("secrets: canaries are the lab model's own, as far as its operator knows of them")
    return Transplant(_around(policy, made), tuple(said), _list_canaries(made, listed), shards)


def _list_canaries(made: dict[str, Any], listed: Sequence[Sequence[str]]) -> dict[str, str]:  # Any: plain YAML data
    """Have each defence of secrets read its canaries from a variable; return the variables.

    Args:
        made: the route.
        listed: each such defence's canaries, in order.
    """
    found = [defence for defence in made.get("defences", ()) if defence["kind"] == "secrets"]
    env: dict[str, str] = {}
    for number, (defence, lines) in enumerate(zip(found, listed, strict=True)):
        defence.pop("canaries", None)  # it reads ****
        if lines:
            env[f"{CANARIES}_{number}"] = "\n".join(lines)
            defence["canaries"] = {"env": f"{CANARIES}_{number}"}
    return env


def _uncalibrated(made: dict[str, Any], *, profiled: bool) -> list[str]:  # Any: plain YAML data
    """Make the defences of a route, and of its ladder, do without the answers of a profile; say what changed."""
    said: dict[str, None] = {}
    for owner in (made, *made.get("ladder", ())):
        defences = owner.get("defences", [])
        for i, defence in enumerate(defences):
            if defence["kind"] == "codebook":
                defences[i] = {"kind": "grid", "step": CODED}
                said[
                    f"codebook: replaced by a grid of {CODED:g}, as the lab has no calibration answers; copies come "
                    "closer through a grid, and honest scores move less"
                ] = None
            elif profiled and defence["kind"] == "grid" and defence.get("step", "auto") == "auto":
                said["grid: step auto is .05 here, as without calibration answers; the profile's may say another"] = (
                    None
                )
    return list(said)


def shards_of(ensemble: Ensemble | None) -> int:
    """Return how many models the lab trains for an ensemble: one may fail, as far as the lab's data go; 0 without."""
    return 0 if ensemble is None else min(ensemble.quorum + 1, MOST)


def model_urls(url: str, shards: int) -> str | Sequence[str]:
    """Return where the lab's server answers for the model, or for each shard of an ensemble."""
    return [f"{url}/shards/{shards}/{i}" for i in range(shards)] or url


def _ensemble(ensemble: Ensemble) -> tuple[dict[str, object], int, str]:
    """Return the ensemble as the lab has it, how many models it asks, and what is said of it."""
    made = ensemble.model_dump(mode="json", exclude_unset=True)
    shards = shards_of(ensemble)
    # A late shard would change figures with the machine's load.
    made["wait_s"] = max(ensemble.wait_s, PATIENCE_S)
    said = f"ensemble: {shards} models on disjoint shards of the lab model's training data, waited for; the undefended "
    said += "control is one model on all of it"
    if ensemble.quorum >= shards:
        made["quorum"] = shards - 1
        said += f"; quorum: was {ensemble.quorum}, is {shards - 1}, as the lab's data bear no more"
        if ensemble.threshold is not None:
            made["threshold"] = ensemble.threshold * (shards - 1) / ensemble.quorum
    return made, shards, said


def _unrationed(made: dict[str, Any]) -> None:  # Any: plain YAML data
    """Take the budgets and the ladder of a route away, and the claim that rests on them."""
    for name in ("budgets", "ladder", "detectors", "exceptions"):
        made.pop(name, None)
    if "privacy" in made:
        made["privacy"] = {**made["privacy"], "claim": "none"}


def own_policy(policy: Policy, route: Route, api: str, *, budgets: bool = True) -> Transplant:
    """Return the policy around the operator's own model: as it is, but for who is known.

    Args:
        policy: the operator's, resolved.
        route: the one that is tested.
        api: what the route speaks.
        budgets: False for an attacker's own deployment, which nobody rations.
    """
    said = [
        f"identity: was {', '.join(i.kind for i in policy.identity) or 'the peer address'}, is {ACCOUNTS} keys of the "
        f"self-test's, of which {ALONE} are customers of their own",
        "secret: one drawn from the seed, and fresh ledgers",
    ]
    if len(policy.routes) > 1:
        said.append(f"routes: {route.name} alone")
    made = route.model_dump(mode="json", exclude_unset=True) | {"name": route.name, "api": api}
    if not budgets:
        _unrationed(made)
    document = _around(policy, made) | {"forward_headers": list(policy.forward_headers)}
    # The self-test knows no defence's class.
    secrets: list[SecretStr | None] = [getattr(d, "canaries", None) for d in route.defences if d.kind == "secrets"]
    listed = [canaries.get_secret_value().splitlines() if canaries else [] for canaries in secrets]
    env = _list_canaries(made, listed)
    headers = {f"SELFTEST_HEADER_{i}": h.value.get_secret_value() for i, h in enumerate(policy.upstream_headers)}
    if headers:
        names = [header.name for header in policy.upstream_headers]
        document["upstream_headers"] = [
            {"name": name, "value": {"env": variable}} for name, variable in zip(names, headers, strict=True)
        ]
    return Transplant(document, tuple(said), env | headers)


def _around(policy: Policy, route: dict[str, Any]) -> dict[str, object]:  # Any: plain YAML data
    """Return the document of a policy with one route and the self-test's accounts."""
    return {
        "version": 1,
        "name": policy.name,
        "mode": policy.mode,
        "identity": [{"kind": "api_key", "header": KEY_HEADER, "keys_file": "keys"}],
        "limits": policy.limits.model_dump(mode="json"),
        "routes": [route],
    }


def _inputs(route: Route, victim: Knowledge) -> tuple[dict[str, object] | None, str]:
    """Return the victim's inputs as far as the policy declares its own."""
    declared = route.inputs
    if declared is None:
        return None, "inputs: none, as in the policy"
    if victim.kind == "text":
        texts: dict[str, object] = {"kind": "any" if declared.kind == "any" else "text"}
        if declared.max_chars is not None:
            texts["max_chars"] = declared.max_chars
        return texts, "inputs: texts, as far as the policy declares its own"
    if declared.kind == "any" and declared.size is None and declared.low is None and declared.high is None:
        return {"kind": "any"}, "inputs: any, as in the policy"
    made: dict[str, object] = {"kind": "vector"}
    if declared.size is not None:
        made["size"] = victim.size
    wide = (victim.high - victim.low).tolist()
    if declared.low is not None:
        made |= {"size": victim.size, "low": victim.low.tolist()}
    if declared.high is not None:
        # A feature that never varies has no range; Guard wants one.
        above = [high if high > low else low + 1.0 for low, high in zip(victim.low, victim.high, strict=True)]
        made |= {"size": victim.size, "high": [float(high) for high in above]}
    if declared.step is not None:
        # As many steps over a feature's range as the policy's inputs have; 64 where it declares no range.
        steps = _steps(declared.low, declared.high, declared.step)
        made |= {"size": victim.size, "step": [max(w, 1e-9) / steps for w in wide]}
    return made, f"inputs: {', '.join(k for k in made if k != 'kind') or 'vector'} of the lab model"


def _steps(low: Bound | None, high: Bound | None, step: Bound | None) -> float:
    if low is None or high is None or step is None:
        return 64.0
    least, greatest, one = (float(np.ravel(np.asarray(bound))[0]) for bound in (low, high, step))
    return max(1.0, (greatest - least) / one)


def _words(match: object) -> str:
    return "left out" if match is None else "declared"
