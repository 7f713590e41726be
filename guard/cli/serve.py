"""`guard serve`: stand in front of a model and harden every answer by policy."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from errno import EADDRINUSE
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import add_option, add_switch, fail
from guard.cli.upstreams import add_upstreams, check_own, shown, upstreams_of
from guard.errors import GuardError, PolicyError, StateError
from guard.telemetry import logs
from guard.telemetry.logs import FORMATS, LEVELS

if TYPE_CHECKING:
    from guard.proxy.tls import Tls
    from guard.telemetry.tracing import TraceOptions

_SHORTEST_TOKEN = 16
HELP = "stand in front of a model and harden every answer by policy"
EPILOG = """examples:
  guard serve --policy balanced --api open_inference --upstream http://127.0.0.1:8080
  guard serve --policy policy.yaml --upstream http://model:8080 --listen 0.0.0.0:9000 --state redis://redis:6379
  guard serve --policy observe --api mlflow --upstream http://127.0.0.1:5000    # changes nothing, counts everything
  guard serve --policy observe --api mlflow --upstream http://127.0.0.1:5000 --record traffic   # then: guard calibrate
  guard serve --policy ensemble.yaml --upstream a=http://10.0.0.1:8080 --upstream b=http://10.0.0.2:8080

One process is one core; more cores are more replicas on one Redis. SIGHUP reloads the policy, SIGTERM drains.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    presets = "observe, balanced, strict, label-only, private-ensemble"
    add_option(parser, "--policy", help=f"policy file, or the name of a preset: {presets}")
    add_option(
        parser, "--api", help="the API of routes that name none: open_inference, mlflow, ... (default: open_inference)"
    )
    add_upstreams(parser)
    add_option(parser, "--listen", default="127.0.0.1:9000", help="address of the data listener (default: %(default)s)")
    add_option(
        parser,
        "--admin",
        default="127.0.0.1:9001",
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


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    logs.configure(args.log_level, args.log_format)
    try:
        models = upstreams_of(args)
    except (ValueError, OSError) as error:
        return fail(str(error), code=2)
    if not args.policy or not models:
        missing = "--policy" if not args.policy else "--upstream"
        return fail(f"{missing} is missing", hint="for a first try: guard demo", code=2)
    # Imported here so that `guard --help` stays instant.
    from guard.proxy.load import load_active
    from guard.proxy.server import Settings, serve

    try:
        listen = address(args.listen, "--listen")
        admin = None if args.admin == "off" else address(args.admin, "--admin")
        token = _token(args.admin_token_file)
        _check_admin(admin, token)
        check_own(models, listen)
        _check_audit(args.audit)
        tls = _tls(args)
        tracing = _tracing(args, "http" if tls is None else "https")
        if args.record_bodies and not args.record:
            raise ValueError("--record-bodies adds to --record, which is missing")
    except (ValueError, OSError, GuardError) as error:
        return fail(str(error), code=2)

    def ready(data: tuple[str, int], page: tuple[str, int] | None) -> None:
        admins = f", admin on {'https' if args.admin_tls else 'http'}://{join(page)}" if page else ""
        line = f"{shown(models)} is guarded on {'http' if tls is None else 'https'}://{join(data)}{admins}"
        if args.log_format == "json":
            logging.getLogger("guard").info("%s", line)
        else:
            print(f"guard: {line}", file=sys.stderr, flush=True)

    settings = Settings(
        upstreams=models,
        listen=listen,
        admin=admin,
        state=args.state,
        secret_file=Path(args.secret_file) if args.secret_file else None,
        load=lambda salt: load_active(args.policy, api=args.api, env=os.environ, salt=salt),
        ready=ready,
        test_clock=Path(args.test_clock) if args.test_clock else None,
        audit=args.audit or None,
        record=Path(args.record) if args.record else None,
        bodies=args.record_bodies,
        tls=tls,
        admin_tls=args.admin_tls,
        admin_token=token,
        tracing=tracing,
        report=Path(args.selftest_report) if args.selftest_report else None,
    )
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    try:
        with runner:
            runner.run(serve(settings))
    except PolicyError as error:
        from guard.cli.check import print_problems

        print_problems(error)
        return 2
    except StateError as error:
        return fail(error.message, code=3)
    except GuardError as error:
        return fail(error.message, code=2)
    except OSError as error:
        hint = "is another guard running? --listen and --admin choose other addresses"
        return fail(error.strerror or str(error), hint=hint if error.errno == EADDRINUSE else "", code=3)
    return 0


def address(text: str, option: str) -> tuple[str, int]:
    """Read `host:port`, `[v6]:port` or `:port`.

    Raises:
        ValueError: it is none of these.
    """
    host, colon, port = str(text).rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{option} must be HOST:PORT, got {text}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _check_audit(text: str | None) -> None:
    """Check `file:PATH`, `stdout` or `syslog:ADDRESS`."""
    kind, colon, rest = (text or "stdout").partition(":")
    if not (kind in ("file", "syslog") and rest) and not (kind == "stdout" and not colon):
        raise ValueError(f"--audit must be file:PATH, stdout or syslog:ADDRESS, got {text}")


def _token(file: str | None) -> str | None:
    """Read the admin listener's token: GUARD_ADMIN_TOKEN, or a file's content."""
    found = Path(file).read_text(encoding="utf-8") if file else os.environ.get("GUARD_ADMIN_TOKEN")
    if found is not None and len(found.strip()) < _SHORTEST_TOKEN:
        raise ValueError(f"the admin token must have at least {_SHORTEST_TOKEN} characters")
    return None if found is None else found.strip()


def _tls(args: argparse.Namespace) -> Tls | None:
    from guard.proxy.tls import Tls, load

    given = {name: getattr(args, f"tls_{name}") for name in ("cert", "key", "client_ca")}
    if not given["cert"] or not given["key"]:
        if any(given.values()) or args.tls_client_required or args.admin_tls:
            raise ValueError("TLS needs both --tls-cert and --tls-key")
        return None
    if args.tls_client_required and not given["client_ca"]:
        raise ValueError("--tls-client-required needs --tls-client-ca")
    authority = Path(given["client_ca"]) if given["client_ca"] else None
    tls = Tls(Path(given["cert"]), Path(given["key"]), authority, args.tls_client_required)
    load(tls)  # what cannot be used is told before anything is opened
    return tls


def _tracing(args: argparse.Namespace, scheme: str) -> TraceOptions | None:
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


def _check_admin(admin: tuple[str, int] | None, token: str | None) -> None:
    if admin is not None and token is None and admin[0] not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(
            "--admin shows policies and clients to whoever reaches it: off loopback it needs --admin-token-file"
        )
