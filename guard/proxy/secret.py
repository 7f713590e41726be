"""The noise secret: from a file or the environment.

Made once beside an embedded state; never made up where replicas share a state.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from guard.errors import StateError


def load_secret(state: str, file: Path | None) -> bytes:
    """Return 32 bytes that key noise and digests.

    Args:
        state: the state's URL.
        file: `--secret-file`; None to look at `GUARD_SECRET`, then beside the state.

    Raises:
        StateError: the secret is too short, unreadable, or missing with Redis, where every replica must have the same
            one.
    """
    if file is not None:
        try:
            return _derive(file.read_bytes())
        except OSError as error:
            raise StateError(f"the secret file {file} cannot be read: {error.strerror}", code="no_secret") from error
    if given := os.environ.get("GUARD_SECRET"):
        return _derive(given.encode())
    if state.startswith("redis"):
        message = "with Redis the noise secret must be given: GUARD_SECRET or --secret-file, the same for every replica"
        raise StateError(message, code="no_secret")
    if state.startswith("sqlite:"):
        return _beside(Path(state.removeprefix("sqlite:")).with_suffix(".secret"))
    return secrets.token_bytes(32)


def known_secret(state: str, file: Path | None) -> tuple[bytes, str] | None:
    """Return the secret that `load_secret` would, and where it is, in words; None where it would make one.

    Raises:
        StateError: the secret is too short or unreadable.
    """
    beside = Path(state.removeprefix("sqlite:")).with_suffix(".secret") if state.startswith("sqlite:") else None
    if file is not None:
        return load_secret(state, file), f"the secret in {file}"
    if os.environ.get("GUARD_SECRET"):
        return load_secret(state, None), "GUARD_SECRET"
    if beside is None or not beside.exists():
        return None
    return load_secret(state, beside), f"the secret in {beside}"


def _derive(given: bytes) -> bytes:
    given = given.strip()
    if len(given) < 16:
        raise StateError("the noise secret must have at least 16 characters", code="no_secret")
    return hashlib.blake2b(given, digest_size=32, person=b"guard noise").digest()


def _beside(path: Path) -> bytes:
    """Read the secret beside an embedded state, or make it, mode 0600."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _derive(path.read_bytes())
    except OSError as error:
        raise StateError(f"the secret {path} cannot be written: {error.strerror}", code="no_secret") from error
    with os.fdopen(handle, "w") as out:
        out.write(secrets.token_hex(32))
        out.flush()
        os.fsync(out.fileno())
    return _derive(path.read_bytes())


def derived(secret: bytes, use: bytes) -> bytes:
    """Return 32 bytes that are this secret's for one use."""
    return hashlib.blake2b(secret, digest_size=32, person=use.ljust(16, b"\0")[:16]).digest()
