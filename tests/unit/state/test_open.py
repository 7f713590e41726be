"""Which state a URL names, and that nothing is imported which is not used."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from guard.errors import StateError
from guard.state.open import REDIS_SCHEMES, open_state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "url", ["memory", "mysql://me:secret@host/db", "", "sqlite:", "/var/lib/guard.db", "http://redis"]
)
def test_an_unknown_state_is_refused_without_repeating_its_password(url: str) -> None:
    with pytest.raises(StateError) as caught:
        open_state(url)
    assert "secret" not in caught.value.message
    assert caught.value.message.startswith(("a state is memory:, sqlite:PATH or redis://", "sqlite: needs a path"))
    assert (caught.value.status, caught.value.code) == (503, "state_unavailable")


@pytest.mark.parametrize("scheme", REDIS_SCHEMES)
async def test_redis_in_all_its_forms_is_opened_without_asking_it(scheme: str) -> None:
    state = open_state(
        f"{scheme}://me:pass%40word@127.0.0.1:1/0" if "sentinel" not in scheme else f"{scheme}://h:1,[::1]/db/2"
    )
    assert type(state).__name__ == "RedisState"
    await state.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:secret@host:1",
        "redis+sentinel://:secret@host:1/service/two",
        "redis+cluster://:secret@",
        "redis+cluster://:secret@host:port",
        "redis://:secret@host:port",
    ],
)
def test_a_redis_url_that_makes_no_sense_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StateError) as caught:
        open_state(url)
    assert "secret" not in caught.value.message


async def test_sqlite_takes_a_path(tmp_path: Path) -> None:
    state = open_state(f"sqlite:{tmp_path / 'guard.db'}")
    await state.ping()
    await state.aclose()
    assert (tmp_path / "guard.db").exists()


def test_memory_imports_neither_sqlite_nor_redis() -> None:
    program = "import sys; from guard.state.open import open_state; open_state('memory:'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"redis", "guard.state.redis", "guard.state.sqlite"} & set(loaded)
