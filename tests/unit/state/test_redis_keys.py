"""Keys in Redis: what a key is made of can be read from it again, and no name reaches another's key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guard.model.ledger import Charge
from guard.state.redis_keys import (
    Name,
    counter_key,
    counter_prefix,
    key_of,
    ledger_in,
    ledger_of,
    memo_key,
    name_in,
    record_key,
    terms_key,
)

text = st.text(st.characters() | st.sampled_from("|{}%:*"), max_size=20)
names = st.builds(Name, text, text, st.sampled_from([0, 60]), st.integers(0, 10**9))


@given(ledger=text, name=names)
def test_a_key_says_what_it_was_made_of(ledger: str, name: Name) -> None:
    key = counter_key(ledger, name)
    assert name_in(key) == name
    assert ledger_in(key) == ledger_in(terms_key(ledger)) == ledger_in(memo_key(ledger)) == ledger
    assert key.startswith(counter_prefix(ledger))


@given(one=st.tuples(text, names), other=st.tuples(text, names))
def test_different_names_are_different_keys(one: tuple[str, Name], other: tuple[str, Name]) -> None:
    assert (counter_key(*one) == counter_key(*other)) == (one == other)


@given(ledger=text, name=names)
def test_charging_and_rewriting_mean_the_same_key(ledger: str, name: Name) -> None:
    charge = Charge(name.budget, name.scope, name.window_s, 1, 1)
    window = name.window if name.window_s else 0
    assert key_of("c", ledger, charge, name.window * name.window_s) == counter_key(ledger, name._replace(window=window))


def test_a_long_name_is_a_hash_of_its_own() -> None:
    keys = {counter_key("m", Name("b", scope, 0, 0)) for scope in ("x" * 257, "x" * 258, "x" * 256)}
    assert len(keys) == 3
    assert max(map(len, keys)) < 300
    shown = {name_in(key).scope for key in keys}
    assert "x" * 256 in shown
    assert sum(scope.startswith("%sha256-") for scope in shown) == 2


def test_other_keys_are_no_ledgers() -> None:
    assert [ledger_in(key) for key in ("guard:{ping}", "guard:x", "other:{m}:t", "")] == [None] * 4


records = st.tuples(text, st.none() | st.text("0123456789abcdef", min_size=12, max_size=12), text)


def space_of(ledger: str, fingerprint: str | None) -> str:
    return f"marks/{ledger}" if fingerprint is None else f"evidence/{ledger}/{fingerprint}"


@given(one=records, other=records)
def test_different_clients_have_different_records_on_their_ledgers_shard(
    one: tuple[str, str | None, str], other: tuple[str, str | None, str]
) -> None:
    keys = [record_key(space_of(ledger, fingerprint), client) for ledger, fingerprint, client in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert ledger_of(space_of(*one[:2])) == one[0]
    assert keys[0].partition("}")[0] == terms_key(one[0]).partition("}")[0]
    assert ledger_in(keys[0]) is None
