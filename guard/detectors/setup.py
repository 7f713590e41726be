"""A route's detectors, bound, with the null that their signals are held against."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy import typing as npt

from guard.detectors import DETECTORS
from guard.detectors.base import Bound, Detector, Reference
from guard.detectors.profile import Profile
from guard.detectors.shipped import of_signals, shipped_null
from guard.detectors.sketch import Sketch, Sketcher, sketch_salt
from guard.evidence.null import Null
from guard.evidence.values import BINS, Signal
from guard.model.arrays import Floats
from guard.model.domain import Bound as Limit
from guard.model.domain import Inputs


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


DEFAULT: tuple[Detector, ...] = tuple(spec(kind=kind) for kind, spec in DETECTORS.items())
"""All detectors, in the order of signals."""
_MADE: WeakValueDictionary[tuple[str, bytes], Setup] = WeakValueDictionary()
"""Setups that are in use, by what they depend on."""
_NOTHING: Reference = {}
_NO_REFERENCES: Mapping[str, Reference] = {}


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Setup:
    """What a client's tracker runs on; shared by all clients of a route, and by all plans that mean the same.

    Args:
        sketcher: makes features of queries.
        queries: detectors of side `query`; their signals come first, in this order.
        answers: detectors of side `answer`; their signals follow.
        null: the signals and what honest clients look like to them.
        query_signals: number of signals of side `query`.
        fingerprint: 12 hexadecimal digits of everything that counts depend on: counts of another setup are not mixed
            with these.
    """

    sketcher: Sketcher
    queries: tuple[Bound, ...]
    answers: tuple[Bound, ...]
    null: Null
    query_signals: int
    fingerprint: str


def unavailable(
    detectors: Iterable[Detector], profile: Profile | None, inputs: Inputs | None
) -> tuple[tuple[str, str], ...]:
    """Return the detectors that cannot run, and why.

    Args:
        detectors: those of a route.
        profile: the route's, or None.
        inputs: the queries' domain.

    >>> unavailable(DEFAULT[2:3], None, Inputs(size=2))
    (('near_duplicates', "needs the features' scale: a profile, or inputs with size, low and high"),)
    """
    return tuple((detector.kind, why) for detector in detectors if (why := _missing(detector, profile, inputs)))


def _missing(detector: Detector, profile: Profile | None, inputs: Inputs | None) -> str:
    if profile is not None:
        return "" if detector.kind in profile.references else "the profile was made without it"
    if detector.profiled:
        return "needs a profile"
    if detector.scaled and declared_scale(inputs) is None:
        return "needs the features' scale: a profile, or inputs with size, low and high"
    return ""


def make_setup(detectors: tuple[Detector, ...], profile: Profile | None, inputs: Inputs | None, salt: bytes) -> Setup:
    """Bind a route's detectors.

    Without a profile the structure tier runs on the shipped null (`guard/detectors/default_null.json`), and what needs
    a profile, or a scale that nothing declares, is left out; with one, a detector that the profile was not fitted with
    is an error.

    Args:
        detectors: in the order of the policy; put in the order of `DETECTORS`.
        profile: the route's, or None.
        inputs: the queries' domain: gives a scale without a profile.
        salt: secret for keys, and without a profile for what detectors draw; a profile's sketch has a salt of its own.

    Raises:
        ValueError: the profile does not fit; the message says why.
    """
    by_kind = {detector.kind: detector for detector in detectors}
    if len(by_kind) != len(detectors):
        raise ValueError("a detector is named twice")
    off = dict(unavailable(detectors, profile, inputs))
    if profile is not None:
        if off:
            raise ValueError(f"the profile was made without {', '.join(off)}: calibrate again, or leave them out")
        _check_inputs(profile.sketch, inputs)
    on = [by_kind[kind] for kind in DETECTORS if kind in by_kind and kind not in off]
    on.sort(key=lambda detector: detector.side == "answer")
    sketcher = _sketcher(profile, inputs, salt)
    references = _NO_REFERENCES if profile is None else profile.references
    # What a detector draws must be what honest traffic was measured with: hit rates differ from draw to draw.
    drawn = salt if profile is None else profile.sketch.key
    bound = [_bind(detector, references.get(detector.kind, _NOTHING), sketcher.width, drawn) for detector in on]
    queries = sum(detector.side == "query" for detector in on)
    signals = tuple(signal for detector in on for signal in detector.signals())
    null = _null(signals, profile)
    fingerprint = _fingerprint(on, null, profile, inputs)
    made = Setup(
        sketcher,
        tuple(bound[:queries]),
        tuple(bound[queries:]),
        null,
        sum(len(detector.names) for detector in on[:queries]),
        fingerprint,
    )
    # A client in memory keeps the setup that it came under: reload after reload would each leave a table of 15 MB.
    return _MADE.setdefault((fingerprint, salt), made)


def _bind(detector: Detector, reference: Reference, width: int, salt: bytes) -> Bound:
    try:
        return detector.bind(reference, width, salt)
    except ValueError as error:
        raise ValueError(f"{detector.kind}: {error}") from error


def _null(signals: tuple[Signal, ...], profile: Profile | None) -> Null:
    if not signals:
        no = np.zeros
        return Null((), no((0, BINS - 1)), no((0, 1, BINS)), no((0, 1)), no((0, 1, BINS)), no((0, BINS)))
    return of_signals(shipped_null() if profile is None else profile.null, signals)


def _sketcher(profile: Profile | None, inputs: Inputs | None, salt: bytes) -> Sketcher:
    if profile is not None:
        known = len(profile.mean) > 0
        return Sketcher(profile.sketch, salt, profile.mean if known else None, profile.scale if known else None)
    sketch = _sketch(inputs, salt)
    declared = declared_scale(inputs)
    if sketch is None or declared is None:
        return Sketcher(sketch, salt)
    return Sketcher(sketch, salt, *Sketcher(sketch, salt).declared(*declared))


def _sketch(inputs: Inputs | None, salt: bytes) -> Sketch | None:
    """Return the sketch that the declared domain asks for; None takes queries as they come."""
    if inputs is not None and inputs.kind == "text":
        return Sketch(kind="text", salt=sketch_salt(salt))
    if inputs is not None and inputs.size is not None:
        return Sketch(kind="vector", size=inputs.size, salt=sketch_salt(salt))
    return None


def declared_scale(inputs: Inputs | None) -> tuple[Floats, Floats] | None:
    """Return mean and standard deviation of features uniform over the declared domain, shape (size,) each."""
    if inputs is None or inputs.size is None or inputs.low is None or inputs.high is None:
        return None
    low, high = _each(inputs.low, inputs.size), _each(inputs.high, inputs.size)
    return (low + high) / 2, (high - low) / np.sqrt(12)


def _each(limit: Limit, size: int) -> Floats:
    return np.broadcast_to(np.asarray(limit, dtype=np.float64), (size,))


def _check_inputs(sketch: Sketch, inputs: Inputs | None) -> None:
    if inputs is None:
        return
    numbers = sketch.kind in ("vector", "image")
    if inputs.kind == "text" and sketch.kind != "text":
        raise ValueError(f"the profile is of {sketch.kind} queries, and the route's are texts")
    if inputs.kind == "vector" and sketch.kind == "text":
        raise ValueError("the profile is of texts, and the route's queries are vectors")
    if numbers and None not in (inputs.size, sketch.size) and inputs.size != sketch.size:
        raise ValueError(f"the profile is of queries of {sketch.size} features, and the route's have {inputs.size}")


def _fingerprint(detectors: Iterable[Detector], null: Null, profile: Profile | None, inputs: Inputs | None) -> str:
    """Return a digest of what counts depend on; salts do not change what a count means."""
    digest = hashlib.sha256()
    for detector in detectors:
        digest.update(detector.model_dump_json().encode())
        known = _NOTHING if profile is None else profile.references[detector.kind]
        for name in sorted(known):
            digest.update(name.encode())
            _add(digest, known[name])
    for signal in null.signals:
        digest.update("/".join(signal).encode())
    for array in (null.edges, null.prototypes, null.log_weights, null.log_bets, null.mean):
        _add(digest, array)
    if profile is None:
        declared = declared_scale(inputs)
        digest.update(b"-" if inputs is None else f"{inputs.kind} {inputs.size}".encode())
        for array in declared or ():
            _add(digest, array)
    else:
        digest.update(profile.sketch.model_dump_json().encode())
        _add(digest, profile.mean)
        _add(digest, profile.scale)
    return digest.hexdigest()[:12]


def _add(digest: _Digest, array: npt.NDArray[np.generic]) -> None:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
