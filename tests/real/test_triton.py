"""A real Triton, driven by `tritonclient.http` in every form that it knows, directly and through Guard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.processes import client, guard
from tests.support.triton import Triton

pytestmark = pytest.mark.real
POLICY = """version: 1
name: triton
routes:
  - name: snapped
    api: open_inference
    match: {path: /v2/models/digits_fp64/infer}
    inputs: {kind: vector, size: 64, low: 0, high: 1.02, step: 0.0625}
    defences: [{kind: top_k, k: 3}, {kind: round, decimals: 2}]
  - name: digits
    api: open_inference
    match: {path: /v2/models/digits/infer}
    inputs: {kind: vector, size: 64, low: 0, high: 1}
    defences: [{kind: top_k, k: 3}, {kind: round, decimals: 2}]
    budgets: [{kind: rows, per: client, limit: 10000, window: 24h}]
  - name: rest
    api: open_inference
    defences: [{kind: top_k, k: 3}, {kind: round, decimals: 2}]
"""
SCORED = (
    *("json", "binary", "binary_in", "binary_out", "mixed", "default_outputs", "later", "reversed", "single"),
    *("gzip_request", "gzip_both", "deflate_request", "deflate_both", "digits_binary", "digits_json"),
    *("digits_fp16_binary", "digits_fp64_binary", "digits_fp64_json", "digits_int64_binary", "digits_int64_json"),
    *("digits_bytes_binary", "digits_bytes_json"),
)
COARSENESS = {"FP16": 2**-11, "FP32": 2**-24, "FP64": 2**-52}
"""Greatest rounding error of a datatype below 1."""
Document = Any  # Any: the client's JSON document


@pytest.fixture(scope="module")
def documents(triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Document, Document]]:
    """What the client got from Triton itself, and through Guard."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "policy.yaml").write_text(POLICY)
    with guard(folder / "policy.yaml", triton.url, folder / "guard") as guarded:
        yield client(triton.python, "triton", triton.url), client(triton.python, "triton", guarded.url)


def defended(scores: np.ndarray) -> np.ndarray:
    kept = scores.copy()
    kept[np.arange(len(kept))[:, None], np.argsort(kept, axis=1)[:, :-3]] = 0
    return kept.round(2)


@pytest.mark.parametrize("call", SCORED)
def test_scores_are_defended_and_labels_go_through_in_every_form(
    documents: tuple[Document, Document], call: str
) -> None:
    direct, through = (document[call] for document in documents)
    assert {key: through[key] for key in through if key != "arrays"} == {
        key: direct[key] for key in direct if key != "arrays"
    }
    before, after = (np.array(one["arrays"]["probabilities"]) for one in (direct, through))
    assert through["arrays"]["label"] == direct["arrays"]["label"]
    assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert [int(label) for (label,) in through["arrays"]["label"]] == after.argmax(axis=1).tolist()
    assert ((after > 0).sum(axis=1) <= 3).all()
    assert np.abs(after - after.round(2)).max() <= COARSENESS[through["datatypes"]["probabilities"]]
    assert np.abs(after - defended(before)).max() <= 0.0101
    assert not np.allclose(after, before, atol=1e-4)


def test_every_form_of_a_query_gets_the_same_scores(documents: tuple[Document, Document]) -> None:
    _, through = documents
    alike = ("json", "binary", "binary_in", "binary_out", "mixed", "later", "gzip_both", "deflate_both")
    found = [through[call]["arrays"]["probabilities"] for call in alike]
    np.testing.assert_allclose(found, [found[0]] * len(alike), atol=1e-6)


def test_bytes_come_back_where_bytes_were_asked_for(documents: tuple[Document, Document]) -> None:
    _, through = documents
    assert through["binary"]["binary"] == through["default_outputs"]["binary"] == ["probabilities", "label"]
    assert through["mixed"]["binary"] == ["probabilities"]
    assert through["json"]["binary"] == through["binary_in"]["binary"] == []


@pytest.mark.parametrize(("call", "count"), [("classified_json", 3), ("classified_binary", 3), ("classified_all", 10)])
def test_classification_is_defended(documents: tuple[Document, Document], call: str, count: int) -> None:
    direct, through = (document[call]["arrays"]["probabilities"] for document in documents)
    assert documents[1][call]["binary"] == documents[0][call]["binary"]
    for before, after in zip(direct, through, strict=True):
        assert len(before) == count
        assert len(after) == 3
        assert all(re.fullmatch(r"0\.\d\d0000:\d", entry) for entry in after), after
        assert after[0].split(":")[1] == before[0].split(":")[1]
        assert after[0].split(":")[0] != before[0].split(":")[0]


def test_what_triton_cannot_classify_is_a_clean_error(documents: tuple[Document, Document]) -> None:
    assert "unsupported type" in documents[0]["classified_fp16"]["error"]["message"]
    assert documents[1]["classified_fp16"]["error"] == {"status": "400", "message": "the model refused this request"}


def test_queries_are_snapped_in_their_datatype(documents: tuple[Document, Document]) -> None:
    direct, through = documents
    assert direct["moved"]["arrays"] != direct["digits_fp64_binary"]["arrays"]
    assert through["moved"]["arrays"] == through["digits_fp64_binary"]["arrays"]


def test_errors_are_the_librarys_own_with_what_guard_says(documents: tuple[Document, Document]) -> None:
    direct, through = documents
    assert "arrays" in direct["beyond"]
    assert through["beyond"]["error"]["status"] == through["bad_shape"]["error"]["status"] == "422"
    assert through["beyond"]["error"]["message"].startswith("inputs[0].data[")
    assert "must have 64 features, has 32" in through["bad_shape"]["error"]["message"]
    assert "logits" in direct["unknown_output"]["error"]["message"]
    assert through["unknown_output"]["error"] == {"status": "400", "message": "the model refused this request"}


@pytest.mark.parametrize("call", ["shared_input", "shared_output"])
def test_shared_memory_is_refused(documents: tuple[Document, Document], call: str) -> None:
    direct, through = (document[call] for document in documents)
    assert direct["registered"] is None, "Triton did not register the region, so this test would prove nothing"
    assert "outputs" in direct["answer"]
    assert through["registered"]["error"]["status"] == "404"
    assert through["answer"]["error"] == {"status": "400", "message": "shared memory is not let through"}
    if call == "shared_output":
        assert direct["left"] != through["left"]
        assert np.allclose(np.sum(direct["left"], axis=1), 1, atol=1e-5)
