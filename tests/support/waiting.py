"""Waiting for what another process needs a moment for."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from guard.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_PATIENCE_S = 20.0


async def eventually(call: Callable[[], Awaitable[object]]) -> None:
    """Call until there is no StateError: for servers that need a moment to know who they are."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            await call()
        except StateError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.01)
        else:
            return
