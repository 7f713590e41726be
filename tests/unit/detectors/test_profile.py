"""Profiles as files: what is written is read back, and nothing else is ever taken for a profile."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.detectors.packed import pack
from guard.detectors.profile import MAX_BYTES, Profile, ProfileError, decode, encode
from guard.model.arrays import Floats
from tests.support.profiles import a_profile

Content = dict[str, Any]  # Any: JSON, taken apart to damage it
WRITTEN = encode(a_profile())


def signed(content: Mapping[str, object]) -> bytes:
    """Return content with a digest that fits, whatever is in it."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    digest = hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps(rest | {"digest": digest})


def changed(change: Callable[[Content], object]) -> bytes:
    content: Content = orjson.loads(WRITTEN)
    change(content)
    return signed(content)


def same(a: Any, b: Any) -> bool:  # Any: whatever a profile holds
    if isinstance(a, np.ndarray):
        return np.allclose(cast("Floats", a), b, rtol=1e-6)
    if isinstance(a, Mapping):
        held = cast("Mapping[str, Any]", a)
        return held.keys() == b.keys() and all(same(held[key], b[key]) for key in held)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


def test_a_profile_is_read_back_as_it_was_written() -> None:
    profile = a_profile()
    read = decode(encode(profile))
    assert same(dataclasses.replace(read, digest=""), profile)
    assert read.references["mahalanobis"]["whiten"].dtype == np.float32
    assert len(read.digest) == 64


def test_the_digest_tells_profiles_apart_and_not_their_writing() -> None:
    other = dataclasses.replace(a_profile(), horizon=641)
    assert decode(encode(other)).digest != decode(WRITTEN).digest
    assert decode(signed(orjson.loads(WRITTEN))).digest == decode(WRITTEN).digest


def test_unused_edges_and_weights_may_be_infinite() -> None:
    profile = a_profile()
    edges = profile.null.edges.copy()
    edges[0, 3:] = np.inf
    weights = profile.null.log_weights.copy()
    weights[1] = [0.0, -np.inf, -np.inf]
    null = dataclasses.replace(profile.null, edges=edges, log_weights=weights)
    read = decode(encode(dataclasses.replace(profile, null=null)))
    assert np.isposinf(read.null.edges[0, 3:]).all()
    assert np.isneginf(read.null.log_weights[1, 1:]).all()


def test_any_changed_bit_is_found() -> None:
    rng = np.random.default_rng(1)
    for place in rng.integers(len(WRITTEN) - 1, size=200).tolist():
        data = bytearray(WRITTEN)
        data[place] ^= 1
        with pytest.raises(ProfileError, match=r"damaged|not a profile|another version"):
            decode(bytes(data))


def test_a_file_that_was_cut_off_is_damaged() -> None:
    with pytest.raises(ProfileError, match="damaged"):
        decode(WRITTEN[: len(WRITTEN) // 2])


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"[]", b"null", b'{"version": 1}', b"version: 1"])
def test_what_is_no_profile_is_called_so(data: bytes) -> None:
    with pytest.raises(ProfileError, match="not a profile"):
        decode(data)


def test_a_file_beyond_bounds_is_not_read() -> None:
    with pytest.raises(ProfileError, match="larger than 64 MiB"):
        decode(b" " * (MAX_BYTES + 1))


@pytest.mark.parametrize("version", [0, 2, None, "1", True])
def test_another_version_says_what_to_do(version: object) -> None:
    with pytest.raises(ProfileError, match=r"another version of Guard \(.+\); run guard calibrate again"):
        decode(changed(lambda content: content.update(version=version)))


def _set(*path: str, to: object) -> Callable[[Content], object]:
    def change(content: Content) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


FLOATS = pack(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("mean", to=pack(np.zeros(4))), "mean has 4 numbers"),
        (_set("mean", "dtype", to="|O"), "mean is not an array"),
        (_set("mean", "shape", to=[2**31]), "mean has no shape"),
        (_set("mean", "shape", to=[0, 2**30, 2**30, 2**30]), "mean has 24 bytes"),
        (_set("mean", "shape", to=[True] * 3), "mean has no shape"),
        (_set("mean", "data", to="AA-"), "base64"),
        (_set("mean", to=pack(np.array([1.0, np.nan, 0.0]))), "NaN"),
        (_set("mean", to=pack(np.array([1.0, np.inf, 0.0]))), "infinite"),
        (_set("mean", to=pack(np.arange(3))), "no floats"),
        (_set("scale", to=pack(np.array([1.0, 0.0, 1.0]))), "not above 0"),
        (_set("scale", to=pack(np.ones(2))), "shape"),
        (_set("held_out", to=FLOATS), "held_out has shape"),
        (_set("held_out_top", to=pack(np.arange(4))), "held_out_top has shape"),
        (_set("held_out_top", to=pack(-np.arange(5))), "whole numbers"),
        (_set("answers", to=pack(np.array([[2.0]]))), "no probability"),
        (_set("sups", "any", to=pack(np.array([2.0, 1.0]))), "sups.any is not sorted"),
        (_set("sups", to={}), "sups.any is missing"),
        (_set("references", to={"repeats": {}}), "different detectors"),
        (_set("references", "repeats", to={"flags": {"dtype": "|b1", "shape": [1], "data": "Ag=="}}), "truth"),
        (_set("null", "edges", to=pack(np.zeros((2, 6)))), "null.edges has shape"),
        (_set("null", "edges", to=pack(np.tile(-np.arange(7.0), (2, 1)))), "ascend"),
        (_set("null", "prototypes", to=pack(np.zeros((2, 3, 8)))), "no"),
        (_set("null", "prototypes", to=pack(np.zeros((2, 0, 8)))), "null"),
        (_set("null", "log_weights", to=pack(np.zeros((2, 3)))), "sum to 1"),
        (_set("null", "log_bets", to=pack(np.ones((2, 1, 8)))), "above 1"),
        (_set("null", "mean", to=pack(np.ones((2, 8)))), "no distribution"),
        (_set("null", "signals", to=[]), "signals"),
        (_set("null", "signals", to=[["repeats", "repeats", "structure"]] * 2), "twice"),
        (_set("null", "signals", to=[["repeats", "repeats", "none"]] * 2), "tier"),
        (_set("sketch", to={"kind": "sound"}), "sketch"),
        (_set("sketch", "salt", to="xy"), "sketch"),
        (_set("clients", to=-1), "clients"),
        (_set("clients", to=1.5), "clients"),
        (_set("clip_mean", to=0.5), "clip_mean"),
        (_set("name", to=7), "name"),
        (_set("horizon", to=True), "horizon"),
    ],
)
def test_a_profile_that_does_not_hold_together_is_damaged(change: Callable[[Content], object], message: str) -> None:
    with pytest.raises(ProfileError, match="damaged: ") as caught:
        decode(changed(change))
    assert message in str(caught.value)


def test_what_would_not_be_read_back_is_not_written() -> None:
    profile = a_profile()
    with pytest.raises(ProfileError, match="different detectors"):
        encode(dataclasses.replace(profile, references={}))
    with pytest.raises(ProfileError, match="cannot be written"):
        encode(dataclasses.replace(profile, references={"repeats": {"x": np.array([object()])}, "mahalanobis": {}}))


def test_deep_nesting_is_an_error_like_any_other() -> None:
    inner = b'{"a":' * 600 + b"1" + b"}" * 600
    with pytest.raises(ProfileError, match="damaged: nested too deep"):
        decode(b'{"format":"guard-profile","version":1,"x":' + inner + b"}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ARRAYS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["<f8", "<f4", "<i8", "|b1", "|u1", "|O", "<c16", ">f8"]) | JSON,
        "shape": st.lists(st.integers(-1, 2**40), max_size=5) | JSON,
        "data": st.sampled_from(["", "AAAA", "AAAAAAAA8D8="]) | JSON,
    }
)
PATHS = st.sampled_from(
    [(key,) for key in orjson.loads(WRITTEN)] + [("null", key) for key in orjson.loads(WRITTEN)["null"]]
)


@given(st.binary(max_size=64) | JSON.map(orjson.dumps))
def test_no_bytes_lead_to_another_error(data: bytes) -> None:
    with pytest.raises(ProfileError):
        decode(data)


@settings(max_examples=150)
@given(PATHS, JSON | ARRAYS)
def test_no_value_in_a_profiles_place_leads_to_another_error(path: tuple[str, ...], value: object) -> None:
    data = changed(_set(*path, to=value))
    with contextlib.suppress(ProfileError):
        assert isinstance(decode(data), Profile)
