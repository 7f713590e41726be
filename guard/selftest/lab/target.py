"""The lab as a target: its server is the undefended model, and the policy is transplanted around each victim."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import cast

from guard.policy.schema import Policy, Route
from guard.selftest import processes
from guard.selftest.api import HttpApi, OpenInference
from guard.selftest.base import Api, Attack
from guard.selftest.cell import Cell, Way
from guard.selftest.lab.registry import victim
from guard.selftest.lab.shards import shards
from guard.selftest.results import Utility
from guard.selftest.transplant import ALONE, KEY_HEADER, Transplant, key, shards_of, transplant
from guard.selftest.utility import held_labels, measure_utility

UTILITY = ("breast_cancer", "digits", "digits_mlp")
"""Models on which honest users are measured."""
FILTERS = 20
"""Most shards of the lab's messages that still make a filter."""
MIXTURES = 8
"""What `membership_lira` asks besides of each record, knowing that it faces an ensemble."""


class Lab:
    """The lab.

    Args:
        policy: the operator's, resolved.
        route: the one that is tested.
    """

    name = "lab"

    def __init__(self, policy: Policy, route: Route) -> None:
        self.policy, self.route = policy, route
        self.warnings: Sequence[str] = ()
        if "shadow" in (policy.mode, route.mode):
            self.warnings = ("the policy is in shadow: Guard changes nothing, so defended is undefended",)

    def open(self, seed: int) -> contextlib.AbstractContextManager[str]:
        """Start the lab's server."""
        return processes.lab(seed)

    def applicable(self, attack: Attack) -> str | None:
        """Return why an attack cannot run: the policy's outputs are of another kind, or its models know too little."""
        kind = self.route.outputs.kind
        if attack.victim == "spam" and shards_of(self.route.ensemble) > FILTERS:
            return f"a spam filter on less than {1 / FILTERS:.0%} of the lab's messages blocks none"
        if "value" in attack.needs and kind != "value":
            return f"it attacks a model that answers values, and the route's outputs are {kind}"
        if "generation" in attack.needs:
            return None if kind == "logprobs" else f"it attacks generated text, and the route's outputs are {kind}"
        if "value" not in attack.needs and kind not in ("probabilities", "labels"):
            return f"it attacks a model that answers probabilities, and the route's outputs are {kind}"
        return None

    def transplant(self, attack: Attack, seed: int, *, budgets: bool = True) -> Transplant | None:
        """Return the policy around the attack's victim."""
        model = victim(attack.victim, seed)
        canaries = cast("Sequence[str]", model.secrets.get("canaries", ()))
        return transplant(self.policy, self.route, model.knows, budgets=budgets, canaries=canaries)

    def cell(self, attack: Attack, way: Way, wrapper: str, seed: int, url: str) -> Cell:
        """Return the cell to run; the control is of the single model, floors are of what stands behind the policy."""
        cell, made = Cell(attack.name, way, wrapper, seed, attack.victim, url), self.route.ensemble
        if way == "undefended" or made is None:
            return cell
        cell = replace(cell, shards=shards_of(made), aggregate=made.aggregate)
        if way == "defended":
            return replace(cell, changes={"mixtures": MIXTURES})
        return replace(cell, url=f"{url}/ensembles/{cell.shards}/{made.aggregate}")

    def behind(self, policy: Policy, route: Route) -> Lab:
        """Return the lab behind another policy."""
        return Lab(policy, route)

    def divide(self, cells: int) -> None:
        """Ignore it: the lab may be asked anything."""
        del cells

    def utility(
        self, seed: int, url: str, guarded: Callable[[Transplant], contextlib.AbstractContextManager[str]]
    ) -> list[Utility]:
        """Measure on classifiers of three sizes; every user asks a few rows."""
        if self.route.outputs.kind not in ("probabilities", "labels"):
            return []
        return [self._utility(name, seed, url, guarded) for name in UTILITY]

    def _utility(
        self, name: str, seed: int, url: str, guarded: Callable[[Transplant], contextlib.AbstractContextManager[str]]
    ) -> Utility:
        model, made = victim(name, seed), transplant(self.policy, self.route, victim(name, seed).knows)
        if made.shards:
            shards(name, seed, made.shards)  # trained here, and cached, so that the server answers at once
        with (
            _apis(name, model.knows.classes, url) as (direct,),
            guarded(made) as through,
            _apis(name, model.knows.classes, through, ALONE) as users,
        ):
            truth = model.predict(model.test_x)
            return measure_utility(name, list(users), direct, model.test_x, truth, held_labels(model.test_y))


@contextlib.contextmanager
def _apis(model: str, classes: int, url: str, accounts: int = 1) -> Generator[Sequence[Api]]:
    apis = [
        HttpApi(url, OpenInference(model), classes, headers={KEY_HEADER: key(n)}, account=str(n))
        for n in range(accounts)
    ]
    try:
        yield apis
    finally:
        for api in apis:
            api.close()
