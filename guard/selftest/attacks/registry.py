"""All attacks by name, in the order of reports. A new attack is one file and one line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

from guard.selftest.base import Attack

MODULES: tuple[str, ...] = (
    "equation_solving",
    "equation_solving_mlp",
    "values",
    "retrain",
    "knockoff",
    "jbda",
    "gibberish_text",
    "mimic",
    "attribute_map",
    "attribute_leaked_answer",
    "trees",
    "lowd_meek",
    "active_labels",
    "averaging",
    "prototype_inversion",
    "extract_then_invert",
    "membership_threshold",
    "membership_shadow",
    "membership_lira",
    "membership_label_only",
    "covert_channel",
    "hopskipjump",
    "surfree",
    "oars",
    "square",
    "nes",
    "anomaly_evasion",
    "good_words",
    "last_layer",
    "canary_extraction",
)
"""Modules of this package with `ATTACKS`, a tuple of attack instances with their default parameters."""


@lru_cache
def attacks() -> Mapping[str, Attack]:
    """Return all attacks by name, in order."""
    found: dict[str, Attack] = {}
    for module in MODULES:
        for attack in cast("tuple[Attack, ...]", import_module(f"guard.selftest.attacks.{module}").ATTACKS):
            found[attack.name] = attack
    return found


def names() -> Iterator[str]:
    """Yield the attacks' names in order."""
    yield from attacks()


def attack_named(name: str, changes: Mapping[str, object] | None = None) -> Attack:
    """Return an attack, with other parameters if asked.

    Args:
        name: the attack's.
        changes: parameters by name; those that it does not have are passed over.

    Raises:
        KeyError: there is none of that name.
    """
    attack = attacks()[name]
    known = {field.name for field in fields(cast("Any", attack))}  # Any: every attack is a dataclass
    fitting = {k: v for k, v in (changes or {}).items() if k in known}
    return cast("Attack", replace(cast("Any", attack), **fitting)) if fitting else attack
