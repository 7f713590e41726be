"""The world of a cell whose model is not the lab's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from guard.selftest.api import HttpApi
from guard.selftest.base import Tally, Unresolved, World
from guard.selftest.targets.judge import AskingJudge, Store
from guard.selftest.targets.knowledge import Prepared, prepare
from guard.selftest.targets.layout import Reading
from guard.selftest.targets.spec import TargetSpec
from guard.selftest.transplant import KEY_HEADER, key

if TYPE_CHECKING:
    from guard.selftest.cell import Cell

JUDGES_SHARE = 0.25
"""Of a live cell's rows: what may be asked to measure with, when there is no model to ask."""


def outside_world(
    cell: Cell,
    spec: TargetSpec,
    tally: Tally,
    progress: Callable[[float, str], None],
    pace: Callable[[], None] | None = None,
) -> World:
    """Build the world of a cell.

    Args:
        cell: the cell; `url` is what is attacked.
        spec: the model.
        tally: counts the first account's answers.
        progress: told how far the attack is.
        pace: lets a day go by on the clock of a Guard that the self-test started.

    Raises:
        TargetError: the rows' files have changed and cannot be used any more.
    """
    prepared = prepared_rows(spec, cell.seed)
    limit, judge = _judge(cell.url, spec, prepared)

    def account(number: int) -> HttpApi:
        if number and spec.kind == "live":
            raise Unresolved("a live target is attacked with the one key that was given")
        counted = tally if number == 0 else Tally()
        return client(spec, cell.url, number, limit=limit, tally=counted)

    def shadow(name: str) -> HttpApi:
        raise Unresolved(f"the attacker's own deployment of {name} exists in the lab only")

    return World(account(0), prepared.knows, judge, cell.seed, account, shadow, progress, pace)


def prepared_rows(spec: TargetSpec, seed: int) -> Prepared:
    """Return the operator's rows, shared out for a seed."""
    return prepare(spec.files, spec.layout, spec.kind, seed, spec.held)


def client(
    spec: TargetSpec, url: str, number: int = 0, *, limit: int | None = None, tally: Tally | None = None
) -> HttpApi:
    """Return one account's connection.

    Args:
        spec: the model.
        url: what is asked: the model itself, the Guard that the self-test started, or the live one.
        number: of the account.
        limit: most rows.
        tally: counts answers.
    """
    return HttpApi(
        url,
        Reading(spec.wire, spec.layout),
        spec.layout.classes,
        headers=_headers(spec, url, number),
        account=str(number),
        batch=spec.batch,
        limit=limit,
        tally=tally,
    )


def _headers(spec: TargetSpec, url: str, number: int) -> Mapping[str, str]:
    if url == spec.upstream:
        return spec.upstream_headers
    return spec.headers if spec.kind == "live" else {**spec.headers, KEY_HEADER: key(number)}


def _judge(url: str, spec: TargetSpec, prepared: Prepared) -> tuple[int | None, AskingJudge]:
    """Return how many rows the attack may ask, and who measures it."""
    store = Store(spec.cache)
    if spec.upstream:
        return spec.limit, AskingJudge(prepared, client(spec, spec.upstream), store)
    whom = "the live target"
    if spec.limit is None:
        return None, AskingJudge(prepared, client(spec, url), store, whom)
    room = int(spec.limit * JUDGES_SHARE)
    return spec.limit - room, AskingJudge(prepared, client(spec, url, limit=room), store, whom, room)
