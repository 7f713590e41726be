"""Cells run in processes of their own: one that fails, hangs or is stopped ends alone."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from guard.selftest.cell import Cell
from guard.selftest.pool import Pool, Stopped
from guard.selftest.processes import lab

Told = list[tuple[str, float, str]]


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with lab(0) as found:
        yield found


def cell(url: str, **changes: object) -> Cell:
    return Cell("equation_solving_binary", "undefended", "", 0, "breast_cancer", url, changes=changes)


def quiet(cell: Cell, share: float, what: str) -> None:
    del cell, share, what


def test_the_same_seed_gives_the_same_figures(url: str) -> None:
    pool = Pool()
    first, again = (pool.run(cell(url), quiet) for _ in range(2))
    assert first.outcome is not None
    assert again.outcome is not None
    assert first.outcome.tries == again.outcome.tries
    assert first.outcome.best("surrogate_l1").measures["surrogate_l1"].value < 1e-9
    assert first.tally.graded == {"0": 100}


def test_a_model_out_of_reach_leaves_a_reason() -> None:
    done = Pool().run(cell("http://127.0.0.1:9"), quiet)
    assert done.outcome is None
    assert "does not answer" in done.reason


def test_a_bug_in_an_attack_ends_that_attack_alone(url: str) -> None:
    done = Pool().run(cell(url, draws="no such drawing", queries="many"), quiet)
    assert done.outcome is None
    assert done.reason.startswith("internal error in equation_solving_binary")


def test_a_cell_that_takes_too_long_is_ended(url: str) -> None:
    done = Pool(patience_s=0.0).run(cell(url), quiet)
    assert done.outcome is None
    assert "took longer than 0 s" in done.reason


def test_a_stop_ends_what_runs(url: str) -> None:
    pool = Pool()
    threading.Timer(0.2, pool.stop.set).start()
    with pytest.raises(Stopped):
        pool.run(cell(url, queries=200_000), quiet)
