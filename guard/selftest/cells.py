"""Which cells a self-test runs: attacks, ways in, and the wrappers that are tried on each.

`docs/selftest.md` holds the same table with what each cell is there for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from guard.selftest.attacks.registry import attacks
from guard.selftest.base import Attack
from guard.selftest.cell import Way
from guard.selftest.wrappers import WRAPPERS

Mode = Literal["quick", "default", "full"]

ADAPTIVE: tuple[tuple[str, str], ...] = (
    ("equation_solving_binary", "averaging"),
    ("equation_solving_binary", "jitter_inside"),
    ("equation_solving_binary", "jitter_across"),
    ("equation_solving_binary", "clip_logits"),
    ("equation_solving_binary", "ddae"),
    ("equation_solving_binary", "split_keys"),
    ("equation_solving_binary", "hide_25"),
    ("equation_solving_softmax", "split_accounts"),
    ("active_labels", "hide_10"),
    ("active_labels", "slow_pacing"),
    ("extract_then_invert", "labels"),
    ("attribute_leaked_answer", "averaging"),
    ("membership_threshold", "jitter_across"),
    ("membership_lira", "split_accounts"),
    ("hopskipjump", "split_accounts"),
    ("good_words", "split_accounts"),
)
"""(attack, wrapper) cells of the default run. `--full` tries every wrapper on every attack that it suits."""

SHADOWED: frozenset[str] = frozenset({"membership_shadow", "membership_lira", "membership_lira_mlp", "ddae"})
"""Attacks and wrappers that deploy models of their own behind a Guard of their own."""

QUICK: tuple[str, ...] = (
    "equation_solving_binary",
    "equation_solving_softmax",
    "attribute_leaked_answer",
    "extract_then_invert",
    "membership_threshold",
    "covert_channel",
    "hopskipjump",
    "good_words",
)
"""Attacks of `--quick`, one a threat at least, beside those that the policy's gates name."""


HEAVY: tuple[str, ...] = (
    "equation_solving_mlp",
    "equation_solving_softmax",
    "retrain_uniform",
    "retrain_in_distribution",
    "knockoff",
    "jbda",
    "gibberish_text",
    "membership_lira",
    "last_layer",
)
"""Attacks whose cells take longest: they start first, so that none is left alone at the end."""


def weight(attack: str) -> int:
    """Return where an attack's cells stand in the order of starting."""
    return HEAVY.index(attack) if attack in HEAVY else len(HEAVY)


def chosen(mode: Mode, only: Sequence[str], gated: frozenset[str]) -> list[Attack]:
    """Return the attacks to run, in the order of reports.

    Args:
        mode: how much.
        only: names that were asked for; all of the mode's when empty.
        gated: attacks that the policy's gates name.

    Raises:
        KeyError: a name that no attack has.
    """
    known = attacks()
    for name in only:
        if name not in known:
            raise KeyError(name)
    if only:
        return [attack for name, attack in known.items() if name in only]
    if mode == "quick":
        return [attack for name, attack in known.items() if name in QUICK or name in gated]
    return list(known.values())


def ways(attack: Attack, mode: Mode) -> Iterator[tuple[Way, str]]:
    """Yield the cells of an attack: (way, wrapper)."""
    yield "undefended", ""
    for floor in attack.floors:
        yield ("zero_query" if floor == "zero_query" else "label_only"), ""
    yield "defended", ""
    if mode == "full":
        wrappers = [wrapper for wrapper in WRAPPERS if suits(attack, wrapper)]
    elif mode == "default":
        wrappers = [wrapper for name, wrapper in ADAPTIVE if name == attack.name]
    else:
        wrappers = []
    for wrapper in wrappers:
        yield "defended", wrapper


def suits(attack: Attack, wrapper: str) -> bool:
    """Say whether a wrapper can change anything for an attack: jitter is for numbers, labels read as labels already."""
    if "generation" in attack.needs:  # wrappers change scores, of which a text has none
        return False
    numbers = wrapper.startswith("jitter")
    return not (numbers and "text" in attack.needs)


def shadowed(attack: str, wrapper: str) -> bool:
    """Say whether a cell deploys models of its own."""
    return attack in SHADOWED or wrapper in SHADOWED
