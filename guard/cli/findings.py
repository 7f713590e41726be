"""What one look of `guard doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Level = Literal["ok", "warn", "fail", "down"]


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


def redacted(url: str) -> str:
    """Return a URL without its password."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url
