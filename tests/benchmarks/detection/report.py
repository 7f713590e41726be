"""Tables of what `run` measured, as Markdown: `python -m tests.benchmarks.detection.report .bench/detection-*.json`.

Queries to alarm are medians over repetitions, where one that never alarms counts as infinitely late; behind a slash the
95th percentile, behind m the share that never alarmed. False alarms carry Clopper and Pearson's upper limit at 95%.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guard.selftest.lab.data import untyped
from tests.benchmarks.detection.watching import ALPHAS, TIERS

Result = dict[str, Any]  # Any: JSON
Delays = Sequence[int | None]
TARGETS: tuple[tuple[str, float, float], ...] = (
    ("hop_skip_jump", 64, 128),
    ("nes", 64, 128),
    ("finite_differences", 64, 128),
    ("averaging", 64, 128),
    ("uniform", 64, 128),
    ("tree_paths", 96, np.inf),
    ("lowd_meek", 100, np.inf),
)
"""Issue 5: attack, most queries to alarm in the median, and in the 95th percentile."""
SLEEPER_TARGET, MIX_TARGET = 128, 256
STRICT = "either 0.001"
ALERT = "any 0.01"
LN_1000 = float(np.log(1000))


def upper(count: int, of: int) -> float:
    """Return Clopper and Pearson's upper 95% limit (two-sided) of a share."""
    return 1.0 if count >= of else float(untyped("scipy.stats").beta.ppf(0.975, count + 1, of - count))


def percent(count: int, of: int) -> str:
    """Write a share with its upper limit.

    >>> percent(0, 1000)
    '0% (<= 0.37)'
    """
    return f"{100 * count / of:.3g}% (<= {100 * upper(count, of):.2g})" if of else "-"


def quantile(delays: Delays, q: float) -> float:
    """Return a quantile of queries to alarm; infinite when it was never raised."""
    values = np.sort([np.inf if d is None else float(d) for d in delays] or [np.inf])
    return float(values[min(len(values) - 1, int(np.ceil(q * len(values))) - 1)])


def median(delays: Delays) -> float:
    """Return the median; with an even number, the mean of the middle two."""
    values = np.sort([np.inf if d is None else float(d) for d in delays] or [np.inf])
    return float((values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2)


def delay(delays: Delays) -> str:
    """Write queries to alarm.

    >>> delay([48, 48, 64, None])
    '56/never m 25%'
    """
    if not delays:
        return "-"
    missed = sum(d is None for d in delays) / len(delays)
    late = f" m {100 * missed:.0f}%" if missed else ""
    return "m" if missed == 1 else f"{_number(median(delays))}/{_number(quantile(delays, 0.95))}{late}"


def _number(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "never"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def over(result: Result, section: str, tier: int, alpha: int) -> tuple[int, int]:
    """Return how many clients of a section alarmed, of how many."""
    if section not in result:
        return 0, 0
    limit = result["profile"]["thresholds"][tier][alpha]
    clients = result[section]["clients"]
    return sum(row[2 + tier] >= limit for row in clients), len(clients)


def false_alarms(results: Sequence[Result]) -> str:
    """Table of honest and of shifted clients that ever alarmed."""
    columns = [(t, a) for t in range(len(TIERS)) for a in range(len(ALPHAS))]
    head = ["domain", "clients", "queries", *(f"{('all', 'structure')[t]} {ALPHAS[a]:g}" for t, a in columns)]
    rows: list[list[str]] = []
    for section in ("honest", "shifted"):
        known = [r for r in results if section in r]
        totals = np.zeros((len(columns), 2), dtype=np.int64)
        queries = clients = 0
        for r in known:
            found = [over(r, section, t, a) for t, a in columns]
            totals += np.array(found)
            asked = sum(row[1] for row in r[section]["clients"])
            queries, clients = queries + asked, clients + len(r[section]["clients"])
            rows.append([f"{r['domain']}, {section}", f"{found[0][1]:,}", f"{asked:,}", *(percent(*f) for f in found)])
        if known:
            whole = [percent(int(c), int(n)) for c, n in totals]
            rows.append([f"**all, {section}**", f"{clients:,}", f"{queries:,}", *whole])
    return table(head, rows)


def kinds(results: Sequence[Result]) -> str:
    """Table of which kinds of honest clients alarmed."""
    names = sorted({row[0] for r in results for row in r.get("honest", {"clients": []})["clients"]})
    rows: list[list[str]] = []
    for name in names:
        counts = np.zeros((2, 2), dtype=np.int64)
        number = 0
        for r in results:
            mine = [row for row in r["honest"]["clients"] if row[0] == name] if "honest" in r else []
            number += len(mine)
            limits = r["profile"]["thresholds"]
            for t in range(2):
                for a in range(2):
                    counts[t, a] += sum(row[2 + t] >= limits[t][a] for row in mine)
        rows.append([name, f"{number:,}", *(percent(int(c), number) for c in counts.ravel())])
    return table(["kind", "clients", "all 0.01", "all 0.001", "structure 0.01", "structure 0.001"], rows)


def delays(results: Sequence[Result], section: str, key: str = STRICT) -> str:
    """Table of queries to alarm, attacks by domains."""
    known = [r for r in results if section in r]
    names = list(dict.fromkeys(name for r in known for name in r[section]))
    rows: list[list[str]] = []
    for name in names:
        cells = [delay(r[section][name][key]) if name in r[section] else "" for r in known]
        rows.append([name, *cells, _pooled(known, section, name, key)])
    return table(["", *(r["domain"] for r in known), "all"], rows)


def _all(results: Sequence[Result], section: str, name: str, key: str = STRICT) -> list[int | None]:
    return [d for r in results if name in r.get(section, {}) for d in r[section][name][key]]


def _pooled(results: Sequence[Result], section: str, name: str, key: str) -> str:
    return delay(_all(results, section, name, key))


def mixes(results: Sequence[Result]) -> str:
    """Table of mixes: share caught within 4,096 queries, and median queries, attack's and honest ones together."""
    known = [r for r in results if "mixes" in r]
    names = list(dict.fromkeys(name for r in known for name in r["mixes"]))

    def cell(found: Delays) -> str:
        return f"{100 * np.mean([d is not None for d in found]):.0f}%, {_number(median(found))}"

    rows: list[list[str]] = []
    for name in names:
        cells = [cell(r["mixes"][name][STRICT]) if name in r["mixes"] else "" for r in known]
        rows.append([name, *cells, cell(_all(known, "mixes", name))])
    return table(["", *(r["domain"] for r in known), "all"], rows)


def pools(results: Sequence[Result]) -> str:
    """Table of pools: false alarms of honest ones at 1e-3, and attacks that were caught."""
    known = [r for r in results if "pools" in r]
    rows: list[list[str]] = []
    for name, words in (("null_short", "200 honest accounts, 20 queries"), ("null_long", "100 honest accounts, all")):
        counts = [(sum(v >= LN_1000 for v in r["pools"][name]), len(r["pools"][name])) for r in known]
        whole = percent(sum(c for c, _ in counts), sum(n for _, n in counts))
        rows.append([f"{words}: false alarms", *(percent(*c) for c in counts), whole])
    for name in dict.fromkeys(n for r in known for n in r["pools"]["caught"]):
        found: list[list[float]] = [r["pools"]["caught"].get(name, []) for r in known]
        cells = [f"{sum(v >= LN_1000 for v in f)} of {len(f)}" if f else "" for f in found]
        together = [v for f in found for v in f]
        rows.append([f"{name}: caught", *cells, f"{100 * np.mean([v >= LN_1000 for v in together]):.0f}%"])
    return table(["", *(r["domain"] for r in known), "all"], rows)


def baselines(results: Sequence[Result]) -> str:
    """Table of Guard beside PRADA and a Mahalanobis threshold, over all domains."""
    known = [r for r in results if "baselines" in r and "attacks" in r]
    if not known:
        return ""
    first = known[0]["baselines"]["honest"]
    methods = [(kind, name) for kind in ("mahalanobis", "prada") for name in first[kind]]
    head = ["", "Guard, 0.001", *(f"{kind} {name}" for kind, name in methods)]
    rows: list[list[str]] = []
    for section in ("honest", "shifted"):
        guard = [over(r, section, 0, 1) for r in known]
        cells = [percent(sum(c for c, _ in guard), sum(n for _, n in guard))]
        for kind, name in methods:
            found = [d for r in known for d in r["baselines"][section][kind][name]]
            worst = max(np.mean([d is not None for d in r["baselines"][section][kind][name]]) for r in known)
            cells.append(f"{percent(sum(d is not None for d in found), len(found))}, worst {100 * worst:.2g}%")
        rows.append([f"false alarms, {section}", *cells])
    for attack in dict.fromkeys(name for r in known for name in r["attacks"]):
        mine = [r for r in known if attack in r["attacks"]]
        cells = [_pooled(mine, "attacks", attack, STRICT)]
        for kind, name in methods:
            cells.append(delay([d for r in mine for d in r["baselines"]["attacks"][attack][kind][name]]))
        rows.append([attack, *cells])
    return table(head, rows)


def without_profile(results: Sequence[Result]) -> str:
    """Table of the shipped null."""
    known = [r for r in results if "default" in r]
    rows: list[list[str]] = []
    for variant in ("bounds", "nothing"):
        for alpha in ALPHAS:
            cells: list[str] = []
            count = number = 0
            for r in known:
                sups = [row[1] for row in r["default"][variant]["honest"]]
                hits = sum(s >= np.log(1 / alpha) for s in sups)
                count, number = count + hits, number + len(sups)
                cells.append(percent(hits, len(sups)))
            rows.append([f"{variant}: false alarms, structure {alpha:g}", *cells, percent(count, number)])
        for attack in dict.fromkeys(name for r in known for name in r["default"][variant]["attacks"]):
            found: list[list[int | None]] = [r["default"][variant]["attacks"].get(attack, []) for r in known]
            whole = delay([d for f in found for d in f])
            rows.append([f"{variant}: {attack}", *(delay(f) if f else "" for f in found), whole])
    return table(["", *(r["domain"] for r in known), "all"], rows)


def targets(results: Sequence[Result]) -> str:
    """Table of issue 5's targets: pooled over domains, and domains in which one is missed.

    At two steps of the usual ladder: the alert at 1e-2, and what follows at 1e-3, of whichever tier.
    """
    rows: list[list[str]] = []

    def row(words: str, section: str, name: str, most: float, latest: float = np.inf) -> None:
        known = [r for r in results if section in r and name in r[section]]

        def met(found: Delays) -> bool:
            return median(found) <= most and quantile(found, 0.95) <= latest

        cells: list[str] = []
        for key in (ALERT, STRICT):
            whole = _all(known, section, name, key)
            bad = [r["domain"] for r in known if not met(r[section][name][key])]
            cells += [delay(whole), "met" if met(whole) else "missed", ", ".join(bad) or "-"]
        rows.append([words, *cells])

    for name, most, latest in TARGETS:
        words = f"{name}: median <= {most:g}" + (f", p95 <= {latest:g}" if np.isfinite(latest) else "")
        row(words, "attacks", name, most, latest)
    for name, *_ in TARGETS:
        row(f"sleeper, {name}: median <= {SLEEPER_TARGET} after it turns", "sleepers", name, SLEEPER_TARGET)
    for name in ("uniform 0.25", "hop_skip_jump 0.25"):
        row(f"mix, {name}: median <= {MIX_TARGET}, 80% caught", "mixes", name, MIX_TARGET)
    head = [
        "target",
        "alert, 1e-2",
        "over all domains",
        "missed in",
        "either tier, 1e-3",
        "over all domains",
        "missed in",
    ]
    return table(head, rows)


def levels(results: Sequence[Result]) -> str:
    """Table of profiles and the levels that they publish."""
    rows = [
        [
            r["domain"],
            f"{r['profile']['kind']}, {r['profile']['width']}-D, accuracy {r['profile']['accuracy']:.2f}",
            f"{r['profile']['clients']:,} + {r['profile']['augmented']:,}, {r['profile']['held_out']:,} held out",
            *(text.split("threshold ")[1] for text in r["profile"]["levels"].values()),
            f"{r['profile']['nu']:.2f}",
        ]
        for r in results
    ]
    names = list(results[0]["profile"]["levels"]) if results else []
    return table(["domain", "model", "calibration clients", *(f"threshold, {n}" for n in names), "nu"], rows)


def main() -> None:
    """Print every table for which there are results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    options = parser.parse_args()
    results: list[Result] = [json.loads(path.read_text()) for path in options.results]
    parts = {
        "Targets": targets(results),
        "Profiles": levels(results),
        "False alarms": false_alarms(results),
        "By kind of client": kinds(results),
        "Queries to alarm at 1e-3, either tier": delays(results, "attacks"),
        "Queries to alarm, all tiers at 1e-3": delays(results, "attacks", "any 0.001"),
        "Queries to alarm, structure tier at 1e-3": delays(results, "attacks", "structure 0.001"),
        "Queries to alarm, all tiers at 1e-2": delays(results, "attacks", "any 0.01"),
        "Sleepers: queries after they turn": delays(results, "sleepers"),
        "Mixes": mixes(results),
        "Many accounts": pools(results),
        "Baselines": baselines(results),
        "Without a profile": without_profile(results),
    }
    for name, text in parts.items():
        print(f"### {name}\n\n{text}\n")


if __name__ == "__main__":
    main()
