"""`guard budget plan`: what it prints is what would be enforced, and useless plans are called so."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from itertools import pairwise, product
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from guard.budgets.privacy import Privacy
from guard.cli.common import Exit
from guard.cli.main import main
from guard.policy.load import load_plan
from guard.privacy.gaussian import delta_of, log_phi
from tests.support import default_scores
from tests.support.plans import POLICY, USEFUL, VALUES, document, plan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.plans import Capture

MECHANISMS = ("dp_gaussian", "dp_laplace", "noisy_max", "noisy_vote", "exponential", "randomised_response")
OUTPUTS = {
    "probabilities": (),
    "named classes": ("--classes", "cat,no,a dog"),
    "value": VALUES,
    "embedding": ("--outputs", "embedding", "--norm", "2"),
}
SUITS = [(m, "probabilities") for m in MECHANISMS] + [
    ("noisy_max", "named classes"),
    *product(("dp_gaussian", "dp_laplace"), ("value",)),
    ("dp_gaussian", "embedding"),
]


@pytest.mark.parametrize(("mechanism", "outputs"), SUITS)
def test_the_printed_policy_checks_and_admits_what_was_planned(
    mechanism: str, outputs: str, capsys: Capture, tmp_path: Path
) -> None:
    asked = ("--epsilon", "8", "--answers", "300", "--teachers", "90", "--quorum", "80", "--records", "60000")
    _, out, _ = plan(capsys, *asked, "--mechanism", mechanism, *OUTPUTS[outputs])
    file = tmp_path / "planned.yaml"
    file.write_text("version: 1" + out.rpartition("\nversion: 1")[2])
    assert main(["check", str(file), "--api", "kserve_v1"]) == Exit.OK
    assert "warning" not in capsys.readouterr().out
    (route,) = load_plan(str(file), api="kserve_v1", env={}).routes
    assert route.private is not None
    assert route.private.claimed
    assert route.private.measurement.quorum == 80
    said = document(capsys, "--policy", str(file))
    assert [said["answers"]] == [budget.answers for budget in route.budgets if isinstance(budget, Privacy)]
    assert 300 <= said["answers"] <= 301
    assert (said["epsilon"], said["delta"], said["solved"]) == (8.0, 1e-6, None)


@pytest.mark.parametrize("mechanism", ["dp_gaussian", "noisy_vote", "exponential"])
def test_of_three_numbers_any_two_give_the_third(mechanism: str, capsys: Capture) -> None:
    common = ("--mechanism", mechanism, "--teachers", "50")
    solved = document(capsys, "--epsilon", "4", "--answers", "200", *common)
    name = "answer_epsilon" if "answer_epsilon" in solved else "noise_multiplier"
    noise = (f"--{name.replace('_', '-')}", repr(solved[name]))
    assert solved["solved"] == "noise"
    answers = document(capsys, "--epsilon", "4", *noise, *common)
    assert (answers["answers"], answers["solved"]) == (solved["answers"], "answers")
    epsilon = document(capsys, "--answers", "200", *noise, *common)
    assert epsilon["epsilon"] == pytest.approx(4.0, rel=2e-4)
    assert epsilon["solved"] == "epsilon"


def test_a_plan_in_words_has_what_an_operator_needs(capsys: Capture) -> None:
    code, out, err = plan(capsys, *USEFUL, "--records", "60000")
    assert code == Exit.OK
    assert err == ""
    for words in (
        "epsilon 8 and delta 1e-06 (0.1 / 60,000 records, rounded down)",
        "1,000 answers",
        "0.0141421 in L2 = 1.41421 / 100 models",
        "20.648 (solved)",
        "standard deviation 0.292",
        "accounted by gdp",
        "labels changed",
        "L1 error",
        "20,000 draws of the mechanism itself",
        "they stand for the teachers' mean scores",
        "(8, 1e-06)-differentially",
    ):
        assert words in " ".join(out.split()), words
    assert max(map(len, out.splitlines())) <= 130


def test_delta_follows_the_number_of_records(capsys: Capture) -> None:
    assert document(capsys, *USEFUL, "--records", "1797")["delta"] == 5e-5
    assert document(capsys, *USEFUL)["delta"] == 1e-6
    assert "default" in document(capsys, *USEFUL)["delta_from"]
    given = document(capsys, *USEFUL, "--records", "1797", "--delta", "1e-7")
    assert (given["delta"], given["delta_from"]) == (1e-7, None)


def test_too_little_noise_for_one_answer_says_what_one_would_cost(capsys: Capture) -> None:
    code, out, err = plan(capsys, "--epsilon", "1", "--noise-multiplier", "0.1")
    assert (code, out) == (Exit.FAILED, "")
    assert "admits not one answer" in err
    assert "epsilon 96." in err


@pytest.mark.parametrize("scale", [1.0, 1.05])
def test_the_error_is_that_of_the_planned_noise(scale: float, capsys: Capture, tmp_path: Path) -> None:
    """In the middle of a wide range the mean absolute error of Gaussian noise is sigma * sqrt(2 / pi)."""
    np.save(tmp_path / "middle.npy", np.full(500, 2.5))
    data = ("--data", str(tmp_path / "middle.npy"))
    said = document(capsys, "--epsilon", "8", "--noise-multiplier", "10", "--teachers", "100", *VALUES, *data)
    sigma = 10 * 5 / 100
    expected, spread = sigma * scale * math.sqrt(2 / math.pi), sigma * math.sqrt(1 - 2 / math.pi)
    draws = said["utility"]["draws"]
    close = abs(said["utility"]["error"] - expected) < 4.9 * spread / math.sqrt(draws)
    assert close == (scale == 1.0)


@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_labels_change_as_often_as_the_planned_noise_makes_them(scale: float, capsys: Capture, tmp_path: Path) -> None:
    """Of two classes at 0.6 and 0.4 the second wins with probability Phi(-0.2 / (sigma * sqrt 2))."""
    (tmp_path / "two.csv").write_text("0.6,0.4\n" * 50)
    said = document(capsys, "--epsilon", "8", "--noise-multiplier", "15", "--teachers", "100", "--data",
                    str(tmp_path / "two.csv"), "--mechanism", "noisy_max")  # fmt: skip
    sigma = scale * 15 * math.sqrt(2) / 100
    expected = math.exp(log_phi(-0.2 / (sigma * math.sqrt(2))))
    error = math.sqrt(expected * (1 - expected) / said["utility"]["draws"])
    assert (abs(said["utility"]["changed"] - expected) < 4.9 * error) == (scale == 1.0)


def test_a_seed_repeats_the_draws(capsys: Capture) -> None:
    first, again, other = (document(capsys, *USEFUL, "--seed", seed)["utility"] for seed in ("1", "1", "2"))
    assert first == again
    assert first != other
    assert first["changed"] == pytest.approx(other["changed"], abs=5 * 2**0.5 * first["changed_error"])


def test_data_read_the_same_from_every_format(capsys: Capture, tmp_path: Path) -> None:
    rows = default_scores.scores()[:20]
    text = "\n".join(",".join(map(repr, row)) for row in rows.tolist())
    (tmp_path / "plain.csv").write_text(text)
    (tmp_path / "headed.csv").write_text(",".join("abcdefghij") + "\n" + text + "\n\n")
    (tmp_path / "rows.json").write_text(json.dumps(rows.tolist()))
    (tmp_path / "named.json").write_text(json.dumps({"scores": rows.tolist()}))
    np.save(tmp_path / "rows.npy", rows)
    found = [document(capsys, *USEFUL, "--data", str(path)) for path in sorted(tmp_path.iterdir())]
    assert len(found) == 5
    assert all(said["utility"] == found[0]["utility"] for said in found)
    assert found[0]["data"].startswith("20 answers in")


def test_long_data_are_thinned_evenly(capsys: Capture, tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", np.linspace(0.0, 5.0, 50_000))
    said = document(capsys, *USEFUL, *VALUES, "--data", str(tmp_path / "long.npy"))
    assert said["data"].startswith("2,000 of the 50,000 answers")
    assert said["utility"]["error_constant"] == pytest.approx(1.25, rel=1e-2)


@pytest.mark.parametrize("classes", [2, 7, 40])
def test_default_scores_stand_for_any_number_of_classes(classes: int, capsys: Capture) -> None:
    said = document(capsys, *USEFUL, "--classes", str(classes))
    assert f"to {classes} classes" in said["data"]
    assert len(said["outputs"]["classes"]) == classes
    assert 0 < said["utility"]["changed"] < said["utility"]["changed_constant"]


def test_the_default_scores_are_what_the_script_makes() -> None:
    shipped = json.loads(files("guard").joinpath("privacy/default_scores.json").read_text())
    assert np.array(shipped["scores"]) == pytest.approx(default_scores.scores(), abs=0.02)
    assert shipped["about"] == default_scores.ABOUT


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ragged.json", "[[0.1, 0.9], [0.4]]", "no table of numbers"),
        ("words.csv", "a,b\nc,d\n", "no table of numbers"),
        ("nan.csv", "0.5,nan\n", "no table of finite numbers"),
        ("empty.csv", "", "no table of finite numbers"),
        ("object.json", '{"answers": []}', "no table of numbers"),
        ("outside.csv", "0.5,3.0\n", "the data are not of kind probabilities"),
        ("pickle.npy", "no numpy", "no table of numbers"),
    ],
)
def test_data_that_cannot_be_used_are_a_usage_error(
    name: str, content: str, words: str, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    code, out, err = plan(capsys, *USEFUL, "--data", str(tmp_path / name))
    assert (code, out) == (Exit.USAGE, "")
    assert words in err


def test_a_pickle_is_not_loaded(capsys: Capture, tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    code, _, err = plan(capsys, *USEFUL, "--data", str(tmp_path / "objects.npy"))
    assert code == Exit.USAGE
    assert "no table of numbers" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--answers and --noise-multiplier are missing"),
        (("--epsilon", "8", "--answers", "1", "--noise-multiplier", "2"), "nothing is left to plan"),
        (("--epsilon", "0", "--answers", "1"), "is not above 0"),
        (("--epsilon", "x", "--answers", "1"), "x is no number"),
        (("--epsilon", "inf", "--answers", "1"), "no finite number"),
        (("--epsilon", "8", "--answers", "1.5"), "no whole number"),
        (("--epsilon", "2000", "--answers", "1"), "--epsilon is at most 1000"),
        (("--epsilon", "8", "--answers", "1", "--delta", "1"), "no probability below 1"),
        (("--epsilon", "8", "--answers", "1", "--delta", "0.01", "--records", "100"), "at most 0.001"),
        (("--epsilon", "8", "--answers", "1", "--mechanism", "noisy_mx"), "did you mean noisy_max?"),
        (("--epsilon", "8", "--answers", "1", "--outputs", "values"), "did you mean value?"),
        (("--epsilon", "8", "--answers", "1", "--per", "clients"), "did you mean client?"),
        (("--epsilon", "8", "--answers", "1", "--mechanism", "noisy_vote"), "add --teachers K"),
        (("--epsilon", "8", "--answers", "1", "--quorum", "3"), "add --teachers K"),
        (("--epsilon", "8", "--answers", "1", "--quorum", "3", "--teachers", "2"), "at most 2"),
        (("--epsilon", "8", "--answers", "1", "--teachers", "5000"), "--teachers 4096"),
        (("--epsilon", "8", "--answers", "1", "--outputs", "value"), "--low 0 --high 5"),
        (("--epsilon", "8", "--answers", "1", *VALUES[:-1], "0"), "low below high"),
        (("--epsilon", "8", "--answers", "1", "--low", "0"), "--outputs value"),
        (("--epsilon", "8", "--answers", "1", "--norm", "1"), "--outputs embedding"),
        (("--epsilon", "8", "--answers", "1", "--outputs", "embedding"), "--norm 1"),
        (("--epsilon", "8", "--answers", "1", "--classes", "1"), "--classes cat,dog"),
        (("--epsilon", "8", "--answers", "1", "--classes", "a,a"), "--classes cat,dog"),
        (("--epsilon", "8", "--answers", "1", "--mechanism", "noisy_max", *VALUES), "answer probabilities"),
        (("--epsilon", "8", "--answers", "1", "--answer-epsilon", "1"), "write --noise-multiplier"),
        (("--epsilon", "8", "--noise-multiplier", "1e-9"), "out of bounds"),
        (("--epsilon", "8", "--answers", "1", "--route", "a"), "add --policy FILE"),
        (("--epsilon", "8", "--answers", "1", "--data", "/nowhere.csv"), "cannot read /nowhere.csv"),
        (("--epsilon", "8", "--answers", "1", "--svg", "/nowhere/plan.svg"), "cannot write /nowhere/plan.svg"),
        (("--epsilon", "8", "--answers", "1", "--outputs", "embedding", "--norm", "1e10"), "another --norm"),
        (("--epsilon", "8", "--answers", "1", *VALUES[:-1], "1e300"), "another range"),
        (("--epsilon", "8", "--noise-multiplier", "3", *VALUES[:-1], "1e300"), "another range"),
        (("--policy", "balanced", "--epsilon", "8"), "--epsilon cannot"),
        (("--policy", "balanced"), "lacks a mechanism"),
        (("--policy", "balance"), "did you mean balanced?"),
    ],
)
def test_a_mistake_is_a_usage_error_that_says_what_to_do(
    arguments: tuple[str, ...], words: str, capsys: Capture
) -> None:
    code, out, err = plan(capsys, *arguments)
    assert (code, out) == (Exit.USAGE, "")
    assert words in err


def test_noise_behind_a_mechanism_is_refused_in_words(capsys: Capture, tmp_path: Path) -> None:
    noise = "    defences: [{kind: noise, mechanism: gaussian, scale: 0.1}]\n    budgets:"
    text = POLICY.replace("    budgets:", noise).replace("threshold: 60, threshold_noise_multiplier: 40", "wait_s: 1")
    text = text.replace("aggregate: noisy_vote", "aggregate: mean").replace("noise_multiplier: 30, ", "")
    (tmp_path / "p.yaml").write_text(
        text.replace("[{kind: noise", "[{kind: dp_gaussian, noise_multiplier: 30}, {kind: noise")
    )
    code, out, err = plan(capsys, "--policy", str(tmp_path / "p.yaml"))
    assert (code, out) == (Exit.USAGE, "")
    assert "noise of its own" in err


def test_data_of_other_columns_than_the_classes_are_refused(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("0.6,0.4\n")
    data = ("--data", str(tmp_path / "two.csv"))
    assert plan(capsys, *USEFUL, *data, "--classes", "3")[2].count("--classes 2") == 1
    assert "the data have 2 columns, the route 1" in plan(capsys, *USEFUL, *VALUES, *data)[2]


def test_a_policys_own_route_is_planned_with_all_its_budgets(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    said = document(capsys, "--policy", str(tmp_path / "p.yaml"), "--route", "votes")
    assert said == document(capsys, "--policy", str(tmp_path / "p.yaml"))
    assert [(b["per"], b["period_s"]) for b in said["budgets"]] == [("client", 30 * 86400), ("model", None)]
    assert said["answers"] == said["budgets"][0]["answers"] < said["budgets"][1]["answers"]
    # Two Gaussian parts: the exact formula for all of them in one.
    mu = (said["answers"] * (1 / 30**2 + 1 / 40**2)) ** 0.5
    assert delta_of(4.0, mu) <= 1e-6 < delta_of(4.0, mu * 1.005)
    assert 0.1 < said["utility"]["withheld"] < 0.5
    code, _, err = plan(capsys, "--policy", str(tmp_path / "p.yaml"), "--route", "vote")
    assert code == Exit.USAGE
    assert "did you mean votes?" in err


@pytest.mark.parametrize("arguments", [USEFUL, ("--epsilon", "8", "--answers", "1000"), (*USEFUL, *VALUES),
                                       (*USEFUL, "--mechanism", "randomised_response")])  # fmt: skip
def test_the_picture_is_whole_and_marks_the_plan(arguments: tuple[str, ...], capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    _, _, err = plan(capsys, *arguments, "--svg", str(path))
    assert f"wrote {path}" in err
    root = ElementTree.fromstring(path.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = [text for element in root.iter() if (text := (element.text or "").strip())]
    for wanted in ("epsilon (log scale)", "answers (log scale)", "epsilon 8: 1,000 answers"):
        assert wanted in words
    assert any(text.startswith("How many answers everybody together can have") for text in words)
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) >= 3
    chosen = next(e for e in lines if "s-chosen" in (e.get("class") or ""))
    points = [tuple(map(float, pair.split(","))) for pair in (chosen.get("points") or "").split()]
    assert all(x <= next_x and y >= next_y for (x, y), (next_x, next_y) in pairwise(points))


def test_an_unknown_part_of_the_command_has_a_hint(capsys: Capture) -> None:
    assert main(["budget", "pln"]) == Exit.USAGE
    assert "did you mean plan?" in capsys.readouterr().err
    assert main(["budget"]) == Exit.USAGE


@pytest.mark.parametrize("part", ["plan", "show", "reset", "migrate"])
def test_every_part_has_help(part: str, capsys: Capture) -> None:
    assert main(["budget", part, "--help"]) == Exit.OK
    out = capsys.readouterr().out
    assert f"usage: guard budget {part}" in out
    assert "examples:" in out


def test_names_that_yaml_would_misread_are_quoted(capsys: Capture) -> None:
    policy = yaml.safe_load(document(capsys, *USEFUL, "--classes", "no,1,on,cat, : x")["policy"])
    assert policy["routes"][0]["outputs"]["classes"] == ["no", "1", "on", "cat", ": x"]
