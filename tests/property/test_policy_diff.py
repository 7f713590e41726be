"""Edits do not hide each other: what is told of each alone is told of all of them together."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import given, settings
from hypothesis import strategies as st

from guard.policy.load import load_policy, plan_of
from guard.replay.changes import Version, difference

BASE = """version: 1
name: base
limits: {rows: 100}
forward_headers: [x-tenant]
routes:
  - name: digits
    inputs: {kind: any}
    outputs: {kind: probabilities}
    defences:
      - {kind: top_k, k: 2}
      - {kind: round, decimals: 2}
    budgets:
      - {kind: rows, per: client, limit: 1000, window: 24h}
      - {kind: information, per: client, graded_answers: 50}
"""
EDITS = (
    ("name: base", "name: other"),
    ("rows: 100", "rows: 50"),
    ("[x-tenant]", "[]"),
    ("    inputs: {kind: any}\n", ""),
    ("k: 2", "k: 1"),
    ("decimals: 2", "decimals: 3"),
    ("limit: 1000", "limit: 10"),
    ("window: 24h", "window: 1h"),
    ("graded_answers: 50", "graded_answers: 5, then: deny"),
    ("  - name: digits\n", "  - name: digits\n    ledger: fresh\n"),
    ("    outputs", "    fields: all\n    outputs"),
    ("version: 1\n", "version: 1\naudit: {when_full: drop}\n"),
)
subsets = st.frozensets(st.integers(0, len(EDITS) - 1), max_size=len(EDITS))


@cache
def version(edits: frozenset[int]) -> Version:
    text = BASE
    for number in edits:
        text = text.replace(*EDITS[number])
    path = Path(mkdtemp()) / "policy.yaml"
    path.write_text(text)
    loaded = load_policy(path, env={})
    return Version(loaded, plan_of(loaded, api="open_inference"))


@cache
def told(old: frozenset[int], new: frozenset[int]) -> frozenset[str]:
    return frozenset(change.path for change in difference(version(old), version(new)).changes)


@settings(max_examples=40, deadline=None)
@given(subsets, subsets)
def test_no_edit_hides_another(old: frozenset[int], new: frozenset[int]) -> None:
    alone = [told(frozenset[int](), frozenset({number})) for number in old ^ new]
    together = told(old, new)
    # A budget is known by its window, so its path is that of the new one.
    paths = {path.replace("/3600s", "/86400s") for path in together}
    assert all(path.replace("/3600s", "/86400s") in paths for one in alone for path in one)
    assert bool(together) == bool(old ^ new)


@settings(max_examples=20, deadline=None)
@given(subsets)
def test_a_policy_differs_in_nothing_from_itself(edits: frozenset[int]) -> None:
    assert difference(version(edits), version(edits)) == ((), ())
