"""Canaries: had from a model that learnt them, in every way; a filter stops the ways, and tells what it stops."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from guard.selftest.attacks.canary_extraction import (
    CanaryExtraction,
    CanaryExtractionUnlisted,
    CanaryInference,
    measured,
)
from guard.selftest.base import Outcome, Refused, Unresolved, World
from guard.selftest.lab.canaries import LISTED, codes_of
from guard.selftest.lab.registry import victim
from guard.selftest.texts import Json, Written
from tests.unit.selftest.support import linear_victim, world
from tests.unit.selftest.texts import Filter, Rule, text_world, without

CODES = codes_of(0)[LISTED]
LISTED_TOO, UNLISTED = (kind(samples=64, scored=12) for kind in (CanaryExtraction, CanaryExtractionUnlisted))
PUBLISHED = ("greedy answer", "search by log-probabilities", "samples", "scored codes")


def values(found: Outcome, metric: str = "canary_returned") -> dict[str, float]:
    return {one.how: one.measures[metric].value for one in found.tries}


def attacked(rule: Rule | None = None, answer: Filter | None = None) -> World:
    return text_world(victim("memorising", 0), rule, answer)


def redacting(body: Json, one: Written) -> Written:
    """Strike listed codes out, those too that begin in the prompt: what a filter of whole answers does."""
    prompt = str(body["prompt"])
    whole = prompt + one.text
    struck = whole
    for code in CODES:
        for found in re.finditer(code, whole):
            if found.end() > len(prompt):
                struck = whole[: max(found.start(), len(prompt))] + "[redacted]" + whole[found.end() :]
    return replace(one, text=struck[len(prompt) :])


@pytest.mark.parametrize("attack", [LISTED_TOO, UNLISTED])
def test_undefended_every_published_way_returns_the_canary(attack: CanaryExtraction) -> None:
    found = attack.run(attacked())
    assert {how: value for how, value in values(found).items() if how in PUBLISHED} == dict.fromkeys(PUBLISHED, 1.0)
    assert values(found)["a stream"] == values(found)["halves"] == 1.0
    assert max(values(found, "exposure").values()) == pytest.approx(19.93, abs=0.01)


def test_without_log_probabilities_and_scored_prompts_the_text_is_enough() -> None:
    found = LISTED_TOO.run(attacked(rule=without("logprobs", "echo")))
    assert values(found)["search by log-probabilities"] == values(found)["scored codes"] == 0.0
    assert values(found)["greedy answer"] == 1.0
    assert "prompts are not scored" in found.notes


def test_a_filter_returns_no_listed_code_and_lets_the_others_through() -> None:
    rule = without("logprobs", "echo")
    listed = values(LISTED_TOO.run(attacked(rule=rule, answer=redacting)))
    # It looks at events one by one, so a stream passes it.
    assert {how for how, returned in listed.items() if returned} == {"a stream"}
    assert values(UNLISTED.run(attacked(rule=rule, answer=redacting)))["greedy answer"] == 1.0


def test_what_is_let_through_and_what_is_held_back_tell_the_code() -> None:
    found = CanaryInference(samples=64).run(attacked(rule=without("logprobs", "echo"), answer=redacting))
    exposure = values(found, "exposure")
    assert exposure["greedy answer"] < 1.5
    assert exposure["a token at a time"] == pytest.approx(17.47, abs=0.01)
    assert exposure["what is held back"] > 15
    assert values(found, "canary_digits")["a token at a time"] == pytest.approx(5 / 6)
    assert exposure["stop words"] == pytest.approx(19.93, abs=0.01)


def test_refusals_leave_nothing_and_do_not_end_the_attack() -> None:
    def refuse(body: Json) -> None:
        del body
        raise Refused(403)

    found = LISTED_TOO.run(attacked(rule=refuse))
    assert set(values(found).values()) == {0.0}
    assert "greedy answer: refused (403)" in found.notes


def test_a_model_that_generates_no_text_is_unresolved() -> None:
    with pytest.raises(Unresolved):
        LISTED_TOO.run(world(linear_victim()))


@pytest.mark.parametrize(
    ("guesses", "exposure"),
    [(["111111"], 1.0), ([], 1.0), (["111111", "123456"], 18.93), (["1234"], 14.27), (["11", "12345"], 6.64)],
)
def test_exposure_is_of_the_rank_among_the_attackers_guesses(guesses: list[str], exposure: float) -> None:
    assert measured(guesses, "123456")["exposure"].value == pytest.approx(exposure, abs=0.01)
