"""`--upstream` and `--upstream-file`: which model servers stand behind Guard.

One is a bare URL; several, for an ensemble, have names. The command line wins over the environment. The same server
twice would count one shard of the training data twice, which voids what an ensemble's sensitivity rests on, so it is
refused as far as URLs tell.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

Models = tuple[tuple[str, str], ...]
"""(name, URL) pairs; the name of a bare URL is empty."""

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})=(.*)")
_MOST_MODELS = 4096
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_PORTS = {"http": 80, "https": 443}
_GRPC_PORTS = {"grpc": 0, "grpcs": 0}
"""gRPC has no port of its own: one must be named."""


def add_upstreams(parser: argparse.ArgumentParser) -> None:
    """Add both options."""
    parser.add_argument(
        "--upstream",
        action="append",
        metavar="[NAME=]URL",
        help="URL of the model server, such as http://127.0.0.1:8080; for an ensemble NAME=URL, once a model; in the "
        "variable several stand apart by spaces or commas [GUARD_UPSTREAM]",
    )
    parser.add_argument(
        "--upstream-file",
        metavar="FILE",
        help="file with one NAME=URL a line instead; # begins a comment [GUARD_UPSTREAM_FILE]",
    )
    parser.add_argument(
        "--grpc-upstream",
        action="append",
        metavar="[NAME=]URL",
        help="grpc://HOST:PORT of the model server, or grpcs:// for TLS; several as --upstream [GUARD_GRPC_UPSTREAM]",
    )


def upstreams_of(args: argparse.Namespace, env: Mapping[str, str] = os.environ) -> Models:
    """Return the models that the options name, or else the environment; empty when neither names one.

    Raises:
        ValueError: what they name cannot be used.
        OSError: the file cannot be read.
    """
    given, file = list[str](args.upstream or ()), str(args.upstream_file or "")
    if not given and not file:
        given, file = env.get("GUARD_UPSTREAM", "").replace(",", " ").split(), env.get("GUARD_UPSTREAM_FILE", "")
    if given and file:
        raise ValueError("--upstream and --upstream-file are two ways to say the same; use one")
    return read(_lines(Path(file)) if file else given)


def grpc_upstreams_of(args: argparse.Namespace, env: Mapping[str, str] = os.environ) -> Models:
    """Return the models that `--grpc-upstream` names, or else the environment; empty when neither names one.

    Raises:
        ValueError: what they name cannot be used.
    """
    given = list[str](args.grpc_upstream or ()) or env.get("GUARD_GRPC_UPSTREAM", "").replace(",", " ").split()
    return read(given, "--grpc-upstream")


def read(texts: list[str], option: str = "--upstream") -> Models:
    """Read `URL` or `NAME=URL` texts.

    Args:
        texts: of `option`, which says what their schemes may be.
        option: `--upstream` or `--grpc-upstream`.

    Raises:
        ValueError: one is neither, several are not all named, or a name or a server stands there twice.

    >>> read(["a=http://10.0.0.1:8080", "b=http://10.0.0.2:8080/base"])
    (('a', 'http://10.0.0.1:8080'), ('b', 'http://10.0.0.2:8080/base'))
    """
    models: list[tuple[str, str]] = []
    names: set[str] = set()
    servers: dict[tuple[str, int, str], str] = {}
    for text in texts:
        name, url = _split(text)
        server = _server(url, option)
        if len(texts) > 1 and not name:
            raise ValueError(f"{option} {url} needs a name among several: NAME={url}")
        if name in names:
            raise ValueError(f"{option} {name} is named twice")
        if server in servers:
            raise ValueError(f"{option} {name} is the same server as {servers[server]}: its shard would count twice")
        names.add(name)
        servers[server] = name
        models.append((name, url))
    if len(models) > _MOST_MODELS:
        raise ValueError(f"{option} names {len(models)} models; at most {_MOST_MODELS} can be asked")
    return tuple(models)


def check_own(models: Models, listen: tuple[str, int], option: str = "--listen") -> None:
    """Refuse Guard's own address among the models.

    Raises:
        ValueError: it is.
    """
    own = (_host(listen[0]), listen[1])
    asked = option.replace("listen", "upstream")
    if any(_server(url, asked)[:2] == own for _, url in models):
        raise ValueError(f"{asked} is Guard's own {option} address: requests would go round in circles")


def shown(models: Models) -> str:
    """Say what is guarded: the URL of the only model, or how many there are."""
    return models[0][1] if len(models) == 1 else f"an ensemble of {len(models)} models"


def _lines(file: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in file.read_text("utf-8-sig").splitlines()]
    texts = [line for line in lines if line]
    if not texts:
        raise ValueError(f"--upstream-file {file} names no model")
    return texts


def _split(text: str) -> tuple[str, str]:
    named = None if text.startswith(("http://", "https://", "grpc://", "grpcs://")) else _NAMED.fullmatch(text)
    return ("", text) if named is None else (named[1], named[2])


def _server(url: str, option: str = "--upstream") -> tuple[str, int, str]:
    """Return host, port and base path, the same for every spelling of one server.

    Raises:
        ValueError: it is no URL of a server.
    """
    parts, ports = _parts(url), _PORTS if option == "--upstream" else _GRPC_PORTS
    try:
        port = ports.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ports or not parts.hostname or not port:
        raise ValueError(f"{option} must be {'://HOST:PORT or '.join(ports)}://HOST:PORT, got {url}")
    return _host(parts.hostname), port, parts.path.rstrip("/")


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _host(host: str) -> str:
    """Return a host's name in one spelling; the usual names of this machine, and every address of it, are one."""
    host = host.lower().rstrip(".")
    try:
        own = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        own = False
    return "127.0.0.1" if own or host in _LOOPBACK else host
