"""`guard doctor`: look at a deployment and say what is wrong with it, before an attacker does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.utils
import ipaddress
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from guard.cli.common import add_option, fail
from guard.cli.upstreams import Models, add_upstreams, upstreams_of
from guard.errors import GuardError, PolicyError, UpstreamError

if TYPE_CHECKING:
    from guard.proxy.plans import Active

HELP = "look at a deployment and say what is wrong with it"
EPILOG = """example:
  guard doctor --policy policy.yaml --upstream http://127.0.0.1:8080 --state sqlite:guard.db

Takes the options of `guard serve`; with --admin it asks the running Guard who its clients are.
Exit 0: fine, or warnings only; 1: something is wrong; 2: bad policy; 3: a dependency is out of reach.
"""
Level = Literal["ok", "warn", "fail", "down"]
_MARKS: dict[Level, str] = {
    "ok": "[green]ok[/green]  ",
    "warn": "[yellow]warn[/yellow]",
    "fail": "[red]fail[/red]",
    "down": "[red]down[/red]",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.

    Args:
        level: `down` is a dependency out of reach.
        what: what was looked at.
        message: what was found, and what to do.
    """

    level: Level
    what: str
    message: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_option(parser, "--policy", help="policy file or preset")
    add_option(parser, "--api", help="the API of routes that name none (default: open_inference)")
    add_upstreams(parser)
    add_option(parser, "--state", default="sqlite:guard.db", help="as for serve (default: %(default)s)")
    add_option(parser, "--secret-file", default=None, help="as for serve")
    add_option(parser, "--admin", default="off", help="admin address of a running Guard, to look at its clients")


def run(args: argparse.Namespace) -> int:
    """Print the findings and return the exit code."""
    from rich.console import Console
    from rich.markup import escape

    from guard.proxy.load import load_active

    if not args.policy:
        return fail("--policy is missing", hint="doctor takes the options of serve", code=2)
    try:
        active = load_active(args.policy, api=args.api, env=os.environ)
    except PolicyError as error:
        from guard.cli.check import print_problems

        print_problems(error)
        return 2
    try:
        models = upstreams_of(args)
    except (ValueError, OSError) as error:
        return fail(str(error), code=2)
    admin = None if args.admin == "off" else str(args.admin)
    findings = asyncio.run(examine(active, models, args.state, args.secret_file, admin))
    out = Console(highlight=False)
    for finding in findings:
        out.print(f"{_MARKS[finding.level]}  [bold]{finding.what}[/bold]: {escape(finding.message)}", soft_wrap=True)
    levels = {finding.level for finding in findings}
    return 3 if "down" in levels else 1 if "fail" in levels else 0


async def examine(
    active: Active, models: Models, state: str, secret_file: str | None, admin: str | None = None
) -> list[Finding]:
    """Look at everything; returns one finding or more for each thing."""
    from guard.cli.durability import durability_findings

    plan = active.plan
    findings = [
        Finding("ok", "policy", f"{plan.name}, {plan.mode}, {len(plan.routes)} route(s), digest {plan.digest[:12]}")
    ]
    findings += [Finding("warn", "policy", f"{w.path}: {w.message}; {w.hint}") for w in plan.warnings]
    findings += [Finding("warn", "identity", warning) for warning in active.identity.warnings]
    findings += secret_findings(state, secret_file)
    looks: list[Callable[[], Coroutine[None, None, list[Finding]]]] = [
        lambda: state_findings(state),
        lambda: durability_findings(state, plan),
    ]
    if models:
        looks.append(lambda: models_findings(active, models))
    else:
        findings.append(Finding("warn", "upstream", "not looked at: --upstream is missing"))
    if admin:
        looks.append(lambda: client_findings(admin))
    for look in looks:
        findings += await look()
    return findings


def secret_findings(state: str, secret_file: str | None) -> list[Finding]:
    """The noise secret is there where it must be, and nobody else can read it."""
    if secret_file is None and not os.environ.get("GUARD_SECRET"):
        if state.startswith("redis"):
            return [Finding("fail", "secret", "with Redis it must be given: GUARD_SECRET or --secret-file")]
        if not state.startswith("sqlite:"):
            return [
                Finding(
                    "warn",
                    "secret",
                    "made anew at every start; with memory: budgets and noise do not outlive it either",
                )
            ]
        secret_file = str(Path(state.removeprefix("sqlite:")).with_suffix(".secret"))
        if not Path(secret_file).exists():
            return [Finding("ok", "secret", f"will be made at {secret_file}")]
    from guard.proxy.secret import load_secret

    try:
        load_secret(state, None if secret_file is None else Path(secret_file))
    except GuardError as error:
        return [Finding("fail", "secret", error.message)]
    if secret_file is None:
        return [Finding("ok", "secret", "given by GUARD_SECRET")]
    mode = stat.S_IMODE(Path(secret_file).stat().st_mode)
    if mode & 0o077:
        return [Finding("fail", "secret", f"{secret_file} can be read by others (mode {mode:04o}); chmod 600 it")]
    return [Finding("ok", "secret", f"{secret_file}, mode {mode:04o}")]


async def state_findings(url: str) -> list[Finding]:
    """The state can be written."""
    from guard.state.open import open_state

    began = time.perf_counter()
    try:
        state = open_state(url)
        try:
            await state.ping()
        finally:
            await state.aclose()
    except GuardError as error:
        if "is in use" in error.message:
            return [
                Finding("warn", "state", f"{error.message}; if that is the Guard you are asking about, all is well")
            ]
        return [Finding("down", "state", error.message)]
    took_ms = (time.perf_counter() - began) * 1e3
    note = "; budgets are forgotten at every restart" if url.startswith("memory:") else ""
    return [Finding("warn" if note else "ok", "state", f"{redacted(url)} can be written, {took_ms:.1f} ms{note}")]


def redacted(url: str) -> str:
    """Return a URL without its password."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url


async def models_findings(active: Active, models: Models) -> list[Finding]:
    """The policy fits the number of models; each is looked at, and of several only what is amiss is told of each."""
    from guard.proxy.models import check_models, quorum_of

    findings: list[Finding] = []
    try:
        check_models(active.plan, len(models))
    except PolicyError as error:
        findings += [Finding("fail", "policy", f"{p.path}: {p.message}; {p.hint}") for p in error.problems]
    looked = await asyncio.gather(*[upstream_findings(url) for _, url in models])
    around = await asyncio.gather(*[around_findings(url) for _, url in models])
    if len(models) == 1:
        return [*findings, *looked[0], *around[0]]
    answering = sum(found[0].level == "ok" for found in looked)
    quorum = quorum_of(active.plan)
    level: Level = "ok" if answering == len(models) else "warn" if answering >= quorum else "down"
    findings.append(Finding(level, "upstream", f"{answering} of {len(models)} models answer, quorum {quorum}"))
    for (name, _), found in zip(models, looked, strict=True):
        amiss = [finding for finding in found if finding.level != "ok"]
        findings += [Finding("warn", finding.what, f"{name}: {finding.message}") for finding in amiss]
    # What is said of one machine is said once.
    return [*findings, *dict.fromkeys(finding for found in around for finding in found)]


async def upstream_findings(url: str) -> list[Finding]:
    """The model answers, and its clock agrees with ours."""
    from guard.upstream.http import HttpUpstream

    client = HttpUpstream(url)
    try:
        reply = await client.send(b"GET", b"/", [], b"", 5.0)
    except UpstreamError as error:
        return [Finding("down", "upstream", f"{url}: {error.message}")]
    finally:
        await client.aclose()
    findings = [Finding("ok", "upstream", f"{url} answers")]
    date = email.utils.parsedate_tz((reply.header(b"date") or b"").decode("latin-1"))
    if date is not None:
        apart_s = abs(email.utils.mktime_tz(date) - time.time())
        level: Level = "warn" if apart_s > 30 else "ok"
        findings.append(
            Finding(level, "clock", f"{apart_s:.0f} s apart from the model's; windows of budgets follow this machine's")
        )
    return findings


async def client_findings(admin: str) -> list[Finding]:
    """Clients are told apart: not everybody comes from one address, which would be an ingress in front."""
    from guard.upstream.http import HttpUpstream

    url = admin if "://" in admin else f"http://{admin}"
    client = HttpUpstream(url)
    try:
        reply = await client.send(b"GET", b"/clients?limit=1", [], b"", 5.0)
        seen = json.loads(reply.body)
        known, warning = int(seen["known"]), str(seen.get("warning", ""))
    except UpstreamError as error:
        return [Finding("down", "clients", f"{url}: {error.message}")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [Finding("down", "clients", f"{url}: this is not a Guard's admin listener")]
    finally:
        await client.aclose()
    return [Finding("warn", "clients", warning) if warning else Finding("ok", "clients", f"{known} seen lately")]


async def around_findings(url: str, addresses: Callable[[], list[str]] | None = None) -> list[Finding]:
    """Nobody else reaches the model without Guard, as far as can be seen from here.

    Args:
        url: the model's.
        addresses: gives this machine's addresses other than loopback.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        message = (
            f"the model listens on {host}, which this machine reaches over a network: make sure that only Guard can"
        )
        return [Finding("warn", "around", message)]
    for address in (addresses or own_addresses)():
        if await reaches(address, port):
            return [
                Finding(
                    "fail", "around", f"the model also answers on {address}:{port}, around Guard; bind it to 127.0.0.1"
                )
            ]
    return [Finding("ok", "around", "the model answers on loopback only")]


def own_addresses() -> list[str]:
    """Return this machine's addresses other than loopback, as far as its name and routes tell."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        found |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            # Connecting a datagram socket sends nothing; it only asks the routing table which address would be used.
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.add(str(probe.getsockname()[0]))
        except OSError:
            continue
    return sorted(a for a in found if not ipaddress.ip_address(a.split("%")[0]).is_loopback)


async def reaches(host: str, port: int) -> bool:
    """Say whether a TCP connection to host and port is accepted."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
