"""Honest and other clients of a small made-up domain, for tests of detectors."""

from __future__ import annotations

from functools import cache

import numpy as np

from guard.detectors import DETECTORS
from guard.detectors.base import Detector, Features, Margins, Reference, Sample
from guard.detectors.profile import Profile
from guard.detectors.sketch import Sketch, Sketcher
from guard.detectors.stream import Stream
from guard.evidence.fit import fit_null
from guard.evidence.values import WINDOW
from guard.model.arrays import Floats
from guard.model.queries import Queries

WIDTH = 8
SALT = b"a salt for tests"


def sketcher(width: int = WIDTH) -> Sketcher:
    """Return a sketcher whose scale is known."""
    return Sketcher(Sketch(size=width), SALT, np.zeros(width), np.ones(width))


def features(rows: Floats) -> Features:
    """Return what detectors see of rows of numbers."""
    return sketcher(rows.shape[1]).features(Queries(len(rows), rows.tolist()))


def honest(seed: int, n: int = 240) -> Floats:
    """Return one honest client's queries, shape (n, WIDTH): clusters on a curved sheet, to two decimals."""
    rng = np.random.default_rng([seed, 1])
    centres = np.random.default_rng(0).normal(size=(5, 2)) * 1.5
    chosen = rng.choice(5, size=n, p=rng.dirichlet(np.ones(5)))
    at = centres[chosen] + rng.normal(size=(n, 2)) * 0.7
    sheet = np.stack([at[:, 0], at[:, 1], at.sum(axis=1), at[:, 0] * at[:, 1], at[:, 0] ** 2 / 2], axis=1)
    return np.round(np.hstack([sheet, np.tanh(at), at[:, :1] - at[:, 1:]]) + rng.normal(size=(n, WIDTH)) * 0.2, 2)


def honest_margins(seed: int, n: int = 240) -> Floats:
    """Return the margins of an honest client's answers, shape (n,)."""
    return np.random.default_rng([seed, 2]).beta(4, 1, size=n)


@cache
def sample(clients: int = 40) -> Sample:
    """Return calibration traffic of as many honest clients."""
    return Sample(
        [features(honest(100 + i)) for i in range(clients)], [honest_margins(100 + i) for i in range(clients)], 5
    )


@cache
def learnt(detector: Detector) -> Reference:
    """Return what a detector learns from honest clients."""
    return detector.learn(sample())


def signals(detector: Detector, rows: Floats, reference: Reference | None = None) -> Floats:
    """Return what a detector makes of a client's queries, shape (n, signals)."""
    known = learnt(detector) if reference is None else reference
    return Stream([detector.bind(known, rows.shape[1], SALT)]).ask(features(rows))


def answered(detector: Detector, margins: Floats, reference: Reference | None = None) -> Floats:
    """Return what a detector makes of a client's answers, shape (n, signals)."""
    known = learnt(detector) if reference is None else reference
    return detector.bind(known, WIDTH, SALT).measure_answers(Margins(margins))


def window_means(rows: Floats) -> Floats:
    """Return means over whole windows, shape (n, s) -> (w, s)."""
    whole = len(rows) // WINDOW
    return rows[: whole * WINDOW].reshape(whole, WINDOW, rows.shape[1]).mean(axis=1)


@cache
def profile() -> Profile:
    """Return a profile of all detectors, learnt from honest clients."""
    known = sample()
    order = sorted((spec(kind=kind) for kind, spec in DETECTORS.items()), key=lambda d: d.side == "answer")
    references = {detector.kind: learnt(detector) for detector in order}
    asking = [d.bind(references[d.kind], WIDTH, SALT) for d in order if d.side == "query"]
    answering = [d.bind(references[d.kind], WIDTH, SALT) for d in order if d.side == "answer"]
    windows: list[list[Floats]] = []
    for asked, margins in zip(known.features, known.margins, strict=True):
        assert margins is not None
        said = [bound.measure_answers(Margins(margins)) for bound in answering]
        parts = Stream(asking).ask(asked), np.concatenate(said, axis=1)
        windows.append([column for part in parts for column in window_means(part).T])
    null = fit_null([signal for detector in order for signal in detector.signals()], windows, 0)
    return Profile(
        name="made up",
        made="2026-11-26T12:00:00Z",
        sketch=Sketch(size=WIDTH),
        mean=np.zeros(WIDTH),
        scale=np.ones(WIDTH),
        references=references,
        null=null,
        sups={"any": np.zeros(40), "structure": np.zeros(40)},
        horizon=240,
        clients=40,
        augmented=0,
        queries=40 * 240,
        left_out=0,
        clip_mean=1.0,
        held_out=honest(1),
        held_out_top=np.zeros(240, dtype=np.int64),
        answers=np.zeros((0, 0)),
    )
