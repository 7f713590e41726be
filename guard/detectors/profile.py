"""A profile: what `guard calibrate` learnt of a route's honest traffic, as one JSON file.

Arrays are base64 of little-endian bytes with dtype and shape; a SHA-256 over everything else finds a damaged file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import orjson
from pydantic import ValidationError

from guard.detectors.base import Reference
from guard.detectors.packed import Damaged, floats, ints, mapping, pack, pack_null, unpack, unpack_null
from guard.detectors.sketch import Sketch
from guard.evidence.null import Null
from guard.model.arrays import Floats, Ints

VERSION = 1
MAX_BYTES = 64 * 2**20
_FORMAT = "guard-profile"
_MOST = 2**40
"""No count of a profile is larger."""


class ProfileError(ValueError):
    """A profile that cannot be used: damaged, of another version, or not a profile; the message says which."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What is known of honest traffic.

    Args:
        name: the route that it was recorded on.
        made: when, ISO 8601, UTC.
        sketch: how queries become vectors.
        mean: of the sketch, shape (m,); of length 0 when the recordings had none, and so is what follows.
        scale: its standard deviation, at least a millionth of the largest, shape (m,).
        references: what each detector learnt, by kind; the keys are the detectors that the null was fitted with.
        null: what honest clients look like; signals in the order of `DETECTORS`, queries' before answers'.
        sups: held-out honest clients' greatest ln e over their stream, sorted, by tier.
        horizon: queries that three in four of the held-out streams reach.
        clients: clients that the null was fitted to, augmented ones not counted.
        augmented: augmented clients beside them.
        queries: calibration queries in all.
        left_out: clients left out as poisoned.
        clip_mean: nu of `guard.evidence.pool`.
        held_out: standardised queries for the information meter, shape (h, m).
        held_out_top: the model's label of each, shape (h,).
        answers: calibration answers, whole distributions, shape (r, k); r may be 0.
        digest: SHA-256 of the file's content, hexadecimal.
    """

    name: str
    made: str
    sketch: Sketch
    mean: Floats
    scale: Floats
    references: Mapping[str, Reference]
    null: Null
    sups: Mapping[Literal["any", "structure"], Floats]
    horizon: int
    clients: int
    augmented: int
    queries: int
    left_out: int
    clip_mean: float
    held_out: Floats
    held_out_top: Ints
    answers: Floats
    digest: str = ""


def encode(profile: Profile) -> bytes:
    """Return the profile as a file's content; its digest is worked out anew.

    Raises:
        ProfileError: the profile would not be read back.
    """
    try:
        content = _content(profile)
    except ValueError as error:
        raise ProfileError(f"cannot be written: {error}") from error
    data = orjson.dumps(content | {"digest": _digest(content)}, option=orjson.OPT_SORT_KEYS) + b"\n"
    decode(data)
    return data


def _content(profile: Profile) -> dict[str, object]:
    return {
        "format": _FORMAT,
        "version": VERSION,
        "name": profile.name,
        "made": profile.made,
        "sketch": profile.sketch.model_dump(mode="json"),
        "mean": pack(profile.mean),
        "scale": pack(profile.scale),
        "references": {
            kind: {name: pack(array) for name, array in reference.items()}
            for kind, reference in profile.references.items()
        },
        "null": pack_null(profile.null),
        "sups": {tier: pack(np.sort(sups)) for tier, sups in profile.sups.items()},
        "horizon": profile.horizon,
        "clients": profile.clients,
        "augmented": profile.augmented,
        "queries": profile.queries,
        "left_out": profile.left_out,
        "clip_mean": profile.clip_mean,
        "held_out": pack(profile.held_out.astype(np.float32)),
        "held_out_top": pack(profile.held_out_top.astype(np.int32)),
        "answers": pack(profile.answers.astype(np.float32)),
    }


def _digest(content: Mapping[str, object]) -> str:
    try:
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError as error:  # what is nested deeper than it writes can be read
        raise Damaged("nested too deep") from error


def decode(data: bytes) -> Profile:
    """Read a profile.

    Raises:
        ProfileError: it cannot be used.
    """
    if len(data) > MAX_BYTES:
        raise ProfileError(f"not a profile: larger than {MAX_BYTES // 2**20} MiB")
    try:
        found: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        # A file that was cut off begins like one.
        start = data[:4096].lstrip()
        cut = start.startswith(b"{") and b'"answers"' in start
        raise ProfileError("damaged: cut off or not JSON" if cut else "not a profile: not JSON") from error
    if not isinstance(found, dict) or cast("dict[str, object]", found).get("format") != _FORMAT:
        raise ProfileError("not a profile")
    content = cast("dict[str, object]", found)
    if (version := content.get("version")) != VERSION or isinstance(version, bool):
        named = version if isinstance(version, int) else "none"
        raise ProfileError(f"made by another version of Guard ({named}); run guard calibrate again")
    digest = content.pop("digest", None)
    try:
        if digest != _digest(content):
            raise Damaged("its digest does not fit its content")
        return _profile(content, cast("str", digest))
    except Damaged as error:
        raise ProfileError(f"damaged: {error}") from error


def _profile(content: Mapping[str, object], digest: str) -> Profile:
    sketch = _sketch(content.get("sketch"))
    mean = floats(content.get("mean"), "mean", None)
    width = len(mean)
    if width not in (0, sketch.width):
        raise Damaged(f"mean has {width} numbers, which the sketch does not make")
    scale = floats(content.get("scale"), "scale", width)
    if (scale <= 0).any():
        raise Damaged("scale holds a number that is not above 0")
    null = unpack_null(content.get("null"))
    references = _references(content.get("references"))
    if {signal.detector for signal in null.signals} != set(references):
        raise Damaged("references and the null are of different detectors")
    held_out = floats(content.get("held_out"), "held_out", None, width)
    answers = floats(content.get("answers"), "answers", None, None)
    if (answers < 0).any() or (answers > 1).any():
        raise Damaged("answers holds a score that is no probability")
    found = mapping(content.get("sups"), "sups")
    return Profile(
        name=_text(content, "name"),
        made=_text(content, "made"),
        sketch=sketch,
        mean=mean,
        scale=scale,
        references=references,
        null=null,
        sups={"any": _sups(found, "any"), "structure": _sups(found, "structure")},
        horizon=_count(content, "horizon"),
        clients=_count(content, "clients"),
        augmented=_count(content, "augmented"),
        queries=_count(content, "queries"),
        left_out=_count(content, "left_out"),
        clip_mean=_clip_mean(content),
        held_out=held_out,
        held_out_top=ints(content.get("held_out_top"), "held_out_top", len(held_out)),
        answers=answers,
        digest=digest,
    )


def _sketch(value: object) -> Sketch:
    try:
        return Sketch.model_validate(mapping(value, "sketch"))
    except ValidationError as error:
        raise Damaged("its sketch is none") from error


def _references(value: object) -> dict[str, Reference]:
    return {
        kind: {
            name: unpack(array, f"references.{kind[:64]}.{name[:64]}")
            for name, array in mapping(reference, f"references.{kind[:64]}").items()
        }
        for kind, reference in mapping(value, "references").items()
    }


def _sups(found: Mapping[str, object], tier: str) -> Floats:
    sups = floats(found.get(tier), f"sups.{tier}", None)
    if (sups[1:] < sups[:-1]).any():
        raise Damaged(f"sups.{tier} is not sorted")
    return sups


def _text(content: Mapping[str, object], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or len(value) > 1024:
        raise Damaged(f"{name} is no text")
    return value


def _count(content: Mapping[str, object], name: str) -> int:
    value = content.get(name)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise Damaged(f"{name} is no count")
    return value


def _clip_mean(content: Mapping[str, object]) -> float:
    value = content.get("clip_mean")
    # JSON has no infinity, but a float may be written as a whole number.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 1e6 or math.isnan(value):
        raise Damaged("clip_mean is below 1 or no number")
    return float(value)
