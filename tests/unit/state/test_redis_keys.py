"""Keys in Redis: what a key is made of can be read from it again, and no name reaches another's key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guard.model.ledger import Charge
from guard.state.redis_keys import Name, counter_key, counter_prefix, key_of, ledger_in, memo_key, name_in, terms_key

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
