"""`guard serve`: stand in front of a model and harden every answer by policy."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from errno import EADDRINUSE
from pathlib import Path

from guard.cli.common import add_option, fail
from guard.cli.upstreams import add_upstreams, check_own, shown, upstreams_of
from guard.errors import GuardError, PolicyError, StateError

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
    add_option(parser, "--audit", help="file:PATH that what the ladder does is added to (default: the log alone)")
    add_option(
        parser,
        "--record",
        default=None,
        metavar="DIR",
        help="write calibration traffic there, for guard calibrate: features, top scores, times; never a raw body",
    )
    # For the self-test, whose attackers wait for days; whoever can start Guard with it could set the machine's clock.
    parser.add_argument("--test-clock", default=None, help=argparse.SUPPRESS)
    add_option(parser, "--log-level", default="info", help="debug, info, warning or error (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    logging.basicConfig(
        level=getattr(logging, str(args.log_level).upper(), logging.INFO),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
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
        _check_admin(admin)
        check_own(models, listen)
        audit = _audit(args.audit)
    except ValueError as error:
        return fail(str(error), code=2)

    def ready(data: tuple[str, int], page: tuple[str, int] | None) -> None:
        admins = f", admin on http://{join(page)}" if page else ""
        print(f"guard: {shown(models)} is guarded on http://{join(data)}{admins}", file=sys.stderr, flush=True)

    settings = Settings(
        upstreams=models,
        listen=listen,
        admin=admin,
        state=args.state,
        secret_file=Path(args.secret_file) if args.secret_file else None,
        load=lambda salt: load_active(args.policy, api=args.api, env=os.environ, salt=salt),
        ready=ready,
        test_clock=Path(args.test_clock) if args.test_clock else None,
        audit=audit,
        record=Path(args.record) if args.record else None,
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


def _audit(text: str | None) -> str | None:
    """Read `file:PATH`."""
    if not text:
        return None
    kind, colon, path = text.partition(":")
    if kind != "file" or not colon or not path:
        raise ValueError(f"--audit must be file:PATH, got {text}")
    return path


def join(pair: tuple[str, int]) -> str:
    """Write an address as `host:port`."""
    host, port = pair
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_admin(admin: tuple[str, int] | None) -> None:
    if admin is not None and admin[0] not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError("--admin shows policies and clients to whoever reaches it, so it listens on loopback only")
