"""`guard doctor` on what Guard will be started with: TLS, the admin listener, the audit log, traces."""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from guard.cli.findings import Finding, Level
from guard.cli.serve_options import LOOPBACK, address, check_audit, tls_of, token_of, tracing_of
from guard.cli.sockets import reaches
from guard.errors import GuardError

if TYPE_CHECKING:
    from guard.policy.plan import Plan

_LITTLE_BYTES = 2**30
_TOO_LITTLE_BYTES = 64 * 2**20


async def front_findings(args: argparse.Namespace, plan: Plan) -> list[Finding]:
    """Look at all of it."""
    return [
        *tls_findings(args, plan),
        *token_findings(args.admin_token_file),
        *audit_findings(args.audit, plan),
        *await tracing_findings(args),
    ]


def tls_findings(args: argparse.Namespace, plan: Plan) -> list[Finding]:
    """Certificates can be used, last, and fit the policy."""
    from guard.proxy.tls import EXPIRES_SOON_S, expires, load, unasked

    try:
        tls = tls_of(args)
    except ValueError as error:
        return [Finding("fail", "tls", str(error))]
    identity = plan.policy.identity
    level: Level = "fail" if tls is None or tls.client_ca is None else "warn"
    findings = [Finding(level, "tls", f"{text}") for text in unasked(identity, tls)]
    if tls is None:
        return [*findings, *_plain_findings(args.listen)]
    try:
        loaded = load(tls)
    except GuardError as error:
        return [*findings, Finding("fail", "tls", error.message)]
    findings += [Finding("warn", "tls", warning) for warning in loaded.warnings]
    left_s = loaded.expires_s - time.time()
    level = "fail" if left_s <= 0 else "warn" if left_s < EXPIRES_SOON_S else "ok"
    return [*findings, Finding(level, "tls", f"the certificate of {tls.cert} {expires(left_s)}")]


def _plain_findings(listen: str) -> list[Finding]:
    try:
        host, _ = address(listen, "--listen")
    except ValueError as error:
        return [Finding("fail", "listen", str(error))]
    if host in LOOPBACK:
        return []
    message = (
        f"{listen} speaks plain HTTP: whoever is on the way reads inputs and credentials, unless something in front of "
        "Guard or a mesh ends TLS; --tls-cert and --tls-key serve HTTPS"
    )
    return [Finding("warn", "tls", message)]


def token_findings(file: str | None) -> list[Finding]:
    """The admin token can be read by Guard, and by nobody else."""
    try:
        token = token_of(file)
    except ValueError as error:
        return [Finding("fail", "admin", str(error))]
    except OSError as error:
        return [Finding("fail", "admin", f"{file} cannot be read: {error.strerror}")]
    if token is None or not file:
        return []
    mode = stat.S_IMODE(Path(file).stat().st_mode)
    if mode & 0o007:
        return [Finding("fail", "admin", f"{file} can be read by others (mode {mode:04o}); chmod 640 or 600")]
    return [Finding("ok", "admin", f"the token of {file} can be used, mode {mode:04o}")]


def audit_findings(audit: str | None, plan: Plan) -> list[Finding]:
    """The audit log can be written, and there is room for it."""
    try:
        check_audit(audit)
    except ValueError as error:
        return [Finding("fail", "audit", str(error))]
    kind, _, rest = (audit or "").partition(":")
    if kind != "file":
        return []
    path = Path(rest)
    folder = path.parent
    if not folder.is_dir():
        return [Finding("fail", "audit", f"there is no folder {folder}")]
    if path.exists() and (not path.is_file() or not os.access(path, os.W_OK)):
        return [Finding("fail", "audit", f"{path} cannot be written by this user")]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [Finding("fail", "audit", f"{folder} cannot be written by this user: the log and its head need it")]
    findings: list[Finding] = []
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o007:
        findings.append(Finding("warn", "audit", f"{path} can be read by others; chmod 640 or 600"))
    free = shutil.disk_usage(folder).free
    told = f"{folder} has {free / 2**20:,.0f} MiB left"
    if free < _LITTLE_BYTES:
        refuses = plan.policy.audit.when_full == "refuse"
        then = "when it is full, enforcing routes answer 503" if refuses else "when it is full, decisions are lost"
        return [*findings, Finding("fail" if free < _TOO_LITTLE_BYTES else "warn", "audit", f"{told}; {then}")]
    return [*findings, Finding("ok", "audit", f"{path} can be written; {told}")]


async def tracing_findings(args: argparse.Namespace) -> list[Finding]:
    """Traces can be taken, and somebody takes them."""
    try:
        options = tracing_of(args, "http")
    except GuardError as error:
        return [Finding("fail", "tracing", error.message)]
    if options is None:
        return []
    named = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    parts = urlsplit(named or "http://localhost:4318")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if await reaches(host, port):
        return [Finding("ok", "tracing", f"the collector {host}:{port} accepts connections")]
    message = f"nobody answers at {host}:{port}; OTEL_EXPORTER_OTLP_ENDPOINT names the collector; requests do not wait"
    return [Finding("warn", "tracing", message)]
