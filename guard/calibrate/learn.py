"""Detectors learn from honest clients, those that can."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from guard.calibrate.findings import Settings
from guard.calibrate.read import CalibrationError
from guard.calibrate.windows import View, windows
from guard.detectors import DETECTORS
from guard.detectors.base import Bound, Detector, Reference, Sample
from guard.model.arrays import Floats

_FEWEST_ANSWERED = 10


@dataclass(slots=True)
class Fitted:
    """Detectors that have learnt, in the order of their signals.

    Args:
        queries: those of side `query`, with what measures.
        answers: those of side `answer`.
        references: what each learnt, by kind.
        off: those that could not, and why.
    """

    queries: list[tuple[Detector, Bound]] = field(default_factory=list)
    answers: list[tuple[Detector, Bound]] = field(default_factory=list)
    references: dict[str, Reference] = field(default_factory=dict)
    off: list[tuple[str, str]] = field(default_factory=list)

    @property
    def detectors(self) -> list[Detector]:
        """All of them, those of queries first."""
        return [detector for detector, _ in (*self.queries, *self.answers)]

    def windows(self, client: View) -> list[Floats]:
        """Return a client's window means by signal."""
        return windows([bound for _, bound in self.queries], [bound for _, bound in self.answers], client)


def chosen(how: Settings) -> list[Detector]:
    """Return the detectors to fit, in the order of the registry."""
    given = {detector.kind: detector for detector in how.detectors}
    kinds = [kind for kind, made in DETECTORS.items() if made.names and (not given or kind in given)]
    return [given.get(kind) or DETECTORS[kind](kind=kind) for kind in kinds]


def learn(views: Sequence[View], width: int, salt: bytes, how: Settings) -> Fitted:
    """Let every detector learn that can.

    Args:
        views: honest clients.
        width: m; 0 without vectors.
        salt: the sketch's, a secret of the deployment: what is drawn depends on it, and is the same where it serves.
        how: which detectors, and the seed.

    Raises:
        CalibrationError: none of those of queries can.
    """
    margins = [known if len(known := client.known()) else None for client in views]
    sample = Sample([client.features for client in views], margins, _seed(salt, how.seed))
    fitted = Fitted()
    for detector in chosen(how):
        if why := _cannot(detector, width, sum(margin is not None for margin in margins)):
            fitted.off.append((detector.kind, why))
            continue
        try:
            reference = detector.learn(sample)
            bound = detector.bind(reference, width, salt)
        except ValueError as error:
            fitted.off.append((detector.kind, str(error)))
            continue
        fitted.references[detector.kind] = reference
        (fitted.queries if detector.side == "query" else fitted.answers).append((detector, bound))
    if not fitted.queries:
        raise CalibrationError("no detector of queries can be fitted to these recordings")
    return fitted


def _seed(salt: bytes, seed: int) -> int:
    """Return a seed that nobody knows who does not know the salt: directions that are drawn are not to be guessed."""
    return int.from_bytes(hashlib.sha256(b"guard calibrate %d" % seed + salt).digest()[:8], "big")


def _cannot(detector: Detector, width: int, answered: int) -> str:
    """Say why a detector cannot be fitted; empty when it can."""
    if detector.side == "answer":
        return "" if answered >= _FEWEST_ANSWERED else "too few clients whose answers had scores"
    if not width and (detector.scaled or detector.profiled):
        return "the recordings have no vectors"
    return ""
