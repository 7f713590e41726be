"""`guard doctor` on what runs: the model servers, and Guard itself by its admin listener."""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import json
import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from guard.cli.doctor_around import around_findings, asked_of
from guard.cli.findings import Finding, Level
from guard.cli.upstreams import Models
from guard.errors import PolicyError, UpstreamError

if TYPE_CHECKING:
    from guard.model.exchange import Reply
    from guard.proxy.plans import Active
    from guard.upstream.http import HttpUpstream


async def models_findings(active: Active, models: Models, listen: str) -> list[Finding]:
    """The policy fits the number of models; each is looked at, and of several only what is amiss is told of each.

    Args:
        active: the policy.
        models: the model servers.
        listen: Guard's own address, which is no way around it.
    """
    from guard.proxy.models import check_models, quorum_of

    findings: list[Finding] = []
    try:
        check_models(active.plan, len(models))
    except PolicyError as error:
        findings += [Finding("fail", "policy", f"{p.path}: {p.message}; {p.hint}") for p in error.problems]
    looked = await asyncio.gather(*[upstream_findings(url) for _, url in models])
    own = {int(port) for port in (listen.rpartition(":")[2],) if port.isdigit()}
    around = await asyncio.gather(*[around_findings(url, asked_of(active), own=own) for _, url in models])
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


async def client_findings(args: argparse.Namespace) -> list[Finding]:
    """Clients are told apart, and not everybody may look at them.

    If everybody comes from one address, that is an ingress in front.
    """
    from guard.cli.serve_options import token_of
    from guard.upstream.http import HttpUpstream

    admin = str(args.admin)
    admin = f"127.0.0.1{admin}" if admin.startswith(":") else admin
    url = admin if "://" in admin else f"{'https' if args.admin_tls else 'http'}://{admin}"
    try:
        token = token_of(args.admin_token_file)
    except (ValueError, OSError):
        token = None  # told elsewhere
    client = HttpUpstream(url, ssl_context=_pinned(args.tls_cert) if url.startswith("https:") else None)
    try:
        findings, reply = await _asked_for_clients(client, url, token)
        if reply is None:
            return findings
        seen = json.loads(reply.body)
        known, warning = int(seen["known"]), str(seen.get("warning", ""))
    except UpstreamError as error:
        return [Finding("down", "clients", f"{url}: {error.message}")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [Finding("down", "clients", f"{url}: this is not a Guard's admin listener")]
    finally:
        await client.aclose()
    found = Finding("warn", "clients", warning) if warning else Finding("ok", "clients", f"{known} seen lately")
    return [*findings, found]


async def _asked_for_clients(client: HttpUpstream, url: str, token: str | None) -> tuple[list[Finding], Reply | None]:
    """Ask without the token first, as anybody would; no reply when the listener tells nothing, which is well."""
    from guard.cli.serve_options import LOOPBACK

    async def ask(*headers: tuple[bytes, bytes]) -> Reply:
        return await client.send(b"GET", b"/clients?limit=1", list(headers), b"", 5.0)

    reply = await ask()
    if reply.status == 401:
        if token is None:
            message = f"{url} asks for a token; give --admin-token-file to look at its clients"
            return [Finding("ok", "admin", message)], None
        reply = await ask((b"authorization", b"Bearer " + token.encode()))
        if reply.status == 401:
            return [Finding("fail", "admin", f"{url} knows another token than the one given here")], None
        return [Finding("ok", "admin", f"{url} asks for its token")], reply
    if reply.status == 200 and urlsplit(url).hostname not in LOOPBACK:
        message = f"{url} shows policy and clients to whoever reaches it: start it with --admin-token-file"
        return [Finding("fail", "admin", message)], reply
    if reply.status == 200 and token is not None:
        return [Finding("warn", "admin", f"{url} asks for no token, though one is given here")], reply
    return [], reply


def _pinned(cert: str | None) -> ssl.SSLContext | None:
    """Trust the certificate that Guard serves, whatever name it was asked by; None when it cannot be read."""
    try:
        made = ssl.create_default_context(cafile=cert)
    except OSError:
        return None
    if cert:
        made.check_hostname = False
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return made
