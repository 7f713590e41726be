"""Which cells run: names that exist, every wrapper somewhere, and more under --full."""

from __future__ import annotations

import pytest

from guard.selftest.attacks.registry import attack_named, names
from guard.selftest.cells import ADAPTIVE, HEAVY, QUICK, SHADOWED, chosen, shadowed, suits, ways, weight
from guard.selftest.wrappers import WRAPPERS


def test_the_tables_name_what_exists() -> None:
    known = set(names())
    assert {attack for attack, _ in ADAPTIVE} | set(QUICK) | set(HEAVY) <= known
    assert {wrapper for _, wrapper in ADAPTIVE} <= set(WRAPPERS)
    assert known | set(WRAPPERS) >= SHADOWED
    assert len(set(ADAPTIVE)) == len(ADAPTIVE) >= 15
    # --full tries what the default leaves out: two more shares of benign rows.
    assert set(WRAPPERS) - {wrapper for _, wrapper in ADAPTIVE} == {"hide_5"}


def test_an_attack_runs_undefended_on_its_floors_and_defended() -> None:
    attack = attack_named("equation_solving_softmax")
    assert list(ways(attack, "quick")) == [
        ("undefended", ""),
        ("zero_query", ""),
        ("label_only", ""),
        ("defended", ""),
    ]
    assert set(ways(attack, "default")) - set(ways(attack, "quick")) == {("defended", "split_accounts")}
    assert {wrapper for _, wrapper in ways(attack, "full")} == {"", *WRAPPERS}


def test_jitter_is_for_numbers() -> None:
    assert not suits(attack_named("good_words"), "jitter_across")
    assert suits(attack_named("hopskipjump"), "jitter_across")


def test_no_wrapper_is_for_generated_text() -> None:
    assert set(ways(attack_named("last_layer"), "full")) == {("undefended", ""), ("defended", "")}


def test_attacks_are_chosen_by_mode_gate_and_name() -> None:
    gated = frozenset({"good_words"})
    assert {a.name for a in chosen("quick", [], gated)} == {*QUICK, "good_words"}
    assert [a.name for a in chosen("default", [], gated)] == list(names())
    assert [a.name for a in chosen("quick", ["nes", "mimic"], gated)] == ["mimic", "nes"]
    with pytest.raises(KeyError, match="nse"):
        chosen("default", ["nse"], gated)


def test_the_longest_start_first_and_shadows_are_known() -> None:
    assert weight(HEAVY[0]) < weight(HEAVY[-1]) < weight("good_words")
    assert shadowed("membership_lira", "")
    assert shadowed("equation_solving_binary", "ddae")
    assert not shadowed("equation_solving_binary", "averaging")
