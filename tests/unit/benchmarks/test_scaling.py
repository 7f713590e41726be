"""The model of docs/scaling.md multiplies as its formulas say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.scaling import Constants, Load, needs

FOUND = Constants(
    bytes_a_client={
        "rows budget with a window": 150.0,
        **{f"information budget, {n} distinct queries": 20.0 * n for n in (10, 100, 1000)},
        **{f"evidence after {n} queries": 2.0 * n for n in (16, 96, 1024, 8192)},
    },
    charge_us={"rows, information": {1: 80.0, 16: 30.0, 256: 20.0}},
    merge_us={
        "a client seen, nothing new": 9.0,
        "one window added, nothing new from others": 64.0,
        "a client brought (evidence of 96 queries, and marks)": 50.0,
    },
    wire_bytes={"charge: rows, information": (280.0, 20.0), "merge: a client seen": (110.0, 30.0)},
)
FEW = Load(clients=1000, rps=1000, distinct=64, guard_rps=1000, full=0.5, watched=2048, sticky=True)


def test_clients_that_fit_into_memory_cost_looks_and_windows() -> None:
    need = needs(FOUND, FEW)
    assert (need.replicas, need.warm) == (2.0, 1.0)
    seen = 500 * (1 - 2.718281828 ** (-250 / 500)) / 250  # of 500 clients of a replica 250 are drawn in half a second
    assert need.detection_us == pytest.approx(2 * seen * 9 + 64 / 16)
    assert need.client_bytes == pytest.approx(150 + 20 * 64 + 2 * 8192)
    assert need.wire_bytes == pytest.approx(300 + 2 * seen * 140)


def test_clients_that_do_not_are_brought_and_leave_no_evidence() -> None:
    need = needs(FOUND, replace(FEW, clients=1e9))
    assert need.warm == pytest.approx(2048 * 2 / 1e9)
    assert need.detection_us == pytest.approx(2 * 9 + 50, rel=1e-3)
    assert need.client_bytes == pytest.approx(150 + 20 * 64)


def test_without_sticky_routing_every_replica_meets_all_clients() -> None:
    crowd = replace(FEW, clients=4096)
    assert needs(FOUND, crowd).warm == 1.0
    assert needs(FOUND, replace(crowd, sticky=False)).warm == 0.5
