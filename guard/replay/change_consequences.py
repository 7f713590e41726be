"""What an edit means for a Guard that runs, and for what may be published: ledgers, memory, evidence, sentences."""

from __future__ import annotations

from collections.abc import Iterator

from guard.policy.detection import Step
from guard.policy.plan import Plan, RoutePlan


def consequences(old: Plan, new: Plan) -> Iterator[str]:
    """Yield sentences."""
    if old.digest == new.digest:
        yield f"The digest stays {new.digest[:12]}: values of secrets are not part of it."
    else:
        yield f"The digest changes from {old.digest[:12]} to {new.digest[:12]}: metrics and audit log name the new one."
    yield "The noise secret is not part of a policy, and stays."
    before = {route.name: route for route in old.routes}
    alone = len(old.routes) == len(new.routes) == 1
    for route in new.routes:
        was = old.routes[0] if alone else before.get(route.name)
        if was is not None:
            yield from (f"Route {route.name}: {said}" for said in _of_route(was, route))


def _of_route(old: RoutePlan, new: RoutePlan) -> Iterator[str]:
    yield from _ledger(old, new)
    yield from _memory(old, new)
    yield from _noise(old, new)
    if old.statement != new.statement:
        yield f'what may be published was: "{_first(old)}"'
        yield f'what may be published is now: "{_first(new)}"'
        if old.statement[1:] != new.statement[1:]:
            yield "what else belongs to that statement changes, too: guard explain prints it whole."
    if old.detection is not None and new.detection is not None:
        if old.detection.setup.fingerprint != new.detection.setup.fingerprint:
            yield (
                "evidence against clients is counted anew, since detectors or what they know of honest traffic change;"
                " who is degraded or denied stays so until that ends."
            )
        levels = {_step(step): step.level for step in old.detection.ladder}
        for step in new.detection.ladder:
            before = levels.get(_step(step))
            if before is not None and step.level is not None and str(before) != str(step.level):
                yield f"the ladder's {_step(step)} stands at {step.level} instead of {before}."


def _step(step: Step) -> str:
    return f"{step.rung.action} for {step.rung.tier} over {step.rung.over}"


def _first(route: RoutePlan) -> str:
    return route.statement[0] if route.statement else "nothing"


def _ledger(old: RoutePlan, new: RoutePlan) -> Iterator[str]:
    charged = old.private is not None and old.private.charged and old.mode == "enforce"
    if new.ledger != old.ledger:
        if charged:
            yield (
                f"differential privacy was promised on the ledger {old.ledger}, and this policy charges another one:"
                " what was spent on the training data is forgotten. Nothing that was published holds any more."
            )
        return
    if not charged or old.private is None:
        return
    if new.private is None or not new.private.charged:
        yield (
            f"a live ledger {new.ledger} is refused: it has privacy budgets, and this policy charges none."
            " guard budget migrate, after every guard on it has stopped."
        )
    elif differs := new.private.terms.differs(old.private.terms):
        yield (
            f"a live ledger {new.ledger} is refused until it is migrated (guard budget migrate): {'; '.join(differs)}."
        )
    else:
        yield f"a live ledger {new.ledger} is accepted as it is: its terms are the same."


def _memory(old: RoutePlan, new: RoutePlan) -> Iterator[str]:
    if old.private is None or new.private is None or old.ledger != new.ledger:
        return
    if old.private.fingerprint == new.private.fingerprint and old.private.per == new.private.per:
        yield "remembered releases are kept: a repeat costs nothing, as before."
    else:
        yield "remembered releases are not given again: every repeat is drawn anew and charged."


def _noise(old: RoutePlan, new: RoutePlan) -> Iterator[str]:
    """Noise is keyed by ledger, client, query and the place of the step, so an edit may draw a second time."""
    before, now = (
        {i: d.kind for i, d in enumerate(route.defences) if d.random and not d.spends} for route in (old, new)
    )
    kept = set(before.values()) & set(now.values())
    if kept and (old.ledger != new.ledger or before != now):
        yield (
            f"noise of {', '.join(sorted(kept))} is drawn anew, since ledger or place of the step changes: whoever"
            " asked a query before, and asks again, has two draws to average."
        )
