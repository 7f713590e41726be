"""Why a Redis or Valkey server may lose what it has acknowledged, read from its own settings.

What cannot be read counts as may be lost. An answer is spoiled by one lost charge, so only what is on the disk before
the reply is good enough; and no setting makes a failover keep every acknowledged write, because replication is
asynchronous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETTINGS = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")
"""What is asked of `CONFIG GET`."""

_FAILOVER = (
    "replication is asynchronous, so that a failover may lose charges that were acknowledged"
    " (min-replicas-to-write makes that rarer, not impossible)"
)


def may_lose(config: Mapping[str, str] | None, replicas: int) -> list[str]:
    """Return why one server may lose acknowledged writes, in words.

    Args:
        config: its settings; None when it does not show them.
        replicas: that are connected to it.

    >>> safe = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no", "maxmemory": "0",
    ...         "maxmemory-policy": "noeviction"}
    >>> may_lose(safe, 0), may_lose({**safe, "appendonly": "no"}, 0)
    ([], ['appendonly is not yes: a restart forgets what came after the last snapshot'])
    """
    why: list[str] = []
    if config is None or any(name not in config for name in SETTINGS):
        why.append("CONFIG GET is refused, so that nobody knows what it keeps")
    elif config["appendonly"] != "yes":
        why.append("appendonly is not yes: a restart forgets what came after the last snapshot")
    else:
        if config["appendfsync"] != "always":
            why.append("appendfsync is not always: a crash loses the last two seconds")
        if config["no-appendfsync-on-rewrite"] != "no":
            why.append("no-appendfsync-on-rewrite is not no: a crash during a rewrite loses more than that")
    if config is not None and config.get("maxmemory", "0") != "0" and config.get("maxmemory-policy") != "noeviction":
        why.append("maxmemory-policy is not noeviction: counters leave when memory is short")
    if replicas:
        why.append(_FAILOVER)
    return why


def in_words(kind: str, servers: Sequence[Sequence[str]]) -> str:
    """Put together what `may_lose` said of each server, each reason once.

    Args:
        kind: what the URL names: empty for one server, `sentinel` or `cluster`.
        servers: one list for each primary.

    >>> in_words("", [[]]), in_words("cluster", [["a"], ["b", "a"]]).partition("replication")[0]
    ('', 'redis: a; b; ')
    """
    why = dict.fromkeys(reason for reasons in servers for reason in reasons)
    if kind:
        why[_FAILOVER] = None
    return f"redis: {'; '.join(why)}" if why else ""
