"""Mechanisms of differential privacy, bound for tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from guard.defences import DEFENCES
from guard.defences.base import Reuse
from guard.defences.mechanism import Mechanism
from guard.model.arrays import Words
from guard.model.outputs import Kind, Outputs


@dataclass(frozen=True)
class Cryptographic:
    """Fresh bytes only: a mechanism that asks for keyed words fails."""

    def fresh(self, size: int) -> bytes:
        return os.urandom(size)

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        raise AssertionError("keyed words are no noise of differential privacy")

    def constant(self, name: bytes) -> float:
        raise AssertionError("a secret number is no noise of differential privacy")

    def own(self, name: bytes, size: int) -> bytes:
        raise AssertionError("secret bytes are no noise of differential privacy")


def outputs_of(kind: Kind, columns: int) -> Outputs:
    """Outputs of any kind: values from -10 to 10, embeddings up to a norm of 10."""
    return Outputs(kind=kind, low=-10, high=10, norm=10, classes=tuple(range(max(columns, 2))))


def made(kind: str, **fields: object) -> Mechanism:
    """A mechanism as a policy would have it."""
    spec = DEFENCES[kind].model_validate({"kind": kind, **fields})
    assert isinstance(spec, Mechanism)
    return spec


def bound(
    kind: str,
    given: Mapping[str, object] = MappingProxyType({}),
    *,
    outputs: Outputs | None = None,
    columns: int = 2,
    quorum: int = 1,
    sensitivity: float | None = None,
    **fields: object,
) -> Mechanism:
    """A mechanism that is bound to a route's outputs: probabilities of two classes unless said otherwise.

    Its parameters are those `given` and those in `fields`.
    """
    at = outputs or outputs_of("probabilities", columns)
    return made(kind, **given, **fields).bind(at, quorum, columns, sensitivity)
