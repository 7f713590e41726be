"""One answer through the defences: copies, labels, shadow, rows that are not finite."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from guard.defences.base import Batch, Defence, Randomness
from guard.defences.grid import Grid
from guard.defences.label_only import LabelOnly
from guard.defences.noise import Noise
from guard.defences.round import Round
from guard.defences.top_k import TopK
from guard.engine.randomness import QueryNoise
from guard.engine.release import Report, release
from guard.errors import InvariantError
from guard.model.arrays import Ints
from guard.model.outputs import Kind, Outputs
from guard.model.prediction import Answer, LabelSlot, Prediction, Release, Shape
from guard.model.queries import Queries
from guard.wire.base import Reader
from guard.wire.open_inference import OpenInference
from tests.support.codecs import asked, rendered

SCORES = np.random.default_rng(9).dirichlet(np.ones(5), 6)
FLIP = Noise(scale=0.5, keep_argmax=False)


@dataclass
class Doc:
    """An answer whose places write into plain attributes."""

    rows: int = 6
    releases: list[Release | None] = field(default_factory=list[Release | None])
    labels: list[list[int]] = field(default_factory=list[list[int]])
    answer: Answer = field(init=False)

    def __post_init__(self) -> None:
        self.answer = Answer(self.rows, None)

    def add(
        self, scores: object, shape: Shape = "fixed", *, complete: bool = True, rows: list[int] | None = None
    ) -> Doc:
        index = len(self.releases)
        self.releases.append(None)

        def write(released: Release) -> None:
            assert self.releases[index] is None, "written twice"
            self.releases[index] = released

        where = None if rows is None else np.array(rows)
        matrix = np.array(scores, dtype=np.float64)
        self.answer.predictions.append(Prediction(f"p{index}", matrix, write, shape, complete, where))
        return self

    def label(self) -> Doc:
        def write(columns: Ints) -> None:
            self.labels.append(columns.tolist())

        self.answer.labels.append(LabelSlot("label", write))
        return self

    def run(
        self, *defences: Defence, kind: Kind = "probabilities", labels_only: bool = False, trace: bool = False
    ) -> Report:
        queries = Queries(self.rows, np.arange(self.rows * 2.0).reshape(-1, 2).tolist())
        rng = QueryNoise(bytes(32), "model", "alice", queries, None)
        return release(defences, Outputs(kind=kind), self.answer, rng, labels_only=labels_only, trace=trace)

    def scores(self, index: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        released = self.releases[index]
        assert released is not None
        return released.scores


def test_nothing_is_written_when_nothing_applies() -> None:
    doc = Doc().add(SCORES).label()
    assert doc.run() == Report()
    assert doc.releases == [None]
    assert Doc().run(Round(decimals=2)) == Report()


def test_defences_run_in_order() -> None:
    doc = Doc(1).add([[0.46, 0.36, 0.18]])
    doc.run(TopK(k=2), Round(decimals=1))
    assert doc.scores().tolist() == [[0.5, 0.4, 0.0]]
    released = doc.releases[0]
    assert released is not None
    assert released.kept is not None
    assert released.kept.tolist() == [[True, True, False]]
    assert not released.labels_only


def test_the_report_gives_the_mean_shift_a_row() -> None:
    doc = Doc(2).add([[0.46, 0.54], [0.5, 0.5]])
    report = doc.run(Round(decimals=1), trace=True)
    assert np.isclose(report.score_shift_l1, 0.06)
    assert report.top1_changed == 0
    (step,) = report.steps
    assert (step.kind, step.mode, step.top1_changed) == ("round", "enforce", 0)
    assert np.isclose(step.score_shift_l1, 0.06)
    assert Doc(2).add([[0.46, 0.54], [0.5, 0.5]]).run(Round(decimals=1)).steps == ()


def test_steps_in_shadow_are_counted_and_change_nothing() -> None:
    doc = Doc(1).add([[0.46, 0.36, 0.18]])
    report = doc.run(TopK(k=1, mode="shadow"), Round(decimals=1), trace=True)
    assert doc.scores().tolist() == [[0.5, 0.3, 0.2]]
    assert np.isclose(report.shadow_shift_l1, 0.54)
    assert np.isclose(report.score_shift_l1, 0.12)
    assert [s.mode for s in report.steps] == ["shadow", "enforce"]


def test_only_shadow_writes_nothing() -> None:
    doc = Doc().add(SCORES).label()
    report = doc.run(LabelOnly(mode="shadow"), Noise(scale=0.5, keep_argmax=False, mode="shadow"))
    assert doc.releases == [None]
    assert doc.labels == []
    assert report.score_shift_l1 == 0
    assert report.shadow_shift_l1 > 0
    assert report.shadow_top1_changed > 0


def test_a_spent_budget_leaves_labels_behind_the_other_defences() -> None:
    doc = Doc().add(SCORES)
    report = doc.run(Round(decimals=1), labels_only=True, trace=True)
    assert doc.scores().tolist() == np.eye(5)[SCORES.argmax(axis=1)].tolist()
    released = doc.releases[0]
    assert released is not None
    assert released.labels_only
    assert [s.kind for s in report.steps] == ["round", "label_only"]
    alone = Doc().add(SCORES)
    alone.run(labels_only=True)
    assert alone.scores().tolist() == doc.scores().tolist()


def test_a_spent_budget_never_shows_the_label_that_noise_hid() -> None:
    noisy, spent = Doc().add(SCORES), Doc().add(SCORES)
    noisy.run(FLIP)
    spent.run(FLIP, labels_only=True)
    assert noisy.scores().argmax(axis=1).tolist() != SCORES.argmax(axis=1).tolist()
    assert spent.scores().argmax(axis=1).tolist() == noisy.scores().argmax(axis=1).tolist()


def test_what_is_a_label_already_is_not_changed_any_more() -> None:
    doc = Doc().add(SCORES)
    doc.run(LabelOnly(), FLIP)
    assert doc.scores().tolist() == np.eye(5)[SCORES.argmax(axis=1)].tolist()


@pytest.mark.parametrize("kind", ["logits", "logprobs", "value", "embedding"])
def test_outputs_without_labels_cannot_be_reduced_to_them(kind: Kind) -> None:
    with pytest.raises(InvariantError):
        Doc().add(SCORES).run(kind=kind, labels_only=True)


def test_copies_get_the_same_release() -> None:
    doc = Doc().add(SCORES).add(SCORES + 1e-8, "sparse").add(SCORES)
    report = doc.run(Noise(scale=0.1))
    assert np.array_equal(doc.scores(0), doc.scores(1))
    assert np.array_equal(doc.scores(0), doc.scores(2))
    assert report.score_shift_l1 > 0.05


def test_other_matrices_get_noise_of_their_own() -> None:
    doc = Doc().add(SCORES).add(SCORES + 1).add(SCORES + 2)
    doc.run(Noise(scale=0.01), kind="value")
    noises = [doc.scores(i) - SCORES - i for i in range(3)]
    assert all(0 < np.abs(noise).max() < 0.06 for noise in noises)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.isclose(noises[one], noises[other], atol=1e-6).any()


def test_a_row_gets_the_same_noise_alone_and_split_off_in_a_matrix_of_its_own() -> None:
    together = Doc().add(SCORES)
    together.run(Noise(scale=0.1))
    split = Doc()
    for i in range(6):
        split.add(SCORES[i : i + 1], "sparse", rows=[i])
    split.run(Noise(scale=0.1))
    for i in range(6):
        assert np.array_equal(split.scores(i)[0], together.scores()[i])


def test_a_second_matrix_for_some_rows_has_noise_of_its_own() -> None:
    some = SCORES[[1, 4]] + 1
    doc = Doc().add(SCORES).add(some, rows=[1, 4]).add(some, rows=[1, 4]).add(some, rows=[4, 1])
    doc.run(Noise(scale=0.01), kind="value")
    first, second, copy, crossed = (doc.scores(i) for i in range(4))
    assert not np.isclose(second - some, (first - SCORES)[[1, 4]], atol=1e-6).any()
    assert np.array_equal(second, copy)
    assert not np.isclose(crossed - some, (second - some)[::-1], atol=1e-6).any()


def test_the_first_matrix_that_covers_a_row_speaks_for_it() -> None:
    doc = Doc(3).add([[0.91, 0.09], [0.81, 0.19]], rows=[0, 1]).add([[0.4, 0.6], [0.29, 0.71]], rows=[1, 2])
    doc.add([[0.91], [0.81], [0.71]], "top_score").run(Round(decimals=1))
    assert doc.scores(2).tolist() == [[0.9], [0.8], [0.7]]


def test_a_repeated_top_score_takes_the_released_one() -> None:
    doc = Doc().add(SCORES.max(axis=1, keepdims=True), "top_score").add(SCORES)
    doc.run(Noise(scale=0.1), Round(decimals=2))
    assert doc.scores(0).tolist() == doc.scores(1).max(axis=1, keepdims=True).tolist()


def test_a_repeated_top_score_of_some_rows_finds_them() -> None:
    doc = (
        Doc().add(SCORES[[3, 1]], rows=[3, 1]).add(SCORES[[1, 2]].max(axis=1, keepdims=True), "top_score", rows=[1, 2])
    )
    doc.run(Round(decimals=1))
    top = doc.scores(1)
    assert top[0, 0] == doc.scores(0)[1].max()
    assert np.isnan(top[1, 0])  # nothing covers row 2


def test_a_repeated_top_score_is_one_when_only_labels_are_left() -> None:
    doc = Doc().add(SCORES).add(SCORES.max(axis=1, keepdims=True), "top_score")
    doc.run(labels_only=True)
    assert doc.scores(1).tolist() == [[1.0]] * 6
    released = doc.releases[1]
    assert released is not None
    assert released.labels_only


def test_a_top_score_alone_is_rounded_like_any_other() -> None:
    doc = Doc(2).add([[0.876], [0.512]], "top_score")
    doc.run(Round(decimals=1))
    assert doc.scores().tolist() == [[0.9], [0.5]]
    for scores in ([[0.876], [0.512]], [[0.99], [0.985]]):
        noisy = Doc(2).add(scores, "top_score")
        noisy.run(Noise(scale=0.001))
        assert np.allclose(noisy.scores(), scores, atol=0.006)  # a lone score is no distribution that noise makes 1


def test_labels_are_rewritten_only_when_one_changed() -> None:
    kept = Doc().add(SCORES).label().label()
    kept.run(Noise(scale=0.5))
    assert kept.labels == []
    flipped = Doc().add(SCORES).label().label()
    report = flipped.run(FLIP)
    columns = flipped.scores().argmax(axis=1).tolist()
    assert flipped.labels == [columns, columns]
    assert report.top1_changed == sum(a != b for a, b in zip(columns, SCORES.argmax(axis=1).tolist(), strict=True))


def test_labels_of_rows_in_matrices_of_their_own_are_gathered() -> None:
    doc = Doc().label()
    for i in range(6):
        doc.add(SCORES[i : i + 1], rows=[i])
    doc.run(FLIP)
    assert doc.labels == [[int(doc.scores(i).argmax()) for i in range(6)]]


def test_changed_labels_of_rows_without_scores_are_an_error() -> None:
    doc = Doc().add(SCORES[:5], rows=[0, 1, 2, 3, 4]).label()
    with pytest.raises(InvariantError):
        doc.run(FLIP)


def test_values_have_no_labels_to_rewrite() -> None:
    doc = Doc().add(SCORES).label()
    report = doc.run(Noise(scale=5), kind="value")
    assert doc.labels == []
    assert report.top1_changed == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_let_out_as_nan_alone(bad: float) -> None:
    scores = SCORES.copy()
    scores[2, 1] = bad
    doc = Doc().add(scores).add(scores.max(axis=1, keepdims=True), "top_score")
    report = doc.run(Noise(scale=0.1), TopK(k=3))
    clean = Doc().add(SCORES)
    clean.run(Noise(scale=0.1), TopK(k=3))
    others = [0, 1, 3, 4, 5]
    assert np.isnan(doc.scores()[2]).all()
    assert np.array_equal(doc.scores()[others], clean.scores()[others])
    released = doc.releases[0]
    assert released is not None
    assert released.kept is not None
    assert released.kept[2].all()
    assert np.isnan(doc.scores(1)[2, 0])
    assert 0 < report.score_shift_l1 < 2


def test_rows_that_are_not_finite_keep_their_place_in_a_partial_matrix() -> None:
    scores = SCORES[[4, 0, 2]].copy()
    scores[1, 0] = np.nan
    doc = Doc().add(scores, rows=[4, 0, 2]).add(SCORES[[1, 3, 5]], rows=[1, 3, 5]).label()
    doc.run(FLIP)
    clean = Doc().add(SCORES)
    clean.run(FLIP)
    assert np.array_equal(doc.scores()[[0, 2]], clean.scores()[[4, 2]])
    assert len(doc.labels[0]) == 6


def test_an_answer_without_a_finite_row_is_nan_throughout() -> None:
    doc = Doc(2).add(np.full((2, 3), np.nan))
    assert doc.run(Noise(scale=0.1), Grid(), Round(decimals=2)) == Report()
    assert np.isnan(doc.scores()).all()


def test_scores_of_several_labels_are_not_renormalised() -> None:
    doc = Doc(1).add([[0.9, 0.8, 0.1]])
    doc.run(Noise(scale=0.001))
    assert np.allclose(doc.scores(), [[0.9, 0.8, 0.1]], atol=0.01)


def test_negative_dust_in_probabilities_is_zero() -> None:
    doc = Doc(1).add([[-1e-7, 1.0]])
    doc.run(Round(decimals=9))
    assert doc.scores().tolist() == [[0.0, 1.0]]


def test_a_matrix_for_other_rows_than_the_answers_is_an_error() -> None:
    with pytest.raises(InvariantError):
        Doc().add(SCORES[:3]).run(Round(decimals=1))


def test_a_two_class_score_is_a_distribution_of_two() -> None:
    doc = Doc(2).add([[0.3996, 0.6004], [0.52, 0.48]], "two_class")
    doc.run(Round(decimals=1))
    assert doc.scores().tolist() == [[0.4, 0.6], [0.5, 0.5]]


class Counting(LabelOnly, frozen=True):
    """Counts how often it is applied."""

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        APPLIED.append(len(batch.scores))
        return super().apply(batch, rng, salt)


APPLIED: list[int] = []


@pytest.mark.parametrize("defences", [(), (Round(decimals=2),)])
def test_the_work_of_degrading_is_done_for_everybody_and_shows_for_none(defences: tuple[Defence, ...]) -> None:
    APPLIED.clear()
    released: list[list[Release]] = [[], []]
    for found, idle in zip(released, ((), (Counting(),)), strict=True):
        answer = Answer(6, None, [Prediction("p", SCORES, found.append)])
        rng = QueryNoise(bytes(32), "m", "alice", Queries(6, np.arange(12.0).reshape(-1, 2).tolist()), None)
        release(defences, Outputs(), answer, rng, labels_only=False, idle=idle)
    assert APPLIED == [6]
    assert len(released[0]) == len(released[1]) == len(defences)
    for one, other in zip(*released, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_dropped_logprob_reads_the_least_and_is_no_distance() -> None:
    doc = Doc(rows=1).add([[-2.0, -0.25, -3.0]])
    report = doc.run(TopK(k=2), Round(decimals=0), kind="logprobs", trace=True)
    assert doc.scores().tolist() == [[-2.0, 0.0, -9999.0]]
    assert report.score_shift_l1 == pytest.approx(0.25)
    assert [step.score_shift_l1 for step in report.steps] == pytest.approx([0.0, 0.25])


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16"])
def test_a_tensor_of_logprobs_tells_nothing_of_what_was_dropped(datatype: str) -> None:
    api = OpenInference(Reader(Outputs(kind="logprobs")))
    path = "/v2/models/m/infer"
    body: dict[str, object] = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
    scores = {"name": "s", "shape": [1, 3], "datatype": datatype, "data": [-2.0, -0.25, -3.0]}
    answer = asked(api, path, body, {"model_name": "m", "outputs": [scores]})
    rng = QueryNoise(bytes(32), "model", "alice", Queries(1, [[1.0, 2.0]]), None)
    release((TopK(k=2),), Outputs(kind="logprobs"), answer, rng, labels_only=False)
    data = rendered(api, answer)["outputs"][0]["data"]
    assert data[:2] == [-2.0, -0.25]
    assert data[2] <= -9990
