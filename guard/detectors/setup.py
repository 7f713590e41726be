"""A route's detectors, bound, with the null that their signals are held against."""

from __future__ import annotations

from dataclasses import dataclass

from guard.detectors.base import Bound, Detector
from guard.detectors.profile import Profile
from guard.detectors.sketch import Sketcher
from guard.evidence.null import Null
from guard.model.domain import Inputs


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What a client's tracker runs on; shared by all clients of a route.

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


def make_setup(detectors: tuple[Detector, ...], profile: Profile | None, inputs: Inputs | None, salt: bytes) -> Setup:
    """Bind a route's detectors.

    Without a profile the structure tier runs on the shipped null (`guard/detectors/default_null.json`), and what needs
    a profile, or a scale that nothing declares, is left out; with one, a detector that the profile was not fitted with
    is an error.

    Args:
        detectors: in the order of the policy; put in the order of `DETECTORS`.
        profile: the route's, or None.
        inputs: the queries' domain: gives a scale without a profile.
        salt: secret for keys; the profile's sketch has a salt of its own.

    Raises:
        ValueError: the profile does not fit; the message says why.
    """
    raise NotImplementedError
