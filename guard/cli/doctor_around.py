"""`guard doctor` tries to reach the model around Guard.

Every look is one that changes nothing: a connection, a GET, a scoring request that holds no query. Hosts are the ones
that the operator named, and this machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from guard.cli.findings import Finding, Level
from guard.cli.sockets import bound, own_addresses, reaches, resolved, speaks_http2
from guard.errors import UpstreamError

if TYPE_CHECKING:
    from guard.ports import Headers
    from guard.proxy.plans import Active

_LOOK_S = 3.0
_REFUSALS = (401, 403, 407)


@dataclass(frozen=True, slots=True)
class Asked:
    """How the model is asked, so that it can be tried without Guard.

    Args:
        targets: scoring endpoints, one a route, as (method, path).
        credential: Guard adds headers of its own, which the model may ask for.
    """

    targets: tuple[tuple[str, str], ...] = ()
    credential: bool = False


def asked_of(active: Active) -> Asked:
    """Return how the policy's routes ask the model."""
    targets: dict[tuple[str, str], None] = {}
    for route in active.plan.routes:
        for opened in route.endpoints:
            endpoint = opened.endpoint
            if endpoint.access == "scoring":
                targets[endpoint.method, re.sub(r"\{\w+\}", "guard-doctor", endpoint.template)] = None
                break
    return Asked(tuple(targets)[:3], bool(active.added))


@dataclass(frozen=True, slots=True)
class Way:
    """A door that model servers open beside the one that Guard stands in front of.

    Args:
        port: where it is; 0 is the model's own port.
        what: what it gives to whoever finds it.
        method: HTTP method; empty for gRPC, which is tried by its first frame.
        path: what to ask.
        mark: pattern that its answer holds, so that another program is not taken for it.
    """

    port: int
    what: str
    method: str = ""
    path: str = ""
    mark: bytes = b""


_INDEX = "models can be listed, loaded and unloaded (Open Inference repository)"
WAYS = (
    Way(0, _INDEX, "POST", "/v2/repository/index", rb"^\s*\[.*\]\s*$"),
    Way(5000, "scoring by HTTP (MLflow)", "GET", "/version", rb"^\d+\.\d+\.\d+\w*\s*$"),
    Way(7070, "scoring by gRPC (TorchServe)"),
    Way(7071, "models can be added and removed by gRPC (TorchServe management)"),
    Way(8000, "scoring by HTTP (Triton)", "GET", "/v2", rb'"extensions"'),
    Way(8000, "text generation (vLLM)", "GET", "/v1/models", rb'"owned_by"\s*:\s*"vllm"'),
    Way(8001, "scoring by gRPC (Triton, KServe)"),
    Way(8002, "metrics (Triton)", "GET", "/metrics", rb"nv_"),
    Way(8080, "scoring by HTTP (MLServer, KServe)", "GET", "/v2", rb'"extensions"'),
    Way(8080, "scoring by HTTP (TorchServe)", "GET", "/ping", rb'"Healthy"'),
    Way(8080, "text generation (llama.cpp)", "GET", "/v1/models", rb'"owned_by"\s*:\s*"llamacpp"'),
    Way(8081, "scoring by gRPC (MLServer)"),
    Way(8081, "models can be listed, added and removed (TorchServe management)", "GET", "/models", rb'"models"'),
    Way(8082, "metrics (MLServer, TorchServe)", "GET", "/metrics", rb"# HELP"),
    Way(8265, "code can be run (Ray dashboard)", "GET", "/api/version", rb"ray_version"),
    Way(8500, "scoring by gRPC (TensorFlow Serving)"),
    Way(8501, "scoring by HTTP (TensorFlow Serving)", "GET", "/v1/models/guard-doctor", rb"any versions of model"),
    Way(9000, "scoring by gRPC (OpenVINO Model Server, Seldon)"),
    Way(11434, "text generation, and models can be replaced (Ollama)", "GET", "/api/version", rb'^\{"version":'),
)


async def around_findings(
    url: str,
    asked: Asked = Asked(),
    addresses: Callable[[], list[str]] | None = None,
    own: Iterable[int] = (),
    ways: tuple[Way, ...] = WAYS,
    resolve: Callable[[str], list[str]] = resolved,
) -> list[Finding]:
    """Nobody else reaches the model without Guard, as far as can be seen from here.

    Args:
        url: the model's.
        asked: how it is asked.
        addresses: gives this machine's addresses other than loopback.
        own: Guard's own ports.
        ways: what else is tried.
        resolve: returns a host's addresses.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    tried = tuple(way for way in ways if way.port not in (port, *own))
    if not all(map(is_loopback, await asyncio.to_thread(resolve, host) or [host])):
        # Guard closes what else the model's own port gives, but whoever reaches the port has it.
        own_port = [_own_way(url, way) for way in ways if not way.port]
        found = await asyncio.gather(*own_port, *_ways([host], tried))
        return [*await _across(url, host, asked), *_at("warn", found)]
    others = (addresses or own_addresses)()
    for address in others:
        if await reaches(address, port):
            found = await _answers(f"{parts.scheme}://{bracketed(address)}:{port}{parts.path.rstrip('/')}", asked)
            message = f"the model also answers on {address}:{port}, around Guard{found}; bind it to 127.0.0.1"
            return [Finding("fail", "around", message), *_at("fail", await asyncio.gather(*_ways(others, tried)))]
    wide = [] if addresses else bound(port)
    beside = _at("fail", await asyncio.gather(*_ways(others, tried)))
    if wide:
        message = f"the model listens on {wide[0]}:{port}, though nothing here reaches it there; bind it to 127.0.0.1"
        return [Finding("warn", "around", message), *beside]
    return [Finding("ok", "around", "the model answers on loopback only"), *beside]


async def _across(url: str, host: str, asked: Asked) -> list[Finding]:
    """Look at a model across a network: from here it is reached by design, so what counts is what it asks for."""
    found = await _answers(url, asked)
    if found and asked.credential:
        message = f"the model answers scoring requests without the credential that Guard adds{found}"
        return [Finding("fail", "around", f"{message}; let it refuse those, and only Guard reach it")]
    if found:
        message = f"the model answers scoring requests to whoever reaches {host}, without Guard{found}"
        return [Finding("warn", "around", f"{message}; make sure that only Guard can: a NetworkPolicy, a firewall")]
    message = f"the model listens on {host}, which this machine reaches over a network: make sure that only Guard can"
    return [Finding("warn", "around", message)]


async def _answers(url: str, asked: Asked) -> str:
    """Say which scoring request the model answers without any credential; empty when none."""
    for method, path in asked.targets:
        status, _ = await _http(url, method, path)
        if status and status not in _REFUSALS:
            return f": {method} {path} without a credential is answered with {status}"
    return ""


def _ways(hosts: list[str], ways: tuple[Way, ...]) -> list[Coroutine[None, None, Finding | None]]:
    """Try the doors that model servers open."""
    return [_way(bracketed(host), way) for host in hosts for way in ways if way.port]


def _at(level: Level, findings: Iterable[Finding | None]) -> list[Finding]:
    """Return what was found, at most as bad as `level`."""
    return [replace(f, level=level if f.level == "fail" else f.level) for f in findings if f is not None]


async def _own_way(url: str, way: Way) -> Finding | None:
    status, body = await _http(url, way.method, way.path)
    if status == 200 and re.search(way.mark, body, re.DOTALL):
        return Finding("fail", "around", f"{url}{way.path}: {way.what} by whoever reaches it")
    return None


async def _way(host: str, way: Way) -> Finding | None:
    if not await reaches(host.strip("[]"), way.port):
        return None
    if way.method:
        status, body = await _http(f"http://{host}:{way.port}", way.method, way.path)
        there = bool(status) and re.search(way.mark, body) is not None
    else:
        there = await speaks_http2(host.strip("[]"), way.port)
    if not there:
        return None
    message = f"{host}:{way.port} is open beside Guard: {way.what}; close it, or let nobody reach it"
    return Finding("warn" if way.what.startswith("metrics") else "fail", "around", message)


async def _http(url: str, method: str, path: str) -> tuple[int, bytes]:
    """Ask without a credential; status 0 when there was no answer."""
    from guard.upstream.http import HttpUpstream

    # Nothing secret is sent, so it does not matter who answers; that somebody does, does.
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    client = HttpUpstream(url, connect_timeout_s=1.0, max_response_bytes=2**16, ssl_context=unverified)
    headers: Headers = [(b"content-type", b"application/json")] if method == "POST" else []
    try:
        reply = await client.send(method.encode(), path.encode(), headers, b"{}" if method == "POST" else b"", _LOOK_S)
    except UpstreamError:
        return 0, b""
    finally:
        await client.aclose()
    return reply.status, reply.body


def is_loopback(host: str) -> bool:
    """Say whether an address, or the usual name, is this machine's own and leads nowhere else."""
    try:
        address = ipaddress.ip_address(host)
        # What connects to the unspecified address connects to itself.
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return host == "localhost"


def bracketed(host: str) -> str:
    """Return a host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
