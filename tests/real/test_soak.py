"""Five minutes of the soak: `make soak` runs longer ones, and docs/reliability.md has the figures of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.report import text
from tests.soak.run import soak

if TYPE_CHECKING:
    from pathlib import Path

MINUTES = 5


@pytest.mark.real
async def test_five_minutes_of_load_and_faults_leave_nothing_behind(tmp_path: Path) -> None:
    found = await soak(tmp_path, 60 * MINUTES, seed=1)
    print(text(found))
    assert [check for check in found.checks if not check.ok] == []
    assert found.rows > 10_000
    assert all(found.faults[name] >= 3 for name in ("redis", "model", "reload"))
