from __future__ import annotations

import orjson

from guard.engine.admit import digests
from guard.engine.randomness import QueryNoise
from guard.model.exchange import Call
from guard.model.outputs import Outputs
from guard.model.queries import Queries
from guard.wire.base import Reader
from guard.wire.json_api import JsonApi

KEY = bytes(range(32))
CODEC = JsonApi(Reader(Outputs(), select={"queries": "$.rows[*]", "scores": "$.p[*]"}))


def queries(body: object) -> Queries:
    data = orjson.dumps(body)
    reading = CODEC.read(Call("/", {}, "application/json", data, [], data, b"/"))
    assert reading.body == data
    return reading.queries


def test_members_beside_the_queries_make_another_query_to_a_budget() -> None:
    plain = queries({"rows": [[1, 2]], "t": 1})
    assert digests(KEY, plain) == digests(KEY, queries({"t": 1.0, "rows": [[1.0, 2]]}))
    assert digests(KEY, plain) != digests(KEY, queries({"rows": [[1, 2]], "t": 2}))
    assert digests(KEY, plain) != digests(KEY, queries({"rows": [[1, 2]]}))


def test_members_beside_the_queries_draw_no_other_noise() -> None:
    drawn = [
        QueryNoise(KEY, "m", "ann", queries({"rows": [[1, 2]], "t": t}), None).words("query", 4, b"0").tobytes()
        for t in range(5)
    ]
    assert len(set(drawn)) == 1
