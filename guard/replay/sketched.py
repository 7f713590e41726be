"""Requests as their sketches have them, put before a route as if they had come over its API.

What a sketch holds of a query and of an answer takes the place of what the codec would have read. Of a vector of at
most 64 features that is all of it, in single precision; of longer ones and of texts it is salted keys and a sketch,
which is all that detection looks at, and enough to tell a repeat. What is missing is counted row by row (`MISSING`),
since a report that left it out would promise what was not tried.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np
import orjson

from guard.detectors.base import Features, Keys
from guard.detectors.project import tame
from guard.detectors.setup import declared_scale
from guard.detectors.sketch import Sketch, Sketcher
from guard.errors import GuardError
from guard.evidence.recording import ENFORCED, LONGER, RAW, RELEASED, TOP, WHOLE, Header, Records
from guard.model.arrays import Floats
from guard.model.domain import Inputs
from guard.model.exchange import Call, Reply
from guard.model.outputs import CLASS_KINDS, Kind
from guard.model.prediction import Answer, Prediction, Release
from guard.model.queries import Queries
from guard.policy.plan import RoutePlan
from guard.replay.traffic import Sketched
from guard.wire.base import Endpoint, Reading

_LEAST = 1e-12
MISSING: dict[str, str] = {
    "codec": "rows whose body was not there: what a codec would have refused, or left out of an answer, is not seen",
    "domain": "rows whose features were not there: whether they lie in the policy's domain is not seen",
    "scores": "rows without scores: what defences would do to them is not seen",
    "top_two": "rows of which only the two greatest scores were there: shifts are of these two",
    "kind": "rows of logits or their logarithms: recorded as probabilities, replayed as logarithms of these",
    "vectors": "rows whose sketch is not the profile's: detectors that need vectors did not see them",
    "longer": "rows of requests that had more rows than were recorded: budgets count too few",
    "enforced": "rows recorded under a policy that enforced: what it refused is not there",
    "releases": "rows whose scores are a mechanism's and not the model's: no defence was tried on them",
    "private": "rows for a route with a mechanism of differential privacy: left out, only bodies can be replayed there",
    "ensemble": "rows of an ensemble: what the models said together is taken for what this policy would put together",
}
"""What sketches cannot tell, by category: numbers of rows are given with each."""


class SketchCodec:
    """A codec for one request at a time: `at` is what it reads, whatever the call says."""

    name: ClassVar[str] = "sketch"
    endpoints: tuple[Endpoint, ...] = ()

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        self.queries = Queries(1, None)
        self.scores: Floats | None = None
        self.complete = True

    def read(self, call: Call) -> Reading:
        """Return what was sketched."""
        del call
        return Reading(self.queries, b"")

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return nothing: nobody is asked."""
        del reading, snapped
        return b""

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Return the recorded scores."""
        del reply
        answer = Answer(reading.queries.rows, None)
        if self.scores is not None:
            shape = "fixed" if self.complete else "sparse"
            answer.predictions.append(Prediction("recorded", self.scores, _nowhere, shape, self.complete))
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Return nothing."""
        del answer
        return b"", b""

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return nothing."""
        del error
        return b"", b""


def _nowhere(release: Release) -> None:
    del release


class RecordedSketcher(Sketcher):
    """Gives out recorded keys and sketches, row after row, in place of making them."""

    def __init__(self, sketch: Sketch | None, salt: bytes, mean: Floats | None, scale: Floats | None) -> None:
        super().__init__(sketch, salt, mean, scale)
        self.standard = (mean, scale)
        self._recorded: tuple[Keys, Floats | None] = (np.zeros((0, 9), dtype=np.uint32), None)
        self._at = 0

    def take(self, keys: Keys, raw: Floats | None) -> None:
        """Give out these next."""
        self._recorded, self._at = (keys, raw), 0

    def features(self, queries: Queries) -> Features:
        """Return the next rows; `queries` says how many."""
        rows = slice(self._at, self._at + queries.rows)
        self._at = rows.stop
        keys, raw = self._recorded
        mean, scale = self.standard
        if raw is None:
            return Features(keys[rows], None, False)
        vectors = raw[rows] if mean is None else raw[rows] - mean
        if scale is None:
            return Features(keys[rows], vectors, False)
        return Features(keys[rows], tame(vectors / scale, 1e6), True)


class Unchecked(Inputs):
    """A domain that says how long a query is, and refuses none: there are no features to look at."""

    def admit(self, queries: Queries) -> Floats | None:
        """Admit them."""
        del queries
        return None


class Stage:
    """Puts sketched requests before one route.

    Args:
        route: the policy's.
        salt: of the deployment, for whatever is hashed anew.
        missing: gets counts of rows, by category of `MISSING`.
    """

    def __init__(self, route: RoutePlan, salt: bytes, missing: Counter[str]) -> None:
        self._route = route
        self._salt = salt
        self._missing = missing
        self._codec = SketchCodec(route.outputs.kind)
        self._whole = replace(route, codec=self._codec, ensemble=None)
        self._made: dict[tuple[str, int | None, str], tuple[RoutePlan, RecordedSketcher | None, bool]] = {}

    def set(self, request: Sketched) -> RoutePlan | None:
        """Return the route that takes a request, ready to; None for one that sketches cannot be replayed on."""
        records, rows = request.records, len(request.records)
        about = int(records["flags"][0])
        self._missing["codec"] += rows
        for flag, what in ((LONGER, "longer"), (ENFORCED, "enforced"), (RELEASED, "releases")):
            if about & flag:
                self._missing[what] += rows
        if self._route.private is not None:
            self._missing["private"] += rows
            return None
        if self._route.ensemble is not None:
            self._missing["ensemble"] += rows
        self._scores(records, about)
        flagged = bool((records["flags"] & RAW).all())
        size = request.header.sketch.get("size")
        if flagged and request.header.sketch.get("kind") == "vector" and size == request.header.width:
            self._codec.queries = Queries(rows, decimals(records["raw"]))
            return self._whole
        return self._without_features(request, flagged=flagged)

    def _scores(self, records: Records, about: int) -> None:
        codec, kind, flags = self._codec, self._route.outputs.kind, records["flags"]
        codec.scores, codec.complete = None, True
        if about & RELEASED:
            return
        if kind in CLASS_KINDS and records["scores"].shape[1] and (flags & WHOLE).all():
            codec.scores = records["scores"].astype(np.float64)
        elif kind in CLASS_KINDS and (flags & TOP).all():
            codec.scores = np.stack([records["best"], records["second"]], axis=1).astype(np.float64)
            codec.complete = False
            self._missing["top_two"] += len(records)
        else:
            self._missing["scores"] += len(records)
        if codec.scores is not None and kind != "probabilities":
            self._missing["kind"] += len(records)
            codec.scores = np.log(np.maximum(codec.scores, _LEAST))

    def _without_features(self, request: Sketched, *, flagged: bool) -> RoutePlan:
        """Return the route for rows that are known by keys and sketches alone."""
        records, rows = request.records, len(request.records)
        if self._route.inputs is not None:
            self._missing["domain"] += rows
        raw = records["raw"].astype(np.float64) if flagged and records["raw"].shape[1] else None
        named = [(record["keys"].tobytes() + record["raw"].tobytes()).hex() for record in records]
        self._codec.queries = Queries(rows, named)
        route, sketcher, fits = self._blind(request.header)
        if sketcher is not None:
            if not fits and raw is not None:
                self._missing["vectors"] += rows
            sketcher.take(np.ascontiguousarray(records["keys"]), raw if fits else None)
        return route

    def _blind(self, header: Header) -> tuple[RoutePlan, RecordedSketcher | None, bool]:
        """Return the route, its sketcher, and whether recorded sketches fit it."""
        sketch = Sketch.model_validate(header.sketch)
        key = (sketch.kind, sketch.size, sketch.salt)
        found = self._made.get(key)
        if found is None:
            given = self._route.inputs
            size = sketch.size if given is None or given.size is None else given.size
            route, detection = replace(self._whole, inputs=Unchecked(size=size)), self._route.detection
            sketcher, fits = None, False
            if detection is not None:
                sketcher, fits = self._sketcher(sketch)
                setup = replace(detection.setup, sketcher=sketcher)
                route = replace(route, detection=replace(detection, setup=setup))
            found = self._made[key] = (route, sketcher, fits)
        return found

    def _sketcher(self, sketch: Sketch) -> tuple[RecordedSketcher, bool]:
        """Return a sketcher that standardises recorded sketches as the route does, and whether they are its own."""
        detection = self._route.detection
        profile = None if detection is None else detection.profile
        if profile is not None:
            own = profile.sketch
            mean = profile.mean if len(profile.mean) else None
            made = RecordedSketcher(own, self._salt, mean, None if mean is None else profile.scale)
            return made, (own.kind, own.size, own.salt) == (sketch.kind, sketch.size, sketch.salt)
        scale = declared_scale(self._route.inputs)
        if scale is None or sketch.size != len(scale[0]):
            return RecordedSketcher(sketch, self._salt, None, None), True
        return RecordedSketcher(sketch, self._salt, *Sketcher(sketch, self._salt).declared(*scale)), True


def decimals(raw: Records) -> list[list[float]]:
    """Return single-precision numbers as the shortest decimals that stand for them: most likely what a client wrote.

    >>> decimals(np.array([[0.1, 3.0]], dtype=np.float32))
    [[0.1, 3.0]]
    """
    return orjson.loads(orjson.dumps(np.ascontiguousarray(raw), option=orjson.OPT_SERIALIZE_NUMPY))
