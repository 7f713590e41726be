"""A Guard that runs already as a target: asked within a stated limit, every request marked.

The limit is on rows that are sent, over all attacks together; each cell gets an equal share, and what is asked to look
at the target and to measure counts too. Without `--upstream` the truth is not known: copies are measured against what
the target releases, evasion by its labels, and there is no control, so that a row says what an attacker got and not
what the defences held back.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from guard.policy.load import DEFAULT_API
from guard.policy.schema import Policy, Route
from guard.selftest.api import Unreachable
from guard.selftest.base import Attack, Unresolved
from guard.selftest.cell import Cell, Way
from guard.selftest.results import Utility
from guard.selftest.targets.applicable import applicable
from guard.selftest.targets.judge import AskingJudge, Store
from guard.selftest.targets.layout import Declared
from guard.selftest.targets.own import agent, declared, route_wire
from guard.selftest.targets.probe import probe, tensor_of
from guard.selftest.targets.queries import read_rows
from guard.selftest.targets.spec import Files, TargetError, TargetSpec
from guard.selftest.targets.wires import TensorWire, wire
from guard.selftest.targets.world import client, prepared_rows
from guard.selftest.transplant import Transplant

MARK = "x-guard-selftest"
LIMIT = 2000
LEAST = 200
LOOKED = 16
HELD_SHARE = 10
"""What share of the limit may go to held-out rows, when there is no model to ask."""
SHARES = 8
"""Into how many shares a limit is divided while nobody has said how many cells there are."""


class LiveGuard:
    """A running Guard.

    Args:
        url: of its data listener.
        spec: how it is asked; its `limit` is what is left of the stated one.
        run: the run's name, which is in Guard's log.
        warnings: what a reader of the report must know.
    """

    def __init__(self, url: str, spec: TargetSpec, run: str, warnings: Sequence[str] = ()) -> None:
        self.url, self.run = url, run
        self.spec: TargetSpec = spec
        self.warnings = tuple(warnings)
        self._left = spec.limit or 0
        self._share = max(1, self._left // SHARES)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"live {self.url} (run {self.run})"

    @property
    def left(self) -> int:
        """Rows that may still be asked."""
        return self._left

    def behind(self, policy: Policy, route: Route) -> LiveGuard:
        """Return itself: Guard runs already, with its own policy."""
        del policy, route
        return self

    def divide(self, cells: int) -> None:
        """Say how many cells will be asked for, so that each gets as much."""
        self._share = max(1, self._left // max(1, cells))

    @contextlib.contextmanager
    def open(self, seed: int) -> Generator[str]:
        """Yield the URL of the model itself, empty when there is none; asks the held-out rows that measure."""
        before = self.spec
        with tempfile.TemporaryDirectory(prefix="guard-selftest-") as folder:
            self.spec = replace(before, cache=folder)
            try:
                if not before.upstream:
                    self._released(seed)
                yield before.upstream
            finally:
                self.spec = before

    def _released(self, seed: int) -> None:
        """Ask the held-out rows before any attack has spent a budget."""
        held = prepared_rows(self.spec, seed).held_x
        self._left -= min(len(held), self._left)
        limit = len(held)
        judge = AskingJudge(
            prepared_rows(self.spec, seed),
            client(self.spec, self.url, limit=limit),
            Store(self.spec.cache),
            "the live target",
        )
        # Attacks that need these answers say that they could not be had.
        with contextlib.suppress(Unresolved, Unreachable):
            judge.truth(held)

    def applicable(self, attack: Attack) -> str | None:
        """Return why an attack cannot run here, or None."""
        return applicable(attack, prepared_rows(self.spec, 0), self.spec.layout)

    def transplant(self, attack: Attack, seed: int, *, budgets: bool = True) -> Transplant | None:
        """Return None: Guard runs already."""
        del attack, seed, budgets

    def cell(self, attack: Attack, way: Way, wrapper: str, seed: int, url: str) -> Cell:
        """Return the cell to run, with its share of the limit; a control may ask as much, of the model itself."""
        if way != "defended":
            return Cell(attack.name, way, wrapper, seed, self.name, url, target=replace(self.spec, limit=self._share))
        with self._lock:
            share = min(self._share, self._left)
            self._left -= share
        return Cell(attack.name, way, wrapper, seed, self.name, self.url, target=replace(self.spec, limit=share))

    def utility(
        self, seed: int, url: str, guarded: Callable[[Transplant], contextlib.AbstractContextManager[str]]
    ) -> list[Utility]:
        """Return nothing: users' queries are not spent on measuring, and timing a service in use disturbs it."""
        del seed, url, guarded
        return []


def open_live(
    url: str,
    *,
    queries: str,
    limit: int = LIMIT,
    key: str = "",
    key_header: str = "x-api-key",
    upstream: str = "",
    route: Route | None = None,
    api: str | None = None,
    model: str = "",
    path: str = "",
    template: str = "",
    members: str = "",
    non_members: str = "",
) -> LiveGuard:
    """Look at a running Guard and return the target.

    Args:
        url: of its data listener.
        queries: file of rows.
        limit: most rows that are ever sent to it.
        key: a client's key; empty for none.
        key_header: the header that carries it.
        upstream: URL of the model itself, for the control; empty for none.
        route: the route that is attacked, where the policy is at hand.
        api: what it speaks when the route does not say.
        model: the model's name.
        path: of the scoring endpoint, instead of the API's own.
        template: of the request, instead of the API's own.
        members: file of rows that trained the model.
        non_members: file of rows that did not.

    Raises:
        TargetError: a mistake in the options or files, or requests that the target refuses: exit 2.
        Unreachable: nobody answers, or the target throttles before anything was learnt: exit 3.
    """
    if limit < LEAST:
        raise TargetError(f"--limit {limit} is too little to attack with: at least {LEAST}")
    if not queries:
        raise TargetError("--live needs --queries: without rows nobody knows what the model takes")
    sample = read_rows(queries)
    spoken = (route.api if route else None) or api or DEFAULT_API
    asked = (
        route_wire(route, spoken, model, path, template)
        if route
        else wire(spoken, model=model, path=path, template=template)
    )
    run = secrets.token_hex(8)
    headers = {"user-agent": agent(), MARK: run} | ({key_header.lower(): key} if key else {})
    direct = {"user-agent": agent()}
    said = declared(route) if route else Declared()
    if isinstance(asked, TensorWire):
        asked = tensor_of(upstream or url, asked, sample, direct if upstream else headers)
    seen = probe(url, asked, sample, said, headers, "the live target", LOOKED)
    layout = probe(upstream, asked, sample, said, direct, "the model").layout if upstream else seen.layout
    spec = TargetSpec(
        "live", Files(queries, members, non_members), asked, layout, seen.batch, upstream, direct, headers,
        limit - seen.rows, 500 if upstream else limit // HELD_SHARE,
    )  # fmt: skip
    prepared_rows(spec, 0)
    return LiveGuard(url, spec, run, (*seen.notes, *_warnings(limit, upstream)))


def _warnings(limit: int, upstream: str) -> tuple[str, ...]:
    said = (f"a live target, asked {limit} rows at most over all attacks: an attacker with more time gets more",)
    if upstream:
        return said
    return (
        *said,
        "the model itself was not asked: copies are measured against released answers, evasion by released labels, and "
        "nothing is compared with an undefended control",
    )
