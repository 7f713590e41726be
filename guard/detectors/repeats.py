"""The same query again."""

from __future__ import annotations

from typing import ClassVar, Literal

from guard.detectors.base import Blind, Bound, Detector, Features, Past, Reference
from guard.evidence.values import Tier
from guard.model.arrays import Bools, Floats


class Repeats(Detector, frozen=True):
    """Measures whether a query repeats one of the client's last 512: 1 or 0.

    Numbers count as the same when they agree in 8 significant bits, so a jitter of one in a million does not hide a
    repeat.

    Moves it: averaging noise away; a query and the same with a jitter, as membership tests on an augmented point ask;
    probing one point after each change of another request. Cannot see: repeats more than 512 queries apart, and
    repeats dressed up by a visible jitter, which `near_duplicates` is for. Health checks and retries move it too.

    Source: one fingerprint instead of the many of Li et al., USENIX Security 2022, Blacklight, section 4.

    >>> import numpy as np
    >>> bound = Repeats().bind({}, 0, b"")
    >>> rows = Features(np.zeros((2, 9), dtype=np.uint32), None, False)
    >>> bound.measure(rows, np.array([False, True]), np.zeros((2, 0), dtype=bool), Past()).ravel()
    array([0., 1.])
    """

    tier: ClassVar[Tier] = "structure"
    names: ClassVar[tuple[str, ...]] = ("repeats",)

    kind: Literal["repeats"] = "repeats"

    def bind(self, reference: Reference, width: int, salt: bytes) -> Bound:
        """Return it ready to measure; it needs nothing."""
        del reference, width, salt
        return _Repeats()


class _Repeats(Blind):
    def measure(self, features: Features, seen: Bools, hits: Bools, past: Past) -> Floats:
        del features, hits, past
        return seen[:, None].astype(float)
