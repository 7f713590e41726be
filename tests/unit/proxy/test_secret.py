"""The noise secret: made once, kept private, or given."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from guard.errors import StateError
from guard.proxy.secret import load_secret

GIVEN = "a secret of the operator's"


@pytest.fixture(autouse=True)
def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUARD_SECRET", raising=False)


def test_it_is_made_once_beside_an_embedded_state(tmp_path: Path) -> None:
    state = f"sqlite:{tmp_path / 'guard.db'}"
    first = load_secret(state, None)
    made = tmp_path / "guard.secret"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert len(first) == 32
    assert load_secret(state, None) == first
    assert load_secret(f"sqlite:{tmp_path / 'other.db'}", None) != first
    assert first.hex() not in made.read_text()


def test_it_is_made_anew_for_a_state_in_memory() -> None:
    assert load_secret("memory:", None) != load_secret("memory:", None)


def test_a_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{GIVEN}\n")
    monkeypatch.setenv("GUARD_SECRET", "another one, just as long")
    from_environment = load_secret("redis://redis", None)
    assert load_secret("redis://redis", path) != from_environment
    monkeypatch.setenv("GUARD_SECRET", GIVEN)  # without the line's end
    assert load_secret("redis://redis", path) == load_secret("memory:", None)


@pytest.mark.parametrize("state", ["redis://redis", "rediss://redis", "redis+sentinel://a:1/m", "redis+cluster://a:1"])
def test_with_redis_it_must_be_given(state: str) -> None:
    with pytest.raises(StateError) as caught:
        load_secret(state, None)
    assert caught.value.code == "no_secret"
    assert "GUARD_SECRET or --secret-file" in caught.value.message


@pytest.mark.parametrize("text", ["", "   \n", "fifteen letters", " fifteen letters \n"])
def test_a_short_one_is_refused_and_not_repeated(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    with pytest.raises(StateError) as caught:
        load_secret("memory:", path)
    assert "16 characters" in caught.value.message
    assert "fifteen" not in caught.value.message
    if text.strip():
        monkeypatch.setenv("GUARD_SECRET", text)
        with pytest.raises(StateError):
            load_secret("memory:", None)


def test_a_file_that_cannot_be_read_or_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        load_secret("memory:", tmp_path / "nowhere")
    assert "nowhere cannot be read" in caught.value.message
    with pytest.raises(StateError) as caught:
        load_secret(f"sqlite:{tmp_path / 'nowhere' / 'guard.db'}", None)
    assert "cannot be written" in caught.value.message
