from __future__ import annotations

import asyncio
import time

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from guard import __version__
from guard.telemetry.census import Seen
from guard.telemetry.families import MAX_LABELS, OTHER
from guard.telemetry.metrics import LATENCY_BUCKETS_S, MAX_ROUTES, Metrics

DESIGN = {
    "guard_requests": {"route", "outcome"},
    "guard_rows": {"route"},
    "guard_added_latency_seconds": {"route", "le"},
    "guard_upstream_latency_seconds": {"route", "le"},
    "guard_verdicts": {"route", "action", "mode"},
    "guard_score_shift_l1": {"route", "le"},
    "guard_top1_changed": {"route"},
    "guard_redactions": {"route", "mode"},
    "guard_budget_charges": {"route", "budget"},
    "guard_budget_refusals": {"route", "budget"},
    "guard_budget_remaining_ratio": {"route", "budget"},
    "guard_unreadable": {"route"},
    "guard_detections": {"route", "detector"},
    "guard_evidence_log10": {"route", "le"},
    "guard_information_meter": {"route", "le"},
    "guard_ladder_clients": {"route", "action"},
    "guard_profile_drift": {"route"},
    "guard_profile_stale": {"route"},
    "guard_state_latency_seconds": {"route", "le"},
    "guard_state_errors": set[str](),
    "guard_audit_dropped": set[str](),
    "guard_recording_dropped": set[str](),
    "guard_policy_info": {"name", "digest", "mode"},
    "guard_policy_reloads": {"result"},
    "guard_policy_reload_failing": set[str](),
    "guard_build_info": {"version", "python"},
    "guard_loop_lag_seconds": {"le"},
    "guard_requests_in_flight": set[str](),
    "guard_requests_in_flight_limit": set[str](),
    "guard_tasks": set[str](),
    "guard_audit_waiting": set[str](),
    "guard_audit_sequence": set[str](),
    "process_cpu_seconds": set[str](),
    "process_max_fds": set[str](),
    "process_open_fds": set[str](),
    "process_resident_memory_bytes": set[str](),
    "process_start_time_seconds": set[str](),
    "process_virtual_memory_bytes": set[str](),
}
"""Names and labels of the design; the parser takes `_total` off."""


async def scrape(metrics: Metrics) -> dict[str, Metric]:
    text = b"".join([piece async for piece in metrics.expose()]).decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "a family came twice"
    return {family.name: family for family in families}


def value(families: dict[str, Metric], family: str, sample: str = "", **labels: str) -> float:
    wanted = sample or family
    found = [s.value for s in families[family].samples if s.name == wanted and labels.items() <= s.labels.items()]
    assert len(found) == 1, found
    return found[0]


def busy(name: str, metrics: Metrics) -> None:
    route = metrics.route(name)
    route.request("ok")
    route.rows(3)
    route.added(0.0002)
    route.upstream(0.02)
    route.state(0.001)
    route.verdict("allow", "enforce")
    route.shift(0.015)
    route.top1_changed(2)
    route.redacted(3, "enforce")
    route.charge("rows/client", 3)
    route.refusal("rows/client")
    route.remaining("rows/client", 7, 0.25)
    route.unreadable()
    route.detection("repeats")
    route.census.look = lambda: Seen([0.3, 2.1, -1.5], [0.62], {"degrade": 2}, 0.3)


async def test_names_and_labels_are_the_designs() -> None:
    metrics = Metrics()
    busy("digits", metrics)
    metrics.state_error()
    metrics.reload(True)
    metrics.policy("p", "abc", "enforce")
    metrics.load(lambda: 3, lambda: 256)
    metrics.audit(lambda: 5, lambda: 12)
    families = await scrape(metrics)
    labels = {name: set[str]().union(*(s.labels for s in family.samples)) for name, family in families.items()}
    assert labels == DESIGN


async def test_everything_that_is_counted_is_shown() -> None:
    metrics = Metrics()
    busy("digits", metrics)
    busy("digits", metrics)
    metrics.state_error()
    metrics.reload(True)
    metrics.reload(False)
    metrics.reload(False)
    found = await scrape(metrics)
    route = {"route": "digits"}
    assert value(found, "guard_requests", "guard_requests_total", outcome="ok", **route) == 2
    assert value(found, "guard_rows", "guard_rows_total", **route) == 6
    assert value(found, "guard_verdicts", "guard_verdicts_total", action="allow", mode="enforce", **route) == 2
    assert value(found, "guard_top1_changed", "guard_top1_changed_total", **route) == 4
    assert value(found, "guard_redactions", "guard_redactions_total", mode="enforce", **route) == 6
    assert value(found, "guard_budget_charges", "guard_budget_charges_total", budget="rows/client", **route) == 6
    assert value(found, "guard_budget_refusals", "guard_budget_refusals_total", budget="rows/client", **route) == 2
    assert value(found, "guard_budget_remaining_ratio", budget="rows/client", **route) == 0.25
    assert value(found, "guard_unreadable", "guard_unreadable_total", **route) == 2
    assert value(found, "guard_detections", "guard_detections_total", detector="repeats", **route) == 2
    assert value(found, "guard_evidence_log10", "guard_evidence_log10_bucket", le="0.5", **route) == 2
    assert value(found, "guard_information_meter", "guard_information_meter_count", **route) == 1
    assert value(found, "guard_ladder_clients", action="degrade", **route) == 2
    assert value(found, "guard_profile_stale", **route) == 1
    assert value(found, "guard_state_errors", "guard_state_errors_total") == 1
    assert value(found, "guard_policy_reloads", "guard_policy_reloads_total", result="ok") == 1
    assert value(found, "guard_policy_reloads", "guard_policy_reloads_total", result="failed") == 2
    assert value(found, "guard_build_info", version=__version__) == 1


async def test_latencies_fall_into_their_buckets() -> None:
    metrics = Metrics()
    route = metrics.route("digits")
    for seconds in (40e-6, 150e-6, 150e-6, 60.0):
        route.added(seconds)
    found = await scrape(metrics)
    family = "guard_added_latency_seconds"
    assert value(found, family, f"{family}_bucket", le="5e-05") == 1
    assert value(found, family, f"{family}_bucket", le="0.0002") == 3
    assert value(found, family, f"{family}_bucket", le="10.0") == 3
    assert value(found, family, f"{family}_count") == 4
    assert len(LATENCY_BUCKETS_S) <= 14


async def test_what_may_be_counted_is_shown_before_it_is_for_the_first_time() -> None:
    metrics = Metrics()
    route = metrics.route("digits")
    route.expect("enforce", ["rows/client"], ["repeats", "protocol"])
    route.detection("repeats")
    route.expect("enforce", ["rows/client"], ["repeats", "protocol"])  # a reload
    metrics.route("plain").expect("shadow", [], [])
    found = await scrape(metrics)
    of = {"route": "digits"}
    assert value(found, "guard_detections", "guard_detections_total", detector="protocol", **of) == 0
    assert value(found, "guard_detections", "guard_detections_total", detector="repeats", **of) == 1
    assert value(found, "guard_budget_refusals", "guard_budget_refusals_total", budget="rows/client", **of) == 0
    assert value(found, "guard_verdicts", "guard_verdicts_total", action="degrade", mode="enforce", **of) == 0
    actions = [s.labels["action"] for s in found["guard_verdicts"].samples if s.labels["route"] == "plain"]
    assert actions == ["allow", "deny", "label_only"]


async def test_expected_labels_are_bounded_too() -> None:
    metrics = Metrics()
    metrics.route("digits").expect("enforce", [f"b{n}" for n in range(MAX_LABELS + 10)], [])
    assert len((await scrape(metrics))["guard_budget_refusals"].samples) == MAX_LABELS


async def test_a_new_policy_replaces_the_old_ones_name() -> None:
    metrics = Metrics()
    metrics.policy("old", "1", "enforce")
    metrics.policy("new", "2", "shadow")
    (sample,) = (await scrape(metrics))["guard_policy_info"].samples
    assert sample.labels == {"name": "new", "digest": "2", "mode": "shadow"}


class TestRemaining:
    async def lowest(self, metrics: Metrics) -> float:
        return value(await scrape(metrics), "guard_budget_remaining_ratio", budget="b")

    async def test_the_lowest_of_a_window_is_shown(self) -> None:
        metrics = Metrics()
        for ratio in (0.9, 0.2, 0.7):
            metrics.route("digits").remaining("b", 5, ratio)
        assert await self.lowest(metrics) == 0.2

    async def test_a_new_window_begins_anew(self) -> None:
        metrics = Metrics()
        for window, ratio in ((5, 0.1), (6, 0.8), (5, 0.05)):
            metrics.route("digits").remaining("b", window, ratio)
        assert await self.lowest(metrics) == 0.8

    async def test_overspent_is_nothing_left(self) -> None:
        metrics = Metrics()
        metrics.route("digits").remaining("b", 0, -0.5)
        assert await self.lowest(metrics) == 0

    async def test_a_budget_that_nobody_has_touched_is_full(self) -> None:
        metrics = Metrics()
        metrics.route("digits").remaining("b", 0, 1.0)
        assert await self.lowest(metrics) == 1.0

    async def test_budgets_are_bounded(self) -> None:
        metrics = Metrics()
        for n in range(MAX_LABELS + 10):
            metrics.route("digits").remaining(f"b{n}", 0, 0.5)
        assert len((await scrape(metrics))["guard_budget_remaining_ratio"].samples) == MAX_LABELS


async def test_outcomes_are_bounded_and_the_rest_counts_as_other() -> None:
    metrics = Metrics()
    route = metrics.route("digits")
    for n in range(MAX_LABELS + 10):
        route.request(f"outcome{n}")
        route.request(f"outcome{n}")
    found = await scrape(metrics)
    assert value(found, "guard_requests", "guard_requests_total", outcome=OTHER) == 20
    assert len(found["guard_requests"].samples) == MAX_LABELS + 1


async def test_routes_are_bounded_and_the_rest_counts_as_other() -> None:
    metrics = Metrics()
    for n in range(MAX_ROUTES + 10):
        metrics.route(f"route{n}").rows(1)
    found = await scrape(metrics)
    assert value(found, "guard_rows", "guard_rows_total", route=OTHER) == 10


async def test_a_route_keeps_its_counts_over_reloads() -> None:
    metrics = Metrics()
    assert metrics.route("digits") is metrics.route("digits")


async def test_a_big_scrape_comes_in_small_pieces_that_agree_with_a_whole() -> None:
    metrics = Metrics()
    for n in range(64):
        busy(f"route{n}", metrics)
    pieces = [piece async for piece in metrics.expose()]
    assert max(piece.count(b"\n") for piece in pieces) <= 130
    found = await scrape(metrics)
    assert sum(s.value for s in found["guard_rows"].samples) == 3 * 64
    text = b"".join(pieces)
    assert text.count(b"# TYPE guard_rows_total counter\n") == 1
    assert b"_created" not in text


async def test_requests_are_served_between_the_pieces() -> None:
    metrics = Metrics()
    for n in range(8):
        busy(f"route{n}", metrics)
    turns = 0

    async def requests() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(requests())
    pieces = [piece async for piece in metrics.expose()]
    task.cancel()
    assert turns >= len(pieces)


async def test_a_scrape_without_routes_shows_the_process() -> None:
    of_routes = {name for name, labels in DESIGN.items() if "route" in labels}
    of_what_is_off = {name for name in DESIGN if name.startswith(("guard_audit_", "guard_requests_in_"))}
    assert set(await scrape(Metrics())) == DESIGN.keys() - of_routes - of_what_is_off | {"guard_audit_dropped"}


async def test_what_is_asked_at_a_scrape_is_what_is_shown() -> None:
    metrics, now = Metrics(), [3, 5]
    metrics.load(lambda: now[0], lambda: 256)
    metrics.audit(lambda: now[1], lambda: 12)
    await scrape(metrics)
    now[:] = [4, 6]
    found = await scrape(metrics)
    names = (
        "guard_requests_in_flight",
        "guard_requests_in_flight_limit",
        "guard_audit_waiting",
        "guard_audit_sequence",
    )
    assert [value(found, name) for name in names] == [4, 256, 6, 12]


async def test_a_reload_that_succeeds_ends_the_failing() -> None:
    metrics = Metrics()
    seen: list[float] = []
    for ok in (True, False, False, True):
        metrics.reload(ok)
        seen.append(value(await scrape(metrics), "guard_policy_reload_failing"))
    assert seen == [0, 1, 1, 0]


async def test_a_loop_that_is_held_up_is_late() -> None:
    metrics = Metrics()
    watch = asyncio.create_task(metrics.watch_loop(period_s=0.0))
    await asyncio.sleep(0)
    held = time.monotonic() + 0.03
    while time.monotonic() < held:
        pass
    while value(await scrape(metrics), "guard_loop_lag_seconds", "guard_loop_lag_seconds_count") < 1:
        await asyncio.sleep(0)
    watch.cancel()
    found = await scrape(metrics)
    late = value(found, "guard_loop_lag_seconds", "guard_loop_lag_seconds_sum")
    assert late >= 0.03


async def test_two_instances_do_not_share_counts() -> None:
    first, second = Metrics(), Metrics()
    first.state_error()
    assert value(await scrape(second), "guard_state_errors", "guard_state_errors_total") == 0
