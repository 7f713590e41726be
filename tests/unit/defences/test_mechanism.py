"""What all mechanisms share: bound before they run, closed to what is outside their domain, charged for what is due."""

from __future__ import annotations

import numpy as np
import pytest

from guard.errors import InvariantError, UpstreamError
from guard.model.outputs import Outputs
from guard.privacy.events import text
from tests.support.mechanisms import Cryptographic, bound, made, outputs_of
from tests.support.randomness import batch_of

RNG = Cryptographic()
FIELDS: dict[str, dict[str, float]] = {
    "dp_gaussian": {"noise_multiplier": 5.0},
    "dp_laplace": {"noise_multiplier": 5.0},
    "noisy_max": {"noise_multiplier": 5.0},
    "exponential": {"epsilon": 1.0},
    "randomised_response": {"epsilon": 1.0},
}
HALVES = batch_of([[0.5, 0.5]])


@pytest.mark.parametrize("kind", FIELDS)
def test_a_mechanism_that_was_not_bound_does_not_run(kind: str) -> None:
    with pytest.raises(InvariantError, match="before it was bound"):
        made(kind, **FIELDS[kind]).apply(HALVES, RNG, b"")


@pytest.mark.parametrize("kind", ["dp_gaussian", "dp_laplace", "noisy_max"])
def test_a_mechanism_that_was_not_bound_has_no_price(kind: str) -> None:
    with pytest.raises(InvariantError, match="before it was bound"):
        made(kind, **FIELDS[kind]).event()


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize(
    "row",
    [[0.5, 0.6], [1.5, -0.5], [np.nan, 1.0], [np.inf, 0.0], [0.0, 0.0]],
    ids=["sum", "sign", "nan", "inf", "none"],
)
def test_what_is_no_distribution_is_refused(kind: str, row: list[float]) -> None:
    with pytest.raises(UpstreamError) as raised:
        bound(kind, FIELDS[kind]).apply(batch_of([row]), RNG, b"")
    assert raised.value.code == "outside_outputs"


@pytest.mark.parametrize("kind", FIELDS)
def test_what_is_to_be_clipped_is(kind: str) -> None:
    outputs = outputs_of("probabilities", 2).model_copy(update={"clip": True})
    mechanism = bound(kind, FIELDS[kind], outputs=outputs)
    assert mechanism.apply(batch_of([[7.0, -3.0]]), RNG, b"").scores.sum() == pytest.approx(1)
    with pytest.raises(UpstreamError):
        mechanism.apply(batch_of([[np.nan, 1.0]]), RNG, b"")


@pytest.mark.parametrize("kind", FIELDS)
def test_rows_of_another_width_are_refused(kind: str) -> None:
    for row in ([1.0], [0.5, 0.25, 0.25]):
        with pytest.raises(UpstreamError, match="another form"):
            bound(kind, FIELDS[kind]).apply(batch_of([row]), RNG, b"")


@pytest.mark.parametrize("kind", FIELDS)
def test_parts_of_a_distribution_are_refused_since_their_choice_tells(kind: str) -> None:
    mechanism = bound(kind, FIELDS[kind])
    for part in (HALVES._replace(complete=False), HALVES._replace(kept=np.array([[True, False]]))):
        with pytest.raises(UpstreamError, match="another form"):
            mechanism.apply(part, RNG, b"")


@pytest.mark.parametrize("kind", FIELDS)
def test_no_rows_and_one_class_are_answered(kind: str) -> None:
    nothing = bound(kind, FIELDS[kind]).apply(batch_of(np.zeros((0, 2))), RNG, b"")
    assert nothing.scores.shape == (0, 2)
    assert nothing.top.shape == (0,)
    certain = bound(kind, FIELDS[kind], columns=1).apply(batch_of([[1.0]], complete=False), RNG, b"")
    assert certain.scores.tolist() == [[1.0]]


def test_sensitivity_is_the_diameter_over_the_quorum_unless_it_is_declared() -> None:
    for kind, diameter in (("dp_gaussian", 2**0.5), ("dp_laplace", 2.0), ("noisy_max", 2**0.5), ("exponential", 1.0)):
        assert bound(kind, FIELDS[kind], quorum=50).measurement().sensitivity == diameter / 50
        assert bound(kind, FIELDS[kind], quorum=50, sensitivity=0.3).measurement().sensitivity == 0.3


def test_a_measurement_names_everything_that_the_loss_follows_from() -> None:
    measurement = bound("dp_gaussian", quorum=50, noise_multiplier=5.0).measurement()
    assert (measurement.mechanism, measurement.norm, measurement.quorum) == ("dp_gaussian", "l2", 50)
    assert text(measurement.event) == "gaussian(5.0)"
    assert measurement.noise == "Gaussian noise of standard deviation 0.141421 on a grid of 2^-35"


@pytest.mark.parametrize(
    ("kind", "outputs", "said"),
    [
        ("dp_gaussian", Outputs(kind="value"), "nothing bounds outputs of kind value"),
        ("dp_laplace", Outputs(kind="value", low=0), "nothing bounds outputs of kind value"),
        ("dp_gaussian", Outputs(kind="embedding"), "nothing bounds outputs of kind embedding"),
        ("dp_gaussian", Outputs(kind="value", low=2, high=2), "a low below their high"),
        ("dp_laplace", Outputs(kind="value", low=3, high=2), "a low below their high"),
        ("dp_gaussian", Outputs(kind="value", low=-1.7e308, high=1.7e308), "a low below their high"),
        ("dp_laplace", Outputs(kind="embedding", norm=1), "does not suit outputs of kind embedding"),
        ("noisy_max", Outputs(kind="value", low=0, high=1), "does not suit outputs of kind value"),
        ("exponential", Outputs(kind="logits", classes=("a", "b")), "does not suit outputs of kind logits"),
        ("randomised_response", Outputs(kind="labels"), "does not suit outputs of kind labels"),
        ("dp_gaussian", Outputs(), "nothing says what they are called"),
    ],
)
def test_outputs_that_no_noise_makes_private_are_said_with_what_to_write(
    kind: str, outputs: Outputs, said: str
) -> None:
    (problem,) = made(kind, **FIELDS[kind]).check(outputs, None)
    assert said in problem.message
    assert problem.hint


def test_outputs_that_nothing_bounds_cannot_be_bound_to() -> None:
    with pytest.raises(ValueError, match="nothing bounds outputs of kind value"):
        bound("dp_gaussian", outputs=Outputs(kind="value"), columns=1, noise_multiplier=5)
