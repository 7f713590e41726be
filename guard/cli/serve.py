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

from guard.cli.common import fail
from guard.cli.serve_options import (
    add_options,
    address,
    check_admin,
    check_audit,
    grpc_of,
    join,
    tls_of,
    token_of,
    tracing_of,
)
from guard.cli.upstreams import check_own, grpc_upstreams_of, shown, upstreams_of
from guard.errors import GuardError, PolicyError, StateError
from guard.telemetry import logs

if TYPE_CHECKING:
    from guard.proxy.server import Settings

HELP = "stand in front of a model and harden every answer by policy"
EPILOG = """examples:
  guard serve --policy balanced --api open_inference --upstream http://127.0.0.1:8080
  guard serve --policy policy.yaml --upstream http://model:8080 --listen 0.0.0.0:9000 --state redis://redis:6379
  guard serve --policy observe --api mlflow --upstream http://127.0.0.1:5000    # changes nothing, counts everything
  guard serve --policy observe --api mlflow --upstream http://127.0.0.1:5000 --record traffic   # then: guard calibrate
  guard serve --policy policy.yaml --grpc-listen :9002 --grpc-upstream grpc://127.0.0.1:8001     # Open Inference, gRPC
  guard serve --policy ensemble.yaml --upstream a=http://10.0.0.1:8080 --upstream b=http://10.0.0.2:8080

One process is one core; more cores are more replicas on one Redis. SIGHUP reloads the policy, SIGTERM drains.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    logs.configure(args.log_level, args.log_format)
    try:
        models, grpc_models = upstreams_of(args), grpc_upstreams_of(args)
    except (ValueError, OSError) as error:
        return fail(str(error), code=2)
    if not args.policy or not (models or grpc_models):
        missing = "--policy" if not args.policy else "--grpc-upstream" if args.grpc_listen else "--upstream"
        return fail(f"{missing} is missing", hint="for a first try: guard demo", code=2)
    # Imported here so that `guard --help` stays instant.
    from guard.proxy.fronts import Address
    from guard.proxy.load import load_active
    from guard.proxy.server import Settings
    from guard.proxy.tls import load

    try:
        listen = address(args.listen, "--listen")
        admin = None if args.admin == "off" else address(args.admin, "--admin")
        token = token_of(args.admin_token_file)
        check_admin(admin, token)
        check_own(models, listen)
        grpc = grpc_of(args, grpc_models)
        check_audit(args.audit)
        tls = tls_of(args)
        if tls is not None:
            load(tls)  # what cannot be used is told before anything is opened
        tracing = tracing_of(args, "http" if tls is None else "https")
        if args.record_bodies and not args.record:
            raise ValueError("--record-bodies adds to --record, which is missing")
    except (ValueError, OSError, GuardError) as error:
        return fail(str(error), code=2)

    def ready(data: Address, page: Address, rpc: Address) -> None:
        secure = "" if tls is None else "s"
        admins = f", admin on {'https' if args.admin_tls else 'http'}://{join(page)}" if page else ""
        lines = (
            [f"{shown(grpc_models)} is guarded on grpc{secure}://{join(rpc)}{'' if data else admins}"] if rpc else []
        )
        if data:
            lines.append(f"{shown(models)} is guarded on http{secure}://{join(data)}{admins}")
        for line in lines:
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
        grpc=grpc,
    )
    return _serve(settings)


def _serve(settings: Settings) -> int:
    """Serve until told to stop; returns the exit code."""
    from guard.proxy.server import serve

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
