"""The lab's models by name. A name may carry a suffix, `NAME.SUFFIX`, for the variants that a recipe makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from importlib import import_module

from guard.selftest.lab.victim import Victim

FAMILIES: tuple[str, ...] = (
    "classifiers",
    "texts",
    "trees",
    "noisy",
    "records",
    "members",
    "bits",
    "anomalies",
    "softmax_head",
    "canaries",
)
"""Modules of this package with `RECIPES`: name -> seed -> victim, or name -> (seed, suffix) -> victim in `VARIANTS`,
which raises KeyError for a suffix that is not its own."""


def names() -> Iterator[str]:
    """Yield the names of all models without variants."""
    for family in FAMILIES:
        yield from _family(family)[0]


@lru_cache(maxsize=256)
def victim(name: str, seed: int) -> Victim:
    """Return a trained model; the same name and seed give the same model.

    Args:
        name: such as `digits`, or `digits_forest.shadow3` for a variant.
        seed: of the split and the training.

    Raises:
        KeyError: there is no such model.
    """
    base, _, suffix = name.partition(".")
    for family in FAMILIES:
        recipes, variants = _family(family)
        if suffix and base in variants:
            with suppress(KeyError):  # a suffix of another family's
                return variants[base](seed, suffix)
        if not suffix and base in recipes:
            return recipes[base](seed)
    raise KeyError(name)


@lru_cache
def _family(name: str) -> tuple[dict[str, Callable[[int], Victim]], dict[str, Callable[[int, str], Victim]]]:
    module = import_module(f"guard.selftest.lab.{name}")
    return module.RECIPES, getattr(module, "VARIANTS", {})
