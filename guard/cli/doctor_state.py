"""`guard doctor` on Guard's own secret and state."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from guard.cli.findings import Finding, redacted
from guard.errors import GuardError


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
