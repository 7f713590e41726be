"""What real servers really answered, replayed through the whole of Guard.

Every recorded exchange goes through four policies. What is refused, or answered with another status than the model's,
stands in a table with its reason, so that a change is noticed; everything else keeps its status.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.support.binary import HEADER, readable
from tests.support.fakes import Answered, Guarded
from tests.support.replay import RECORDED, Exchange, exchanges

Json = Any  # Any: JSON of a foreign API


@dataclass(frozen=True)
class Server:
    """One route in front of one server's recordings.

    Args:
        name: folder of tests/recorded.
        api: the codec that fits.
        count: how many exchanges must be found.
        more: further members of the route.
        prefix: what the cases' names begin with.
        only: these cases alone; empty for all.
    """

    name: str
    api: str
    count: int
    more: str = ""
    prefix: str = ""
    only: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}-{self.prefix or 'all'}:{self.api}{'-value' if self.only else ''}"

    def exchanges(self) -> list[Exchange]:
        """Read its exchanges; fails when one was lost or added."""
        found = exchanges(self.name, self.prefix)
        found = [x for x in found if not self.only or x.name in self.only]
        assert len(found) == self.count
        return found

    def guarded(self, folder: Path, defences: str, *, mode: str = "enforce", fields: str = "known") -> Guarded:
        """Put Guard in front of it."""
        route = f"{{name: r, api: {self.api}, fields: {fields}, defences: [{defences}]{self.more}}}"
        return Guarded(f"version: 1\nmode: {mode}\nroutes:\n  - {route}\n", folder)


VALUES = tuple(
    f"tensorflow_serving/{case}"
    for case in ("predict-row-values", "regress", "regress-key-result", "regress-not-finite")
)
SERVERS = (
    Server("mlserver", "open_inference", 30),
    Server("mlflow", "mlflow", 30),
    Server("torchserve", "torchserve", 19),
    Server("triton", "open_inference", 51),
    Server("kserve", "kserve_v1", 36),
    Server("kserve", "open_inference", 36),
    Server("tensorflow_serving", "tensorflow_serving", 28),
    Server(
        "bentoml",
        "json",
        14,
        ', match: {methods: [POST], path: /classify}, select: {queries: "$.x", scores: "$[*]"}',
    ),
    Server(
        "bentoml",
        "json",
        2,
        ', match: {methods: [POST], path: /classify_json}, select: {queries: "$.rows", '
        'scores: "$[*].probabilities", labels: "$[*].label"}',
        prefix="classify-json",
    ),
    Server(
        "ray",
        "json",
        12,
        ', match: {methods: [POST], path: /digits}, select: {queries: "$.instances", '
        'scores: "$.predictions[*].probs", labels: "$.predictions[*].label"}',
    ),
)
REGRESSION = Server("tensorflow_serving", "tensorflow_serving", 4, ", outputs: {kind: value}", only=VALUES)

# fmt: off
_CLOSED: dict[str, tuple[str, ...]] = {
    "mlserver:open_inference": (
        "error-method", "error-unknown-path", "generate", "infer-stream", "metadata", "model-metadata",
        "repository-index",
    ),
    "mlflow:mlflow": ("error-method", "error-unknown-path", "openapi", "version"),
    "torchserve:torchserve": ("error-explanations", "error-unknown-path", "invocations", "metrics", "v1-predict"),
    "triton:open_inference": (
        "cuda-shared-memory", "error-method", "error-unknown-path", "generate", "generate-stream", "logging",
        "metadata", "model-config", "model-metadata", "model-stats", "model-version-metadata", "repository-index",
        "stats", "system-shared-memory", "trace-setting",
    ),
    "kserve:kserve_v1": ("alive", "v1-error-explain", "v1-models"),
    "kserve:open_inference": ("alive", "v2-error-explain", "v2-metadata", "v2-model-metadata", "v2-models"),
    "tensorflow_serving:tensorflow_serving": ("error-malformed-path", "metadata"),
    "bentoml:json": ("error-method", "error-unknown-path", "healthz", "livez", "readyz"),
    "ray:json": ("any-path-below", "error-method", "error-unknown-path", "health", "routes"),
}
_BROKEN = {  # the model failed (500): 502, without its traceback
    "mlserver:open_inference": ("error-bad-shape",),
    "mlflow:mlflow": ("error-no-content-type",),
    "kserve:kserve_v1": ("v1-error-bad-shape", "v1-error-ragged"),
    "kserve:open_inference": ("v2-error-bad-shape", "v2-error-version"),
    "bentoml:json": ("error-bad-shape",),
    "ray:json": ("error-bad-shape",),
}
_UNREADABLE = {  # Guard says so before the model is asked
    "mlserver:open_inference": ("error-no-inputs", "error-not-json", "error-shape-beside-data"),
    "torchserve:torchserve": ("error-not-json",),  # the model is asked only for what Guard can read: 503 before
    "triton:open_inference": (
        "error-datatype", "error-no-inputs", "error-not-json", "error-shape-beside-data",
        "error-shared-memory-output",
    ),
    "kserve:kserve_v1": ("v1-error-no-instances",),
    "kserve:open_inference": ("v2-error-no-inputs", "v2-error-not-json", "v2-error-shape-beside-data"),
    "mlflow:mlflow": ("params",),  # params may change what a model reveals: `fields: all` lets them through
    "tensorflow_serving:tensorflow_serving": ("predict-row-bytes",),  # a signature that no policy opened; likewise
    "ray:json": ("error-not-json",),
}
_NOT_GUARDED = {  # 415: a form whose boundary the client chooses
    "torchserve:torchserve": ("single-multipart",),
}
_WITHHELD = {  # the answer holds nothing of the declared kind: 502
    "triton:open_inference": ("classification-of-label",),
    "tensorflow_serving:tensorflow_serving": ("predict-row-values", "regress", "regress-key-result"),
}
# fmt: on
GROUPS = {404: _CLOSED, 502: _BROKEN, 400: _UNREADABLE, 415: _NOT_GUARDED}
STATUS: dict[tuple[str, str], int] = {
    (api, f"{server}/{case}"): status
    for status, group in [*GROUPS.items(), (502, _WITHHELD)]
    for key, cases in group.items()
    for server, api in [key.split(":")]
    for case in cases
}
"""(api, exchange) -> the status that Guard answers where it is not the model's own."""
OTHER_ROUTE = {"kserve_v1": "kserve/v2-", "open_inference": "kserve/v1-"}
"""KServe's exchanges of the protocol that the route does not speak."""


def expected_status(server: Server, x: Exchange) -> int:
    """Return the status that the client gets in enforce."""
    if x.name.startswith(OTHER_ROUTE.get(server.api, "?")):
        return 404
    if server.name == "bentoml" and x.name.startswith("bentoml/classify-json") and not server.prefix:
        return 404
    return STATUS.get((server.api, x.name), x.reply.status)


NUMBER = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!\w)")


def numbers(text: bytes) -> list[bytes]:
    """Return every number in a text, also inside strings such as "0.417371:7"."""
    return NUMBER.findall(text)


def telling(text: bytes) -> set[float]:
    """Return the floating numbers with four significant digits or more."""
    found = [n for n in numbers(text) if b"." in n or b"e" in n.lower()]
    return {float(n) for n in found if len(re.sub(rb"[eE].*|\D", b"", n).strip(b"0")) >= 4}


def decided(value: Json) -> Json:
    """Reduce an answer to what it decides: labels, and which score of a row is the greatest."""
    if isinstance(value, dict):
        return _decided_object(cast("dict[str, Json]", value))
    if not isinstance(value, list):
        return "?" if isinstance(value, float) and not math.isfinite(value) else value
    items = cast("list[Json]", value)
    if items and all(isinstance(item, float) for item in items):
        return _top(items)
    if items and all(_is_pair(item) for item in items):
        return max(items, key=lambda item: item[1])[0]
    return [decided(item) for item in items]


def _is_pair(item: Json) -> bool:
    members: list[Json] = cast("list[Json]", item) if isinstance(item, list) else []
    return len(members) == 2 and isinstance(members[0], str)


def _top(scores: list[float]) -> Json:
    if not np.isfinite(scores).all():
        return "?"
    return scores[0] > 0.5 if len(scores) == 1 else int(np.argmax(scores))


def _decided_object(members: dict[str, Json]) -> Json:
    if "outputs" in members and "model_name" in members:
        return [_decided_tensor(tensor) for tensor in members["outputs"]]
    scores = {key: value for key, value in members.items() if isinstance(value, float)}
    rest = {key: decided(value) for key, value in members.items() if key not in scores}
    # One score beside other members repeats the greatest of a vector, and leaves under `fields: known`.
    top = max(scores, key=scores.__getitem__) if len(scores) > 1 or (scores and not rest) else None
    return [top, rest]


def _decided_tensor(tensor: Json) -> Json:
    shape, data = tensor["shape"], np.ravel(tensor["data"]).tolist()
    if tensor["datatype"] == "BYTES":
        rows = [data[i : i + len(data) // shape[0]] for i in range(0, len(data), len(data) // shape[0])]
        return [tensor["name"], [entry[0].split(":")[1] for entry in rows]]
    if tensor["datatype"].startswith("FP"):
        return [tensor["name"], np.argmax(np.reshape(data, shape), axis=1).tolist()]
    return [tensor["name"], data]


def parts(whole: Json, part: Json, path: str = "$") -> Iterator[str]:
    """Yield the places where `part` says something that `whole` does not say there."""
    if isinstance(part, dict) and isinstance(whole, dict):
        for key, value in cast("dict[str, Json]", part).items():
            yield from parts(whole[key], value, f"{path}.{key}") if key in whole else [f"{path}.{key}"]
    elif isinstance(part, list) and isinstance(whole, list):
        pairs = zip_longest(cast("list[Json]", whole), cast("list[Json]", part), fillvalue="nothing")
        for i, (a, b) in enumerate(pairs):
            yield from parts(a, b, f"{path}[{i}]")
    elif not (whole == part or (whole != whole and part != part)):  # noqa: PLR0124 -- NaN
        yield path


def assert_clean(x: Exchange, got: Answered) -> None:
    """An error says what Guard says, in JSON, and nothing that the model or the client said."""
    text = got.body.decode()
    assert json.loads(text)
    for leak in ("Traceback", "File ", "scrubbed", ".py", "site-packages", "pydantic", "0.3125", "17.99", "secret"):
        assert leak not in text, x.name
    for word in ("nobody", "decision_function", "9.9", "v9"):
        assert word not in text, x.name
    assert int(got.headers["content-length"]) == len(got.body)


def is_scoring(x: Exchange, got: Answered) -> bool:
    """Say whether this is a scoring request that came through."""
    return got.status == 200 and x.method in ("POST", "PUT")


def answered(x: Exchange) -> Json:
    """Return what the model answered, raw tensors as lists."""
    return json.loads(_said(x))


def _said(x: Exchange) -> bytes:
    return readable({name.decode(): value.decode() for name, value in x.reply.headers}, x.content)


def told(got: Answered) -> bytes:
    """Return what the client got, raw tensors as lists."""
    return readable(got.headers, got.body)


HEADERS = {"content-type", "content-length", "retry-after", "connection", "x-request-id", HEADER}
ALL = pytest.mark.parametrize("server", SERVERS, ids=str)


@ALL
async def test_labels_alone_go_out_under_label_only(server: Server, tmp_path: Path) -> None:
    guarded = server.guarded(tmp_path, "{kind: label_only}")
    scored = 0
    for x in server.exchanges():
        got = await x.through(guarded)
        assert got.status == expected_status(server, x), (x.name, got.body)
        assert not telling(_said(x)) & {float(n) for n in numbers(told(got))}, x.name
        assert not telling(told(got)), x.name
        if got.status >= 400:
            assert_clean(x, got)
        elif is_scoring(x, got):
            scored += 1
            expected = decided(answered(x))
            if "not-finite" not in x.name and "nan" not in x.name:
                assert decided(json.loads(told(got))) == expected, x.name
        assert not got.headers.keys() - HEADERS
    assert scored >= 2


@ALL
async def test_rounded_scores_keep_labels_and_agree(server: Server, tmp_path: Path) -> None:
    guarded = server.guarded(tmp_path, "{kind: round, decimals: 1}")
    for x in server.exchanges():
        got = await x.through(guarded)
        assert got.status == expected_status(server, x), (x.name, got.body)
        if not is_scoring(x, got):
            continue
        for number in numbers(told(got)):
            assert abs(float(number) * 10 - round(float(number) * 10)) < 1e-5, (x.name, number)
        if "not-finite" not in x.name and "nan" not in x.name:
            assert decided(json.loads(told(got))) == decided(answered(x)), x.name


@ALL
async def test_shadow_changes_nothing(server: Server, tmp_path: Path) -> None:
    guarded = server.guarded(tmp_path, "{kind: label_only}", mode="shadow")
    for x in server.exchanges():
        got = await x.through(guarded)
        assert (got.status, got.body) == (x.reply.status, x.content), x.name
        sent = guarded.upstream.seen[-1]
        assert (sent.method.decode(), sent.target.decode(), sent.body) == (x.method, x.target, x.body), x.name


@ALL
async def test_what_goes_through_an_empty_policy_is_unchanged(server: Server, tmp_path: Path) -> None:
    guarded = server.guarded(tmp_path, "")
    for x in server.exchanges():
        got = await x.through(guarded)
        assert got.status == expected_status(server, x), (x.name, got.body)
        if is_scoring(x, got):
            assert list(parts(answered(x), json.loads(told(got)))) == [], x.name


MORE_WITH_ALL = {"mlflow/params", "tensorflow_serving/predict-row-bytes"}
"""Requests that could make a model say more, which `fields: known` refuses."""


@ALL
async def test_every_member_goes_through_under_fields_all(server: Server, tmp_path: Path) -> None:
    guarded = server.guarded(tmp_path, "", fields="all")
    for x in server.exchanges():
        got = await x.through(guarded)
        if server.name == "ray" and expected_status(server, x) == 200:
            # Its `score` repeats the top score outside of what `select` names: `all` lets no such number out.
            assert got.status == 502, x.name
            assert_clean(x, got)
            continue
        assert got.status == (200 if x.name in MORE_WITH_ALL else expected_status(server, x)), (x.name, got.body)
        if is_scoring(x, got):
            same = list(parts(answered(x), json.loads(told(got)))) + list(parts(json.loads(told(got)), answered(x)))
            assert same == [], x.name


async def test_values_round(tmp_path: Path) -> None:
    guarded = REGRESSION.guarded(tmp_path, "{kind: round, decimals: 0}")
    got = {x.name.partition("/")[2]: await x.through(guarded) for x in REGRESSION.exchanges()}
    assert {case: one.status for case, one in got.items()} == dict.fromkeys(got, 200)
    assert json.loads(got["predict-row-values"].body) == {"predictions": [4.0, 4.0, 6.0]}
    assert all(math.isnan(v) for v in json.loads(got["regress-not-finite"].body)["results"])


async def test_a_row_gets_the_same_scores_alone_and_in_a_batch(tmp_path: Path) -> None:
    for single, batch in (
        ("mlserver/infer-single", "mlserver/infer-batch-flat"),
        ("triton/classification-single", "triton/classification-batch"),
        ("torchserve/list-of-one", "torchserve/list"),
        ("mlflow/single", "mlflow/dataframe-split"),
        ("kserve/v1-single", "kserve/v1-batch"),
        ("tensorflow_serving/predict-row-single", "tensorflow_serving/predict-row-batch"),
        ("ray/single", "ray/batch"),
    ):
        server = next(s for s in SERVERS if s.name == single.partition("/")[0])
        noisy = "{kind: noise, mechanism: laplace, scale: 0.05, reuse: query}, {kind: round, decimals: 3}"
        guarded = server.guarded(tmp_path, noisy)
        found = {x.name: x for x in server.exchanges()}
        alone, beside = [await found[name].through(guarded) for name in (single, batch)]
        assert (alone.status, beside.status) == (200, 200)
        first = [n for n in numbers(alone.body) if b"." in n]
        assert len(first) >= 2
        assert [n for n in numbers(beside.body) if b"." in n][: len(first)] == first, single


def test_no_recording_is_left_out() -> None:
    on_disk = {f"{p.parent.name}/{p.name.removesuffix('.request.http')}" for p in RECORDED.glob("*/*.request.http")}
    on_disk -= {one for one in on_disk if one.startswith("llama/")}  # tests/unit/wire/test_openai_recorded.py
    replayed = {x.name for server in SERVERS for x in server.exchanges()}
    assert replayed == on_disk
    assert len(on_disk) == 220
    listed = {name for _, name in STATUS}
    assert listed <= on_disk


def test_the_checks_see_what_they_look_for() -> None:
    assert telling(b'{"data":["0.417371:7", 1.0, 1234, 0.0004177, 3.1e-5, "0.5:1"]}') == {0.417371, 0.0004177}
    assert decided({"predictions": [[0.2, 0.8]]}) != decided({"predictions": [[1.0, 0.0]]})
    assert decided([[["a", 0.2], ["b", 0.8]]]) == ["b"]
    assert list(parts({"a": [1, 2]}, {"a": [1, 3]})) == ["$.a[1]"]
    assert list(parts({"a": 1}, {"b": 1})) == ["$.b"]
