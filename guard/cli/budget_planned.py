"""The plan itself: the third number solved, compiled as the server would, and tried on scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.cli.budget_request import Unplannable
from guard.cli.budget_route import compiled, policy_text
from guard.cli.budget_utility import simulate
from guard.cli.common import Exit
from guard.errors import InvariantError
from guard.privacy.planner import Priced, fewest_digits, price, solve_epsilon, solve_noise

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.budgets.privacy import Privacy
    from guard.cli.budget_data import Sample
    from guard.cli.budget_request import Request
    from guard.cli.budget_utility import Utility
    from guard.defences.mechanism import Mechanism
    from guard.policy.plan import RoutePlan
    from guard.privacy.events import Event
    from guard.privacy.measurement import Measurement


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan.

    Args:
        route: as it would serve.
        mechanism: its mechanism, bound.
        measurement: what the mechanism's loss follows from.
        budgets: its privacy budgets, priced, the one that admits the fewest answers first.
        priced: what that one buys.
        sample: scores that it was tried on.
        utility: what is left of them.
        solved: which number was worked out: `noise`, `epsilon` or `answers`; empty for a policy's own route.
        text: the plan as a policy; empty likewise.
        delta_from: where delta comes from, when nobody gave it.
    """

    route: RoutePlan
    mechanism: Mechanism
    measurement: Measurement
    budgets: tuple[Privacy, ...]
    priced: Priced
    sample: Sample
    utility: Utility
    solved: str = ""
    text: str = ""
    delta_from: str = ""

    @property
    def columns(self) -> int:
        """Scores a row, as the filter accounts for them."""
        return 1 if self.route.private is None else self.route.private.columns

    @property
    def own_filter(self) -> bool:
        """Whether the ledger's filter is what a ledger of this route alone would get."""
        alone = price(self.measurement.event, self.priced.epsilon, self.priced.delta, self.columns)
        return alone.filter == self.priced.filter

    @property
    def name(self) -> str:
        """The mechanism's name, as it is asked for."""
        ensemble = self.route.ensemble
        return "noisy_vote" if ensemble is not None and ensemble.aggregate == "noisy_vote" else self.mechanism.kind

    @property
    def parameter(self) -> tuple[str, float]:
        """Name and value of the mechanism's parameter that sets its noise."""
        from guard.defences.calibrated import Calibrated

        if isinstance(self.mechanism, Calibrated):
            return "noise_multiplier", self.mechanism.ratio
        return "epsilon", float(getattr(self.mechanism, "epsilon", 0.0))

    @property
    def sigma(self) -> float | None:
        """Scale of the noise in the scores' unit; None where there is no such noise."""
        from guard.defences.calibrated import Calibrated

        return self.mechanism.grid.width if isinstance(self.mechanism, Calibrated) else None

    def event(self, quieter: float) -> Event:
        """Return what one answer costs with the noise divided by `quieter`."""
        return self.with_noise(quieter).event()

    def with_noise(self, quieter: float, quorum: float | None = None) -> Mechanism:
        """Return the mechanism with its noise divided by `quieter`, for another quorum if that is given."""
        name, value = self.parameter
        changed: dict[str, object] = {name: value * quieter}
        if name == "noise_multiplier":
            # Also where the policy gives what the noise is to achieve, which would be worked out anew.
            changed = {name: value / quieter, "epsilon": None, "delta": None, "answers": None}
        threshold = getattr(self.mechanism, "threshold_noise_multiplier", None)
        if threshold is not None:
            changed["threshold_noise_multiplier"] = threshold / quieter
        measured, outputs = self.measurement, self.route.outputs
        least = measured.quorum if quorum is None else quorum
        # In place of what the policy may have given, so that a sensitivity that it declares is scaled, too.
        sensitivity = measured.sensitivity * measured.quorum / least
        made = self.mechanism.model_copy(update=changed)
        return made.bind(outputs, max(1, round(least)), self.columns, sensitivity)


def plan(request: Request, sample: Sample, seed: int) -> Planned:
    """Solve what is missing, and try it.

    Raises:
        Unplannable: nothing meets what was asked for.
    """
    solved, epsilon, noise = _solve(request)
    text = policy_text(request, epsilon, noise)
    return review(compiled(text), sample, seed, solved=solved, text=text, delta_from=request.delta_from)


def review(
    route: RoutePlan, sample: Sample, seed: int, *, solved: str = "", text: str = "", delta_from: str = ""
) -> Planned:
    """Return what a compiled route buys, and try it.

    Raises:
        Unplannable: the data do not fit the route.
    """
    from guard.budgets.privacy import Privacy
    from guard.defences.mechanism import Mechanism

    private, mechanism = route.private, route.defences[0]
    if private is None or not isinstance(mechanism, Mechanism):
        raise InvariantError("a route without a mechanism cannot be planned")
    spending = [budget for budget in route.budgets if isinstance(budget, Privacy)]
    budgets = tuple(sorted(spending, key=lambda budget: budget.answers))
    event = private.measurement.event
    priced = price(event, budgets[0].epsilon, budgets[0].delta, private.columns, private.filter)
    if priced.answers != budgets[0].answers:
        raise InvariantError("planner and policy count different answers")
    if sample.scores.shape[1] != private.columns and route.outputs.kind != "embedding":
        hint = "rows of as many scores as the route has classes; one for values"
        raise Unplannable(f"the data have {sample.scores.shape[1]} columns, the route {private.columns}", hint)
    utility = simulate(route.defences, private.bounds, sample.scores, seed)
    return Planned(
        route, mechanism, private.measurement, budgets, priced, sample, utility, solved, text, delta_from
    )  # fmt: skip


def _solve(request: Request) -> tuple[str, float, float]:
    """Return what was solved, epsilon, and the mechanism's parameter."""
    epsilon, delta, answers, noise = request.epsilon, request.delta, request.answers, request.noise
    try:
        if noise is None and epsilon is not None and answers is not None:
            return "noise", epsilon, _parameter(request, epsilon, answers)
        if noise is not None and epsilon is None and answers is not None:
            return "epsilon", solve_epsilon(request.event(noise), delta, answers, request.columns), noise
    except ValueError as error:
        raise Unplannable(str(error), "fewer answers, or more epsilon", Exit.FAILED) from error
    if noise is None or epsilon is None:
        raise InvariantError("two numbers are missing")
    priced = price(request.event(noise), epsilon, delta, request.columns)
    if not priced.answers:
        hint = f"with this noise epsilon {priced.alone:.4g} admits one; or leave the noise out, and it is worked out"
        message = f"epsilon {epsilon:g} at delta {delta:g} admits not one answer with so little noise"
        raise Unplannable(message, hint, Exit.FAILED)
    return "answers", epsilon, noise


def _parameter(request: Request, epsilon: float, answers: int) -> float:
    """Return the noisiest value of the mechanism's parameter that is needed for so many answers."""
    if request.parameter == "noise_multiplier":
        return solve_noise(request.event, epsilon, request.delta, answers, request.columns)
    ratio = solve_noise(lambda ratio: request.event(1.0 / ratio), epsilon, request.delta, answers, request.columns)

    def enough(each: float) -> bool:
        return price(request.event(each), epsilon, request.delta, request.columns).answers >= answers

    return fewest_digits(1.0 / ratio, enough, up=False)


def searched(planned: Planned, seed: int, draws: int) -> Callable[[Mechanism], float]:
    """Return a function that says how much of the model's answers another mechanism would leave (`Utility.skill`)."""
    private = planned.route.private
    if private is None:
        raise InvariantError("a route without a mechanism cannot be planned")

    def skill(mechanism: Mechanism) -> float:
        steps = (mechanism, *planned.route.defences[1:])
        return simulate(steps, private.bounds, planned.sample.scores, seed, draws).skill

    return skill
