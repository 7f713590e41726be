"""A soak as text, JSON and a picture."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl

from tests.soak.run import Found
from tests.soak.verdict import warm_up_s

mpl.use("Agg")
import matplotlib.pyplot as plt


def text(found: Found) -> str:
    """Return the report."""
    last = found.samples[-1]
    cpu_us = (last.cpu_s - found.before.cpu_s) / max(1, last.requests - found.before.requests) * 1e6
    lines = [
        f"soak: {found.duration_s / 60:.0f} min, seed {found.seed}, {last.requests} requests, {found.clients} clients",
        f"{found.rows} rows answered, {cpu_us:.0f} us CPU a request",
        "faults: " + ", ".join(f"{count} {name}" for name, count in found.faults.items()),
        "",
        *(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.found}" for check in found.checks),
        "",
        *(f"{count:>8} {cause}" for cause, count in sorted(found.causes.items(), key=lambda one: -one[1])),
        "",
        "minute  answers  p50 ms  p99 ms",
        *(f"{minute:>6}  {count:>7}  {p50:>6.1f}  {p99:>6.1f}" for minute, count, p50, p99 in found.latencies),
    ]
    return "\n".join(lines)


def write_json(found: Found, path: Path) -> None:
    """Write all of it."""
    path.write_text(json.dumps(asdict(found), indent=1) + "\n")


def picture(found: Found, path: Path) -> None:
    """Draw memory, descriptors, tasks and requests over time."""
    minutes = [sample.at_s / 60 for sample in found.samples]
    rates = [0.0] + [
        (two.requests - one.requests) / (two.at_s - one.at_s)
        for one, two in zip(found.samples, found.samples[1:], strict=False)
    ]
    curves = {
        "resident memory, MB": [sample.rss_kb / 1024 for sample in found.samples],
        "file descriptors": [sample.fds for sample in found.samples],
        "tasks": [sample.tasks for sample in found.samples],
        "requests/s": rates,
    }
    figure, axes = plt.subplots(len(curves), 1, sharex=True, figsize=(8, 6.4), layout="constrained")
    for axis, (name, values) in zip(axes, curves.items(), strict=True):
        axis.plot(minutes, values, linewidth=1, color="#1f5fa8")
        axis.axvspan(0, warm_up_s(found.duration_s) / 60, color="#999999", alpha=0.15, linewidth=0)
        axis.set_ylim(bottom=0)
        axis.set_title(name, loc="left", fontsize=9)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes (grey: warm-up)")
    figure.savefig(path, dpi=100)  # pyright: ignore[reportUnknownMemberType] - untyped in matplotlib
    plt.close(figure)
