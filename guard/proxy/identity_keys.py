"""API keys: a file of `name[@group]:sha256-of-key`, so that the file gives no key away."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from guard.errors import Problem
from guard.model.client import Client

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_HINT = "name[@group]:HASH, where HASH is what `printf %s KEY | sha256sum` prints"
_EMPTY = hashlib.sha256(b"").digest()


class KeySource:
    """Finds the client of an API key.

    Args:
        clients: by SHA-256 of the key.
    """

    def __init__(self, clients: Mapping[bytes, Client]) -> None:
        self._clients = {digest: (digest, client) for digest, client in clients.items()}

    def find(self, value: bytes) -> Client | None:
        """Return the key's client, or None.

        What takes longer for some keys than for others is finding a digest that the caller cannot steer towards a
        known one; digests are then compared in constant time.
        """
        digest = hashlib.sha256(value).digest()
        known, client = self._clients.get(digest, (_EMPTY, None))
        return client if hmac.compare_digest(known, digest) else None


def read_keys(data: bytes) -> tuple[dict[bytes, Client], list[Problem]]:
    """Read a keys file.

    One name may have several keys, so that a key can be changed without an outage. No message repeats a line, which may
    hold a key.

    Returns:
        The clients by digest, and every mistake with its line.

    >>> clients, problems = read_keys(b"nightly@batch:" + b"ab" * 32 + b"  # until May")
    >>> list(clients.values()), problems
    ([Client(name='nightly', group='batch', source='api_key')], [])
    """
    clients: dict[bytes, Client] = {}
    problems: list[Problem] = []
    names: dict[str, tuple[str, int]] = {}
    digests: dict[bytes, int] = {}
    for number, raw in enumerate(data.split(b"\n"), 1):
        line = raw.split(b"#", 1)[0].strip().decode("ascii", "replace")
        if not line:
            continue
        mistake = _read_line(line, number, clients, names, digests)
        if mistake:
            problems.append(Problem(mistake, line=number, hint=_HINT))
    return clients, problems


def _read_line(
    line: str, number: int, clients: dict[bytes, Client], names: dict[str, tuple[str, int]], digests: dict[bytes, int]
) -> str:
    """Add one line's client; return what is wrong with it, or an empty string."""
    who, _, written = line.rpartition(":")
    name, at, group = who.partition("@")
    if not _NAME.fullmatch(name) or (at and not _NAME.fullmatch(group)):
        return "a name and a group have 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first"
    if not _DIGEST.fullmatch(written):
        return "the hash must have 64 hexadecimal digits"
    digest = bytes.fromhex(written)
    mistake = ""
    known_group, known_line = names.setdefault(name, (group, number))
    if digest == _EMPTY:
        mistake = "this is the hash of an empty key"
    elif digest in digests:
        mistake = f"line {digests[digest]} has the same key"
    elif known_group != group:
        mistake = f"line {known_line} puts {name} into another group"
    else:
        digests[digest] = number
        clients[digest] = Client(name, group or name, "api_key")
    return mistake
