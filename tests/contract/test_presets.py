"""Every preset with every API: it loads, compiles, teaches, does what it says, and is in the wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from guard.cli.explanation import Explanation, Traffic, explain
from guard.cli.samples import sample, sample_path
from guard.errors import PolicyError
from guard.model.client import Client
from guard.policy.load import load_plan, load_policy
from guard.policy.plan import Plan
from guard.policy.presets import preset_directory, preset_names
from guard.proxy.admin_console import FILES
from guard.wire.registry import API_NAMES, TEXT_APIS

PRESETS = ("observe", "balanced", "strict", "label-only", "private-ensemble", "llm")
SCORES = PRESETS[:-1]
APIS = tuple(api for api in API_NAMES if api != "json")
NO_CLASSES = ("ollama", "tgi")
"""APIs that answer no probabilities."""
ROOT = Path(__file__).parents[2]


def plan_of(preset: str, api: str) -> Plan:
    return load_plan(preset, api=api, env={})


def explained(plan: Plan, answer: bytes | None = None, number: int = 0) -> Explanation:
    route = plan.routes[number]
    path, bodies = sample_path(route, None), sample(route)
    assert path is not None
    assert bodies is not None
    made = Traffic(
        "POST", path, bodies[0], "application/json", answer or bodies[1], Client("c", "c", "api_key"), bytes(32)
    )
    return explain(plan, made)


def test_the_presets_are_these() -> None:
    assert set(preset_names()) == set(PRESETS)


@pytest.mark.parametrize("api", [api for api in APIS if api not in NO_CLASSES])
@pytest.mark.parametrize("preset", SCORES)
def test_every_preset_of_scores_compiles_and_runs_with_every_api_that_answers_any(preset: str, api: str) -> None:
    result = explained(plan_of(preset, api))
    assert result.refused is None
    assert result.route == "default"
    assert result.after
    if preset == "observe":
        assert result.after == result.before


@pytest.mark.parametrize("api", NO_CLASSES)
@pytest.mark.parametrize("preset", SCORES)
def test_a_preset_of_scores_is_refused_with_an_api_that_answers_none(preset: str, api: str) -> None:
    with pytest.raises(PolicyError, match="so no route opens anything") as caught:
        plan_of(preset, api)
    assert "--policy llm" in caught.value.problems[0].hint


@pytest.mark.parametrize("api", sorted(TEXT_APIS))
def test_llm_compiles_and_runs_on_every_route_that_an_api_of_language_models_opens(api: str) -> None:
    plan = plan_of("llm", api)
    opened = [i for i, route in enumerate(plan.routes) if any(o.endpoint.access == "scoring" for o in route.endpoints)]
    assert opened
    for number in opened:
        result = explained(plan, number=number)
        assert result.refused is None
        assert result.route == plan.routes[number].name
        assert result.after
    assert [warning.path for warning in plan.warnings] == ["identity"]


@pytest.mark.parametrize("api", [api for api in APIS if api not in TEXT_APIS])
def test_llm_with_an_api_of_scores_is_refused_with_the_apis_that_it_is_for(api: str) -> None:
    with pytest.raises(PolicyError, match="no language model's API") as caught:
        plan_of("llm", api)
    assert all("openai" in problem.hint for problem in caught.value.problems)


@pytest.mark.parametrize("preset", SCORES)
def test_every_preset_works_with_selectors(preset: str, tmp_path: Path) -> None:
    select = '{queries: "$.x[*]", scores: "$.y[*]"}'
    text = f"extends: {preset}\nroutes: [{{api: json, match: {{path: /p}}, select: {select}}}]\n"
    (tmp_path / "p.yaml").write_text(text)
    plan = load_plan(tmp_path / "p.yaml", api=None, env={})
    assert plan.match("POST", "/p") is not None


@pytest.mark.parametrize("kind", ["logits", "logprobs", "value", "embedding"])
@pytest.mark.parametrize("preset", ["strict", "label-only", "private-ensemble"])
def test_other_outputs_get_an_error_that_names_the_edit(preset: str, kind: str, tmp_path: Path) -> None:
    text = (preset_directory() / f"{preset}.yaml").read_text()
    assert "outputs: {kind: probabilities}" in text
    (tmp_path / "p.yaml").write_text(text.replace("outputs: {kind: probabilities}", f"outputs: {{kind: {kind}}}"))
    with pytest.raises(PolicyError) as caught:
        load_plan(tmp_path / "p.yaml", api="open_inference", env={})
    assert all(problem.hint and problem.line for problem in caught.value.problems)


@pytest.mark.parametrize("preset", ["observe", "balanced", "strict", "label-only"])
def test_every_preset_of_a_single_model_works_for_one_that_answers_labels(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    text = (preset_directory() / ("balanced" if preset == "observe" else preset)).with_suffix(".yaml").read_text()
    path.write_text(text.replace("outputs: {kind: probabilities}", "outputs: {kind: labels}"))
    result = explained(load_plan(path, api="open_inference", env={}))
    assert result.refused is None


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_teaches(preset: str) -> None:
    text = (preset_directory() / f"{preset}.yaml").read_text()
    lines = text.splitlines()
    assert lines[0].startswith(f"# {preset}: ")
    assert f"guard serve --policy {preset}" in text
    assert "# Price" in text
    assert sum("#" in line for line in lines) >= len(lines) / 2
    assert max(map(len, lines)) <= 140


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_bears_its_file_name(preset: str) -> None:
    assert load_policy(preset, env={}).policy.name == preset


def test_observe_is_balanced_in_shadow() -> None:
    observe, balanced = (load_policy(name, env={}).policy for name in ("observe", "balanced"))
    assert observe.mode == "shadow"
    assert observe.routes == balanced.routes
    assert plan_of("observe", "mlflow").routes[0].ledger.startswith("shadow:")


def test_balanced_refuses_no_honest_user_and_rations_rows() -> None:
    (route,) = load_policy("balanced", env={}).policy.routes
    enforced = [budget for budget in route.budgets if budget.mode == "enforce"]
    assert [(b.kind, b.per, b.limit_for(64), b.window, b.then) for b in enforced] == [
        ("rows", "client", 20_000, 86400, "deny")
    ]
    assert route.inputs is not None


def test_strict_rations_graded_answers_per_client_and_group_for_ever() -> None:
    (route,) = load_policy("strict", env={}).policy.routes
    graded = [budget for budget in route.budgets if budget.kind == "information"]
    assert [(b.per, b.limit_for(64), b.window, b.then, b.hard_limit) for b in graded] == [
        ("client", 192, None, "label_only", 3000),
        ("group", 192, None, "label_only", 3000),
    ]


def test_strict_is_top_one_and_four_levels() -> None:
    data = b"[0.62,0.27,0.11,0.02,0.02,0.96]"
    answer = b'{"model_name":"m","outputs":[{"name":"p","shape":[2,3],"datatype":"FP64","data":' + data + b"}]}"
    result = explained(plan_of("strict", "open_inference"), answer)
    numbers = [float(x) for x in re.findall(rb"[\d.]+", result.after.split(b'"data":')[1])]
    np.testing.assert_allclose(numbers, [0.55, 0, 0, 0, 0, 0.99])


def test_private_ensemble_is_a_mean_of_four_models_or_more_in_four_levels() -> None:
    (route,) = plan_of("private-ensemble", "open_inference").routes
    assert route.ensemble is not None
    assert (route.ensemble.aggregate, route.ensemble.quorum, route.private) == ("mean", 4, None)
    assert [defence.kind for defence in route.defences] == ["levels"]
    assert [(b.kind, b.per, b.limit_for(64), b.window, b.then) for b in route.budgets] == [
        ("rows", "client", 5000, 86400, "deny")
    ]
    assert route.statement == ()


def test_private_ensembles_other_way_compiles_once_it_is_uncommented_and_claims_what_it_says(tmp_path: Path) -> None:
    text = (preset_directory() / "private-ensemble.yaml").read_text()
    other = re.findall(r"^    # ((outputs|ensemble|privacy|defences|budgets): .*)$", text, re.MULTILINE)
    assert [key for _, key in other] == ["outputs", "ensemble", "privacy", "defences", "budgets"]
    routes = "routes:\n  - name: default\n    inputs: {kind: any}\n" + "".join(f"    {line}\n" for line, _ in other)
    (tmp_path / "p.yaml").write_text(f"version: 1\nname: other\n{routes}")
    (route,) = load_plan(tmp_path / "p.yaml", api="open_inference", env={}).routes
    assert route.private is not None
    assert (route.private.claimed, route.private.charged) == (True, True)
    answers = re.search(r"at most ([\d,]+) answers", route.statement[0])
    assert answers is not None
    assert f" {answers[1]} answers for everybody together" in text
    assert "(8, 1e-06)-differentially private" in route.statement[0]


def test_the_wheel_holds_the_presets_and_the_console(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(tmp_path), str(ROOT)], check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {n for n in names if n.startswith("guard/presets/")} == {f"guard/presets/{p}.yaml" for p in PRESETS}
    assert {n for n in names if n.startswith("guard/console/")} == {
        f"guard/console/{name}" for name in (*FILES, "index.html", "__init__.py")
    }
