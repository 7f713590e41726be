"""The last layer: exact where biased log-probabilities are answered, nothing where they are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guard.selftest.attacks.last_layer import LastLayer
from guard.selftest.attacks.low_rank import completed, gap, layer_error, rank_of
from guard.selftest.base import Outcome, Refused, Unresolved, World
from guard.selftest.lab.softmax_head import softmax_head
from guard.selftest.texts import Json, Written
from tests.unit.selftest.support import linear_victim, world
from tests.unit.selftest.texts import Filter, text_world, without

SMALL = softmax_head(0, vocabulary=160, width=8)
ATTACK = LastLayer(prompts=16, tokens=24, alone=64, accounts=2, rounds=2, squares=14, fine=1e-3)


def errors(found: Outcome, metric: str = "dimension_error") -> dict[str, float]:
    return {one.how: one.measures[metric].value for one in found.tries}


def run(attacked: World, attack: LastLayer = ATTACK) -> dict[str, float]:
    return errors(attack.run(attacked))


def rounded(decimals: int) -> Filter:
    def release(body: Json, one: Written) -> Written:
        del body
        return replace(one, tops=[{token: round(p, decimals) for token, p in top.items()} for top in one.tops])

    return release


def test_biased_log_probabilities_give_the_width_and_the_layer_exactly() -> None:
    found = ATTACK.run(text_world(SMALL))
    assert errors(found)["logit_bias"] == 0.0
    assert errors(found, "layer_error")["logit_bias"] < 1e-6
    assert found.curve[-1][1] == 0.0
    assert [one.plain for one in found.tries] == [True, False, False, False]


def test_two_decimals_hide_nothing() -> None:
    assert run(text_world(SMALL, answer=rounded(2)))["logit_bias"] == 0.0


def test_a_constrained_answer_shows_what_it_lists_without_any_bias() -> None:
    found = run(text_world(SMALL, without("logit_bias")))
    assert (found["logit_bias"], found["constrained answers"]) == (1.0, 0.0)


def test_without_bias_and_constraint_the_top_gives_little() -> None:
    found = ATTACK.run(text_world(SMALL, without("logit_bias", "response_format")))
    assert min(errors(found).values()) >= 0.5
    assert "logit_bias moves no token into the top" in found.notes


def test_bias_without_log_probabilities_is_bisected_within_patience() -> None:
    bare = without("logprobs", "top_logprobs")
    found = run(text_world(SMALL, bare))
    assert (found["logit_bias"], found["constrained answers"], found["the top alone"]) == (1.0, 1.0, 1.0)
    assert found["bisected answers"] == 0.0
    hurried = replace(ATTACK, patience=500).run(text_world(SMALL, bare))
    assert errors(hurried)["bisected answers"] == 1.0
    assert any("given up after 500 answers" in note for note in hurried.notes)


def test_where_nothing_is_let_through_there_is_no_matrix() -> None:
    found = ATTACK.run(text_world(SMALL, without("logprobs", "top_logprobs", "logit_bias")))
    assert min(errors(found).values()) >= 0.5
    assert errors(found)["logit_bias"] == errors(found)["bisected answers"] == 1.0
    assert errors(found, "layer_error")["logit_bias"] == 1.0


def test_every_refusal_is_a_way_less_and_none_ends_the_attack() -> None:
    def refuse(body: Json) -> None:
        if body.keys() & {"logprobs", "logit_bias"}:
            raise Refused(400)

    found = ATTACK.run(text_world(SMALL, refuse))
    assert min(errors(found).values()) >= 0.5
    assert any("refused (400)" in note for note in found.notes)
    spent = ATTACK.run(text_world(SMALL, limit=0))
    assert set(errors(spent).values()) == {1.0}


def test_a_model_that_generates_no_text_is_unresolved() -> None:
    with pytest.raises(Unresolved):
        ATTACK.run(world(linear_victim()))


def test_the_rank_of_noise_is_none_and_that_of_logits_survives_it() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 60)) + rng.normal(size=(40, 1))
    assert rank_of(exact + rng.normal(0, 1e-3, exact.shape)) == 6
    assert [rank_of(rng.normal(size=(96, 152))) for _ in range(8)] == [None] * 8
    assert gap(exact)[0] == 6


def test_the_layer_is_judged_up_to_an_affine_map_and_unseen_tokens_count_whole() -> None:
    rng = np.random.default_rng(0)
    layer = rng.normal(size=(60, 6))
    matrix = rng.normal(size=(40, 6)) @ (layer @ rng.normal(size=(6, 6))).T + rng.normal(size=(40, 1))
    assert layer_error(matrix, np.arange(60), layer, 6) < 1e-9
    assert 0.6 < layer_error(matrix[:, :30], np.arange(30), layer, 6) < 0.8
    assert layer_error(rng.normal(size=(40, 60)), np.arange(60), layer, 6) > 0.8


def test_a_sparse_matrix_is_completed_where_it_holds_enough_and_not_where_it_does_not() -> None:
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 50))

    def found(share: float) -> int | None:
        rows, columns = np.nonzero(rng.random(whole.shape) < share)
        return completed(rows, columns, whole[rows, columns], rng)

    assert found(0.6) == 4
    assert found(0.05) is None
