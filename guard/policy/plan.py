"""A compiled policy: immutable, complete, with a digest. Requests finish on the plan they started with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from guard.budgets.base import Budget, Per
from guard.defences.base import Defence, Mode
from guard.errors import Problem
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.model.parameters import Parameter
from guard.policy.detection import Detection
from guard.policy.privacy import Ensemble
from guard.policy.schema import Limits, Policy
from guard.privacy.filters import Filter
from guard.privacy.measurement import Bounds, Measurement
from guard.privacy.terms import Terms
from guard.wire.base import Codec, Endpoint, Fields

_SEGMENT = r"(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%(?!2[fF]|3[aA]|5[cC]|00)[0-9A-Fa-f]{2})+"
"""One path segment. No colon, which separates a verb (`:predict`), and no encoded slash, colon, backslash or NUL, which
some servers decode before they route."""
_DOTS = re.compile(r"(?:^|/)(?:\.|%2[eE]){1,2}(?:/|$)")


def path_pattern(template: str) -> re.Pattern[str]:
    r"""Compile a path template: `{name}` is one segment, which holds no encoded slash, backslash or NUL.

    >>> path_pattern("/v2/models/{model}/infer").fullmatch("/v2/models/a%20b/infer")["model"]
    'a%20b'
    >>> path_pattern("/v2/models/{model}/infer").fullmatch("/v2/models/a%2Fb/infer") is None
    True
    """
    parts = re.split(r"\{(\w+)\}", template)
    pattern = "".join(re.escape(part) if i % 2 == 0 else f"(?P<{part}>{_SEGMENT})" for i, part in enumerate(parts))
    return re.compile(pattern)


@dataclass(frozen=True, slots=True)
class OpenEndpoint:
    """An endpoint that a route answers.

    Args:
        endpoint: the codec's.
        pattern: its compiled path.
        narrow: the route's own pattern, which must match too; None for no narrowing.
    """

    endpoint: Endpoint
    pattern: re.Pattern[str]
    narrow: re.Pattern[str] | None


@dataclass(frozen=True, slots=True)
class Private:
    """A route whose first defence is a mechanism of differential privacy.

    Args:
        measurement: the mechanism with everything that its loss follows from.
        bounds: the domain that answers must lie in before the mechanism.
        filter: what the ledger's units mean.
        terms: what the ledger must have been begun under.
        per: the narrowest scope of the privacy budgets (or `model`): a release is remembered for it.
        columns: most scores a row.
        fingerprint: of everything that a release depends on beside the query; remembered ones of another are not given.
        charged: a privacy budget is charged.
        claimed: the policy claims differential privacy.
        accept_lost_writes: why a state that may lose charges is accepted; empty when it is not.
    """

    measurement: Measurement
    bounds: Bounds
    filter: Filter
    terms: Terms
    per: Per
    columns: int
    fingerprint: bytes
    charged: bool
    claimed: bool
    accept_lost_writes: str


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """A compiled route.

    Args:
        name: the route's name.
        api: its API's name.
        mode: `shadow` or `enforce`.
        codec: speaks the API.
        inputs: the queries' domain, or None.
        fields: how much of an answer is let out.
        outputs: what the scores are.
        defences: in order.
        budgets: charged in one atomic step.
        ledger: names the counters; shadow ones live under a prefix of their own.
        endpoints: scoring and status endpoints.
        binding: the budgets whose outcome counts (in shadow it is computed, and overruled).
        watched: the budgets in shadow on an enforcing route.
        scales: a budget's limit follows the queries' dimension.
        ensemble: how the answers of several models become one, or None.
        private: set when the first defence is a mechanism of differential privacy.
        statement: what may be said of the training data's privacy, sentence by sentence.
        detection: what clients are watched for and what it leads to; None when it is off.
        parameters: what happens to a request's parameters.
    """

    name: str
    api: str
    mode: Mode
    codec: Codec
    inputs: Inputs | None
    fields: Fields
    outputs: Outputs
    defences: tuple[Defence, ...]
    budgets: tuple[Budget, ...]
    ledger: str
    endpoints: tuple[OpenEndpoint, ...]
    binding: tuple[Budget, ...]
    watched: tuple[Budget, ...]
    scales: bool
    ensemble: Ensemble | None = None
    private: Private | None = None
    statement: tuple[str, ...] = ()
    detection: Detection | None = None
    parameters: tuple[Parameter, ...] = ()

    @property
    def metered(self) -> bool:
        """Whether an information meter reads what is answered."""
        return any(budget.needs_profile for budget in self.budgets)


@dataclass(frozen=True, slots=True)
class Matched:
    """Where a request goes.

    Args:
        route: the route that takes it.
        endpoint: which of its endpoints.
        params: what the path's template captured.
    """

    route: RoutePlan
    endpoint: Endpoint
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled policy.

    Args:
        name: the policy's name.
        mode: the policy's mode.
        digest: SHA-256 of the resolved policy without its secrets, hexadecimal.
        policy: the resolved policy.
        routes: in order; the first that matches wins.
        limits: bounds that hold in every mode.
        warnings: what `check` and start-up tell the operator.
        files: what the policy was read from and depends on: what a watcher watches.
    """

    name: str
    mode: Mode
    digest: str
    policy: Policy
    routes: tuple[RoutePlan, ...]
    limits: Limits
    warnings: tuple[Problem, ...] = ()
    files: tuple[Path, ...] = ()
    _cache: dict[tuple[str, str], Matched] = field(
        default_factory=dict[tuple[str, str], "Matched"], repr=False, compare=False
    )

    def match(self, method: str, path: str) -> Matched | None:
        """Return the route and endpoint of a request, or None when nothing opens it.

        Args:
            method: upper case.
            path: raw, percent-encoded, without query string.
        """
        found = self._cache.get((method, path))
        if found is None:
            found = self._search(method, path)
            # The cache is a bounded shortcut for well-known paths; only open paths enter it.
            if found is not None and len(self._cache) < 1024 and len(path) <= 256:
                self._cache[method, path] = found
        return found

    def _search(self, method: str, path: str) -> Matched | None:
        if _DOTS.search(path):
            return None
        for route in self.routes:
            for open_ in route.endpoints:
                if open_.endpoint.method != method or (open_.narrow is not None and not open_.narrow.fullmatch(path)):
                    continue
                if found := open_.pattern.fullmatch(path):
                    return Matched(route, open_.endpoint, found.groupdict())
        return None
