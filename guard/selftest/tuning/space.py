"""What `guard tune` tries: defences with their strengths, and budgets, from those that cost honest users least.

A candidate is a change of one route. Candidates that the route's outputs or inputs do not suit are left out by the
compiler's own rules, so the same list serves every kind of model.
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
    ({"kind": "grid", "step": 0.05},),
    ({"kind": "top_k", "k": 3}, {"kind": "grid", "step": 0.05}),
    ({"kind": "grid", "step": 0.1},),
    ({"kind": "grid", "step": 0.2},),
    ({"kind": "top_k", "k": 1}, {"kind": "round", "decimals": 1}),
    ({"kind": "top_k", "k": 1}, {"kind": "levels"}),
    ({"kind": "label_only"},),
)
"""For probabilities; `round` suits values too. What is dominated by labels alone (noise, temperature) is not here."""

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
        routes = tuple(Route.model_validate(made) if r is route else r for r in policy.routes)
        changed = policy.model_copy(update={"routes": routes})
        compile_policy(changed, api="open_inference")
        return changed

    def _budgets(self) -> list[Spec]:
        if self.allowance is None:
            return []
        rule: Spec = {"kind": "information", "graded_answers": "auto", "per_dimension": round(self.allowance, 4)}
        rule |= {"then": "label_only", "hard_limit": HARD_LIMIT}
        return [{**rule, "per": "client"}, {**rule, "per": "group"}]


def candidates(policy: Policy, route: Route, allowances: Sequence[float | None] = ALLOWANCES) -> Iterator[Candidate]:
    """Yield the candidates that suit a route; budgets vary fastest.

    Args:
        policy: the operator's.
        route: the one that is tuned.
        allowances: which budgets.
    """
    for defences in DEFENCES:
        for allowance in allowances:
            candidate = Candidate(defences, allowance)
            if allowance is not None and any(spec["kind"] == "label_only" for spec in defences):
                continue  # labels are no graded answers
            try:
                candidate.applied(policy, route)
            except PolicyError:
                continue
            yield candidate


def _words(spec: Spec) -> str:
    return " ".join(map(str, spec.values()))
