"""The security dashboard: evidence, detections, the ladder, budgets, and the trail that is kept of them."""

from __future__ import annotations

from panels import GREEN, ORANGE, RED, YELLOW, Query, Spec, clients_above

TITLE, UID = "Guard: security", "guard-security"
DESCRIPTION = (
    "Who looks like a thief, what the ladder does about it, and how much of each budget is left. Names of "
    "clients stand in the console and the audit log, never here."
)

SHARED = 'budget=~"[^/]+/(model|group)(/.*)?"'

TOP = (
    Spec(
        "Is somebody stealing?",
        "Watched clients whose e-value is above 10,000: honest clients get there once in 10,000. Normal: 0. A "
        "client on two replicas counts twice. "
        "Evidence stays a while when an attacker has left: the ladder's panels say whether somebody is at it now.",
        "stat",
        [Query(clients_above(4), "clients")],
        "short",
        [(1, RED)],
        "attack-under-way",
        width=3,
        idle="no detection",
    ),
    Spec(
        "Clients on the ladder",
        "Clients for whom an action of the ladder holds now. Normal: at most the false-alarm level's share of "
        "the watched ones.",
        "stat",
        [Query("sum(guard_ladder_clients{ROUTE}) or vector(0)", "clients")],
        "short",
        [(1, YELLOW), (5, RED)],
        "many-clients-on-ladder",
        width=3,
    ),
    Spec(
        "Share on the ladder",
        "Of the watched ones. 5% and more: one attacker with many accounts, or a profile that no longer fits.",
        "stat",
        [
            Query(
                '(sum(guard_ladder_clients{ROUTE}) or vector(0)) / sum(guard_evidence_log10_bucket{ROUTE, le="+Inf"})',
                "share",
            )
        ],
        "percentunit",
        [(0.01, YELLOW), (0.05, RED)],
        "many-clients-on-ladder",
        width=3,
        idle="no detection",
    ),
    Spec(
        "Detections, last hour",
        "Times that a detector spoke when a client reached a step of the ladder; refused queries are not in it. "
        "Normal: 0, now and then 1.",
        "stat",
        [Query('sum(increase(guard_detections_total{ROUTE, detector!="protocol"}[1h])) or vector(0)', "detections")],
        "short",
        [(1, YELLOW), (20, RED)],
        "attack-under-way",
        width=3,
        decimals=0,
    ),
    Spec(
        "Lowest shared budget",
        "Least share left of any budget that the model or a group shares. At 0 all of them are refused or "
        "answered with labels; without a window for ever.",
        "stat",
        [Query("min(guard_budget_remaining_ratio{ROUTE, " + SHARED + "})", "left")],
        "percentunit",
        [(None, RED), (0.1, ORANGE), (0.25, GREEN)],
        "budget-nearly-spent",
        width=3,
        high=1,
        idle="none is shared",
    ),
    Spec(
        "Does the profile fit?",
        "How far traffic has moved from the profile (population stability index). Below 0.1 no change; above "
        "0.25 stale: calibrate again.",
        "stat",
        [Query("max(guard_profile_drift{ROUTE})", "drift")],
        "none",
        [(0.1, YELLOW), (0.25, RED)],
        "profile-stale",
        width=3,
        decimals=2,
        idle="no profile",
    ),
    Spec(
        "Enforce or shadow?",
        "Mode of the policies in force. In shadow everything below is counted, and nobody is stopped.",
        "stat",
        [Query("count by (mode) (guard_policy_info{GUARD})", "{{mode}}")],
        texts=[("enforce", "enforce", GREEN), ("shadow", "shadow", ORANGE)],
        width=3,
        names=True,
        idle="not scraped",
    ),
    Spec(
        "Audit lines lost, last day",
        "Lines that the audit log could not take. Normal: 0. With `when_full: drop` Guard serves on without a trail.",
        "stat",
        [Query("sum(increase(guard_audit_dropped_total{GUARD}[24h]))", "lost")],
        "short",
        [(1, RED)],
        "audit-dropping",
        width=3,
        decimals=0,
        idle="not scraped",
    ),
)

EVIDENCE = (
    Spec(
        "Evidence of the watched clients",
        "How many clients stand at which evidence (log10 of the e-value) at each moment. Normal: nearly all at 0 "
        "and below. "
        "A client that climbs away from the others is what an attack looks like.",
        "heat",
        [Query("sum by (le) (guard_evidence_log10_bucket{ROUTE})")],
        "short",
        runbook="attack-under-way",
        width=12,
        low=None,
    ),
    Spec(
        "Clients above each level",
        "Clients whose e-value is above 10, 100, 1,000 and 10,000. Of 1,000 honest clients, at most 100, 10, 1 "
        "and 0.1 are to be expected.",
        "lines",
        [Query(clients_above(power), f"above {10**power:,}") for power in (1, 2, 3, 4)],
        "short",
        runbook="attack-under-way",
        width=6,
    ),
    Spec(
        "Watched clients",
        "Clients in memory whose queries are being looked at, by route; at most 2,048 a process. A jump without "
        "new users: accounts are being made.",
        "lines",
        [Query('sum by (route) (guard_evidence_log10_bucket{ROUTE, le="+Inf"})', "{{route}}")],
        "short",
        runbook="many-clients-on-ladder",
        width=6,
    ),
)

DETECTIONS = (
    Spec(
        "What spoke?",
        "Detectors that spoke when clients reached a step of the ladder. near_duplicates, one_feature_varied, "
        "line_walk: probing around a point "
        "(evasion, inversion). repeats: averaging. off_past, mahalanobis, kernel_mean, feature_marginals: "
        "made-up inputs (extraction). low_margin: the boundary.",
        "bars",
        [
            Query(
                'sum by (detector) (increase(guard_detections_total{ROUTE, detector!="protocol"}[$__rate_interval]))',
                "{{detector}}",
            )
        ],
        "short",
        runbook="attack-under-way",
    ),
    Spec(
        "Detections in the time shown",
        "The same, added up.",
        "gauge",
        [Query("sum by (detector) (increase(guard_detections_total{ROUTE}[$__range]))", "{{detector}}")],
        "short",
        [(1, YELLOW), (20, RED)],
        "attack-under-way",
        decimals=0,
    ),
    Spec(
        "Queries refused for what they are",
        "Unreadable, incomplete or outside the declared domain, a second. Normal: a broken client now and then. "
        "Many: a walk along a model's branches, or a new version of a client.",
        "lines",
        [
            Query(
                'sum by (route) (rate(guard_detections_total{ROUTE, detector="protocol"}[$__rate_interval]))',
                "{{route}}",
            )
        ],
        "reqps",
        runbook="attack-under-way",
    ),
)

LADDER = (
    Spec(
        "Clients on the ladder, by action",
        "For how many clients each action holds. Only the strictest counts.",
        "stack",
        [Query("sum by (action) (guard_ladder_clients{ROUTE})", "{{action}}")],
        "short",
        runbook="many-clients-on-ladder",
    ),
    Spec(
        "Requests acted on",
        "Requests that were not simply allowed, by action; enforced. `label_only` and part of `deny` are budgets.",
        "stack",
        [
            Query(
                'sum by (action) (rate(guard_verdicts_total{ROUTE, mode="enforce", '
                'action!="allow"}[$__rate_interval]))',
                "{{action}}",
            )
        ],
        "reqps",
        runbook="attack-under-way",
    ),
    Spec(
        "In shadow: what would have happened",
        "The same, only counted: what enforcing would do. Look here before you turn `shadow` into `enforce`.",
        "stack",
        [
            Query(
                'sum by (action) (rate(guard_verdicts_total{ROUTE, mode="shadow", action!="allow"}[$__rate_interval]))',
                "{{action}}",
            )
        ],
        "reqps",
    ),
)

BUDGETS = (
    Spec(
        "How much is left, at worst",
        "Least share left of each budget, of all clients, in the window seen last. A client's own budget at 0 is "
        "everyday; "
        "one that ends in /model or /group is shared.",
        "lines",
        [Query("min by (route, budget) (guard_budget_remaining_ratio{ROUTE})", "{{route}}: {{budget}}")],
        "percentunit",
        [(None, RED), (0.1, GREEN)],
        "budget-nearly-spent",
        high=1,
    ),
    Spec(
        "What is charged",
        "Units charged a second: rows, graded answers, or answers under differential privacy.",
        "lines",
        [Query("sum by (budget) (rate(guard_budget_charges_total{ROUTE}[$__rate_interval]))", "{{budget}}")],
        "cps",
        runbook="budget-nearly-spent",
    ),
    Spec(
        "What budgets refuse",
        "Requests refused a second, by budget; budgets in shadow count what they would refuse.",
        "lines",
        [Query("sum by (budget) (rate(guard_budget_refusals_total{ROUTE}[$__rate_interval]))", "{{budget}}")],
        "reqps",
        runbook="budget-refusing",
    ),
    Spec(
        "What clients have learnt",
        "How many clients and groups stand at which reading of the information meter, at each moment: 0 nothing, "
        "1 a copy of the model. Only where a budget has a meter.",
        "heat",
        [Query("sum by (le) (guard_information_meter_bucket{ROUTE})")],
        "percentunit",
        runbook="budget-refusing",
        width=12,
        low=None,
    ),
    Spec(
        "How far traffic has moved",
        "Population stability index against the profile, by route; looked at each minute.",
        "lines",
        [Query("max by (route) (guard_profile_drift{ROUTE})", "{{route}}")],
        "none",
        [(0.25, RED)],
        "profile-stale",
        width=12,
    ),
)

TRAIL = (
    Spec(
        "Audit lines written",
        "Lines a second that the audit log has taken, by process. Normal: as many as scored requests. 0 under "
        "traffic: `--audit` is off.",
        "lines",
        [Query("rate(guard_audit_sequence{GUARD}[$__rate_interval])", "{{instance}}")],
        "ops",
        runbook="audit-dropping",
    ),
    Spec(
        "Audit lines waiting",
        "Taken, and not on the disk yet. Normal: near 0. A rise: the disk is slow or full; at the buffer's end "
        "Guard refuses or drops, as the policy says.",
        "lines",
        [Query("guard_audit_waiting{GUARD}", "{{instance}}")],
        "short",
        runbook="audit-dropping",
    ),
    Spec(
        "Turned away at the door",
        "Unknown credentials and closed endpoints, a second: somebody tries keys, or looks for a way around.",
        "lines",
        [
            Query(
                'sum by (outcome) (rate(guard_requests_total{job=~"$job", instance=~"$instance", '
                'outcome=~"unknown_credential|closed"}[$__rate_interval]))',
                "{{outcome}}",
            )
        ],
        "reqps",
        runbook="attack-under-way",
    ),
)

ROWS = (
    ("Evidence", EVIDENCE),
    ("Detections", DETECTIONS),
    ("Ladder", LADDER),
    ("Budgets and information", BUDGETS),
    ("The trail", TRAIL),
)
