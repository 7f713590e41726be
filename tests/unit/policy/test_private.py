"""What a policy may say of privacy: contradictions are errors with the reason; what is sound is priced and worded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard.budgets.privacy import Privacy
from guard.detectors.profile import Profile, encode
from guard.errors import PolicyError, Problem
from guard.policy.load import load_plan
from guard.policy.plan import Plan, RoutePlan
from tests.support.fitted import fitted

CLAIM = "privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 60000}"
OUTPUTS = "outputs: {kind: probabilities, classes: [a, b, c]}"
NOISE = "defences: [{kind: dp_gaussian, noise_multiplier: 20}]"
BUDGET = "budgets: [{kind: privacy, per: model, epsilon: 4, delta: 1.0e-6}]"
VOTE = "ensemble: {aggregate: noisy_vote, quorum: 90, noise_multiplier: 28}"


def plan(tmp_path: Path, *lines: str, name: str = "default") -> Plan:
    text = "version: 1\nroutes:\n"
    for block in "|".join(lines).split("||"):
        text += f"  - name: {name}\n    api: kserve_v1\n" + "".join(f"    {line}\n" for line in block.split("|"))
        name += "2"
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return load_plan(str(file), api=None, env={})


def route(tmp_path: Path, *lines: str) -> RoutePlan:
    return plan(tmp_path, *lines).routes[0]


def problem(tmp_path: Path, *lines: str) -> Problem:
    with pytest.raises(PolicyError) as raised:
        plan(tmp_path, *lines)
    (only,) = raised.value.problems
    return only


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        (
            (OUTPUTS, "defences: [{kind: round, decimals: 2}, {kind: dp_gaussian, noise_multiplier: 20}]", BUDGET),
            "defences[1]",
            "round before dp_gaussian",
        ),
        ((OUTPUTS, BUDGET), "budgets[0]", "no mechanism spends this privacy budget"),
        (
            (OUTPUTS, "defences: [{kind: top_k, k: 1}, {kind: dp_gaussian, noise_multiplier: 20}]", BUDGET),
            "defences[1]",
            "top_k before dp_gaussian",
        ),
        (
            (
                OUTPUTS,
                "defences: [{kind: temperature, t: 2}, {kind: dp_gaussian, noise_multiplier: 20}]",
                BUDGET,
            ),
            "defences[1]",
            "temperature before dp_gaussian",
        ),
        (
            (
                OUTPUTS,
                "defences: [{kind: dp_gaussian, noise_multiplier: 9}, {kind: noisy_max, noise_multiplier: 9}]",
                BUDGET,
            ),
            "defences[1]",
            "second mechanism",
        ),
        ((OUTPUTS, VOTE, NOISE, BUDGET), "defences[0]", "second mechanism"),
        ((OUTPUTS, NOISE, CLAIM), "budgets", "nothing limits the privacy loss"),
        ((OUTPUTS, CLAIM), "privacy.claim", "nothing makes these answers private"),
        ((OUTPUTS, NOISE, BUDGET, CLAIM, "fields: all"), "fields", "nothing leaves but what the mechanism made"),
        (("outputs: {kind: logits, classes: [a, b]}", NOISE, BUDGET), "defences[0].kind", "does not suit"),
        (("outputs: {kind: value}", NOISE, BUDGET), "defences[0].kind", "nothing bounds outputs of kind value"),
        (("outputs: {kind: embedding}", NOISE, BUDGET), "defences[0].kind", "nothing bounds outputs of kind embedding"),
        (("outputs: {kind: probabilities}", NOISE, BUDGET), "defences[0].kind", "nothing says what they are called"),
        (
            (OUTPUTS, NOISE, BUDGET.replace("1.0e-6", "1.0e-4"), CLAIM),
            "budgets[0].delta",
            "no smaller than 1 / records",
        ),
        (
            (OUTPUTS, "defences: [{kind: dp_gaussian, noise_multiplier: 0.01}]", BUDGET),
            "budgets[0]",
            "admits not one answer",
        ),
        ((OUTPUTS, NOISE, BUDGET.replace("delta", "then: label_only, delta")), "budgets[0].then", "costs privacy, too"),
        ((OUTPUTS, NOISE, BUDGET.replace("delta", "window: 24h, delta")), "budgets[0].window", "does not come back"),
        ((OUTPUTS, NOISE, BUDGET.replace("delta", "period: 30d, delta")), "budgets[0].period", "per period"),
        (
            (OUTPUTS, NOISE, BUDGET.replace("delta", "guarantee: per_period, delta")),
            "budgets[0].guarantee",
            "no period",
        ),
        ((OUTPUTS, NOISE, BUDGET.replace("delta", "mode: shadow, delta"), CLAIM), "budgets[0].mode", "only counts"),
        ((OUTPUTS, NOISE.replace("noise_m", "mode: shadow, noise_m"), BUDGET, CLAIM), "defences[0].mode", "in shadow"),
        ((OUTPUTS, NOISE, BUDGET, CLAIM, "mode: shadow"), "privacy.claim", "the model's own answer"),
        (
            ("outputs: {kind: labels}", "ensemble: {aggregate: vote, quorum: 3}"),
            "ensemble",
            "needs scores",
        ),
        (
            ("outputs: {kind: value, low: 0, high: 1}", "ensemble: {aggregate: vote, quorum: 3}"),
            "ensemble.aggregate",
            "no classes to vote for",
        ),
        (
            (OUTPUTS, BUDGET, "privacy: {trained_privately: {epsilon: 3, delta: 1.0e-6}}"),
            "budgets[0]",
            "nothing is charged to it",
        ),
        (
            (OUTPUTS, CLAIM.replace("records", "trained_privately: {epsilon: 3, delta: 1.0e-3}, records")),
            "privacy.trained_privately.delta",
            "no smaller than 1 / records",
        ),
    ],
)
def test_what_would_void_a_guarantee_is_an_error(
    tmp_path: Path, lines: tuple[str, ...], path: str, message: str
) -> None:
    found = problem(tmp_path, *lines)
    assert found.path == f"routes[0].{path}"
    assert message in found.message
    assert found.hint


@pytest.mark.parametrize("missing", ["unit", "adjacency", "sensitivity"])
def test_a_claim_says_what_it_is_about(tmp_path: Path, missing: str) -> None:
    claim = ", ".join(part for part in CLAIM.removeprefix("privacy: {").rstrip("}").split(", ") if missing not in part)
    found = problem(tmp_path, OUTPUTS, NOISE, BUDGET, f"privacy: {{{claim}}}")
    assert (found.path, found.message) == (f"routes[0].privacy.{missing}", f"claim: dp needs {missing}")


@pytest.mark.parametrize("values", ["epsilon: 0, delta: 1.0e-6", "epsilon: -1, delta: 1.0e-6", "epsilon: 1, delta: 0"])
def test_privacy_parameters_are_positive(tmp_path: Path, values: str) -> None:
    found = problem(tmp_path, OUTPUTS, NOISE, f"budgets: [{{kind: privacy, {values}}}]")
    assert "above 0" in found.message


def test_a_sound_policy_is_priced_and_worded(tmp_path: Path) -> None:
    made = route(tmp_path, OUTPUTS, NOISE, BUDGET, CLAIM)
    assert made.private is not None
    assert str(made.private.filter) == "gdp"
    assert made.private.measurement.sensitivity == pytest.approx(2**0.5)
    (budget,) = made.budgets
    assert isinstance(budget, Privacy)
    # figures.md: sigma 29 admits 1,000 answers at (8, 1e-6); sigma 28.3 (20 * sqrt 2) at epsilon 4 some 270.
    assert 200 < budget.answers < 300
    assert made.statement[0].startswith(
        "Taken together, the answers that all clients together ever receive are (4, 1e-06)"
    )
    assert f"at most {budget.answers} answers" in made.statement[0]
    assert "Not covered" in made.statement[-1]


def test_without_a_claim_noise_is_called_output_perturbation(tmp_path: Path) -> None:
    made = plan(tmp_path, OUTPUTS, NOISE, BUDGET)
    assert made.routes[0].statement[0].startswith("Output perturbation")
    assert not any("differential" in line and "no differential" not in line for line in made.routes[0].statement)
    assert any("output perturbation" in warning.message for warning in made.warnings)


def test_a_quorum_divides_the_sensitivity(tmp_path: Path) -> None:
    made = route(tmp_path, OUTPUTS, NOISE, BUDGET, CLAIM, "ensemble: {aggregate: mean, quorum: 100}")
    assert made.private is not None
    assert made.private.measurement.sensitivity == pytest.approx(2**0.5 / 100)
    assert "disjoint shards" in " ".join(made.statement)


def test_a_model_trained_privately_claims_its_own_guarantee_and_charges_nothing(tmp_path: Path) -> None:
    claim = CLAIM.replace("sensitivity: auto", "trained_privately: {epsilon: 3, delta: 1.0e-6}")
    made = route(tmp_path, OUTPUTS, claim)
    assert made.private is None
    assert made.budgets == ()
    assert "(3, 1e-06)-differentially private" in made.statement[0]
    assert "post-processing" in made.statement[0]


def test_a_period_is_said_in_the_guarantee(tmp_path: Path) -> None:
    budget = BUDGET.replace("delta", "period: 30d, guarantee: per_period, delta")
    made = route(tmp_path, OUTPUTS, NOISE, budget, CLAIM)
    assert "any one period of 30 days" in made.statement[0]
    assert "learns more" in made.statement[0]
    assert made.budgets[0].name == "privacy/model/2592000s"


def test_clients_who_collude_are_said_not_to_be_covered(tmp_path: Path) -> None:
    alone = route(tmp_path, OUTPUTS, NOISE, BUDGET.replace("per: model", "per: client"), CLAIM)
    together = route(tmp_path, OUTPUTS, NOISE, BUDGET, CLAIM)
    assert "pool" in " ".join(alone.statement)
    assert "pool" not in " ".join(together.statement)
    assert alone.private is not None
    assert alone.private.per == "client"


def test_routes_that_share_a_ledger_share_its_filter(tmp_path: Path) -> None:
    shared = "ledger: both"
    label = "defences: [{kind: randomised_response, epsilon: 0.01}]"
    made = plan(tmp_path, OUTPUTS, NOISE, BUDGET, shared, "|", OUTPUTS, label, BUDGET, shared)
    filters = {str(r.private.filter) for r in made.routes if r.private is not None}
    assert len(filters) == 1
    assert filters.pop().startswith("rdp(")


def test_routes_that_share_a_ledger_charge_the_same_privacy_budgets(tmp_path: Path) -> None:
    other = BUDGET.replace("per: model", "per: client")
    found = problem(tmp_path, OUTPUTS, NOISE, BUDGET, "ledger: both", "|", OUTPUTS, NOISE, other, "ledger: both")
    assert found.path == "routes[1].budgets"
    assert "other privacy budgets" in found.message


def test_a_budget_that_only_counts_is_no_term_of_the_ledger(tmp_path: Path) -> None:
    made = route(tmp_path, OUTPUTS, NOISE, BUDGET.replace("delta", "mode: shadow, delta"))
    assert made.private is not None
    assert made.private.terms.deltas == {}
    assert not made.private.charged


def test_budgets_of_one_ledger_have_one_order(tmp_path: Path) -> None:
    two = "budgets: [{kind: privacy, per: model, epsilon: 4, delta: 1.0e-6, order: 8}, {kind: privacy, per: client,"
    found = problem(tmp_path, OUTPUTS, NOISE, f"{two} epsilon: 4, delta: 1.0e-6, order: 9}}]")
    assert (found.path, "order 8" in found.message) == ("routes[0].budgets[1].order", True)
    made = route(tmp_path, OUTPUTS, NOISE, f"{two} epsilon: 4, delta: 1.0e-6, order: 8}}]")
    assert made.private is not None
    assert str(made.private.filter) == "rdp(8.0)"


def test_the_fingerprint_follows_what_a_release_depends_on(tmp_path: Path) -> None:
    def fingerprint(*lines: str) -> bytes:
        made = route(tmp_path, OUTPUTS, BUDGET, *lines)
        assert made.private is not None
        return made.private.fingerprint

    same = fingerprint(NOISE, CLAIM)
    assert fingerprint(NOISE, CLAIM) == same
    assert fingerprint(NOISE.replace("20", "21"), CLAIM) != same
    assert fingerprint(NOISE, CLAIM.replace("records", "model_version: v2, records")) != same


def test_under_a_claim_what_detection_reads_is_part_of_the_statement(tmp_path: Path) -> None:
    unwatched = route(tmp_path, CLAIM, OUTPUTS, NOISE, BUDGET)
    watched = route(tmp_path, CLAIM, OUTPUTS, NOISE, BUDGET, "ladder: [{false_alarm: 0.01}]")
    assert not any("watched" in line for line in unwatched.statement)
    (said,) = [line for line in watched.statement if "watched" in line]
    assert "never by what the models said before the mechanism" in said
    assert "profile" not in said
    (tmp_path / "made.profile").write_bytes(
        encode(replace(fitted(), held_out_top=np.zeros(5, dtype=np.int64), answers=np.zeros((0, 0))))
    )
    profiled = route(tmp_path, CLAIM, OUTPUTS, NOISE, BUDGET, "profile: made.profile")
    assert any("Assumes that the profile" in line for line in profiled.statement)


def test_releases_are_remembered_apart_for_defences_of_another_profile(tmp_path: Path) -> None:
    def fingerprint(profile: Profile, *steps: str) -> bytes:
        made = replace(profile, held_out_top=np.zeros(5, dtype=np.int64), answers=np.array([[0.5, 0.3, 0.2]] * 9))
        (tmp_path / "made.profile").write_bytes(encode(made))
        noise = NOISE.replace("]", "".join(f", {step}" for step in steps) + "]")
        private = route(tmp_path, CLAIM, OUTPUTS, noise, BUDGET, "profile: made.profile").private
        assert private is not None
        return private.fingerprint

    one, other = fitted(), replace(fitted(), horizon=901)
    grid = "{kind: grid}"
    assert fingerprint(one, grid) == fingerprint(one, grid) != fingerprint(other, grid)
    assert fingerprint(one) == fingerprint(other)
