"""Tries a plan out before it is in force: queries become evidence, limits are worked out, and defences run.

A plan that cannot run is a `PolicyError` here and not a 500 for every client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from guard.detectors.base import Margins
from guard.engine.admit import charges, digests
from guard.engine.ladder import decide
from guard.engine.randomness import QueryNoise
from guard.engine.release import release
from guard.engine.tracker import Tracker
from guard.errors import ClientError, PolicyError, Problem
from guard.evidence.values import WINDOW
from guard.model.prediction import Answer, Prediction, Release
from guard.model.queries import Queries

if TYPE_CHECKING:
    from guard.defences.base import Defence
    from guard.model.arrays import Floats
    from guard.model.client import Client
    from guard.model.outputs import Outputs
    from guard.policy.detection import Detection
    from guard.policy.plan import Plan, RoutePlan
    from guard.proxy.identity import Identity

_SECRET = bytes(32)
_ROWS = 2


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
    queries = Queries(_ROWS, [[float(row)] * size for row in range(_ROWS)])
    route.codec.error(ClientError("a trial"))
    charges(route.budgets, client, 1, size, digests(_SECRET, queries)[:1])
    _release(route, client, queries, ())
    if route.detection is not None:
        _watch(route.detection, size)
        for step in route.detection.ladder:
            charges(step.budgets, client, 1, size, digests(_SECRET, queries)[:1])
            _release(route, client, queries, step.defences)


def _watch(detection: Detection, size: int) -> None:
    """Fold a window of queries and of answers, and place whoever asked on the ladder."""
    sketch = None if detection.profile is None else detection.profile.sketch
    width = size if sketch is None or sketch.size is None else sketch.size
    rows = np.random.default_rng(0).random((WINDOW, width)).tolist()
    queries = [f"trial {i}" for i in range(WINDOW)] if sketch is not None and sketch.kind == "text" else rows
    tracker = Tracker(detection.setup)
    tracker.ask(detection.setup.sketcher.features(Queries(WINDOW, queries)))
    tracker.answer(Margins(np.linspace(0.0, 1.0, WINDOW)))
    strength = tracker.strength()
    if not np.isfinite(strength).all():
        raise ValueError("the detectors' evidence is not finite")
    decide(detection, {"client": strength}, {}, 0, 0.0, deniable=True)


def _release(route: RoutePlan, client: Client, queries: Queries, extra: tuple[Defence, ...]) -> None:
    if route.outputs.kind == "labels":
        return
    scores = trial_scores(route.outputs)
    released: list[Release] = []
    answer = Answer(_ROWS, None, [Prediction("trial", scores, released.append)])
    noise = QueryNoise(_SECRET, route.ledger, client.name, queries, route.inputs)
    release(route.defences, route.outputs, answer, noise, labels_only=False, extra=extra)
    for done in released:
        if done.scores.shape != scores.shape or not np.isfinite(done.scores).all():
            raise ValueError("the defences leave something else than finite scores of the same shape")


def trial_scores(outputs: Outputs) -> Floats:
    """Return plausible scores of the declared kind, shape (2, k).

    >>> from guard.model.outputs import Outputs
    >>> trial_scores(Outputs(classes=("a", "b", "c"))).round(2)
    array([[0.17, 0.33, 0.5 ],
           [0.5 , 0.33, 0.17]])
    """
    if outputs.kind == "value":
        low = 0.0 if outputs.low is None else outputs.low
        return np.linspace(low, low + 1.0 if outputs.high is None else outputs.high, _ROWS + 2)[1:-1, None]
    rising = np.arange(1.0, 1.0 + (len(outputs.classes) if outputs.classes is not None else 5))
    shares = np.stack([rising, rising[::-1]]) / rising.sum()
    return np.log(shares) if outputs.kind in ("logits", "logprobs") else shares
