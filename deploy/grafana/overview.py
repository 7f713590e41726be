"""The overview: is Guard up, is it fast, what does it decide, and what do honest users pay for it."""

from __future__ import annotations

from panels import GREEN, ORANGE, RED, YELLOW, Query, Spec, clients_above, quantile

TITLE, UID = "Guard: overview", "guard-overview"
DESCRIPTION = "Traffic, added latency, verdicts, and what honest users pay. The security dashboard shows who attacks."

TOP = (
    Spec(
        "Is it up?",
        "Share of Guard processes that answer scrapes. Normal: 100%. Below: a process is dead or held up; "
        "requests to it fail.",
        "stat",
        [Query("avg(up{GUARD})", "up")],
        "percentunit",
        [(None, RED), (0.5, ORANGE), (1, GREEN)],
        "guard-down",
        width=3,
        high=1,
        idle="not scraped",
    ),
    Spec(
        "Does it fail closed?",
        "Share of requests refused in the last 5 minutes because Guard could not do its work (state, audit log, "
        "overload, bug). "
        "Normal: 0. Nothing is answered unguarded, so this is what an outage looks like.",
        "stat",
        [
            Query(
                '(sum(rate(guard_requests_total{ROUTE, outcome=~"{CLOSED}"}[5m])) or vector(0)) / '
                "sum(rate(guard_requests_total{ROUTE}[5m]))",
                "refused",
            )
        ],
        "percentunit",
        [(0.001, ORANGE), (0.01, RED)],
        "failing-closed",
        width=3,
        idle="no traffic",
    ),
    Spec(
        "Is somebody stealing?",
        "Watched clients whose e-value is above 10,000: honest clients get there once in 10,000. Normal: 0. "
        "Go to the security dashboard. A client on two replicas counts twice.",
        "stat",
        [Query(clients_above(4), "clients")],
        "short",
        [(1, RED)],
        "attack-under-way",
        width=3,
        idle="no detection",
    ),
    Spec(
        "Is it fast?",
        "Time that Guard and its state add to a request, 99th percentile of the last 5 minutes, without the model. "
        "Normal: below 5 ms. Above 25 ms somebody notices.",
        "stat",
        [Query(quantile(0.99, "guard_added_latency_seconds", window="5m"), "p99")],
        "s",
        [(0.005, YELLOW), (0.025, RED)],
        "slow",
        width=3,
        idle="no traffic",
    ),
    Spec(
        "Requests",
        "Requests a second over the last 5 minutes, refused ones too. No traffic is no alert.",
        "stat",
        [Query("sum(rate(guard_requests_total{ROUTE}[5m]))", "requests")],
        "reqps",
        width=3,
        idle="no traffic",
    ),
    Spec(
        "Enforce or shadow?",
        "Mode of the policies in force. In shadow Guard decides and counts, and answers what the model said: "
        "nothing is protected.",
        "stat",
        [Query("count by (mode) (guard_policy_info{GUARD})", "{{mode}}")],
        texts=[("enforce", "enforce", GREEN), ("shadow", "shadow", ORANGE)],
        width=3,
        names=True,
        idle="not scraped",
    ),
    Spec(
        "What do honest users pay?",
        "Mean L1 distance between what the model said and what was released, over the last 30 minutes; 0 is "
        "untouched, 2 is the most. "
        "Normal: what the policy costs, 0.06 for `balanced`. In shadow: what it would cost. "
        "Degraded clients count, too.",
        "stat",
        [
            Query(
                "sum(rate(guard_score_shift_l1_sum{ROUTE}[30m])) / sum(rate(guard_score_shift_l1_count{ROUTE}[30m]))",
                "shift",
            )
        ],
        "none",
        [(0.2, YELLOW), (0.5, RED)],
        "utility-cost-high",
        width=3,
        decimals=3,
        idle="no answers",
    ),
    Spec(
        "Is the policy current?",
        "Whether the last reload worked. Failing: the old policy is in force, and after a restart there would be none.",
        "stat",
        [Query("max(guard_policy_reload_failing{GUARD})", "reload")],
        texts=[("0", "current", GREEN), ("1", "reload fails", RED)],
        runbook="reload-failing",
        width=3,
        idle="not scraped",
    ),
)

TRAFFIC = (
    Spec(
        "Requests by outcome",
        "`ok`, or the stable code of the error that the client got. Normal: nearly all `ok`. The panel beside "
        "leaves `ok` out.",
        "stack",
        [Query("sum by (outcome) (rate(guard_requests_total{ROUTE}[$__rate_interval]))", "{{outcome}}")],
        "reqps",
    ),
    Spec(
        "Why are requests refused?",
        "Everything but `ok`. budget_spent, denied, throttled: the policy. upstream_*: the model. "
        "unreadable_answer: the model's new shape. "
        "state_*, ledger_*, audit_*, overloaded, internal: Guard itself. closed, unknown_credential, bad_*: the "
        "caller.",
        "lines",
        [Query('sum by (outcome) (rate(guard_requests_total{ROUTE, outcome!="ok"}[$__rate_interval]))', "{{outcome}}")],
        "reqps",
        runbook="failing-closed",
    ),
    Spec(
        "Rows answered",
        "Predictions released a second, by route: a batch of 100 is one request and 100 rows. A thief shows here "
        "first: rows without users.",
        "lines",
        [Query("sum by (route) (rate(guard_rows_total{ROUTE}[$__rate_interval]))", "{{route}}")],
        "rowsps",
    ),
)

LATENCY = (
    Spec(
        "How long Guard takes",
        "Time in Guard and its state, without the model. Normal: p99 below 5 ms; detection and large batches "
        "cost more.",
        "lines",
        [
            Query(quantile(0.5, "guard_added_latency_seconds"), "p50"),
            Query(quantile(0.9, "guard_added_latency_seconds"), "p90"),
            Query(quantile(0.99, "guard_added_latency_seconds"), "p99"),
        ],
        "s",
        [(0.025, RED)],
        "slow",
    ),
    Spec(
        "How long the model takes",
        "Time from asking the model to its whole answer. Normal: what your model takes. It is not Guard's.",
        "lines",
        [
            Query(quantile(0.5, "guard_upstream_latency_seconds"), "p50"),
            Query(quantile(0.99, "guard_upstream_latency_seconds"), "p99"),
        ],
        "s",
        runbook="upstream-failing",
    ),
    Spec(
        "How long charging takes",
        "Time the state takes to charge budgets; part of what Guard takes. Normal: median below 1 ms, p99 below 10 ms. "
        "At 1 s calls are given up, and Guard fails closed.",
        "lines",
        [
            Query(quantile(0.5, "guard_state_latency_seconds"), "p50"),
            Query(quantile(0.99, "guard_state_latency_seconds"), "p99"),
        ],
        "s",
        [(0.05, RED)],
        "state-slow",
    ),
)

VERDICTS = (
    Spec(
        "Verdicts",
        "What was decided on scored requests, by action and mode. `allow` in enforce is the everyday; `shadow` "
        "was only counted. "
        "`deny` holds budgets, the ladder and closed doors; the panel above tells them apart.",
        "stack",
        [Query("sum by (action, mode) (rate(guard_verdicts_total{ROUTE}[$__rate_interval]))", "{{action}} ({{mode}})")],
        "reqps",
        width=12,
        runbook="attack-under-way",
    ),
    Spec(
        "Which policy is in force?",
        "Name, mode and digest of each process's policy. Replicas must show the same digest; for a minute after "
        "an edit they may not.",
        "table",
        [Query("guard_policy_info{GUARD}")],
        width=12,
        runbook="reload-failing",
    ),
)

PRICE = (
    Spec(
        "How far answers move",
        "L1 distance a row between the model's scores and the released ones: mean by route. Normal: flat, at "
        "what `guard explain` and the "
        "self-test said. A rise without a policy change: the ladder degrades many clients.",
        "lines",
        [
            Query(
                "sum by (route) (rate(guard_score_shift_l1_sum{ROUTE}[$__rate_interval])) / sum by (route) "
                "(rate(guard_score_shift_l1_count{ROUTE}[$__rate_interval]))",
                "{{route}}",
            )
        ],
        "none",
        [(0.5, RED)],
        "utility-cost-high",
    ),
    Spec(
        "How many answers name another class",
        "Share of rows whose most likely class was changed. Normal: 0; mechanisms of differential privacy change "
        "some by design.",
        "lines",
        [
            Query(
                "sum by (route) (rate(guard_top1_changed_total{ROUTE}[$__rate_interval])) / sum by (route) "
                "(rate(guard_rows_total{ROUTE}[$__rate_interval]))",
                "{{route}}",
            )
        ],
        "percentunit",
        [(0.02, RED)],
        "utility-cost-high",
    ),
    Spec(
        "Share of requests that budgets refuse",
        "By budget; a budget in shadow counts what it would refuse. Normal: 0, unless somebody steals. If many "
        "honest clients meet it, it is too small.",
        "lines",
        [
            Query(
                "sum by (budget) (rate(guard_budget_refusals_total{ROUTE}[$__rate_interval])) / "
                "scalar(sum(rate(guard_requests_total{ROUTE}[$__rate_interval])))",
                "{{budget}}",
            )
        ],
        "percentunit",
        [(0.05, RED)],
        "budget-refusing",
    ),
)

PROCESS = (
    Spec(
        "Requests in flight",
        "Share of the policy's `limits.concurrency`; at 100% more are refused as overloaded (503). Normal: far below. "
        "If it rises with the model's latency, requests pile up behind the model.",
        "lines",
        [Query("guard_requests_in_flight{GUARD} / guard_requests_in_flight_limit{GUARD}", "{{instance}}")],
        "percentunit",
        [(0.8, RED)],
        "failing-closed",
    ),
    Spec(
        "How late is the event loop?",
        "Every request waits for the event loop at least once. Normal: p99 below 5 ms. Higher: the CPU is short, "
        "or bodies are huge.",
        "lines",
        [
            Query(quantile(0.5, "guard_loop_lag_seconds", "{GUARD}"), "p50"),
            Query(quantile(0.99, "guard_loop_lag_seconds", "{GUARD}"), "p99"),
        ],
        "s",
        [(0.025, RED)],
        "slow",
    ),
    Spec(
        "CPU",
        "Cores a process uses. Guard runs on one core: at 1 it is at its end, add replicas.",
        "lines",
        [Query("rate(process_cpu_seconds_total{GUARD}[$__rate_interval])", "{{instance}}")],
        "short",
        [(0.9, RED)],
        "slow",
    ),
    Spec(
        "Memory",
        "Resident memory. Normal: flat after an hour; 2,048 watched clients take some 110 MB. A steady rise is a "
        "leak: report it.",
        "lines",
        [Query("process_resident_memory_bytes{GUARD}", "{{instance}}")],
        "bytes",
    ),
    Spec(
        "Open files",
        "Connections and files, as a share of what the process may open. Normal: below half. At 100% nobody gets in.",
        "lines",
        [Query("process_open_fds{GUARD} / process_max_fds{GUARD}", "{{instance}}")],
        "percentunit",
        [(0.8, RED)],
        "slow",
    ),
    Spec(
        "Errors inside",
        "Calls to the state that failed, lines that the audit log lost, rows that could not be recorded; a "
        "second. Normal: 0.",
        "lines",
        [
            Query("sum(rate(guard_state_errors_total{GUARD}[$__rate_interval]))", "state calls failed"),
            Query("sum(rate(guard_audit_dropped_total{GUARD}[$__rate_interval]))", "audit lines lost"),
            Query("sum(rate(guard_recording_dropped_total{GUARD}[$__rate_interval]))", "recorded rows lost"),
        ],
        "ops",
        [(1, RED)],
        "state-lost",
    ),
)

ROWS = (
    ("Traffic", TRAFFIC),
    ("Latency", LATENCY),
    ("Verdicts and policy", VERDICTS),
    ("What honest users pay", PRICE),
    ("Guard itself", PROCESS),
)
