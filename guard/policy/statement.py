"""What may be said of a route's privacy: the sentence to publish, its assumptions, and what it does not cover."""

from __future__ import annotations

from dataclasses import dataclass

from guard.budgets.base import Per
from guard.defences.base import Mode
from guard.policy.privacy import Claim, Ensemble
from guard.privacy.measurement import Measurement

_WHO: dict[Per, str] = {
    "client": "any one client",
    "group": "any one group of clients",
    "model": "all clients together",
}
_CHANGE = {
    ("training_record", "replace_one"): "one training record is replaced by another",
    ("training_record", "add_or_remove_one"): "one training record is added or removed",
    ("training_user", "replace_one"): "all training records of one user are replaced by others",
    ("training_user", "add_or_remove_one"): "all training records of one user are added or removed",
}


@dataclass(frozen=True, slots=True)
class Spent:
    """A privacy budget as a statement needs it.

    Args:
        per: its scope.
        epsilon: in nats.
        delta: a probability.
        period_s: seconds; 0 is for ever.
        answers: rows that it admits.
    """

    per: Per
    epsilon: float
    delta: float
    period_s: int
    answers: int


def statement(
    claim: Claim,
    ensemble: Ensemble | None,
    measurement: Measurement | None,
    budgets: tuple[Spent, ...],
    mode: Mode,
    *,
    watched: bool = False,
    profiled: bool = False,
) -> tuple[str, ...]:
    """Return what may be said, sentence by sentence; empty for a route that has to do with none of it.

    The first sentence is the one to publish; under `claim: none` it says output perturbation.

    Args:
        claim: what the policy claims.
        ensemble: the route's.
        measurement: of the route's mechanism.
        budgets: its privacy budgets.
        mode: of the route.
        watched: detection is on.
        profiled: it, or a defence, goes by a profile.
    """
    if claim.claim != "dp":
        if measurement is None:
            return ()
        return ("Output perturbation: answers carry noise, and no differential privacy is claimed.",)
    if claim.unit is None or claim.adjacency is None:
        return ()
    change = _CHANGE[claim.unit, claim.adjacency]
    private = claim.trained_privately
    if private is not None:
        return (
            f"The model is ({private.epsilon:g}, {private.delta:g})-differentially private when {change}; its answers,"
            " however many and whoever asks, are post-processing and add nothing.",
            "Assumes that the training had this guarantee, which Guard takes on the operator's word and cannot check.",
            _NOT_COVERED,
        )
    if measurement is None or mode == "shadow":
        return ()
    said = [_guarantee(budget, change) for budget in budgets]
    said.append(
        f"Mechanism: {measurement.mechanism}, {measurement.noise}, for a sensitivity of {measurement.sensitivity:.6g}"
        f" in {measurement.norm.upper()}; every answer drawn anew is charged before it is computed, by a filter that"
        " stays valid however queries depend on earlier answers; a repeated query gets the release that was paid for."
    )
    said.append(_assumptions(claim, ensemble, measurement))
    if not any(budget.per == "model" for budget in budgets):
        said.append("Clients who pool their answers can learn more: the losses of all who pool add up.")
    if claim.releases == "shared" and not any(budget.per == "client" for budget in budgets):
        said.append("Clients can tell whether another one has asked the same query, since they get the same release.")
    if watched:
        said.append(_WATCHED + (_PROFILED if profiled else ""))
    said.append(_NOT_COVERED)
    return tuple(said)


_WATCHED = (
    "Clients are watched by their queries and by what was released to them, never by what the models said before the"
    " mechanism, and what a suspicion leads to comes behind it: neither adds to these losses."
)
_PROFILED = " Assumes that the profile they are compared with was recorded behind the mechanism, too."


_NOT_COVERED = (
    "Not covered: what the model or its training data give away elsewhere (another endpoint, another copy, what"
    " operators see in metrics and logs); how long an answer takes, and whether the model fails on a query; what is"
    " true of a population, from which people can be guessed about whether their records were there or not."
)


def _guarantee(budget: Spent, change: str) -> str:
    span = f"within any one period of {_period(budget.period_s)}" if budget.period_s else "ever"
    more = "; whoever asks through several periods learns more, one such loss for each" if budget.period_s else ""
    return (
        f"Taken together, the answers that {_WHO[budget.per]} {span} receive{'s' if budget.per != 'model' else ''} are"
        f" ({budget.epsilon:g}, {budget.delta:g})-differentially private when {change}: at most {budget.answers:,}"
        f" answers that are not repeats{more}."
    )


def _assumptions(claim: Claim, ensemble: Ensemble | None, measurement: Measurement) -> str:
    parts = ["the secret and the ledger are kept (no restore from a backup, no reset)"]
    if ensemble is not None:
        whose = "each record's" if claim.unit == "training_record" else "each user's"
        apart = "what it says" if claim.adjacency == "replace_one" else "what it says or which others there are"
        parts.append(
            f"the models were trained on disjoint shards and on nothing else, {whose} shard chosen without looking at"
            f" {apart}, and at least {measurement.quorum} models other than the one concerned answer or fail regardless"
            " of the record"
        )
    if isinstance(claim.sensitivity, float):
        parts.append(f"the sensitivity {claim.sensitivity:g}, declared by the operator, which Guard cannot check")
    if claim.accept_lost_writes:
        parts.append(f"the state loses no charges, which it may (accepted: {claim.accept_lost_writes})")
    return f"Assumes: {'; '.join(parts)}."


def _period(seconds: int) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}s" if count > 1 else f"one {unit}"
    return f"{seconds} seconds"
