"""Tries a plan out before it is in force: a tiny answer goes through all defences, and every limit is worked out.

A plan that cannot run is a `PolicyError` here and not a 500 for every client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guard.defences.base import Batch
from guard.errors import ClientError, PolicyError, Problem

if TYPE_CHECKING:
    from guard.defences.base import Reuse
    from guard.model.arrays import Floats
    from guard.model.client import Client
    from guard.model.outputs import Outputs
    from guard.policy.plan import Plan, RoutePlan
    from guard.proxy.identity import Identity

_ROWS = 2


class _Draws:
    """Fixed numbers in place of keyed noise."""

    def uniform(self, reuse: Reuse, width: int, salt: bytes) -> Floats:
        del reuse, salt
        return np.tile(np.linspace(0.3, 0.7, max(width, 1))[:width], (_ROWS, 1))


def dry_run(plan: Plan, identity: Identity) -> None:
    """Run every step of every route once.

    Raises:
        PolicyError: with a problem for each route that cannot run.
    """
    problems: list[Problem] = []
    client = identity.by_address([], "127.0.0.1")
    for index, route in enumerate(plan.routes):
        try:
            _try(route, client)
        except Exception as error:
            message = f"the route cannot run: {type(error).__name__}: {error}"
            problems.append(Problem(message, f"routes[{index}]", hint="report this, and go back to the policy before"))
    if problems:
        raise PolicyError(problems)


def _try(route: RoutePlan, client: Client) -> None:
    size = route.inputs.size if route.inputs is not None and route.inputs.size is not None else 4
    for budget in route.budgets:
        budget.scope(client)
        if budget.limit_for(size) < 1:
            raise ValueError(f"{budget.name} allows nothing")
    route.codec.error(ClientError("a trial"))
    if route.outputs.kind == "labels":
        return
    scores = trial_scores(route.outputs)
    batch = Batch(scores, scores.argmax(axis=1), route.outputs.kind)
    for i, defence in enumerate(route.defences):
        batch = defence.apply(batch, _Draws(), b"%d" % i)
        if batch.scores.shape != scores.shape or not np.isfinite(batch.scores).all():
            raise ValueError(f"{defence.kind} returns something else than finite scores of the same shape")


def trial_scores(outputs: Outputs) -> Floats:
    """Return plausible scores of the declared kind, shape (2, k).

    >>> from guard.model.outputs import Outputs
    >>> trial_scores(Outputs(classes=("a", "b", "c")))
    array([[0.16666667, 0.33333333, 0.5       ],
           [0.5       , 0.33333333, 0.16666667]])
    """
    if outputs.kind == "value":
        low = 0.0 if outputs.low is None else outputs.low
        return np.linspace(low, low + 1.0 if outputs.high is None else outputs.high, _ROWS + 2)[1:-1, None]
    rising = np.arange(1.0, 1.0 + (len(outputs.classes) if outputs.classes is not None else 5))
    shares = np.stack([rising, rising[::-1]]) / rising.sum()
    return np.log(shares) if outputs.kind in ("logits", "logprobs") else shares
