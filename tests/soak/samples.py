"""What a process holds, read from /proc, and from its own `/metrics`."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One look at the guard.

    Args:
        at_s: since the load began.
        private_kb: anonymous memory: what a leak makes grow. (Libraries count as private or shared by who else on the
            machine has them open.)
        rss_kb: resident memory, libraries included.
        fds: open file descriptors.
        redis: connections to Redis among them.
        model: connections to the model among them.
        threads: of the process.
        tasks: of its event loop, without those of the look itself.
        in_flight: requests.
        requests: since it started.
        log_bytes: size of its log.
        cpu_s: that it has used.
        redis_bytes: memory of Redis.
        redis_keys: keys in Redis.
        files: what is open that is no socket.
    """

    at_s: float
    private_kb: int
    rss_kb: int
    fds: int
    redis: int
    model: int
    threads: int
    tasks: int
    in_flight: int
    requests: int
    log_bytes: int
    cpu_s: float
    redis_bytes: int = 0
    redis_keys: int = 0
    files: tuple[str, ...] = ()


def memory_kb(pid: int) -> tuple[int, int]:
    """Return anonymous and resident memory of a process."""
    found = dict(re.findall(r"(\w+): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text()))
    return int(found["Anonymous"]), int(found["Rss"])


def descriptors(pid: int) -> list[str]:
    """Return what a process has open."""
    found: list[str] = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except OSError:
            continue  # closed meanwhile
    return found


def connected(opened: list[str], port: int) -> int:
    """Return how many of the descriptors are connections to a port."""
    inodes = {name[8:-1] for name in opened if name.startswith("socket:[")}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(words[2].endswith(f":{port:04X}") and words[9] in inodes for words in lines)


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    found = re.search(r"Threads:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def look(pid: int, log: Path, exposed: str, ports: tuple[int, int], began: float) -> Sample:
    """Take a sample.

    Args:
        pid: the guard's.
        log: its log.
        exposed: what `/metrics` said just now.
        ports: Redis's and the model's.
        began: when the load began, by the monotonic clock.
    """
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(exposed):
        for sample in family.samples:
            if sample.name in ("guard_tasks", "guard_requests_in_flight", "guard_requests_total"):
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
    opened = descriptors(pid)
    private_kb, rss_kb = memory_kb(pid)
    return Sample(
        at_s=time.monotonic() - began,
        private_kb=private_kb,
        rss_kb=rss_kb,
        fds=len(opened),
        redis=connected(opened, ports[0]),
        model=connected(opened, ports[1]),
        threads=threads(pid),
        tasks=int(values["guard_tasks"]),
        in_flight=int(values["guard_requests_in_flight"]),
        requests=int(values["guard_requests_total"]),
        log_bytes=log.stat().st_size,
        cpu_s=cpu_s(pid),
        files=tuple(sorted(name for name in opened if not name.startswith("socket:"))),
    )
