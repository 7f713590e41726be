"""What `guard tune` tries: defences with their strengths, and budgets, from those that cost honest users least.

A candidate is a change of one route. Candidates that the route's outputs or inputs do not suit are left out by the
compiler's own rules, so the same list serves every kind of model. Ladders are not searched: a route keeps its own, and
what a candidate costs and holds is measured with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guard.errors import PolicyError
from guard.policy.compile import compile_policy
from guard.policy.schema import Policy, Route

Spec = dict[str, object]

DEFENCES: tuple[tuple[Spec, ...], ...] = (
    (),
    ({"kind": "round", "decimals": 2},),
    ({"kind": "grid", "step": 0.02},),
    ({"kind": "round", "decimals": 1},),
    ({"kind": "grid", "step": "auto"},),
    ({"kind": "grid", "step": 0.05},),
    ({"kind": "top_k", "k": 3}, {"kind": "grid", "step": 0.05}),
    ({"kind": "grid", "step": 0.1},),
    ({"kind": "codebook", "epsilon": 0.1},),
    ({"kind": "codebook", "epsilon": 0.2},),
    ({"kind": "grid", "step": 0.2},),
    ({"kind": "top_k", "k": 1}, {"kind": "round", "decimals": 1}),
    ({"kind": "top_k", "k": 1}, {"kind": "levels"}),
    ({"kind": "label_only"},),
    ({"kind": "boundary_response", "margin": 0.05}, {"kind": "label_only"}),
)
"""For probabilities; `round` suits values too. What is dominated by labels alone (noise, temperature, reverse_sigmoid)
or undone by whoever reads the source (bounded_shift) is not here."""

BINS = (0.1, 0.25, 0.5)
"""Widths of `bin` for values, in interquartile ranges of the model's values."""

ALLOWANCES: tuple[float | None, ...] = (None, 3.0, 1.0, 1 / 3)
"""Graded answers a feature, per client and per group, then labels; None: no such budget. From the loosest."""
HARD_LIMIT = 3000
"""Rows in all under a budget of graded answers, at least; then refusal."""


@dataclass(frozen=True)
class Candidate:
    """One choice of parameters.

    Args:
        defences: in order; empty for none.
        allowance: graded answers a feature; None for no such budget.
    """

    defences: tuple[Spec, ...]
    allowance: float | None = None

    def __str__(self) -> str:
        """Return it in words, such as `top_k 1 > levels, 3 graded a feature`."""
        words = " > ".join(_words(spec) for spec in self.defences) or "no defence"
        if self.allowance is None:
            return words
        return f"{words}, {self.allowance:.3g} graded a feature"

    def applied(self, policy: Policy, route: Route) -> Policy:
        """Return the policy with this choice in place of the route's defences and budgets of graded answers.

        Raises:
            PolicyError: it does not suit the route.
        """
        made = route.model_dump(mode="json", exclude_unset=True)  # Any: plain YAML data
        made["defences"] = [dict(spec) for spec in self.defences]
        kept = [b for b in made.get("budgets", []) if b["kind"] != "information" or b.get("mode") == "shadow"]
        made["budgets"] = kept + self._budgets()
        # A codebook has no codewords before its profile is read. A grid suits what it suits.
        stand_in = [{"kind": "grid"} if spec["kind"] == "codebook" else spec for spec in made["defences"]]
        compile_policy(_with(policy, route, {**made, "defences": stand_in}), api="open_inference")
        return _with(policy, route, made)

    def _budgets(self) -> list[Spec]:
        if self.allowance is None:
            return []
        rule: Spec = {"kind": "information", "graded_answers": "auto", "per_dimension": round(self.allowance, 4)}
        rule |= {"then": "label_only", "hard_limit": HARD_LIMIT}
        return [{**rule, "per": "client"}, {**rule, "per": "group"}]


def candidates(
    policy: Policy,
    route: Route,
    allowances: Sequence[float | None] = ALLOWANCES,
    *,
    answers: bool | None = None,
    spread: float | None = None,
) -> Iterator[Candidate]:
    """Yield the candidates that suit a route; budgets vary fastest.

    Args:
        policy: the operator's.
        route: the one that is tuned.
        allowances: which budgets.
        answers: calibration answers are there where candidates are measured, for `codebook` and `grid` of step `auto`,
            which without any is .05; None: as the route names a profile. The lab has none.
        spread: interquartile range of the model's values; None leaves `bin` out.
    """
    learns = route.profile is not None if answers is None else answers and route.profile is not None
    widths = [] if not spread else [float(f"{share * spread:.3g}") for share in BINS]
    bins: list[tuple[Spec, ...]] = [({"kind": "bin", "width": width},) for width in widths]
    for defences in (*DEFENCES, *bins):
        if not learns and any(spec["kind"] == "codebook" or spec.get("step") == "auto" for spec in defences):
            continue
        for allowance in allowances:
            candidate = Candidate(defences, allowance)
            if allowance is not None and any(spec["kind"] == "label_only" for spec in defences):
                continue  # labels are no graded answers
            try:
                candidate.applied(policy, route)
            except PolicyError:
                continue
            yield candidate


def _with(policy: Policy, route: Route, made: Spec) -> Policy:
    routes = tuple(Route.model_validate(made) if r is route else r for r in policy.routes)
    return policy.model_copy(update={"routes": routes})


def _words(spec: Spec) -> str:
    return " ".join(map(str, spec.values()))
