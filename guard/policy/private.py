"""From claims, ensembles, mechanisms and privacy budgets to what a route runs on. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from guard.budgets.base import Budget, Per
from guard.budgets.privacy import Privacy
from guard.defences.base import Defence, Mode, has_classes
from guard.defences.label_only import LabelOnly
from guard.defences.mechanism import Mechanism
from guard.defences.noisy_max import NoisyMax
from guard.errors import Problem
from guard.policy.plan import Private
from guard.policy.privacy import Claim, Ensemble
from guard.policy.schema import Policy, Route
from guard.policy.statement import Spent, statement
from guard.privacy.filters import MOST, Filter, choose
from guard.privacy.terms import Terms

_MOST_COLUMNS = 4096
"""Scores a row, where no classes are declared."""
_NARROW: tuple[Per, ...] = ("client", "group", "model")


@dataclass(frozen=True, slots=True)
class Made:
    """What becomes of a route's steps and budgets.

    Args:
        defences: with the ensemble's own step and a bound mechanism.
        budgets: priced.
        private: set when there is a mechanism.
        statement: what may be said.
    """

    defences: tuple[Defence, ...]
    budgets: tuple[Budget, ...]
    private: Private | None
    statement: tuple[str, ...]


def steps(route: Route) -> tuple[Defence, ...]:
    """Return the route's defences, with what `vote` or `noisy_vote` stands for in front."""
    ensemble = route.ensemble
    if ensemble is not None and ensemble.aggregate == "vote":
        return (LabelOnly(), *route.defences)
    if ensemble is None or ensemble.aggregate != "noisy_vote" or ensemble.noise_multiplier is None:
        return route.defences
    threshold = None if ensemble.threshold is None else ensemble.threshold / ensemble.quorum
    given = {
        "noise_multiplier": ensemble.noise_multiplier,
        "threshold": threshold,
        "threshold_noise_multiplier": ensemble.threshold_noise_multiplier,
    }
    return (NoisyMax.model_validate({k: v for k, v in given.items() if v is not None}), *route.defences)


def columns(route: Route) -> int:
    """Return how many scores a row has at most."""
    if route.outputs.kind == "value":
        return 1
    return _MOST_COLUMNS if route.outputs.classes is None else len(route.outputs.classes)


def mechanism_of(route: Route) -> Mechanism | None:
    """Return the route's mechanism as the policy has it, unbound; None without one."""
    return next((step for step in steps(route) if isinstance(step, Mechanism)), None)


def bind(route: Route) -> Mechanism | None:
    """Return the route's mechanism, bound; None without one.

    Raises:
        ValueError: it cannot be bound; the message says why.
    """
    mechanism = mechanism_of(route)
    if mechanism is None:
        return None
    claim = route.privacy or Claim()
    given = claim.sensitivity if isinstance(claim.sensitivity, float) else None
    quorum = 1 if route.ensemble is None else route.ensemble.quorum
    return mechanism.bind(route.outputs, quorum, columns(route), given)


def filters(routes: Sequence[tuple[str, Route]]) -> dict[str, Filter]:
    """Return each ledger's filter: one for all routes that share it.

    Args:
        routes: (ledger, route), of routes whose mechanisms can be bound.
    """
    found: dict[str, Filter] = {}
    for ledger in dict.fromkeys(name for name, _ in routes):
        members = [route for name, route in routes if name == ledger]
        bound = [mechanism for mechanism in map(bind, members) if mechanism is not None]
        budgets = [b for route in members for b in route.budgets if isinstance(b, Privacy)]
        if not bound:
            continue
        strictest = min(budgets, key=lambda b: (b.epsilon, b.delta), default=Privacy(epsilon=1.0, delta=1e-6))
        order = next((b.order for b in budgets if b.order is not None), None)
        events = [mechanism.event() for mechanism in bound]
        found[ledger] = choose(events, strictest.epsilon, strictest.delta, max(map(columns, members)), order)
    return found


def check_orders(routes: Sequence[tuple[str, str, Route]]) -> list[Problem]:
    """Budgets that share a ledger are accounted at one order.

    Args:
        routes: (path, ledger, route).
    """
    problems: list[Problem] = []
    first: dict[str, float] = {}
    for at, ledger, route in routes:
        for i, budget in enumerate(route.budgets):
            if not isinstance(budget, Privacy) or budget.order is None:
                continue
            known = first.setdefault(ledger, budget.order)
            if known != budget.order:
                message = f"another budget of this ledger is accounted at order {known:g}"
                problems.append(Problem(message, f"{at}.budgets[{i}].order", hint="write the same order on all"))
    return problems


def check_shared(policy: Policy) -> list[Problem]:
    """Routes that share a ledger charge the same privacy budgets, or one would not know of what another has spent."""
    problems: list[Problem] = []
    first: dict[str, tuple[str, frozenset[str]]] = {}
    for index, route in enumerate(policy.routes):
        if mechanism_of(route) is None or (route.mode or policy.mode) == "shadow":
            continue
        names = frozenset(b.name for b in route.budgets if isinstance(b, Privacy) and b.mode == "enforce")
        owner, known = first.setdefault(route.ledger or route.name, (route.name, names))
        if names != known:
            message = f"route {owner} charges other privacy budgets to this ledger"
            hint = "write the same ones on both, or give the routes ledgers of their own"
            problems.append(Problem(message, f"routes[{index}].budgets", hint=hint))
    return problems


def make(route: Route, mode: Mode, filter_: Filter | None, terms: Terms | None, learnt: str = "") -> Made:
    """Return what the route runs on; it has passed `check_private`.

    Args:
        route: its defences are calibrated.
        mode: its own, or the policy's.
        filter_: its ledger's.
        terms: its ledger's.
        learnt: digest of the profile that its defences were calibrated with; empty without one.
    """
    claim = route.privacy or Claim()
    bound = bind(route)
    if bound is None or filter_ is None:
        said = statement(claim, route.ensemble, None, (), mode)
        return Made(steps(route), route.budgets, None, said)
    event = bound.event()
    budgets = tuple(b.priced(filter_, event) if isinstance(b, Privacy) else b for b in route.budgets)
    spending = [b for b in budgets if isinstance(b, Privacy)]
    scopes: list[Per] = [b.per for b in spending] or ["model"]
    if claim.releases == "per_client":
        scopes.append("client")
    spent = tuple(Spent(b.per, b.epsilon, b.delta, b.window_s, b.answers) for b in spending)
    measurement = bound.measurement()
    private = Private(
        measurement=measurement,
        bounds=bound.bounds(route.outputs),
        filter=filter_,
        terms=terms or Terms(str(filter_), {}, ()),
        per=min(scopes, key=_NARROW.index),
        columns=columns(route),
        fingerprint=_fingerprint(route, claim, learnt),
        charged=any(b.mode == "enforce" for b in spending),
        claimed=claim.claim == "dp",
        accept_lost_writes=claim.accept_lost_writes,
    )
    profiled = route.profile is not None
    said = statement(claim, route.ensemble, measurement, spent, mode, watched=route.detects, profiled=profiled)
    return Made((bound, *steps(route)[1:]), budgets, private, said)


def terms_of(routes: Sequence[tuple[str, Route]], found: dict[str, Filter]) -> dict[str, Terms]:
    """Return the terms of every ledger that has a mechanism."""
    made: dict[str, Terms] = {}
    for ledger, route in routes:
        mechanism = mechanism_of(route)
        if mechanism is None or ledger not in found:
            continue
        quorum = 1 if route.ensemble is None else route.ensemble.quorum
        # What only counts is counted in a ledger of its own, which has no terms.
        deltas = {b.name: b.delta for b in route.budgets if isinstance(b, Privacy) and b.mode == "enforce"}
        kind = f"{mechanism.kind}/{mechanism.norm}/{quorum}"
        known = made.get(ledger) or Terms(str(found[ledger]), {}, ())
        mechanisms = tuple(sorted({*known.mechanisms, kind}))
        made[ledger] = replace(known, deltas=known.deltas | deltas, mechanisms=mechanisms)
    return made


def _fingerprint(route: Route, claim: Claim, learnt: str) -> bytes:
    parts: dict[str, object] = {
        "defences": [step.model_dump(mode="json") for step in steps(route)],
        "ensemble": None if route.ensemble is None else route.ensemble.model_dump(mode="json"),
        "outputs": route.outputs.model_dump(mode="json"),
        "fields": route.fields,
        "sensitivity": claim.sensitivity,
        "model_version": claim.model_version,
    }
    if learnt and any(step.calibrates for step in route.defences):
        parts["profile"] = learnt
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).digest()


def check_private(route: Route, at: str, mode: Mode) -> list[Problem]:
    """Return what is wrong with a route's claim, ensemble, mechanism and privacy budgets."""
    claim = route.privacy or Claim()
    spending = [(i, b) for i, b in enumerate(route.budgets) if isinstance(b, Privacy)]
    mechanisms = [(i, d) for i, d in enumerate(steps(route)) if isinstance(d, Mechanism)]
    problems = _check_ensemble(route.ensemble, route, at, mode) + _check_claim(claim, bool(mechanisms), at)
    problems += _check_order(route, mechanisms, at)
    for i, budget in spending:
        here = f"{at}.budgets[{i}]"
        if claim.trained_privately is not None:
            hint = "drop the budget: answers of a model trained privately cost nothing"
            problems.append(Problem("nothing is charged to it", here, hint=hint))
        elif not mechanisms:
            hint = "put dp_gaussian, dp_laplace, noisy_max, exponential or randomised_response first in defences"
            problems.append(Problem("no mechanism spends this privacy budget", here, hint=hint))
        if claim.records is not None and budget.delta * claim.records >= 1:
            hint = f"at most {0.1 / claim.records:.1g}, for {claim.records:,} records"
            message = "delta is no smaller than 1 / records: giving whole records away would meet it"
            problems.append(Problem(message, f"{here}.delta", hint=hint))
        if claim.claim == "dp" and budget.mode == "shadow":
            problems.append(Problem("a budget that only counts limits nothing", f"{here}.mode", hint="mode: enforce"))
    if claim.claim == "dp" and mechanisms and not spending:
        hint = "budgets: [{kind: privacy, per: model, epsilon: .., delta: ..}]"
        problems.append(Problem("nothing limits the privacy loss that is claimed", f"{at}.budgets", hint=hint))
    if claim.claim == "dp" and route.fields == "all" and claim.trained_privately is None:
        message = "under claim: dp nothing leaves but what the mechanism made"
        problems.append(Problem(message, f"{at}.fields", hint="fields: known"))
    if claim.claim == "dp" and mode == "shadow":
        hint = "claim: none until the route enforces"
        problems.append(Problem("in shadow the client gets the model's own answer", f"{at}.privacy.claim", hint=hint))
    return problems


def _check_ensemble(ensemble: Ensemble | None, route: Route, at: str, mode: Mode) -> list[Problem]:
    if ensemble is None:
        return []
    kind = route.outputs.kind
    if mode == "shadow":
        hint = "mode: enforce"
        return [Problem("in shadow the client would get one model's own answer", f"{at}.ensemble", hint=hint)]
    if kind == "labels":
        hint = "have the models answer probabilities"
        return [Problem("an ensemble needs scores to put together", f"{at}.ensemble", hint=hint)]
    if ensemble.aggregate != "mean" and kind not in LabelOnly.suits:
        message = f"votes cannot be told as {kind}" if has_classes(kind) else f"{kind} has no classes to vote for"
        return [Problem(message, f"{at}.ensemble.aggregate", hint="aggregate: mean")]
    return []


def _check_claim(claim: Claim, mechanism: bool, at: str) -> list[Problem]:
    problems: list[Problem] = []
    private = claim.trained_privately
    if private is not None and claim.records is not None and private.delta * claim.records >= 1:
        message = "delta is no smaller than 1 / records"
        hint = f"below {1 / claim.records:.1g}"
        problems.append(Problem(message, f"{at}.privacy.trained_privately.delta", hint=hint))
    if claim.claim != "dp":
        return problems
    hints = {"unit": "unit: training_record", "adjacency": "adjacency: replace_one", "sensitivity": "sensitivity: auto"}
    for name, hint in hints.items():
        if getattr(claim, name) is None and not (name == "sensitivity" and private is not None):
            problems.append(Problem(f"claim: dp needs {name}", f"{at}.privacy.{name}", hint=hint))
    if not mechanism and private is None:
        hint = "a mechanism first in defences, or trained_privately: {epsilon: .., delta: ..}"
        problems.append(Problem("nothing makes these answers private", f"{at}.privacy.claim", hint=hint))
    return problems


def _check_order(route: Route, mechanisms: list[tuple[int, Mechanism]], at: str) -> list[Problem]:
    problems: list[Problem] = []
    own = len(steps(route)) - len(route.defences)
    for nth, (i, mechanism) in enumerate(mechanisms):
        here = f"{at}.ensemble" if i < own else f"{at}.defences[{i - own}]"
        if nth:
            message = f"{mechanism.kind} is a second mechanism; the answers of the first are private already"
            problems.append(Problem(message, here, hint="keep one"))
        elif i > own or (i == own and own):
            before = steps(route)[i - 1].kind
            message = f"{before} before {mechanism.kind} changes what the noise is measured for"
            problems.append(Problem(message, here, hint=f"put {mechanism.kind} first"))
        if mechanism.mode == "shadow" and (route.privacy or Claim()).claim == "dp":
            problems.append(Problem("a mechanism in shadow protects nothing", f"{here}.mode", hint="mode: enforce"))
    return problems


def check_priced(route: Route, at: str, filter_: Filter) -> list[Problem]:
    """Return what is wrong with a route's privacy budgets once answers have a price."""
    bound = bind(route)
    if bound is None:
        return []
    problems: list[Problem] = []
    event = bound.event()
    for i, budget in enumerate(route.budgets):
        if isinstance(budget, Privacy) and budget.priced(filter_, event).answers < 1:
            cost = filter_.cost(event)
            alone = "infinity" if cost > MOST else f"{filter_.epsilon(cost, budget.delta):.3g}"
            hint = "more noise, more epsilon, or an ensemble: guard budget plan says how much of each"
            message = f"the budget admits not one answer: one alone costs epsilon {alone} at delta {budget.delta:g}"
            problems.append(Problem(message, f"{at}.budgets[{i}]", hint=hint))
    return problems


def warn_private(route: Route, at: str) -> list[Problem]:
    """Return what an operator would regret."""
    warnings: list[Problem] = []
    claim = route.privacy or Claim()
    mechanism = mechanism_of(route)
    spending = any(isinstance(b, Privacy) for b in route.budgets)
    if mechanism is not None and not spending and claim.claim == "none":
        hint = "budgets: [{kind: privacy, per: model, epsilon: .., delta: ..}]"
        warnings.append(Problem("nothing adds up what this noise gives away", f"{at}.defences", hint=hint))
    if spending and claim.claim == "none":
        hint = "privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto}"
        warnings.append(Problem("without claim: dp this is output perturbation", f"{at}.privacy", hint=hint))
    if route.ensemble is not None and has_classes(route.outputs.kind) and route.outputs.classes is None:
        hint = "outputs: {classes: [...]} in the columns' order"
        message = "labels in answers become the numbers of their columns, since nothing says what they are called"
        warnings.append(Problem(message, f"{at}.outputs", hint=hint))
    if spending and not any(isinstance(b, Privacy) and b.per == "model" for b in route.budgets):
        hint = "add a budget per: model"
        message = "clients that compare their answers learn more than any budget here allows"
        warnings.append(Problem(message, f"{at}.budgets", hint=hint))
    if spending and claim.records is None:
        hint = "privacy: {records: ..}"
        message = "delta cannot be held against the number of training records"
        warnings.append(Problem(message, f"{at}.privacy.records", hint=hint))
    return warnings
