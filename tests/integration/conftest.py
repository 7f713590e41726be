"""What integration tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A real Valkey of the test's own."""
    with Valkey(tmp_path / "valkey") as server:
        yield server
