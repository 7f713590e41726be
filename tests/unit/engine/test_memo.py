"""Releases that were paid for: keys that tell apart what must be told apart, and rows that keep their release."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.defences.base import Batch
from guard.engine.memo import Memo, Row, memo_of, only_prediction, pack, pack_reply, unpack, unpack_reply
from guard.errors import UpstreamError
from guard.model.arrays import Floats
from guard.model.client import Client
from guard.model.prediction import Answer, Prediction, Release
from guard.policy.plan import Private
from guard.privacy.events import Gaussian
from guard.privacy.filters import Filter
from guard.privacy.measurement import Bounds, Measurement
from guard.privacy.terms import Terms

PRIVATE = Private(
    measurement=Measurement("dp_gaussian", Gaussian(9.0), "l2", 1.4, 1, "noise"),
    bounds=Bounds("probabilities"),
    filter=Filter("gdp"),
    terms=Terms("gdp", {}, ()),
    per="model",
    columns=3,
    fingerprint=bytes(16),
    charged=True,
    claimed=True,
    accept_lost_writes="",
)
ALICE, BOB, CAROL = Client("alice", "g", "api_key"), Client("bob", "g", "api_key"), Client("carol", "h", "api_key")
DIGESTS = tuple(bytes([i]) * 16 for i in (1, 2, 1, 3))


def memo(private: Private = PRIVATE, client: Client = ALICE, path: str = "/m") -> Memo:
    return memo_of(private, client, path, DIGESTS)


def batch(scores: Floats) -> Batch:
    return Batch(scores, scores.argmax(axis=1), "probabilities")


def test_keys_depend_on_everything_a_release_depends_on() -> None:
    others = [memo(path="/n"), memo(replace(PRIVATE, fingerprint=b"x" * 16)), memo(replace(PRIVATE, per="client"))]
    for other in others:
        assert not set(other.keys) & set(memo().keys)
        assert other.whole != memo().whole


@pytest.mark.parametrize(
    ("per", "shared"),
    [("client", set[str]()), ("group", {"bob"}), ("model", {"bob", "carol"})],
)
def test_a_release_is_shared_within_the_scope_that_paid(per: str, shared: set[str]) -> None:
    private = replace(PRIVATE, per=per)
    mine = memo(private).keys
    assert {other.name for other in (BOB, CAROL) if memo(private, other).keys == mine} == shared


def test_names_do_not_run_together() -> None:
    private = replace(PRIVATE, per="client")
    one = memo_of(private, Client("a", "", "api_key"), "b/c", DIGESTS)
    two = memo_of(private, Client("ab", "", "api_key"), "/c", DIGESTS)
    assert one.keys != two.keys


def test_the_whole_answer_depends_on_the_order_of_rows() -> None:
    assert memo_of(PRIVATE, ALICE, "/m", DIGESTS[::-1]).whole != memo().whole


def test_distinct_unknown_queries_are_due() -> None:
    known = memo()
    assert known.due() == 3
    known.known[1] = Row(np.zeros(3))
    assert known.due() == 2


def test_remembered_and_repeated_rows_keep_their_release_and_new_ones_are_noted() -> None:
    known = memo()
    known.known[1] = Row(np.array([0.0, 1.0, 0.0]))
    scores = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]])
    merged = known.merge(batch(scores))
    np.testing.assert_array_equal(merged.scores[0], scores[0])
    np.testing.assert_array_equal(merged.scores[1], [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(merged.scores[2], scores[0])
    np.testing.assert_array_equal(merged.top, [0, 1, 0, 1])
    assert [key for key, _ in known.drawn] == [known.keys[0], known.keys[3]]
    again = unpack(known.drawn[1][1])
    assert again is not None
    np.testing.assert_array_equal(again.scores, scores[3])


def test_dropped_scores_stay_dropped() -> None:
    known = memo()
    kept = np.zeros((4, 3), dtype=np.bool_)
    kept[:, 1] = True
    merged = known.merge(batch(np.full((4, 3), 1 / 3))._replace(kept=kept, scores=kept * 0.5))
    assert merged.kept is not None
    np.testing.assert_array_equal(merged.kept, kept)
    again = unpack(known.drawn[0][1])
    assert again is not None
    np.testing.assert_array_equal(np.isnan(again.scores), ~kept[0])


def test_a_withheld_row_is_remembered_as_withheld() -> None:
    known = memo()
    scores = np.full((4, 3), 1 / 3)
    scores[3] = np.nan
    known.merge(batch(scores))
    assert known.withheld
    assert [row.withheld for _, data in known.drawn if (row := unpack(data)) is not None] == [False, False, True]
    later = memo()
    later.known = [Row(np.full(3, np.nan), withheld=True)] * 4
    later.merge(batch(np.full((4, 3), 1 / 3)))
    assert later.withheld


def test_a_release_of_another_shape_is_never_replaced_by_a_fresh_one() -> None:
    known = memo()
    known.known[0] = Row(np.array([0.5, 0.5]))
    with pytest.raises(UpstreamError, match="changed its shape"):
        known.merge(batch(np.full((4, 3), 1 / 3)))


@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=9), st.booleans(), st.booleans())
def test_rows_survive_the_state(scores: list[float], labels_only: bool, withheld: bool) -> None:
    row = unpack(pack(Row(np.array(scores), labels_only, withheld)))
    assert row is not None
    assert row.scores.tobytes() == np.array(scores).tobytes()
    assert (row.labels_only, row.withheld) == (labels_only, withheld)


@pytest.mark.parametrize("data", [None, b"", b"\0", b"\0" * 8, b"junk"])
def test_what_is_no_release_is_not_one(data: bytes | None) -> None:
    assert unpack(data) is None


def test_a_rendered_answer_survives_the_state() -> None:
    headers = [(b"content-type", b"application/json"), (b"inference-header-content-length", b"11")]
    reply = unpack_reply(pack_reply(headers, b'{"a": "\0:"}'))
    assert (reply.status, reply.headers, reply.body) == (200, headers, b'{"a": "\0:"}')
    assert unpack_reply(pack_reply([], b"x")).headers == []
    assert unpack_reply(b"application/json\0{}").headers == headers[:1]


def prediction(k: int = 3, n: int = 2, **changes: object) -> Prediction:
    made = Prediction("p", np.full((n, k), 1 / k), lambda _: None)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def ignore(release: Release) -> None:
    del release


def test_one_whole_matrix_is_what_a_mechanism_makes_private() -> None:
    only = prediction()
    repeat = prediction(1, shape="top_score")
    assert only_prediction(Answer(2, None, [only, repeat]), 2, 3) is only


@pytest.mark.parametrize(
    "predictions",
    [
        [],
        [prediction(), prediction()],
        [prediction(shape="sparse")],
        [prediction(complete=False)],
        [prediction(n=1)],
        [prediction(rows=np.array([0, 1]))],
        [prediction(k=4)],
    ],
)
def test_an_answer_of_another_form_is_withheld(predictions: list[Prediction]) -> None:
    with pytest.raises(UpstreamError) as raised:
        only_prediction(Answer(2, None, predictions), 2, 3)
    assert raised.value.code == "not_private"
