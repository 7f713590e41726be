from __future__ import annotations

import numpy as np

from guard.detectors.base import Features
from guard.detectors.one_feature_varied import OneFeatureVaried
from guard.detectors.sketch import Sketcher
from guard.detectors.stream import Stream
from guard.model.queries import Queries
from tests.support.detecting import SALT, honest, signals


def differences(base: np.ndarray) -> np.ndarray:
    """Finite differences: each feature of each row moved by itself."""
    return np.concatenate([row + 0.1 * np.vstack([np.zeros(8), np.eye(8)]) for row in base])


def test_finite_differences_move_it_and_honest_queries_do_not() -> None:
    assert signals(OneFeatureVaried(), differences(honest(1)[:20])).mean() > 0.85
    assert signals(OneFeatureVaried(), honest(2)).mean() < 0.01


def test_repeats_count_only_in_the_sum_of_both() -> None:
    repeats = signals(OneFeatureVaried(), np.repeat(honest(1)[:1], 50, axis=0))
    varied = signals(OneFeatureVaried(), differences(honest(1)[:5]))

    assert repeats.sum(axis=0).tolist() == [0, 49]
    assert (varied[:, 1] >= varied[:, 0]).all()


def test_a_line_search_whose_last_steps_are_rounded_away_is_seen_whole() -> None:
    rows = np.tile(honest(1)[0], (30, 1))
    rows[:, 2] = 1.3 + 0.5 ** np.arange(30)
    found = signals(OneFeatureVaried(), rows)

    assert found[:, 0].mean() < 0.5
    assert found[1:, 1].all()


def test_two_features_varied_at_once_are_not_seen() -> None:
    base = honest(1)[0]
    attack = np.tile(base, (50, 1))
    attack[:, 0] += np.arange(50.0)
    attack[:, 1] -= np.arange(50.0)

    assert signals(OneFeatureVaried(), attack).sum() == 0


def test_a_replaced_word_moves_it_and_other_texts_do_not() -> None:
    base = ["please", "find", "attached", "the", "report", "for", "the", "second", "quarter"]
    attack = [" ".join(base)] + [" ".join([*base[:i], "changed", *base[i + 1 :]]) for i in range(len(base))]
    other = [f"message {i} about {i * 7} and nothing else of note on day {i * i}" for i in range(9)]

    assert text_signals(attack)[1:].all()
    assert not text_signals(other).any()


def test_rows_of_two_members_say_nothing() -> None:
    rows = np.stack([np.ones(30), np.arange(30.0)], axis=1)

    assert signals(OneFeatureVaried(), rows, {}).sum() == 0


def text_signals(texts: list[str]) -> np.ndarray:
    found: Features = Sketcher(None, SALT).features(Queries(len(texts), texts))
    return Stream([OneFeatureVaried().bind({}, 0, SALT)]).ask(found)
