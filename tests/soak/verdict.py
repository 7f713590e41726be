"""What the samples and the answers say: flat memory, nothing left open, every failure explained. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

if TYPE_CHECKING:
    from tests.soak.samples import Sample

MOST_GROWTH = 0.05
MOST_LOG_BYTES = 2**20
WARM_UP_S, WARM_UP_SHARE = 120.0, 0.25
_BLOCK_S = 15.0


@dataclass(frozen=True)
class Growth:
    """A line through memory over time, after the warm-up.

    Args:
        start_kb: where the line begins.
        share: by how much of that it rises until the end.
        low: lower end of the 95% interval of `share`.
        high: upper end.
        blocks: means of `_BLOCK_S` that it was fitted to.
    """

    start_kb: float
    share: float
    low: float
    high: float
    blocks: int


@dataclass(frozen=True)
class Check:
    """One thing that must hold."""

    name: str
    ok: bool
    found: str


def warm_up_s(duration_s: float) -> float:
    """Return how long memory may grow: two minutes, or a quarter of a longer run. Then all that is bounded is full."""
    return max(WARM_UP_S, WARM_UP_SHARE * duration_s)


def growth(samples: Sequence[Sample], duration_s: float) -> Growth:
    """Fit a line to anonymous memory behind the warm-up.

    Samples close to each other are alike, which would make the interval too narrow: blocks are averaged first, and what
    correlation is left between neighbours widens it (the lag-one correction of the standard error).
    """
    begin = warm_up_s(duration_s)
    blocks: dict[int, list[float]] = {}
    for sample in samples:
        if begin <= sample.at_s <= duration_s:
            blocks.setdefault(int(sample.at_s // _BLOCK_S), []).append(sample.private_kb)
    if len(blocks) < 4:
        raise ValueError("too few samples after the warm-up")
    x = np.array([(number + 0.5) * _BLOCK_S for number in blocks])
    y = np.array([np.mean(values) for values in blocks.values()])
    x = (x - x[0]) / (x[-1] - x[0])
    design = np.stack([np.ones_like(x), x], axis=1)
    (start, rise), *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ np.array([start, rise])
    n = len(y)
    alike = float(np.clip(rest[1:] @ rest[:-1] / max(rest @ rest, 1e-9), 0.0, 0.9))
    error = np.sqrt(rest @ rest / (n - 2) / ((x - x.mean()) @ (x - x.mean())) * (1 + alike) / (1 - alike))
    reach = float(student.ppf(0.975, n - 2)) * error  # pyright: ignore[reportUnknownMemberType] - scipy is untyped
    return Growth(float(start), float(rise / start), float((rise - reach) / start), float((rise + reach) / start), n)


def checks(
    samples: Sequence[Sample],
    before: Sample,
    after: Sample,
    duration_s: float,
    most_redis: int,
    wrong: Mapping[str, Sequence[str]],
    tracebacks: int,
) -> list[Check]:
    """Judge a run.

    Args:
        samples: taken during the load.
        before: at rest, when everything had been used once.
        after: at rest, behind the load.
        duration_s: of the load.
        most_redis: connections to Redis that the pool may keep.
        wrong: what must be empty, by what it is.
        tracebacks: in the log.
    """
    line = growth(samples, duration_s)
    grown = (
        f"{line.share:+.2%} [{line.low:+.2%}, {line.high:+.2%}] of {line.start_kb / 1024:.1f} MB, {line.blocks} blocks"
    )
    others = (before.fds - before.redis, after.fds - after.redis)
    new = [name.rpartition("/")[2] for name in after.files if name not in before.files]
    more = f", new files: {', '.join(new)}" if new else ""
    found = [
        Check("memory grows by less than 5% behind the warm-up", line.high < MOST_GROWTH, grown),
        Check(
            "file descriptors are back, without Redis's", others[1] <= others[0], f"{others[0]} then {others[1]}{more}"
        ),
        Check("connections to Redis are bounded", after.redis <= most_redis, f"{after.redis} of at most {most_redis}"),
        Check("tasks are back", after.tasks <= before.tasks, f"{before.tasks} then {after.tasks}"),
        Check("threads are back", after.threads <= before.threads + 1, f"{before.threads} then {after.threads}"),
        Check("nothing is in flight", after.in_flight == 0, str(after.in_flight)),
        Check("the log is short", after.log_bytes < MOST_LOG_BYTES, f"{after.log_bytes} bytes"),
        Check("the log has no tracebacks", tracebacks == 0, str(tracebacks)),
    ]
    return found + [Check(name, not what, "; ".join(what[:3]) or "none") for name, what in wrong.items()]
