"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """A client as identity named it.

    Args:
        name: unique within the source, for example a key's name, a token's subject or an address.
        group: tenant that the client belongs to; its own name when there is none.
        source: `api_key`, `jwt`, `client_certificate` or `address`.
    """

    name: str
    group: str
    source: str
