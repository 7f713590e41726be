"""Runs recordings under a policy, beside another one or beside what was recorded."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from guard.evidence.bodies import Asked
from guard.policy.plan import Plan
from guard.proxy.secret import derived
from guard.replay.bodies import Bodies
from guard.replay.compare import Comparison, Side
from guard.replay.engine import Engine
from guard.replay.seen import recorded
from guard.replay.sketches import Sketches
from guard.replay.traffic import Kind, Nothing, ReplayError, Source, Traffic, Wanted
from guard.telemetry.recorder import NameKey

_AT_ONCE = 32
"""Requests between two looks at whether somebody wants to stop."""


class Secret(NamedTuple):
    """What noise, digests and salts are keyed with.

    Args:
        key: 32 bytes.
        real: it is the deployment's, and not made from a seed.
        seed: that it was made from otherwise.
    """

    key: bytes
    real: bool
    seed: int = 0


@dataclass(slots=True)
class Result:
    """What a replay found.

    Args:
        comparison: the figures.
        source: what was replayed.
        total: requests that there were.
        plans: the old policy, None for what was recorded, and the new.
        secret: what noise was keyed with.
        missing: rows of sketches of which something could not be replayed, by category of `sketched.MISSING`.
        skipped: requests that were not replayed, by reason.
        unmatched: exceptions whose clients could not be found.
        enforced: requests that were recorded while their route enforced.
        seconds: that the replay took.
        partial: it was interrupted.
    """

    comparison: Comparison
    source: Source
    total: int
    plans: tuple[Plan | None, Plan]
    secret: Secret
    missing: dict[str, int] = field(default_factory=dict[str, int])
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    unmatched: int = 0
    enforced: int = 0
    seconds: float = 0.0
    partial: bool = False


def of_seed(seed: int) -> Secret:
    """Return a secret that anybody can make."""
    return Secret(hashlib.blake2b(b"%d" % seed, digest_size=32, person=b"guard replay").digest(), real=False, seed=seed)


def open_traffic(paths: Iterable[Path], kind: Kind | None, wanted: Wanted) -> Traffic:
    """Return what is recorded.

    Args:
        paths: directories and single files.
        kind: which recordings; None takes bodies where there are any.
        wanted: which requests.

    Raises:
        Nothing: there is nothing to replay.
        ReplayError: recordings that cannot be read.
        OSError: likewise.
    """
    found: list[Path] = []
    for given in paths:
        if not given.is_dir() and (not given.exists() or given.suffix not in (".bodies", ".rec")):
            raise ReplayError(f"{given} is no directory of recordings and no .bodies or .rec file")
        found += sorted(given.iterdir()) if given.is_dir() else [given]
    bodies = [path for path in found if path.suffix == ".bodies"]
    sketches = [path for path in found if path.suffix == ".rec"]
    if kind == "bodies" and not bodies:
        raise Nothing("no bodies are recorded there: guard serve --record DIR --record-bodies makes them")
    if not bodies and not sketches:
        raise Nothing("nothing is recorded there: guard serve --record DIR makes recordings")
    traffic: Traffic
    if bodies and kind != "sketches":
        traffic = Bodies(bodies, wanted)
        if sketches and kind is None:
            traffic.source.doubts.append(
                "sketches are recorded beside these bodies, and were not looked at: --from sketches replays them"
            )
    else:
        traffic = Sketches(sketches, wanted)
        if not len(traffic) and wanted.route is not None and wanted.route not in traffic.source.routes:
            known = ", ".join(traffic.source.routes) or "none"
            raise Nothing(f"there are no recordings of route {wanted.route}, only of {known}")
    if not len(traffic):
        raise Nothing("nothing is recorded in that time")
    return traffic


def check_secret(secret: Secret, source: Source) -> Callable[[str], str] | None:
    """Return what names clients as the recordings do; None when the secret is not known.

    Raises:
        ReplayError: it is another one than the recordings were made with.
    """
    if not secret.real:
        return None
    names = NameKey(derived(secret.key, b"guard pseudonyms"))
    if names.id not in source.keys:
        raise ReplayError("this secret is not the one that the recordings were made with: their pseudonyms say so")
    return names.pseudonym


async def replay(
    traffic: Traffic,
    plans: tuple[Plan | None, Plan],
    names: tuple[str, str],
    secret: Secret,
    progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Run all requests; cancelling ends it with what was done until then.

    Args:
        traffic: what to run.
        plans: the old policy, None for what was recorded, and the new, compiled with the salt that `secret` gives.
        names: what they are called.
        secret: keys noise.
        progress: told how many requests are done.

    Raises:
        ReplayError: a file is damaged, or a policy has no route for what was recorded.
    """
    pseudonym = check_secret(secret, traffic.source)
    old = None if plans[0] is None else Engine(plans[0], secret.key, pseudonym)
    new = Engine(plans[1], secret.key, pseudonym)
    comparison = Comparison(Side(names[0]), Side(names[1]))
    result = Result(comparison, traffic.source, len(traffic), plans, secret, unmatched=new.unmatched)
    began_s = time.monotonic()
    try:
        for done, request in enumerate(traffic, 1):
            seen = await new.ask(request)
            before = recorded(request) if old is None else await old.ask(request)
            if seen is not None and before is not None:
                comparison.add(request.client, request.now_s, before, seen)
            result.enforced += isinstance(request, Asked) and request.mode == "enforce"
            if done % _AT_ONCE == 0:
                progress(done)
                await asyncio.sleep(0)
    except asyncio.CancelledError:
        result.partial = True
    result.missing = dict(new.missing)
    result.skipped = dict(new.skipped if old is None else new.skipped | old.skipped)
    result.seconds = time.monotonic() - began_s
    return result
