"""Guard's own detection, run over whole streams: what a replica that sees all of a client's queries would hold."""

from __future__ import annotations

import numpy as np

from guard.detectors import DETECTORS
from guard.detectors.base import Features, Margins
from guard.detectors.profile import Profile
from guard.detectors.setup import Setup, make_setup
from guard.detectors.stream import Stream
from guard.engine.tracker import Tracker, bins_of
from guard.evidence.gamma import evidence
from guard.evidence.levels import level
from guard.evidence.values import BINS, BUCKET, WINDOW
from guard.evidence.wealth import starts
from guard.model.arrays import Floats, Ints
from guard.model.domain import Inputs
from tests.benchmarks.detection.worlds import Rows, World

ANY, STRUCTURE = 0, 1
TIERS = ("any", "structure")
ALPHAS = (1e-2, 1e-3)
SALT = b"benchmarks of detection"
CHUNK, CHECKED = 512, 50


def _part(features: Features, start: int, end: int) -> Features:
    keys, vectors, scaled = features
    return Features(keys[start:end], None if vectors is None else vectors[start:end], scaled)


def margins(answers: Floats) -> Floats:
    """Return top score less the second, shape (n,)."""
    two = np.partition(answers, -2, axis=1)
    return two[:, -1] - two[:, -2]


class Watch:
    """A route's detection.

    Args:
        world: what is asked.
        profile: or None: the shipped null.
        inputs: the declared domain of queries, or None.
    """

    def __init__(self, world: World, profile: Profile | None, inputs: Inputs | None = None) -> None:
        self._world = world
        specs = tuple(made(kind=kind) for kind, made in DETECTORS.items())
        self.setup: Setup = make_setup(specs, profile, inputs, SALT)
        self.thresholds = np.log(1 / np.array([ALPHAS, ALPHAS]))
        """ln e that alarms, shape (tiers, alphas)."""
        names = self.setup.null.signals
        self._any: Ints = np.arange(len(names))
        self._structure: Ints = np.array([i for i, n in enumerate(names) if n.tier == "structure"], dtype=np.int64)
        self._runs = 0
        self.levels: dict[str, str] = {}
        if profile is not None:
            for t, tier in enumerate(TIERS):
                for a, alpha in enumerate(ALPHAS):
                    found = level(alpha, profile.sups[tier], profile.horizon)
                    self.thresholds[t, a] = found.threshold
                    self.levels[f"{tier} {alpha:g}"] = f"{found}, threshold {found.threshold:.2f}"

    def evidence(self, rows: Rows, answers: Floats | None = None) -> Floats:
        """Return a client's ln e after each window.

        The parts of `Tracker` are run in bulk, which takes a third of the time; now and then the tracker itself is run
        as well, and must agree.

        Args:
            rows: its n queries.
            answers: probabilities, shape (n, K); None: the model is asked.

        Returns:
            Shape (n // 16, 2): over all signals, and over the structure tier's.
        """
        features = self.setup.sketcher.features(self._world.queries(rows))
        margin = margins(self._world.predict(rows) if answers is None else answers)
        w = len(rows) // WINDOW
        signals = self._signals(features, margin)
        bins = bins_of(signals[: w * WINDOW].reshape(w, WINDOW, -1).sum(axis=1) / WINDOW, self.setup.null.edges)
        found = self._bulk(bins)
        self._runs += 1
        if self._runs % CHECKED == 1:
            tracked = self._tracked(features, margin)
            if not np.allclose(tracked, found, atol=1e-3):
                raise AssertionError(f"the tracker differs by {np.abs(tracked - found).max():.3g} nats")
        return found

    def _signals(self, features: Features, margin: Floats) -> Floats:
        """Return the signals of every query, shape (n, S)."""
        stream = Stream(self.setup.queries)
        parts = [stream.ask(_part(features, i, i + CHUNK)) for i in range(0, len(margin), CHUNK)]
        said = [bound.measure_answers(Margins(margin)) for bound in self.setup.answers]
        return np.concatenate([np.concatenate(parts), *said], axis=1)

    def _bulk(self, bins: Ints) -> Floats:
        """Return evidence after each window of bins, shape (w, S) -> (w, 2), as `Wealth` does."""
        w, s = bins.shape
        counts = np.zeros((w + 1, s, BINS), dtype=np.int64)
        np.put_along_axis(counts[1:], bins[:, :, None], 1, axis=2)
        before = counts.cumsum(axis=0)
        found = np.empty((w, 2))
        for bucket in range(-(-w // BUCKET)):
            first, last = bucket * BUCKET, min((bucket + 1) * BUCKET, w)
            began = np.array(starts(bucket))
            parts = before[first + 1 : last + 1, None] - before[began * BUCKET]
            logs = evidence(self.setup.null.terms, parts.reshape(-1, s, BINS)).reshape(last - first, len(began), s)
            logs -= np.log((began + 1.0) * (began + 2.0))[:, None]
            for tier, chosen in enumerate((self._any, self._structure)):
                over = logs[:, :, chosen].reshape(last - first, -1) - np.log(max(len(chosen), 1))
                rest = np.full((last - first, 1), -np.log(bucket + 2.0))
                found[first:last, tier] = np.logaddexp.reduce(np.concatenate([over, rest], axis=1), axis=1)
                if not len(chosen):
                    found[first:last, tier] = 0.0
        return found

    def _tracked(self, features: Features, margin: Floats) -> Floats:
        """Return evidence as the proxy's own tracker has it, 16 queries a request."""
        tracker = Tracker(self.setup)
        found = np.empty((len(margin) // WINDOW, 2))
        for i in range(len(found)):
            tracker.ask(_part(features, i * WINDOW, (i + 1) * WINDOW))
            tracker.answer(Margins(margin[i * WINDOW : (i + 1) * WINDOW]))
            found[i] = tracker.strength()
        return found

    def first(self, evidence: Floats, tier: int, alpha: int, start: int = 0) -> int | None:
        """Return after how many queries from window `start` on an alarm is raised; None for never."""
        over = evidence[start:, tier] >= self.thresholds[tier, alpha]
        return (int(over.argmax()) + 1) * WINDOW if over.any() else None
