"""What every codec promises: one suite for every API that is registered.

An API gives a sample of its requests and answers, and the suite breaks them in every way that does not need to know
what they mean.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pytest

from guard.cli.samples import sample, sample_path
from guard.defences.base import Defence
from guard.defences.label_only import LabelOnly
from guard.defences.round import Round
from guard.engine.release import release
from guard.errors import (
    ClientError,
    Denied,
    GuardError,
    InvariantError,
    PolicyError,
    Problem,
    StateError,
    UpstreamError,
)
from guard.model.domain import Inputs
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.model.prediction import Answer
from guard.policy.load import load_plan
from guard.wire.base import Codec, Fields, Reader, Reading
from guard.wire.registry import API_NAMES, TEXT_APIS, codec_class
from tests.support.randomness import Seeded

Json = Any  # Any: JSON, deliberately wrong in many cases
Build = Callable[[list[list[float]]], Json]
"""Scores of shape (n, 3) -> an answer with them and with every copy of them that the API knows."""

T = TypeVar("T")
CLASSES = ("cat", "dog", "owl")
ROWS = [[0.6231, 0.2694, 0.1075], [0.0418, 0.0862, 0.872]]
SELECT = {"queries": "$.x[*]", "scores": "$.y[*].p", "labels": "$.y[*].label"}
FEATURES = [[0.25, 1.5, 2.75, 4.0], [5.0, 6.5, 7.25, 8.0]]


def _tensors(rows: list[list[float]]) -> Json:
    flat, shape = [v for row in rows for v in row], [len(rows), 3]
    return {
        "model_name": "model",
        "outputs": [
            {"name": "label", "shape": [len(rows), 1], "datatype": "INT64", "data": [int(np.argmax(r)) for r in rows]},
            {"name": "scores", "shape": shape, "datatype": "FP64", "data": flat},
            {"name": "scores_again", "shape": shape, "datatype": "FP32", "data": rows},
        ],
    }


def _objects(rows: list[list[float]]) -> Json:
    return {
        "predictions": [{"label": int(np.argmax(r)), "probabilities": list(r), "score": float(max(r))} for r in rows]
    }


def _maps(rows: list[list[float]]) -> Json:
    found = [dict(zip(CLASSES, row, strict=True)) for row in rows]
    return found[0] if len(found) == 1 else found


def _ranked(rows: list[list[float]]) -> Json:
    return [
        [{"label": CLASSES[i], "score": row[i]} for i in sorted(range(3), key=lambda i, row=row: -row[i])]
        for row in rows
    ]


def _sagemaker(rows: list[list[float]]) -> Json:
    return {"predictions": [{"predicted_label": int(np.argmax(r)), "score": list(r)} for r in rows]}


def _selected(rows: list[list[float]]) -> Json:
    return {"y": [{"label": int(np.argmax(r)), "p": list(r)} for r in rows]}


BUILDS: dict[str, Build] = {
    "open_inference": _tensors,
    "kserve_v1": _objects,
    "tensorflow_serving": _objects,
    "torchserve": _maps,
    "mlflow": _objects,
    "sagemaker": _sagemaker,
    "huggingface": _ranked,
    "json": _selected,
}


@dataclass(frozen=True)
class Api:
    """One API's sample.

    Args:
        name: as in `api: NAME`.
        path: of a scoring endpoint.
        request: a request of `rows` rows.
        plain: the sample's answer.
        rows: how many.
        build: makes richer answers.
    """

    name: str
    path: str
    request: Json
    plain: Json
    rows: int
    build: Build

    def codec(self, fields: Fields = "known") -> Codec:
        return codec_class(self.name)(Reader(Outputs(), fields, SELECT if self.name == "json" else {}))

    def rich(self) -> Json:
        return self.build(ROWS[: self.rows])

    def answers(self) -> tuple[Json, ...]:
        """Answers in every form that the suite knows; with a single tensor Open Inference takes a shorter way."""
        alone = [{**self.plain, "outputs": self.plain["outputs"][-1:]}] if self.name == "open_inference" else []
        return (self.plain, self.rich(), *alone)

    def call(self, body: Json, content_type: str = "application/json") -> Call:
        return _call(self.path, body, content_type)

    def read(self, codec: Codec | None = None) -> Reading:
        return (codec or self.codec()).read(self.call(self.request))

    def asked(self, answer: Json, fields: Fields = "known") -> tuple[Codec, Answer]:
        codec = self.codec(fields)
        return codec, codec.answer(_reply(answer), codec.read(self.call(self.request)))


def _call(path: str, body: Json, content_type: str) -> Call:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = [(b"content-type", content_type.encode())] if content_type else []
    return Call(path, {}, content_type, raw, headers)


def _reply(answer: Json) -> Reply:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Reply(200, [(b"content-type", b"application/json")], raw)


def _api(name: str) -> Api:
    if name == "json":
        request, plain = {"x": [list(row) for row in FEATURES]}, _selected(ROWS)
        return Api(name, "/predict", request, plain, 2, BUILDS[name])
    route = load_plan("label-only", api=name, env={}).routes[0]
    bodies, path = sample(route), sample_path(route, None)
    assert bodies is not None
    assert path is not None
    request, plain = (json.loads(body) for body in bodies)
    reading = route.codec.read(_call(path, request, "application/json"))
    return Api(name, path, request, plain, reading.queries.rows, BUILDS[name])


NAMES = tuple(name for name in API_NAMES if name not in TEXT_APIS)
"""Those that answer rows of numbers; language models' have `tests/unit/wire` and `tests/property`."""
APIS = {name: _api(name) for name in NAMES}


def leaves(document: Json, path: tuple[Json, ...] = ()) -> Iterator[tuple[tuple[Json, ...], Json]]:
    """Yield every member that is not a container, and where it is."""
    if isinstance(document, dict):
        for key, value in cast("dict[str, Json]", document).items():
            yield from leaves(value, (*path, key))
    elif isinstance(document, list):
        for i, value in enumerate(cast("list[Json]", document)):
            yield from leaves(value, (*path, i))
    else:
        yield path, document


def containers(document: Json, path: tuple[Json, ...] = ()) -> Iterator[tuple[Json, ...]]:
    """Yield where every list and object is."""
    if isinstance(document, dict | list):
        yield path
        members = cast("dict[str, Json] | list[Json]", document)
        keys: list[Json] = list(members) if isinstance(members, dict) else [*range(len(members))]
        for key in keys:
            yield from containers(document[key], (*path, key))


def replaced(document: Json, path: tuple[Json, ...], value: Json) -> Json:
    """Return a copy with one member replaced."""
    if not path:
        return value
    copy: Json = dict(cast("dict[str, Json]", document)) if isinstance(document, dict) else [*document]
    copy[path[0]] = replaced(document[path[0]], path[1:], value)
    return copy


def lookup(document: Json, path: tuple[Json, ...]) -> Json:
    for key in path:
        document = document[key]
    return document


def floats_of(document: Json) -> list[float]:
    return [value for _, value in leaves(document) if isinstance(value, float)]


def defended(api: Api, answer: Answer, *defences: Defence) -> None:
    release(defences, Outputs(), answer, Seeded(answer.rows), labels_only=False)


def encoded(codec: Codec, answer: Answer) -> Json:
    content_type, body = codec.render(answer)
    assert content_type == b"application/json"
    return json.loads(body)


def tried(work: Callable[[], T]) -> T | GuardError:
    """Return what the work returns, or Guard's error; anything else is a bug."""
    try:
        return work()
    except GuardError as error:
        return error


SECRETS = re.compile(rb"6231|2694|1075|0418|0862|872\b")
"""What is left of a score of ROWS wherever it stands."""
JUNK: tuple[Json, ...] = (
    None,
    True,
    -1,
    0.5,
    10**30,
    1e308,
    "x",
    "0.5:0",
    "",
    ["x"],
    [],
    {},
    [[]],
    {"a": {}},
    [0.6231],
)
ROOTS = (b"null", b"1", b"0.5", b'"x"', b"[]", b"{}", b"[[]]", b"[null]", b"true", b'{"a":1}', b"[1,[2]]", b"[{}]")
NOT_JSON = (
    *(b"", b" ", b"{", b"[1,", b"{'a':1}", b'{"a":}', b"nul", b"1 2", b"\xff\xfe\x00", b'{"a":"\xff"}', b"[01]"),
    *(b'["\\ud800"]', b"[" * 200_000, b"[" * 101 + b"]" * 101, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[Na", b"[NaN"),
)


def reads_its_own_sample(api: Api) -> None:
    codec = api.codec()
    reading = api.read(codec)
    assert reading.queries.rows == api.rows
    assert json.loads(reading.body) == api.request
    matrix = reading.queries.matrix()
    assert matrix is not None
    assert matrix.shape == (api.rows, 4)
    _, answer = api.asked(api.plain)
    assert answer.rows == api.rows
    np.testing.assert_allclose(np.sort(answer.predictions[0].scores), np.sort(ROWS[: api.rows]))


def refuses_what_is_not_json(api: Api) -> None:
    for body in NOT_JSON:
        for content_type in ("application/json", ""):
            reading = tried(partial(api.codec().read, api.call(body, content_type)))
            if isinstance(reading, GuardError):
                assert isinstance(reading, ClientError)
                assert 400 <= reading.status < 500
            else:
                # A body of no declared type may be anything to TorchServe's handler: one row, known by its bytes.
                assert (api.name, content_type) == ("torchserve", ""), body
                assert reading.queries.rows == 1
                assert reading.body == body


def reads_or_refuses_any_request(api: Api) -> None:
    broken = [replaced(api.request, path, junk) for path, _ in leaves(api.request) for junk in JUNK]
    broken += [replaced(api.request, path, junk) for path in containers(api.request) for junk in JUNK]
    bodies = [*ROOTS, *(json.dumps(document).encode() for document in broken)]
    text = json.dumps(api.request)
    first = str(FEATURES[0][0] if api.name == "json" else floats_of(api.request)[0])
    numbers = ("NaN", "-Infinity", "1e999", "-1e999", "1" * 400, "1e-999", "-0.0", '"NaN"', "123456789012345678901")
    bodies += [text.replace(first, number, 1).encode() for number in numbers]
    read = 0
    for body in bodies:
        codec = api.codec()
        reading = tried(partial(codec.read, api.call(body)))
        if isinstance(reading, GuardError):
            assert isinstance(reading, ClientError)
            assert 400 <= reading.status < 500
            continue
        read += 1
        assert len(reading.queries.row_bytes()) == reading.queries.rows >= 1
        for inputs in (Inputs(), Inputs(kind="vector", size=4, low=0, high=10, step=0.5)):
            snapped = tried(partial(inputs.admit, reading.queries))
            if isinstance(snapped, GuardError):
                assert isinstance(snapped, ClientError)
                assert snapped.status == 422
                assert snapped.path
            elif snapped is not None:
                assert np.isfinite(snapped).all()
                codec.rewrite(reading, snapped)
    assert 0 < read < len(bodies)


def refuses_numbers_that_are_not_finite(api: Api) -> None:
    path, _ = next((p, v) for p, v in leaves(api.request) if isinstance(v, float))
    for value in (math.nan, math.inf, -math.inf, None):
        body = json.dumps(replaced(api.request, path, value)).encode()
        with pytest.raises(ClientError) as caught:
            Inputs().admit(api.codec().read(api.call(body)).queries)
        assert caught.value.status == 422
        assert caught.value.path


def _with_duplicate(document: Json, path: tuple[Json, ...], key: str, value: Json) -> bytes:
    """Encode a document whose object at `path` has the member `key` a second time, last and first."""
    mark = "duplicate-here"
    marked = json.dumps(replaced(document, path, {mark: 0, **lookup(document, path)}))
    return marked.replace(f'"{mark}": 0', f"{json.dumps(key)}: {json.dumps(value)}", 1).encode()


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    assert len({key for key, _ in pairs}) == len(pairs), "a duplicate member was forwarded"
    return dict(pairs)


def forwards_no_duplicate_member(api: Api) -> None:
    tried = 0
    for path in containers(api.request):
        owner = lookup(api.request, path)
        keys = list(cast("dict[str, Json]", owner)) if isinstance(owner, dict) else []
        for key in keys:
            for value in (0, [[9, 9, 9, 9]], {"a": 1}, "x:y"):
                body = _with_duplicate(api.request, path, key, value)
                tried += 1
                codec = api.codec()
                try:
                    reading = codec.read(api.call(body))
                except ClientError:
                    continue
                json.loads(reading.body, object_pairs_hook=_once)
                again = codec.read(api.call(reading.body)).queries
                assert again.row_bytes() == reading.queries.row_bytes()
    assert tried


def rewrites_queries_and_nothing_else(api: Api) -> None:
    codec = api.codec()
    reading = api.read(codec)
    matrix = reading.queries.matrix()
    assert matrix is not None
    assert json.loads(codec.rewrite(reading, matrix)) == api.request
    moved = json.loads(codec.rewrite(reading, matrix + 0.125))
    before, after = dict(leaves(api.request)), dict(leaves(moved))
    assert before.keys() == after.keys()
    changed = [path for path, value in before.items() if after[path] != value]
    assert len(changed) == matrix.size
    assert all(after[path] == pytest.approx(before[path] + 0.125) for path in changed)
    again = codec.read(api.call(moved)).queries.matrix()
    assert again is not None
    np.testing.assert_allclose(again, matrix + 0.125)


def answers_what_it_read_when_nothing_is_written(api: Api) -> None:
    for document in api.answers():
        codec, answer = api.asked(document)
        assert encoded(codec, answer) == document


def _agrees(api: Api, document: Json, exact: bool) -> None:
    """Check labels, the winner, and that every copy of a score is the same."""
    tops = [int(np.argmax(row)) for row in ROWS[: api.rows]]
    if api.name == "open_inference":
        label, scores, again = (output["data"] for output in document["outputs"])
        assert label == tops
        assert np.reshape(again, -1).tolist() == scores
        assert np.argmax(np.reshape(scores, (-1, 3)), axis=1).tolist() == tops
    elif api.name == "torchserve":
        rows = [document] if api.rows == 1 else document
        assert [max(row, key=row.__getitem__) for row in rows] == [CLASSES[top] for top in tops]
    elif api.name == "huggingface":
        assert [max(row, key=lambda e: e["score"])["label"] for row in document] == [CLASSES[top] for top in tops]
    else:
        rows = document["y" if api.name == "json" else "predictions"]
        vectors = [row.get("p") or row.get("probabilities") or row["score"] for row in rows]
        assert [int(np.argmax(vector)) for vector in vectors] == tops
        assert [row.get("label", row.get("predicted_label")) for row in rows] == tops
        for row, vector in zip(rows, vectors, strict=True):
            if isinstance(row.get("score"), float):
                assert row["score"] == max(vector)
    if exact:
        assert set(floats_of(document)) <= {0.0, 1.0}


def keeps_label_and_argmax_under_label_only(api: Api) -> None:
    codec, answer = api.asked(api.rich())
    defended(api, answer, LabelOnly())
    _agrees(api, encoded(codec, answer), exact=True)
    assert not SECRETS.search(codec.render(answer)[1])


def keeps_label_and_argmax_under_round(api: Api) -> None:
    codec, answer = api.asked(api.rich())
    defended(api, answer, Round(decimals=1))
    document = encoded(codec, answer)
    _agrees(api, document, exact=False)
    assert all(value * 10 == pytest.approx(round(value * 10)) for value in floats_of(document))
    assert not SECRETS.search(codec.render(answer)[1])


def _with_member(api: Api, value: Json) -> Json:
    """Add a member that the API does not define: to the root, or to the row where the root holds labels."""
    document = api.rich()
    if api.name == "huggingface":
        return [[{**entry, "surplus": value} for entry in row] for row in document]
    return {**document, "surplus": value}


def drops_unknown_members_unless_told_otherwise(api: Api) -> None:
    document = _with_member(api, "a note")
    codec, answer = api.asked(document)
    assert encoded(codec, answer) == api.rich()
    codec, answer = api.asked(document, "all")
    assert encoded(codec, answer) == document


def lets_no_foreign_floats_out(api: Api) -> None:
    for value in ([0.6231, 7.25, -3.0], [[0.6231, 7.25]], {"a": [0.6231, 3.5]}):
        for fields in cast("tuple[Fields, ...]", ("known", "all")):
            read = tried(partial(api.asked, _with_member(api, value), fields))
            if isinstance(read, GuardError):
                assert isinstance(read, UpstreamError)
                # In a map of labels to scores there is no telling what is a label and what is not.
                assert fields == "all" or api.name == "torchserve", read.message
                continue
            codec, answer = read
            defended(api, answer, LabelOnly())
            assert not SECRETS.search(codec.render(answer)[1]), (fields, value)


def shows_more_predictions_than_rows(api: Api) -> None:
    for times in (2, 3):
        more = api.build((ROWS * 3)[: api.rows * times])
        assert api.asked(more)[1].rows > api.rows
        _, answer = api.asked(api.build((ROWS * 3)[: api.rows]))
        assert answer.rows == api.rows


def withholds_what_it_cannot_read(api: Api) -> None:
    codec = api.codec()
    reading = api.read(codec)
    for body in NOT_JSON:
        with pytest.raises(UpstreamError) as caught:
            codec.answer(Reply(200, [], body), reading)
        assert caught.value.code == "unreadable_answer"
        assert caught.value.status == 502


def lets_out_labels_alone_of_any_answer(api: Api) -> None:
    """Whatever an answer looks like: it is withheld, or no score of it is left after `label_only`."""
    broken: list[Json] = []
    for document in api.answers():
        broken += [replaced(document, path, junk) for path, _ in leaves(document) for junk in JUNK]
        broken += [replaced(document, path, junk) for path in containers(document) for junk in JUNK]
    read = 0
    for body in [*ROOTS, *(json.dumps(document).encode() for document in broken)]:
        for fields in cast("tuple[Fields, ...]", ("known", "all")):
            made = tried(partial(api.asked, body, fields))
            if isinstance(made, GuardError):
                assert isinstance(made, UpstreamError)
                assert made.code == "unreadable_answer"
                continue
            codec, answer = made
            read += 1
            assert answer.rows >= 1
            defended(api, answer, LabelOnly())
            _, text = codec.render(answer)
            json.loads(text)
            assert not SECRETS.search(text), (body, text, fields)
    assert read > 10


ERRORS: tuple[GuardError, ...] = (
    GuardError("a plain message"),
    ClientError("bad body", path="instances[0]"),
    ClientError("too large", status=413),
    Denied("unknown key", status=401),
    Denied("closed", code="closed", status=404),
    Denied("budget spent", code="budget_spent", status=429, retry_after_s=60),
    UpstreamError("the model failed"),
    UpstreamError("too slow", status=504),
    StateError("state lost"),
    InvariantError("internal error"),
    PolicyError([Problem('bad "policy"\n', path="routes[0]", line=3, file="/etc/guard/policy.yaml")]),
)


def speaks_a_clean_error(api: Api) -> None:
    codec = api.codec()
    for error in ERRORS:
        error.__cause__ = ValueError("/srv/model.py, line 3: secret 0.6231")
        content_type, body = codec.error(error)
        assert content_type in (b"application/json", b"application/problem+json")
        document = json.loads(body)
        assert isinstance(document, dict)
        assert error.message in [value for _, value in leaves(document)]
        for internal in ("/srv", "line 3", "0.6231", "/etc/guard", "Traceback", type(error).__name__ + "("):
            assert internal not in body.decode()


NEIGHBOURS = (
    *("/v2/models/model/stats", "/v2/models/model/config", "/v2/models/model/trace/setting", "/v2/repository/index"),
    *("/v2/models/model/explain", "/v2/models/model/infer_stream", "/v2/models/model/generate", "/v2"),
    *("/v1/models/model:explain", "/v1/models/model/metadata", "/v1/models", "/explanations/model", "/models"),
    *(
        "/info",
        "/metadata",
        "/docs",
        "/swagger",
        "/swagger.json",
        "/openapi.json",
        "/api/show",
        "/tokenize",
        "/metrics",
    ),
    *("/update_weights", "/version", "/embed", "/rerank", "/trace", "/repository", "/config", "/execution-parameters"),
)


def opens_scoring_and_closes_its_neighbours(api: Api, folder: Path) -> None:
    route = f"{{api: {api.name}"
    if api.name == "json":
        route += f", match: {{methods: [POST], path: {api.path}}}, select: {json.dumps(SELECT)}"
    (folder / "p.yaml").write_text(f"version: 1\nroutes:\n  - {route}}}\n")
    plan = load_plan(folder / "p.yaml", api=None, env={})
    matched = plan.match("POST", api.path)
    assert matched is not None
    assert matched.endpoint.access == "scoring"
    for path in NEIGHBOURS:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert plan.match(method, path) is None, f"{method} {path}"
    for path in (api.path + "/", "/" + api.path, api.path.upper(), api.path + "/..", api.path + "%2f", "/x" + api.path):
        assert path.startswith("/..") or plan.match("POST", path) is None or path == api.path, path
    for method in ("GET", "DELETE", "HEAD", "TRACE"):
        assert plan.match(method, api.path) is None
    listed = [(e.method, e.template) for e in api.codec().endpoints]
    assert len(set(listed)) == len(listed)


def keeps_interleaved_requests_apart(api: Api) -> None:
    codec = api.codec()
    with pytest.raises(FrozenInstanceError):
        codec.reader = None  # pyright: ignore[reportAttributeAccessIssue]  # that it cannot be set is what is tested
    other = [row[::-1] for row in ROWS[: api.rows]]
    first, second = api.read(codec), api.read(codec)
    a, b = codec.answer(_reply(api.rich()), first), codec.answer(_reply(api.build(other)), second)
    defended(api, b, Round(decimals=1))
    assert encoded(codec, a) == api.rich()
    defended(api, a, LabelOnly())
    alone_codec, alone = api.asked(api.build(other))
    defended(api, alone, Round(decimals=1))
    assert codec.render(b) == alone_codec.render(alone)
    _agrees(api, encoded(codec, a), exact=True)


def reads_what_it_rendered(api: Api) -> None:
    """A remembered release is read again as if the model had given it: the same bytes come out."""
    read = 0
    for answer in api.answers():
        for step in (Round(decimals=1), LabelOnly()):
            codec, first = api.asked(answer)
            if any(prediction.shape == "sparse" for prediction in first.predictions):
                continue  # no mechanism makes these private
            defended(api, first, step)
            content_type, body = codec.render(first)
            again = codec.answer(Reply(200, [(b"content-type", content_type)], body), api.read(codec))
            assert codec.render(again) == (content_type, body)
            assert again.rows == first.rows
            read += 1
    assert read or api.name in ("torchserve", "huggingface")


CHECKS: tuple[Callable[[Api], None], ...] = (
    reads_its_own_sample,
    refuses_what_is_not_json,
    reads_or_refuses_any_request,
    refuses_numbers_that_are_not_finite,
    forwards_no_duplicate_member,
    rewrites_queries_and_nothing_else,
    answers_what_it_read_when_nothing_is_written,
    keeps_label_and_argmax_under_label_only,
    keeps_label_and_argmax_under_round,
    drops_unknown_members_unless_told_otherwise,
    lets_no_foreign_floats_out,
    shows_more_predictions_than_rows,
    withholds_what_it_cannot_read,
    lets_out_labels_alone_of_any_answer,
    speaks_a_clean_error,
    keeps_interleaved_requests_apart,
    reads_what_it_rendered,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, check: Callable[[Api], None]) -> None:
    check(APIS[name])


@pytest.mark.parametrize("name", NAMES)
def test_endpoints(name: str, tmp_path: Path) -> None:
    opens_scoring_and_closes_its_neighbours(APIS[name], tmp_path)


def test_every_api_is_in_the_suite() -> None:
    assert set(BUILDS) == set(NAMES)
    assert len(NAMES) == 8
