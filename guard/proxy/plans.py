"""The plan in force: loads it, tries it out, swaps it in with one assignment, and watches its files.

Requests take `current` once and finish on it, so no request sees two plans. A policy that cannot be loaded, compiled or
run leaves the old one in force; `on_result` counts and logs it. Ledgers live elsewhere, so no reload refunds a budget.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from guard.errors import GuardError, PolicyError
from guard.model.outputs import Outputs
from guard.policy.plan import RoutePlan
from guard.proxy.dry_run import dry_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from guard.errors import Problem
    from guard.policy.plan import Plan
    from guard.ports import Headers
    from guard.proxy.identity import Identity

_GONE_POLLS = 3
"""How many looks in a row a file may be gone before that counts: an editor renames, a volume swaps its symlink."""

Signature = tuple[str, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Active:
    """What requests run on: one policy with everything that was read for it.

    Args:
        plan: the compiled policy.
        identity: names clients.
        files: every file that was read, so that a change is noticed.
        forwarded: request headers, lower case, that go to the model beside the usual ones.
        added: headers that Guard adds to every request to the model.
        transparent: the route of what no route opens, in shadow: it goes through untouched.
    """

    plan: Plan
    identity: Identity
    files: tuple[Path, ...]
    forwarded: frozenset[bytes] = field(init=False)
    added: Headers = field(init=False, repr=False)
    transparent: RoutePlan = field(init=False)

    def __post_init__(self) -> None:
        policy = self.plan.policy
        forwarded = {name.lower().encode("ascii") for name in policy.forward_headers} | self.identity.forward
        forwarded.discard(b"x-request-id")  # which Guard writes
        added = [(h.name.lower().encode("ascii"), h.value.get_secret_value().encode()) for h in policy.upstream_headers]
        object.__setattr__(self, "forwarded", frozenset(forwarded))
        object.__setattr__(self, "added", added)
        object.__setattr__(self, "transparent", _transparent(self.plan))


def _transparent(plan: Plan) -> RoutePlan:
    first = plan.routes[0]
    return RoutePlan(
        name="none",
        api=first.api,
        mode="shadow",
        codec=first.codec,
        inputs=None,
        fields="all",
        outputs=Outputs(kind="labels"),
        defences=(),
        budgets=(),
        ledger="shadow:none",
        endpoints=(),
        binding=(),
        watched=(),
        scales=False,
    )


class Plans:
    """Holds the plan in force.

    Args:
        load: reads, compiles and returns a plan; blocks, and runs in a thread after start-up.
        on_result: called in the event loop with (is it in force, what to tell the operator) after every reload.
        active: what `load` has returned at start-up; left out, it is called here.
        accept: looks at a plan beside what is already there (models, live ledgers) before a reload puts it in force;
            raises `PolicyError` or `StateError` to leave the old one in force.

    Raises:
        PolicyError: the first policy cannot be used.
    """

    def __init__(
        self,
        load: Callable[[], Active],
        on_result: Callable[[bool, str], None],
        active: Active | None = None,
        accept: Callable[[Plan], Awaitable[None]] | None = None,
    ) -> None:
        self._load = load
        self._accept = accept
        self._on_result = on_result
        self.current = load() if active is None else active
        dry_run(self.current.plan, self.current.identity)
        self._signatures = signatures(self.current.files)
        self._failed_on: tuple[Path, ...] = ()
        self._lock = asyncio.Lock()

    async def reload(self) -> tuple[bool, str]:
        """Load the policy again and put it in force if it is sound.

        Returns:
            Whether the policy is in force, and what to tell the operator: one line for each problem when it is not.
        """
        async with self._lock:
            # Taken before the files are read, so that what changes meanwhile differs at the next look.
            before = await asyncio.to_thread(signatures, self._watched())
            result = await self._accepted(await asyncio.to_thread(self._attempt))
            if isinstance(result, Active):
                fresh = await asyncio.to_thread(signatures, set(result.files) - before.keys())
                self.current = result
                self._signatures = {path: (before | fresh)[path] for path in result.files}
                self._failed_on = ()
                ok, message = True, f"policy {result.plan.name} is in force, digest {result.plan.digest[:12]}"
            else:
                ok, message, self._failed_on = False, result.message, result.files
                fresh = await asyncio.to_thread(signatures, set(self._watched()) - before.keys())
                self._signatures = before | fresh
            self._on_result(ok, message)
            return ok, message

    async def watch(self, interval_s: float = 1.0) -> None:
        """Reload whenever a file has changed; runs until it is cancelled.

        Polls, because notifications miss what networks and container volumes do. A file that is gone for a moment is
        waited for.
        """
        gone = 0
        while True:
            await asyncio.sleep(interval_s)
            now = await asyncio.to_thread(signatures, self._watched())
            if now == self._signatures:
                gone = 0
                continue
            if any(found is None and self._signatures.get(path) is not None for path, found in now.items()):
                gone += 1
                if gone < _GONE_POLLS:
                    continue
            gone = 0
            await self.reload()

    def _watched(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((*self.current.files, *self._failed_on)))

    async def _accepted(self, result: Active | _Failure) -> Active | _Failure:
        if self._accept is None or isinstance(result, _Failure):
            return result
        try:
            await self._accept(result.plan)
        except PolicyError as error:
            return _Failure("\n".join(said(problem, error.file) for problem in error.problems), result.files)
        except GuardError as error:
            return _Failure(error.message, result.files)
        return result

    def _attempt(self) -> Active | _Failure:
        try:
            active = self._load()
            dry_run(active.plan, active.identity)
        except PolicyError as error:
            files = ({problem.file or error.file for problem in error.problems} | {*error.depends}) - {""}
            return _Failure("\n".join(said(problem, error.file) for problem in error.problems), tuple(map(Path, files)))
        except GuardError as error:
            return _Failure(error.message)
        except OSError as error:
            return _Failure(f"{error.filename} cannot be read: {error.strerror}")
        except Exception as error:
            return _Failure(f"the policy cannot be loaded: {type(error).__name__}")
        return active


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a policy was not put in force, and the files that could mend it."""

    message: str
    files: tuple[Path, ...] = ()


def said(problem: Problem, file: str = "") -> str:
    """Return a problem in one line.

    >>> from guard.errors import Problem
    >>> said(Problem("there is no API tf", "routes[0].api", 7, "one of ..."), "guard.yaml")
    'guard.yaml:7: routes[0].api: there is no API tf (one of ...)'
    """
    file = problem.file or file
    place = f"{file}:{problem.line}" if file and problem.line else file
    line = ": ".join(part for part in (place, problem.path, problem.message) if part)
    return f"{line} ({problem.hint})" if problem.hint else line


def signatures(files: Iterable[Path]) -> dict[Path, Signature | None]:
    """Return what changes when a file does: target behind symlinks, device, inode, size, times; None: it is gone."""
    return {path: _signature(path) for path in files}


def _signature(path: Path) -> Signature | None:
    try:
        real = os.path.realpath(path)
        found = os.stat(real)
    except OSError:
        return None
    # ctime too: an in-place copy that keeps the old mtime moves it.
    return real, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
