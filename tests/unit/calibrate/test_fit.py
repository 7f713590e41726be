"""A profile of honest clients: what serves for what, what its levels stand on, and thieves in the logs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from guard.calibrate.augment import Shifts, Way
from guard.calibrate.courses import Course, clip_mean, course, horizon
from guard.calibrate.fit import Findings, PoisonedLogs, Settings, make_profile
from guard.calibrate.read import CalibrationError, ClientLog
from guard.calibrate.split import split
from guard.calibrate.windows import view
from guard.detectors import DETECTORS
from guard.detectors.profile import Profile, decode, encode
from guard.detectors.setup import DEFAULT, make_setup
from tests.support.traffic import SKETCH, WIDTH, honest, log_of, thief

HONEST = [log_of(honest(number)) for number in range(60)]
THIEVES = [log_of(thief(number)) for number in range(2)]
STRUCTURE = {name for detector in DETECTORS.values() if detector.tier == "structure" for name in detector.names}


def fitted(clients: list[ClientLog], settings: Settings | None = None) -> tuple[Profile, Findings]:
    return make_profile("digits", SKETCH, clients, settings)


@pytest.fixture(scope="module")
def made() -> tuple[Profile, Findings]:
    return fitted(HONEST)


def test_a_profile_of_honest_clients_has_all_detectors_and_is_readable(made: tuple[Profile, Findings]) -> None:
    profile, findings = made
    assert set(findings.on) == set(DETECTORS) == set(profile.references)
    assert findings.off == ()
    assert findings.suspects == ()
    assert sum(findings.parts) == 60
    assert profile.queries == 60 * 96
    assert len(profile.sups["any"]) == findings.parts[2]
    assert profile.horizon == 96
    assert decode(encode(profile)).null.signals == profile.null.signals
    make_setup(DEFAULT, profile, None, b"a salt of the deployment")


def test_the_meters_queries_are_of_held_out_clients_and_answers_of_the_others(made: tuple[Profile, Findings]) -> None:
    profile, findings = made
    assert profile.held_out.shape == (512, WIDTH)
    held = np.unique(profile.held_out.round(6), axis=0)
    of_held = [log for log in HONEST if _inside(log, profile, held)]
    assert len(of_held) == findings.parts[2]
    assert set(profile.held_out_top.tolist()) <= {0, 1, 2}
    assert profile.answers.shape == (2000, 3)
    assert np.allclose(profile.answers.sum(axis=1), 1)


def _inside(log: ClientLog, profile: Profile, rows: np.ndarray) -> bool:
    vectors = view(log, profile.mean, profile.scale).features.vectors
    assert vectors is not None
    return bool((np.abs(rows[:, None] - vectors[None]).max(axis=2) < 1e-5).any())


def test_the_same_logs_and_seed_give_the_same_profile(made: tuple[Profile, Findings]) -> None:
    again, _ = fitted(HONEST)
    assert encode(again) == encode(made[0])
    other, _ = fitted(HONEST, Settings(seed=1))
    assert encode(other) != encode(made[0])


def test_few_held_out_clients_make_levels_nominal_and_say_why(made: tuple[Profile, Findings]) -> None:
    told = [str(level) for _, level in made[1].levels]
    assert told == [
        "nominal(0.01): 20 held-out clients, 99 are needed",
        "nominal(0.001): 20 held-out clients, 999 are needed",
        "nominal(0.001): 20 held-out clients, 999 are needed",
    ]


def test_two_hundred_clients_calibrate_one_in_a_hundred() -> None:
    clients = [log_of(honest(number, 32)) for number in range(200)]
    _, findings = fitted(clients, Settings(poisoned="keep"))
    levels = [level for _, level in findings.levels]
    assert levels[0].clients == 100
    assert levels[0].horizon == 32
    assert levels[1].clients == 0


@pytest.mark.parametrize("clients", [HONEST[:19], [], [log_of(honest(number, 8)) for number in range(40)]])
def test_too_few_clients_are_an_error(clients: list[ClientLog]) -> None:
    with pytest.raises(CalibrationError, match="a profile needs 20"):
        fitted(clients)


def test_clients_below_a_window_are_counted_and_not_used() -> None:
    _, findings = fitted([*HONEST[:24], *(log_of(honest(number, 8)) for number in range(100, 103))])
    assert findings.short == 3
    # So few clients serve for detectors and for the null together.
    assert findings.parts == (16, 16, 8)


def test_thieves_in_the_logs_are_named_and_nothing_is_made() -> None:
    with pytest.raises(PoisonedLogs) as caught:
        fitted([*HONEST, *THIEVES])
    assert {suspect.client for suspect in caught.value.found} == {"thief-0", "thief-1"}
    assert all(set(suspect.signals) <= STRUCTURE and suspect.signals for suspect in caught.value.found)
    assert all(suspect.log10_evidence > 3 for suspect in caught.value.found)


def test_thieves_are_left_out_when_asked() -> None:
    profile, findings = fitted([*HONEST, *THIEVES], Settings(poisoned="leave_out"))
    assert profile.left_out == 2
    assert findings.left_out
    assert sum(findings.parts) == 60
    kept, kept_findings = fitted([*HONEST, *THIEVES], Settings(poisoned="keep"))
    assert kept.left_out == 0
    assert sum(kept_findings.parts) == 62
    assert len(kept_findings.suspects) == 2


def test_a_thief_is_found_by_the_profile_and_an_honest_newcomer_is_not(made: tuple[Profile, Findings]) -> None:
    profile, findings = made
    setup = make_setup(DEFAULT, profile, None, b"a salt of the deployment")
    threshold = findings.levels[2].level.threshold
    for number in range(10, 13):
        stolen = course(setup, view(log_of(thief(number)), profile.mean, profile.scale))
        assert stolen.structure.max() > threshold
        fair = course(setup, view(log_of(honest(1000 + number)), profile.mean, profile.scale))
        assert fair.structure.max() < threshold


def test_without_sketches_only_keys_are_watched() -> None:
    clients = [dataclasses.replace(log, raw=None) for log in HONEST]
    profile, findings = fitted(clients)
    assert set(findings.on) == {"repeats", "one_feature_varied", "line_walk", "low_margin"}
    assert ("mahalanobis", "the recordings have no vectors") in findings.off
    assert profile.augmented == 0
    assert decode(encode(profile)).mean.shape == (0,)


def test_without_scores_the_detector_of_answers_is_off() -> None:
    clients = [
        dataclasses.replace(log, margins=np.full(len(log), np.nan), top=np.full(len(log), -1), scores=log.scores[:0])
        for log in HONEST
    ]
    profile, findings = fitted(clients)
    assert ("low_margin", "too few clients whose answers had scores") in findings.off
    assert profile.answers.shape == (0, 0)
    assert profile.held_out.shape == (0, WIDTH)
    assert len(decode(encode(profile)).answers) == 0


def test_parts_do_not_overlap_and_leave_enough_for_a_level() -> None:
    parts = split(2500, np.random.default_rng(0))
    numbers = [*parts.fit, *parts.null, *parts.held]
    assert sorted(numbers) == list(range(2500))
    assert len(parts.held) >= 999


def _raw(log: ClientLog) -> np.ndarray:
    assert log.raw is not None
    return log.raw


WAYS: tuple[Way, ...] = ("vector", "image", "text")


@pytest.mark.parametrize("way", WAYS)
def test_shifted_copies_differ_and_keep_what_repeats(way: Way) -> None:
    shifts = Shifts(way, HONEST, np.zeros(WIDTH), np.ones(WIDTH))
    copies = [shifts.shifted(log, np.random.default_rng(i)) for i, log in enumerate(HONEST[:10])]
    moved = [not np.array_equal(_raw(copy), _raw(log)) for copy, log in zip(copies, HONEST, strict=False)]
    assert sum(moved) >= 5  # by chance, no feature of some is chosen
    assert all(copy.keys is log.keys for copy, log in zip(copies, HONEST, strict=False))


def test_features_of_few_values_take_no_others() -> None:
    coarse = [dataclasses.replace(log, raw=np.round(_raw(log))) for log in HONEST]
    shifts = Shifts("vector", coarse, np.zeros(WIDTH), np.ones(WIDTH))
    for i, log in enumerate(coarse[:10]):
        raw = _raw(shifts.shifted(log, np.random.default_rng(i)))
        assert np.array_equal(raw, np.round(raw))


def _course(values: list[float]) -> Course:
    return Course(16 * (len(values) - 1), np.array(values), np.zeros(len(values)), ())


def test_pools_divide_by_the_greatest_mean_of_clipped_evidence() -> None:
    assert clip_mean([]) == 1.0
    assert clip_mean([_course([0.0, -1.0])] * 4) == 1.0
    # One of four clients passed 100 between the looks that count, and came back: frozen at 100.
    runs = [_course([0.0] * 5)] * 3 + [_course([0.0, 0.0, 0.0, 9.0, 0.0])]
    assert clip_mean(runs) == pytest.approx((3 + 100) / 4)


def test_the_horizon_is_what_three_in_four_streams_reach() -> None:
    runs = [_course([0.0] * n) for n in (2, 11, 21, 31, 41)]
    assert horizon(runs) == 160
    assert horizon([]) == 0
