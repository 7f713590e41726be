"""What several models' answers become, and that one model moves it by its share at most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from guard.defences.base import Defence
from guard.defences.label_only import LabelOnly
from guard.engine.aggregate import check_sound, combine
from guard.engine.randomness import QueryNoise
from guard.engine.release import release
from guard.errors import UpstreamError
from guard.model.arrays import Floats, Ints
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.model.prediction import Answer, LabelSlot, Prediction, Release, Shape
from guard.privacy.measurement import Bounds
from guard.wire.base import Codec, Reader
from guard.wire.registry import codec_class

SIMPLEX = Bounds("probabilities")


def ignore(release: Release) -> None:
    del release


def answered(scores: Sequence[Sequence[float]] | Floats, name: str = "p", shape: Shape = "fixed") -> Answer:
    """Return an answer with one score matrix."""
    matrix = np.array(scores, dtype=np.float64)
    return Answer(len(matrix), None, [Prediction(name, matrix, ignore, shape)])


def scores_of(answer: Answer) -> Floats:
    return answer.predictions[0].scores


def near(answer: Answer, expected: Floats | Sequence[Sequence[float]]) -> bool:
    return np.allclose(scores_of(answer), expected, rtol=0, atol=1e-14)


def code(answers: Sequence[Answer | None], quorum: int, bounds: Bounds | None = SIMPLEX, rows: int = 1) -> str:
    with pytest.raises(UpstreamError) as caught:
        combine(answers, "mean", quorum, bounds, rows)
    assert caught.value.status == 502
    assert caught.value.reached
    return caught.value.code


A, B, C = [[0.7, 0.2, 0.1]], [[0.1, 0.6, 0.3]], [[0.6, 0.3, 0.1]]


def test_the_mean_is_of_those_that_answer() -> None:
    combined = combine([answered(A), None, answered(B)], "mean", 2, SIMPLEX, 1)
    assert near(combined, np.mean([A, B], axis=0))
    assert combined.relabel


@pytest.mark.parametrize("aggregate", ["vote", "noisy_vote"])
def test_votes_are_shares_of_those_that_answer(aggregate: str) -> None:
    answers = [answered(A), answered(B), answered(C), None]
    assert scores_of(combine(answers, aggregate, 2, SIMPLEX, 1)).tolist() == [[2 / 3, 1 / 3, 0.0]]


def test_every_row_is_counted_for_itself_and_ties_go_to_the_first_column() -> None:
    rows = [[0.5, 0.5, 0.0], [0.2, 0.4, 0.4]]
    assert scores_of(combine([answered(rows)] * 2, "vote", 1, SIMPLEX, 2)).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("bounds", [SIMPLEX, None])
def test_a_model_that_fails_or_answers_nonsense_is_left_out(bounds: Bounds | None) -> None:
    bad = [None, answered([[np.nan, 0.5, 0.5]]), answered([[np.inf, 0.0, 0.0]]), answered([*A, *A])]
    combined = combine([*bad, answered(A), answered(A)], "mean", 2, bounds, 1)
    assert near(combined, A)


def test_a_model_outside_the_domain_is_left_out_where_a_mechanism_follows() -> None:
    outside = [answered([[0.9, 0.9, 0.9]]), answered([[1.5, -0.5, 0.0]])]
    combined = combine([*outside, answered(A), answered(B)], "mean", 2, SIMPLEX, 1)
    assert scores_of(combined).sum() == pytest.approx(1.0, abs=1e-15)
    assert scores_of(combined)[0, 0] == pytest.approx(0.4, abs=1e-15)
    assert code([answered([[0.9, 0.9, 0.9]]), answered(A), answered(B)], 3) == "no_quorum"
    # Without a mechanism scores are what the models say they are.
    assert scores_of(combine([answered([[0.9, 0.9, 0.9]]), answered(A)], "mean", 2, None, 1))[0, 0] == 0.8


def test_where_the_domain_clips_nothing_is_left_out() -> None:
    clips = Bounds("value", 0.0, 1.0, clip=True)
    assert scores_of(combine([answered([[7.0]]), answered([[-3.0]])], "mean", 2, clips, 1)).tolist() == [[0.5]]
    assert code([answered([[7.0]]), answered([[0.5]])], 2, Bounds("value", 0.0, 1.0)) == "no_quorum"


def test_what_can_count_for_nothing_is_refused_at_once() -> None:
    check_sound(answered(A), 1)
    check_sound(answered([[0.9, 0.9, 0.9]]), 1)
    for unsound in (answered([*A, *A]), answered([[np.nan, 0.5, 0.5]]), answered([[np.inf, 0.0, 0.0]])):
        with pytest.raises(UpstreamError):
            check_sound(unsound, 1)


def test_fewer_than_the_quorum_fail_closed() -> None:
    assert code([None, None, answered(A)], 2) == "no_quorum"
    assert code([None, None], 1) == "no_quorum"
    assert code([answered([*A, *A])] * 3, 2) == "no_quorum"  # more rows than were asked for


def test_other_forms_are_left_out() -> None:
    others = [answered([[0.5, 0.5]]), answered(A, name="q"), answered(A, shape="two_class")]
    combined = combine([*others, *[answered(B) for _ in range(4)]], "mean", 4, SIMPLEX, 1)
    assert near(combined, B)
    assert code([answered(A), answered(A), answered([[0.5, 0.5]])], 3) == "models_disagree"


def test_one_model_cannot_decide_by_its_form_whom_a_mechanism_hears() -> None:
    wide, narrow = [answered(A) for _ in range(3)], [answered([[0.5, 0.5]]) for _ in range(2)]
    assert code([*wide, *narrow], 3) == "models_disagree"
    assert scores_of(combine([*wide, *narrow[:1]], "mean", 3, SIMPLEX, 1)).shape == (1, 3)
    assert scores_of(combine([*wide, *narrow], "mean", 3, None, 1)).shape == (1, 3)


def test_where_a_mechanism_follows_models_agree_on_what_stands_around_the_scores() -> None:
    def named(name: bytes, scores: Sequence[Sequence[float]]) -> Answer:
        answer = answered(scores)
        answer.around = lambda: name
        return answer

    answers = [named(b"a", A), named(b"b", B)]
    assert code(answers, 2) == "models_disagree"
    assert scores_of(combine(answers, "mean", 2, None, 1)).tolist() == np.mean([A, B], axis=0).tolist()


def test_what_cannot_be_put_together_is_refused_by_name() -> None:
    def sparse(*labels: str) -> Answer:
        answer = answered([[0.7, 0.3]], shape="sparse")
        answer.predictions[0].labels = [labels] if labels else None
        return answer

    assert code([sparse(), sparse()], 2, None) == "not_combinable"
    assert code([answered([[0.7]], shape="top_score")] * 2, 2, None) == "not_combinable"
    assert code([sparse("a", "b"), sparse("a", "b")], 2) == "not_private"
    assert code([sparse("a", "b"), sparse("a", "c")], 2, None) == "models_disagree"
    two = answered(A)
    two.predictions.append(Prediction("q", np.array(B), ignore))
    assert code([two, two], 2) == "not_private"


def test_labelled_scores_are_put_together_by_label() -> None:
    first, second = answered([[0.7, 0.3]], shape="sparse"), answered([[0.6, 0.4]], shape="sparse")
    first.predictions[0].labels, second.predictions[0].labels = [["cat", "dog"]], [["dog", "cat"]]
    combined = combine([first, second], "mean", 2, None, 1)
    assert near(combined, [[0.55, 0.45]])
    assert combined.predictions[0].labels == [["cat", "dog"]]


@st.composite
def models(draw: st.DrawFn, columns: int) -> Floats | None:
    """What one model says: scores, or nothing, nonsense, or scores of another form."""
    match draw(st.sampled_from(["good", "good", "good", "fails", "nan", "outside", "wider"])):
        case "fails":
            return None
        case "nan":
            return np.full((1, columns), np.nan)
        case "outside":
            return np.full((1, columns), 9.0)
        case kind:
            width = columns + (kind == "wider")
            weights = draw(arrays(np.float64, (1, width), elements=st.floats(0.01, 1.0)))
            return weights / weights.sum()


@st.composite
def ensembles(draw: st.DrawFn) -> tuple[list[Floats | None], Floats | None, Floats | None, int]:
    """What the other models say, what one says with a training record and with another, and a quorum."""
    columns, one = 3, models(3)
    others = draw(st.lists(models(columns), min_size=1, max_size=9))
    return others, draw(one), draw(one), draw(st.integers(1, len(others) + 1))


@pytest.mark.lab
@settings(max_examples=600, deadline=None)
@given(ensembles(), st.sampled_from(["mean", "noisy_vote"]))
def test_one_model_moves_the_aggregate_by_its_share_at_most(
    case: tuple[list[Floats | None], Floats | None, Floats | None, int], aggregate: str
) -> None:
    others, with_record, with_another, quorum = case

    def aggregated(one: Floats | None) -> Floats | None:
        try:
            answers = [None if scores is None else answered(scores) for scores in (*others, one)]
            return scores_of(combine(answers, aggregate, quorum, SIMPLEX, 1))
        except UpstreamError:
            return None

    before, after = aggregated(with_record), aggregated(with_another)
    if before is not None and after is not None and quorum > 1:
        assert np.linalg.norm(before - after) <= np.sqrt(2) / quorum * (1 + 1e-12)
    found = before if before is not None else after
    if found is not None and (before is None or after is None):
        # Whether there is an answer may depend on one model only if the others alone are not enough for it.
        same = [s for s in others if s is not None and s.shape == found.shape and np.isfinite(s).all() and s.max() <= 1]
        unlike = [s for s in others if s is not None and s.shape != found.shape]
        assert len(same) < quorum or len(unlike) > quorum - 3


def test_without_the_quorum_in_its_noise_the_bound_would_not_hold() -> None:
    """The control: shares of those that answer, judged by a quorum above their number, move further."""
    one = scores_of(combine([answered([[1.0, 0.0]])] * 2, "vote", 2, SIMPLEX, 1))
    two = scores_of(combine([answered([[1.0, 0.0]]), answered([[0.0, 1.0]])], "vote", 2, SIMPLEX, 1))
    assert np.linalg.norm(one - two) > np.sqrt(2) / 3 * 1.01


def test_a_mean_inside_a_domain_is_exact_in_any_order() -> None:
    rng = np.random.default_rng(5)
    says: Floats = rng.dirichlet(np.ones(10), (100, 1))
    means = {
        scores_of(combine([answered(one) for one in rng.permutation(says)], "mean", 90, SIMPLEX, 1)).tobytes()
        for _ in range(20)
    }
    assert len(means) == 1
    plain = {
        scores_of(combine([answered(one) for one in rng.permutation(says)], "mean", 90, None, 1)).tobytes()
        for _ in range(20)
    }
    assert len(plain) > 1  # the control: floating sums depend on the order


def test_means_of_great_and_small_values_keep_their_digits() -> None:
    for most in (1e-6, 3.0, 1e9):
        bounds = Bounds("value", -most, most)
        values = np.linspace(-most, most / 3, 7)
        mean = scores_of(combine([answered([[value]]) for value in values], "mean", 7, bounds, 1)).item()
        assert mean == pytest.approx(values.mean(), abs=most * 1e-14)
    lengths = Bounds("embedding", norm=2.0)
    assert near(combine([answered([[3.0, 4.0]]), answered([[1.2, 1.6]])], "mean", 2, lengths, 1), [[1.2, 1.6]])


Json = Any  # Any: JSON
OPEN = "open_inference"
REQUEST = {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [1, 2]}]}
PATHS = {OPEN: "/v2/models/m/infer", "kserve_v1": "/v1/models/m:predict"}
BODIES = {OPEN: REQUEST, "kserve_v1": {"instances": [[1], [2]]}}


def through(
    api: str, outputs: Outputs, replies: Sequence[object], aggregate: str = "mean", defences: tuple[Defence, ...] = ()
) -> Json:
    """Return what a client would get of the models' documents."""
    codec: Codec = codec_class(api)(Reader(outputs, "known", {}))
    reading = codec.read(Call(PATHS[api], {}, "application/json", json.dumps(BODIES[api]).encode()))
    answers = [codec.answer(Reply(200, [], json.dumps(reply).encode()), reading) for reply in replies]
    answer = combine(answers, aggregate, len(replies), None, 2)
    noise = QueryNoise(bytes(32), "m", "client", reading.queries, None)
    release(defences, outputs, answer, noise, labels_only=False)
    return json.loads(codec.render(answer)[1])


def tensors(scores: Sequence[float], labels: Sequence[int], name: str = "m") -> object:
    return {
        "model_name": name,
        "outputs": [
            {"name": "probabilities", "shape": [2, 2], "datatype": "FP64", "data": list(scores)},
            {"name": "label", "shape": [2], "datatype": "INT64", "data": list(labels)},
        ],
    }


def test_labels_are_written_anew_from_the_aggregate() -> None:
    models = [tensors([0.9, 0.1, 0.9, 0.1], [0, 0], "a"), *[tensors([0.3, 0.7, 0.8, 0.2], [1, 0], "b")] * 2]
    outputs = Outputs(classes=(0, 1))
    found = through(OPEN, outputs, models)
    scores, labels = found["outputs"]
    assert scores["data"] == pytest.approx([0.5, 0.5, 0.8333333, 0.1666667])
    assert labels["data"] == [0, 0]
    found = through(OPEN, outputs, models, "vote", (LabelOnly(),))
    assert [output["data"] for output in found["outputs"]] == [[0, 1, 1, 0], [1, 0]]


def test_maps_of_label_and_score_are_put_together_by_label() -> None:
    models = [
        {"predictions": [{"cat": 0.9, "dog": 0.1}, {"cat": 0.2, "dog": 0.8}]},
        {"predictions": [{"dog": 0.7, "cat": 0.3}, {"dog": 0.6, "cat": 0.4}]},
    ]
    found = through("kserve_v1", Outputs(), models)
    assert found == {
        "predictions": [
            {"cat": pytest.approx(0.6), "dog": pytest.approx(0.4)},
            {"dog": pytest.approx(0.7), "cat": pytest.approx(0.3)},
        ]
    }


def test_where_a_mechanism_follows_names_of_open_inference_models_must_agree() -> None:
    codec = codec_class(OPEN)(Reader(Outputs(classes=(0, 1)), "known", {}))
    reading = codec.read(Call(PATHS[OPEN], {}, "application/json", json.dumps(REQUEST).encode()))

    def answers(*names: str) -> list[Answer | None]:
        documents = [tensors([0.9, 0.1, 0.9, 0.1], [0, 0], name) for name in names]
        return [codec.answer(Reply(200, [], json.dumps(document).encode()), reading) for document in documents]

    assert code(answers("a", "b"), 2, SIMPLEX, 2) == "models_disagree"
    assert combine(answers("a", "a"), "mean", 2, SIMPLEX, 2).relabel


def test_a_label_that_only_one_model_gives_is_not_written() -> None:
    def keep(tops: Ints) -> None:
        raise AssertionError(tops)

    odd = answered(A)
    odd.labels.append(LabelSlot("label", keep))
    combined = combine([odd, *[answered(B) for _ in range(3)]], "mean", 3, SIMPLEX, 1)
    assert not combined.labels
