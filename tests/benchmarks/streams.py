"""`make bench`: language models' answers through Guard, beside LiteLLM, mitmproxy and nginx, in one run, as ratios.

The proxy under test has one core to itself; what talks and what listens share the other. Contenders take turns within
every round, and what counts is the median over rounds. Guard runs preset `llm` with budgets that do not run out. The
section is put into docs/benchmarks.md, in the place of an older one or at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from tests.benchmarks.bench import LUA, UPSTREAM_CONF, Contender, cpu_model, cpu_us, free_port, load, running
from tests.benchmarks.chatter import PATH, Load, Timings, conversation
from tests.benchmarks.llm_contenders import (
    ANSWER,
    ASK,
    LOAD_CORE,
    ROOT,
    guard,
    litellm,
    mitmproxy,
    nginx,
    pid_of,
    start,
    turned,
)

HEADING = "## Language models: answers and streams"
STREAMS = 100
EAGER = Load(STREAMS, words=500, gap_s=0, seconds=4)
PACED = Load(STREAMS, words=60, gap_s=0.05, seconds=6)
"""What a reader sees of a fast model: twenty tokens a second in each stream."""


@dataclass(frozen=True)
class Goal:
    """A line of the table of goals.

    Args:
        name: what is compared.
        reached: the median over rounds.
        spread: least and most.
        goal: what is to be reached.
        least: the goal is a least one; otherwise a most.
        unit: behind figures.
    """

    name: str
    rounds: list[float]
    goal: float
    least: bool = True
    unit: str = ""

    def line(self) -> str:
        """Return the row."""
        reached = statistics.median(self.rounds)
        met = reached >= self.goal if self.least else reached <= self.goal
        sign = ">=" if self.least else "<="
        spread = f"[{min(self.rounds):.3g}, {max(self.rounds):.3g}]"
        missed = "" if met else " (missed)"
        return f"| {self.name} | {sign} {self.goal:g}{self.unit} | {reached:.3g}{self.unit} {spread}{missed} |"


@dataclass
class Part:
    """What one benchmark found.

    Args:
        goals: its lines in the table of goals.
        lines: its own tables.
    """

    goals: list[Goal]
    lines: list[str]


def chat(folder: Path, rounds: int, seconds: int) -> Part:
    """Whole answers: the upstream is nginx serving one, the load generator wrk."""
    upstream = free_port()
    url = f"http://127.0.0.1:{upstream}"
    (folder / "up.conf").write_text(UPSTREAM_CONF % {"dir": folder, "port": upstream})
    answer = folder / "www" / PATH.decode().removeprefix("/")
    answer.parent.mkdir(parents=True)
    answer.write_text(json.dumps(ANSWER))
    (folder / "m0.json").write_text(json.dumps(ASK))
    (folder / "m0.lua").write_text(LUA % (folder / "m0.json", PATH.decode()))
    contenders = [guard(folder, url), nginx(folder, upstream, "pass"), litellm(folder, url), mitmproxy(folder, url)]
    with contextlib.ExitStack() as stack:
        command = ["nginx", "-c", str(folder / "up.conf"), "-e", str(folder / "up.err")]
        stack.enter_context(running(command, LOAD_CORE, upstream, folder / "up.log"))
        start(stack, contenders, folder)
        for contender in contenders:
            load(folder, 0, 8, 2, contender.port)
        for number in range(rounds):
            for connections in (32, 1):
                for contender in turned(contenders, number):
                    pid = pid_of(contender)
                    before = cpu_us(pid)
                    result = load(folder, 0, connections, seconds, contender.port)
                    if result["bad"] or not result["n"]:
                        raise RuntimeError(f"{contender.name} failed: {result}")
                    result["cpu_us"] = (cpu_us(pid) - before) / result["n"]
                    result["rps"] = result["n"] / result["us"] * 1e6
                    contender.results.setdefault(("chat", connections), []).append(result)
            told(f"chat: round {number + 1} of {rounds}")
    return chat_part(contenders)


def chat_part(contenders: list[Contender]) -> Part:
    mine, *others = contenders
    goals: list[Goal] = []
    lines = [
        "| chat, whole answers | connections | requests/s | CPU µs a request | p50 ms | p99 ms |",
        "|---|" + "---|" * 5,
    ]
    targets = {("LiteLLM proxy", 32): 100, ("mitmproxy", 32): 15, ("LiteLLM proxy", 1): 50, ("mitmproxy", 1): 5}
    for connections in (32, 1):
        ours = mine.results["chat", connections]
        for other in others:
            theirs = other.results["chat", connections]
            ratios = [a["rps"] / b["rps"] for a, b in zip(ours, theirs, strict=True)]
            name = f"chat, {connections} connection{'s' * (connections > 1)}: requests/s ÷ {other.name}"
            if (other.name, connections) in targets:
                goals.append(Goal(name, ratios, targets[other.name, connections], unit=" times"))
        for contender in contenders:
            rows = contender.results["chat", connections]
            middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            lines.append(
                f"| {contender.name} | {connections} | {middle['rps']:,.0f} | {middle['cpu_us']:,.0f} "
                f"| {middle['p50'] / 1e3:.2f} | {middle['p99'] / 1e3:.2f} |"
            )
    return Part(goals, lines)


def talk(contender: Contender, upstream: int, what: Load) -> dict[str, float]:
    """Put streams through a contender, and return figures: seconds, and CPU in microseconds."""
    pid = pid_of(contender)
    gc.collect()
    gc.disable()
    try:
        timings, seconds, cpu = uvloop.run(
            conversation(upstream, contender.port, what, lambda: cpu_us(pid) if pid else 0.0)
        )
    finally:
        gc.enable()
    figures = {"tokens": timings.tokens / seconds, "cpu": cpu / timings.tokens, "busy": cpu / seconds / 1e6}
    for name, values in _timed(timings):
        # Of streams as fast as they go, too few may begin within the time to say anything of beginnings.
        cuts = statistics.quantiles(values, n=20) if len(values) > 1 else [math.nan] * 19
        figures |= {f"{name} p50": cuts[9] * 1e6, f"{name} p95": cuts[18] * 1e6}
    return figures


def _timed(timings: Timings) -> Iterator[tuple[str, list[float]]]:
    yield "first", timings.first_s
    yield "delay", timings.delay_s
    yield "lag", timings.lag_s
    yield "gap", timings.gap_s


def conversations(
    folder: Path, rounds: int, what: Load, name: str, *, direct: bool
) -> dict[str, list[dict[str, float]]]:
    """Let contenders take turns with the same load; return each one's figures, round by round."""
    upstream = free_port()
    url = f"http://127.0.0.1:{upstream}"
    contenders = [nginx(folder, upstream, name), guard(folder, url), guard(folder, url, scans=False)]
    with contextlib.ExitStack() as stack:
        start(stack, contenders, folder)
        if direct:
            contenders.append(Contender("no proxy", [], upstream))
        found: dict[str, list[dict[str, float]]] = {c.name: [] for c in contenders}
        os.sched_setaffinity(0, {LOAD_CORE})
        for number in range(rounds):
            for contender in turned(contenders, number):
                found[contender.name].append(talk(contender, upstream, what))
            told(f"{name}: round {number + 1} of {rounds}")
    return found


def tokens(folder: Path, rounds: int, seconds: int) -> Part:
    """Streams as fast as they go: every token is an event in a write of its own."""
    found = conversations(folder, rounds, replace(EAGER, seconds=2 * seconds), "tokens", direct=False)
    base, ours, _ = found.values()
    per_second = [a["tokens"] / b["tokens"] for a, b in zip(ours, base, strict=True)]
    per_cpu = [b["cpu"] / a["cpu"] for a, b in zip(ours, base, strict=True)]
    goals = [
        Goal(f"{STREAMS} streams as fast as they go: tokens/s ÷ nginx", per_second, 0.25),
        Goal("the same, tokens a second of the proxy's CPU ÷ nginx", per_cpu, 0.25),
    ]
    lines = [
        f"| {STREAMS} streams as fast as they go | tokens/s | proxy's core busy | CPU µs a token |",
        "|---|---|---|---|",
    ]
    for name, rows in found.items():
        lines.append(f"| {name} | {mid(rows, 'tokens'):,.0f} | {mid(rows, 'busy'):.0%} | {mid(rows, 'cpu'):.1f} |")
    return Part(goals, lines)


_EACH = ("lag", "added to every token", 200, "µs")


def latency(folder: Path, rounds: int, seconds: int) -> Part:
    """Streams at a reader's pace: what a proxy adds to the first token, and to every token."""
    what = replace(PACED, seconds=2 * seconds)
    found = conversations(folder, rounds, what, "latency", direct=True)
    _, scanning, plain, base = found.values()

    def added(ours: list[dict[str, float]], name: str, figure: str, most: float, unit: str) -> Goal:
        scale = 1e3 if unit == "ms" else 1
        values = [(a[figure] - b[figure]) / scale for a, b in zip(ours, base, strict=True)]
        return Goal(f"{name}, {figure.partition(' ')[2]}", values, most, least=False, unit=f" {unit}")

    goals = [
        added(ours, f"{name}{of}", f"{figure} {cut}", most, unit)
        for ours, of, figures in (
            (plain, ", without `secrets`", (("first", "added to the first token", 2, "ms"), _EACH)),
            (scanning, "", (_EACH,)),
        )
        for figure, name, most, unit in figures
        for cut in ("p50", "p95")
    ]
    pace = f"{STREAMS} streams of {1 / what.gap_s:.0f} tokens/s"
    return Part(goals, timed(pace, found))


def batches(folder: Path, rounds: int, seconds: int) -> Part:
    """Streams whose tokens come all at the same time: the last one waits until the proxy is through with the others."""
    what = replace(PACED, seconds=2 * seconds, together=True)
    found = conversations(folder, rounds, what, "batches", direct=True)
    return Part([], timed(f"the same, all {STREAMS} at once", found))


def timed(title: str, found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the table of how long things took."""
    names = [f"{name} {cut}" for name in ("first", "delay", "lag", "gap") for cut in ("p50", "p95")]
    lines = [f"| {title}, µs | {' | '.join(names)} | CPU µs a token |", "|---|" + "---|" * (len(names) + 1)]
    for name, rows in found.items():
        cells = " | ".join(f"{mid(rows, each):,.0f}" for each in names)
        lines.append(f"| {name} | {cells} | {mid(rows, 'cpu'):.1f} |")
    return lines


def mid(rows: list[dict[str, float]], figure: str) -> float:
    """Return a figure's median over rounds."""
    return statistics.median(row[figure] for row in rows)


def told(what: str) -> None:
    """Say how far it is."""
    print(what, file=sys.stderr, flush=True)


PARTS: dict[str, Callable[[Path, int, int], Part]] = {
    "chat": chat,
    "tokens": tokens,
    "latency": latency,
    "batches": batches,
}
"""Benchmarks by name; each is given a folder, a number of rounds, and the seconds of a run in a round."""


def report(parts: list[Part], rounds: int, seconds: int) -> str:
    """Return the section."""
    lines = [
        HEADING,
        "",
        f"Written by `make bench`: {rounds} rounds in which contenders take turns, runs of {seconds} s and more;",
        "medians over rounds [least, most]. The proxy has one core to itself, upstream and clients share the other.",
        "Every token is an event of its own (about 230 bytes), written by itself. *first*: from a request to its first",
        "token. *delay*: from a token's write to its arrival. *lag*: from the stream's newest write to an arrival:",
        "`secrets` holds a word back until the next one begins, so tokens come one late, and lag is what Guard takes",
        "to release them. *gap*: between two tokens.",
        "",
        f"{cpu_model()}, 2 cores, shared; Linux {platform.release()}, Python {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
        "| goal | to reach | reached |",
        "|---|---|---|",
        *(goal.line() for part in parts for goal in part.goals),
    ]
    for part in parts:
        lines += ["", *part.lines]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", choices=sorted(PARTS), help="one benchmark; writes nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args()
    missing = [tool for tool in ("nginx", "wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        print(f"make bench needs {', '.join(missing)}: apt-get install nginx-light wrk util-linux", file=sys.stderr)
        return 3
    found: list[Part] = []
    for name, part in PARTS.items():
        if options.only in (None, name):
            folder = ROOT / ".bench" / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            found.append(part(folder, options.rounds, options.seconds))
    text = report(found, options.rounds, options.seconds)
    print(text)
    if options.only is None:
        before, _, old = (options.out.read_text() if options.out.exists() else "").partition(HEADING)
        _, next_heading, after = old.partition("\n## ")
        options.out.write_text(f"{before.rstrip()}\n\n{text}{next_heading}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
