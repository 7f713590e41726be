"""The operator's own model as a target: the model itself is the control, and Guard is started in front of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from guard.policy.load import DEFAULT_API
from guard.policy.schema import Policy, Route
from guard.selftest.base import Attack
from guard.selftest.cell import Cell, Way
from guard.selftest.results import Utility
from guard.selftest.targets.applicable import applicable
from guard.selftest.targets.judge import AskingJudge, Store
from guard.selftest.targets.layout import Declared
from guard.selftest.targets.probe import probe, tensor_of
from guard.selftest.targets.queries import read_rows
from guard.selftest.targets.spec import Files, TargetError, TargetSpec
from guard.selftest.targets.wires import TensorWire, Wire, wire
from guard.selftest.targets.world import client, prepared_rows
from guard.selftest.transplant import ALONE, Transplant, own_policy
from guard.selftest.utility import held_labels, measure_utility


class OwnModel:
    """The operator's model behind the operator's policy.

    Args:
        policy: the operator's, resolved.
        route: the one that is tested.
        api: what it speaks.
        spec: the model.
        warnings: what a reader of the report must know.
    """

    def __init__(self, policy: Policy, route: Route, api: str, spec: TargetSpec, warnings: Sequence[str] = ()) -> None:
        self.policy, self.route, self.api = policy, route, api
        self.spec: TargetSpec = spec
        self.warnings = tuple(warnings)
        if "shadow" in (policy.mode, route.mode):
            self.warnings += ("the policy is in shadow: Guard changes nothing, so defended is undefended",)

    @property
    def name(self) -> str:
        """As the report calls it."""
        return self.spec.upstream

    @contextlib.contextmanager
    def open(self, seed: int) -> Generator[str]:
        """Yield the model's URL; answers that are asked for to measure are kept for as long."""
        del seed
        before = self.spec
        with tempfile.TemporaryDirectory(prefix="guard-selftest-") as folder:
            self.spec = replace(before, cache=folder)
            try:
                yield before.upstream
            finally:
                self.spec = before

    def applicable(self, attack: Attack) -> str | None:
        """Return why an attack cannot run here, or None."""
        return applicable(attack, prepared_rows(self.spec, 0), self.spec.layout)

    def transplant(self, attack: Attack, seed: int, *, budgets: bool = True) -> Transplant | None:
        """Return the policy; it is the same for all attacks."""
        del attack, seed
        return own_policy(self.policy, self.route, self.api, budgets=budgets)

    def cell(self, attack: Attack, way: Way, wrapper: str, seed: int, url: str) -> Cell:
        """Return the cell to run."""
        return Cell(attack.name, way, wrapper, seed, self.name, url, target=self.spec)

    def behind(self, policy: Policy, route: Route) -> OwnModel:
        """Return the model behind another policy, without looking at it again."""
        return OwnModel(policy, route, self.api, self.spec)

    def divide(self, cells: int) -> None:
        """Ignore it: the operator's model may be asked anything."""
        del cells

    def utility(
        self, seed: int, url: str, guarded: Callable[[Transplant], contextlib.AbstractContextManager[str]]
    ) -> list[Utility]:
        """Measure on the held-out rows; every user asks a few."""
        if self.spec.layout.classes < 2:
            return []
        prepared = prepared_rows(self.spec, seed)
        made = own_policy(self.policy, self.route, self.api)
        with contextlib.ExitStack() as stack:
            direct = stack.enter_context(contextlib.closing(client(self.spec, url)))
            truth = AskingJudge(prepared, direct, Store(self.spec.cache)).truth(prepared.held_x)
            through = stack.enter_context(guarded(made))
            users = [stack.enter_context(contextlib.closing(client(self.spec, through, n))) for n in range(ALONE)]
            y = held_labels(prepared.held_y)
            return [measure_utility(self.name, list(users), direct, prepared.held_x, truth, y)]


def open_own(
    policy: Policy,
    route: Route,
    *,
    upstream: str,
    queries: str,
    api: str | None = None,
    model: str = "",
    path: str = "",
    template: str = "",
    members: str = "",
    non_members: str = "",
) -> OwnModel:
    """Look at the operator's model and rows, and return the target.

    Args:
        policy: the operator's, resolved.
        route: the one that is tested.
        upstream: URL of the model server.
        queries: file of rows.
        api: what the route speaks when it does not say.
        model: the model's name.
        path: of the scoring endpoint, instead of the API's own.
        template: of the request, instead of the API's own.
        members: file of rows that trained the model.
        non_members: file of rows that did not.

    Raises:
        TargetError: a mistake in the options or files, or requests that the model refuses: exit 2.
        Unreachable: nobody answers: exit 3.
    """
    if route.ensemble is not None:
        raise TargetError(
            f"route {route.name} asks several models, and --upstream names one: test it on the lab's models, or start "
            "Guard and give --live its URL"
        )
    spoken = route.api or api or DEFAULT_API
    sample = read_rows(queries)
    asked = route_wire(route, spoken, model, path, template)
    headers = {"user-agent": agent()} | {h.name.lower(): h.value.get_secret_value() for h in policy.upstream_headers}
    if isinstance(asked, TensorWire):
        asked = tensor_of(upstream, asked, sample, headers)
    seen = probe(upstream, asked, sample, declared(route), headers, "the model")
    spec = TargetSpec(
        "own", Files(queries, members, non_members), asked, seen.layout, seen.batch, upstream, headers,
        {"user-agent": agent()},
    )  # fmt: skip
    prepared_rows(spec, 0)  # what is wrong with the files is said now
    return OwnModel(policy, route, spoken, spec, seen.notes)


def route_wire(route: Route, api: str, model: str, path: str, template: str) -> Wire:
    """Return how a route's API is asked; the route's `match` and `select` count where no option says otherwise."""
    given = path or (route.match.path if route.match is not None else "")
    select = {} if route.select is None else route.select.model_dump()
    return wire(api, model=model, path=given, template=template, select=select)


def declared(route: Route) -> Declared:
    """Return what a route says of its answers."""
    outputs = route.outputs
    return Declared(outputs.kind, outputs.tensors or (), outputs.classes or ())


def agent() -> str:
    """Return the user agent of the self-test's requests."""
    from guard import __version__  # noqa: PLC0415 -- the package imports nothing of its own at its top

    return f"guard-selftest/{__version__}"
