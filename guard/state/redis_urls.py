"""From a state's URL to a client of redis-py: one server, Sentinel or Cluster.

No client retries a command by itself: after a lost connection nobody knows whether the script ran, and running it again
would charge twice. What is lost is refused, and the next command connects anew.

A server that does not answer must be noticed by redis-py itself, which then asks a cluster who has its slots now, or
another sentinel who the master is: so its own timeouts are shorter than the one around each command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from guard.errors import StateError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_SENTINEL_PORT, _REDIS_PORT = 26379, 6379
_SOCKET_SHARE = 0.75
"""Of a command's timeout: the longest wait for one connection, and for one read."""


class Client(Protocol):
    """What is used of redis-py's three clients."""

    def execute_command(self, *args: bytes | str | int) -> Awaitable[bytes]:
        """Send one command and return its reply."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Close all connections."""
        ...


Command = Callable[..., Awaitable[Any]]  # Any: what redis-py makes of a reply depends on the command


class _Options(TypedDict):
    username: str | None
    password: str | None
    socket_timeout: float
    socket_connect_timeout: float
    protocol: int


def connect(url: str, timeout_s: float) -> list[Client]:
    """Return the clients for `url`: the first takes the commands, and all want closing. Nothing is sent yet.

    Args:
        url: `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://` (`rediss+…` for TLS).
        timeout_s: what a command may take; connecting, and each read, may take three quarters of it.

    Raises:
        StateError: the URL cannot be understood. Its message does not repeat the URL, which may hold a password.
    """
    try:
        return _connect(url, timeout_s * _SOCKET_SHARE)
    except ValueError as error:
        raise StateError(f"the {url.partition(':')[0]} URL of the state cannot be understood: {error}") from error


async def primaries(client: Client) -> list[Command]:
    """Return what sends a command to each server that takes writes: one, or as many as a cluster has shards."""
    if not isinstance(client, RedisCluster):
        return [client.execute_command]
    await client.initialize()
    return [partial(client.execute_command, target_nodes=node) for node in client.get_primaries()]


async def let_go(client: Client, *, noticed: bool) -> None:
    """Close the connections that nobody uses now, once one of them gave no answer: the others may be as dead.

    Otherwise a firewall that has lost its table costs a timeout for each of them, one after the other.

    Args:
        client: takes the commands.
        noticed: redis-py itself ran out of time. Of a cluster it has then done the same for the server that hangs, and
            asks who has its slots; those of other shards are none of it.
    """
    if not isinstance(client, RedisCluster):
        await cast("Redis", client).connection_pool.disconnect(inuse_connections=False)
    elif not noticed:
        await client.aclose()


def _connect(url: str, timeout_s: float) -> list[Client]:
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    tls = scheme == "rediss"
    # The three clients share no base that types these methods: hence the casts to what is used of them.
    if not kind:
        plain = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - redis-py leaves its **kwargs untyped
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), protocol=2
        )
        return [cast("Client", plain)]
    options: _Options = {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "protocol": 2,
    }
    if kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in _hosts(parts, _REDIS_PORT)]
        cluster = RedisCluster(startup_nodes=nodes, ssl=tls, retry=Retry(NoBackoff(), 0), **options)
        return [cast("Client", cluster)]
    service, _, db = parts.path.removeprefix("/").partition("/")
    if not service:
        raise ValueError("it names no service, as in redis+sentinel://host:26379/mymaster")
    hosts = _hosts(parts, _SENTINEL_PORT)
    each_s = timeout_s / (len(hosts) + 1)  # all of them can be asked, and the master too
    of_sentinels = {
        "socket_timeout": each_s,
        "socket_connect_timeout": each_s,
        "protocol": 2,
        "ssl": tls,
        "retry": Retry(NoBackoff(), 0),
    }
    sentinels = Sentinel(  # pyright: ignore[reportUnknownVariableType] - untyped in redis-py
        hosts,
        sentinel_kwargs=of_sentinels,
        ssl=tls,
        db=int(db or 0),
        retry=Retry(NoBackoff(), 0),
        **options,
    )
    master = sentinels.master_for(unquote(service))  # pyright: ignore[reportUnknownMemberType] - same
    return [cast("Client", master), *cast("list[Client]", sentinels.sentinels)]


def _hosts(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """Return the (host, port) pairs of `user:password@host:port,[::1]:port`.

    >>> _hosts(urlsplit("redis+cluster://me:secret@a:1,[::1]:2,b"), 6379)
    [('a', 1), ('::1', 2), ('b', 6379)]
    """
    hosts: list[tuple[str, int]] = []
    for part in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{part}")
        if not one.hostname:
            raise ValueError("it names no host")
        hosts.append((one.hostname, one.port or default_port))
    return hosts
