"""The options of `guard serve`, which `guard doctor` takes too, and what they mean."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import add_option, add_switch
from guard.cli.upstreams import Models, add_upstreams, check_own
from guard.telemetry.logs import FORMATS, LEVELS

if TYPE_CHECKING:
    from guard.proxy.grpc_front import Grpc
    from guard.proxy.tls import Tls
    from guard.telemetry.tracing import TraceOptions

_SHORTEST_TOKEN = 16
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_options(parser: argparse.ArgumentParser, admin: str = "127.0.0.1:9001") -> None:
    """Add the options.

    Args:
        parser: the command's.
        admin: default of `--admin`.
    """
    presets = "observe, balanced, strict, label-only, private-ensemble, llm"
    add_option(parser, "--policy", help=f"policy file, or the name of a preset: {presets}")
    add_option(
        parser, "--api", help="the API of routes that name none: open_inference, mlflow, ... (default: open_inference)"
    )
    add_upstreams(parser)
    add_option(parser, "--listen", default="127.0.0.1:9000", help="address of the data listener (default: %(default)s)")
    add_option(parser, "--grpc-listen", help="serve Open Inference over gRPC on this address; needs the [grpc] extra")
    add_option(
        parser,
        "--admin",
        default=admin,
        help="address of the admin listener, or `off` (default: %(default)s)",
    )
    add_option(
        parser,
        "--state",
        default="sqlite:guard.db",
        help="memory:, sqlite:PATH or redis://HOST:PORT (default: %(default)s)",
    )
    add_option(
        parser, "--secret-file", default=None, help="file with the noise secret; otherwise GUARD_SECRET, or one is made"
    )
    add_option(
        parser,
        "--audit",
        help="file:PATH, stdout or syslog:ADDRESS: a line for every decision, chained and signed (default: none)",
    )
    add_option(
        parser,
        "--record",
        default=None,
        metavar="DIR",
        help="write calibration traffic there, for guard calibrate: features, top scores, times; never a raw body",
    )
    add_switch(
        parser,
        "--record-bodies",
        help="with --record: whole requests and answers too, for guard replay; they are raw inputs",
    )
    add_option(parser, "--tls-cert", help="PEM file: serve HTTPS with this certificate and its chain")
    add_option(parser, "--tls-key", help="PEM file: the certificate's private key")
    add_option(parser, "--tls-client-ca", help="PEM file: ask clients for certificates of this issuer")
    add_switch(parser, "--tls-client-required", help="refuse connections without a client certificate")
    add_switch(parser, "--admin-tls", help="serve the admin listener over HTTPS too, with the same certificate")
    add_option(
        parser, "--admin-token-file", help="file with the token that the admin listener asks for; needed off loopback"
    )
    add_switch(
        parser, "--tracing", help="send OpenTelemetry traces as the OTEL_* variables say; needs the [otel] extra"
    )
    add_switch(
        parser,
        "--tracing-trust-parent",
        help="go on with the traces of clients, whose flag then decides what is sampled; only where all may be trusted",
    )
    add_option(
        parser,
        "--tracing-limit",
        default=100.0,
        kind=positive,
        metavar="N",
        help="traces a second at most, whatever is sampled (default: 100)",
    )
    add_option(parser, "--selftest-report", help="a guard selftest JSON report that the console shows")
    # For the self-test, whose attackers wait for days; whoever can start Guard with it could set the machine's clock.
    parser.add_argument("--test-clock", default=None, help=argparse.SUPPRESS)
    add_option(parser, "--log-level", default="info", choices=LEVELS, help="how much is told (default: %(default)s)")
    add_option(parser, "--log-format", default="text", choices=FORMATS, help="text or json (default: %(default)s)")


def address(text: str, option: str) -> tuple[str, int]:
    """Read `host:port`, `[v6]:port` or `:port`.

    Raises:
        ValueError: it is none of these.
    """
    host, colon, port = str(text).rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{option} must be HOST:PORT, got {text}")
    return host.strip("[]") or "127.0.0.1", int(port)


def check_audit(text: str | None) -> None:
    """Check `file:PATH`, `stdout` or `syslog:ADDRESS`.

    Raises:
        ValueError: it is none of these.
    """
    from guard.proxy.audit import where_of

    if text:
        where_of(text)


def token_of(file: str | None) -> str | None:
    """Read the admin listener's token: a file's content, or GUARD_ADMIN_TOKEN.

    Raises:
        ValueError: it is too short, or no text.
        OSError: the file cannot be read.
    """
    try:
        found = Path(file).read_text(encoding="utf-8") if file else os.environ.get("GUARD_ADMIN_TOKEN")
    except UnicodeDecodeError:
        raise ValueError(f"--admin-token-file {file} is no text") from None
    if found is not None and len(found.strip()) < _SHORTEST_TOKEN:
        raise ValueError(f"the admin token must have at least {_SHORTEST_TOKEN} characters")
    return None if found is None else found.strip()


def tls_of(args: argparse.Namespace) -> Tls | None:
    """Return where certificates are; None for plain HTTP.

    Raises:
        ValueError: an option lacks another one.
    """
    from guard.proxy.tls import Tls

    given = {name: getattr(args, f"tls_{name}") for name in ("cert", "key", "client_ca")}
    if not given["cert"] or not given["key"]:
        if any(given.values()) or args.tls_client_required or args.admin_tls:
            raise ValueError("TLS needs both --tls-cert and --tls-key")
        return None
    if args.tls_client_required and not given["client_ca"]:
        raise ValueError("--tls-client-required needs --tls-client-ca")
    authority = Path(given["client_ca"]) if given["client_ca"] else None
    return Tls(Path(given["cert"]), Path(given["key"]), authority, args.tls_client_required)


def grpc_of(args: argparse.Namespace, models: Models) -> Grpc | None:
    """Return where gRPC is served; None for nowhere.

    Raises:
        ValueError: an option lacks the other one.
        GuardError: the extra is not installed.
    """
    if not args.grpc_listen or not models:
        if args.grpc_listen or models:
            raise ValueError("gRPC needs both --grpc-listen and --grpc-upstream")
        return None
    from guard.proxy.grpc_front import Grpc
    from guard.proxy.grpc_listener import check_installed

    check_installed()
    listen = address(args.grpc_listen, "--grpc-listen")
    check_own(models, listen, "--grpc-listen")
    return Grpc(listen, models)


def tracing_of(args: argparse.Namespace, scheme: str) -> TraceOptions | None:
    """Return what to trace; None for nothing.

    Raises:
        GuardError: the extra is not installed, or the OTEL_* variables ask for what it cannot do.
    """
    from guard.telemetry.tracing import TraceOptions, check_installed

    if not args.tracing:
        return None
    check_installed()
    return TraceOptions(scheme, args.tracing_trust_parent, args.tracing_limit)


def positive(text: str) -> float:
    """Read a number above 0.

    Raises:
        ValueError: it is none.
    """
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def join(pair: tuple[str, int]) -> str:
    """Write an address as `host:port`."""
    host, port = pair
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_admin(admin: tuple[str, int] | None, token: str | None) -> None:
    """Check that not everybody may look.

    Raises:
        ValueError: the admin listener needs a token and has none.
    """
    if admin is not None and token is None and admin[0] not in LOOPBACK:
        raise ValueError(
            "--admin shows policies and clients to whoever reaches it: off loopback it needs --admin-token-file"
        )
