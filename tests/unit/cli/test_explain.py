"""`guard explain`: the route, the steps, the budgets and the answer before and after."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.cli.explain import pretty
from guard.cli.explanation import Explanation, Traffic, costs, explain, first_sentence
from guard.cli.main import main
from guard.cli.samples import answers, features, sample, sample_path
from guard.model.client import Client
from guard.model.domain import Inputs
from guard.model.outputs import Kind, Outputs
from guard.policy.compile import compile_policy
from guard.policy.guarantee import MEANING, UNSEEN, WHERE_IT_ENDS
from guard.policy.plan import Plan
from guard.policy.schema import Policy

ANSWER = {
    "model_name": "m",
    "secret_member": 1,
    "outputs": [{"name": "p", "shape": [1, 2], "datatype": "FP32", "data": [0.62, 0.38]}],
}
QUERY = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
POLICY = """version: 1
name: example
identity: [{kind: api_key, keys_file: keys}]
routes:
  - name: digits
    api: open_inference
    match: {path: /v2/models/digits/infer}
    inputs: {kind: vector, size: 2, low: 0, high: 16, step: 1}
    defences: [{kind: round, decimals: 1}, {kind: top_k, k: 1}]
    budgets: [{kind: rows, limit: 5}, {kind: information, hard_limit: 10}]
  - name: rest
    api: open_inference
    defences: [{kind: noise, scale: 0.2}]
"""


def plan(*routes: dict[str, object], **top: object) -> Plan:
    made = [{"name": f"r{i}", "api": "open_inference", **route} for i, route in enumerate(routes or ({},))]
    return compile_policy(Policy.model_validate({"version": 1, "routes": made, **top}))


def follow(
    made: Plan,
    *,
    query: object = QUERY,
    answer: object = ANSWER,
    path: str = "/v2/models/m/infer",
    method: str = "POST",
) -> Explanation:
    client = Client("alice", "org", "api_key")
    traffic = Traffic(
        method, path, json.dumps(query).encode(), "application/json", json.dumps(answer).encode(), client, bytes(32)
    )
    return explain(made, traffic)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["explain", "--format", "json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "keys").write_text("")
    (tmp_path / "query.json").write_text(json.dumps(QUERY))
    (tmp_path / "answer.json").write_text(json.dumps(ANSWER))
    return tmp_path


def test_the_steps_come_in_order_with_what_each_changed() -> None:
    result = follow(
        plan(
            {
                "defences": [
                    {"kind": "round", "decimals": 1},
                    {"kind": "top_k", "k": 1},
                    {"kind": "grid", "mode": "shadow"},
                ]
            }
        )
    )
    assert [(s.phase, s.what.partition("(")[0]) for s in result.steps] == [
        ("read", "open_inference"),
        ("read_answer", "fields: known"),
        ("release", "round"),
        ("release", "top_k"),
        ("release", "grid"),
    ]
    assert [round(s.shift_l1 or 0, 3) for s in result.steps[2:4]] == [0.04, 0.4]
    assert result.steps[4].result == "in shadow: counted, not applied"
    assert all(step.does for step in result.steps)
    assert json.loads(result.after)["outputs"][0]["data"] == [0.6, 0.0]


def test_a_step_that_changes_nothing_says_so() -> None:
    result = follow(plan({"defences": [{"kind": "top_k", "k": 5}]}))
    assert result.steps[-1].result == "changes nothing here"


def test_dropped_members_are_named() -> None:
    steps = {step.what: step.result for step in follow(plan()).steps}
    assert "secret_member" in steps["fields: known"]
    assert follow(plan({"fields": "all"})).steps[-1].result == "nothing to drop"


def test_each_budget_says_whom_it_charges_and_how_much() -> None:
    query = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.0, 2.0, 1.0, 2.0]}]}
    answer = {"outputs": [{"name": "p", "shape": [2, 2], "datatype": "FP32", "data": [0.62, 0.38, 0.62, 0.38]}]}
    budgets = [{"kind": "rows", "limit": 5, "per": "group"}, {"kind": "information", "per_dimension": 3}]
    charged = follow(plan({"budgets": budgets}), query=query, answer=answer).charged
    assert [(c.budget, c.scope, c.amount, c.limit, c.mode) for c in charged] == [
        ("rows/group", "group:org", 2, 5, "enforce"),
        ("information/client", "client:alice", 1, 6, "enforce"),
    ]


def test_in_shadow_the_client_gets_what_the_model_said() -> None:
    result = follow(
        plan({"defences": [{"kind": "label_only"}], "budgets": [{"kind": "rows", "limit": 5}]}, mode="shadow")
    )
    assert result.after == result.before
    assert "shadow" in result.notes[0]
    assert result.charged[0].mode == "shadow"


def test_a_query_outside_the_domain_is_refused_in_the_apis_own_words() -> None:
    result = follow(plan({"inputs": {"kind": "vector", "size": 2, "high": 1}}))
    assert result.refused is not None
    assert result.refused.status == 422
    assert result.steps[-1].phase == "inspect"
    assert "error" in json.loads(result.after)


def test_snapping_is_told() -> None:
    made = plan({"inputs": {"kind": "vector", "size": 2, "low": 0, "high": 16, "step": 5}})
    assert follow(made).steps[1].result == "fits after snapping"


@pytest.mark.parametrize(("query", "answer", "status"), [("no", ANSWER, 400), (QUERY, "no", 502)])
def test_bodies_that_cannot_be_read_are_refused(query: object, answer: object, status: int) -> None:
    result = follow(plan(), query=query, answer=answer)
    assert result.refused is not None
    assert result.refused.status == status


def test_a_status_endpoint_is_left_alone() -> None:
    result = follow(plan(), path="/v2/health/ready", method="GET")
    assert (result.access, result.steps) == ("status", [])


@pytest.mark.parametrize(("mode", "words"), [("enforce", "404"), ("shadow", "goes through")])
def test_what_no_route_opens_is_told(mode: str, words: str) -> None:
    result = follow(plan(mode=mode), path="/metrics")
    assert result.route is None
    assert words in result.notes[0]


def test_each_route_says_why_it_does_not_take_the_request() -> None:
    made = plan({"match": {"path": "/v2/models/digits/infer"}}, {}, {"match": {"path": "/v2/models/m/infer"}})
    reasons = [reason for _, reason in follow(made).routes]
    assert reasons == ["its match names another path", "takes it", "comes after r1"]
    assert "takes POST here, not GET" in follow(made, method="GET").routes[1][1]
    assert "opens nothing" in follow(made, path="/x").routes[0][1]


def test_the_command_prints_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--policy", str(folder / "policy.yaml")]) == 0
    out = capsys.readouterr().out
    for words in (
        "route digits: takes it",
        "route rest: comes after digits",
        "the client gets",
        "information",
        "5",
        "Costs",
    ):
        assert words in out


def test_the_command_prints_refusals_notes_and_warnings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "far.json").write_text(json.dumps(QUERY).replace("2.0", "99"))
    policy = str(folder / "policy.yaml")
    assert main(["explain", "--policy", policy, "--request", str(folder / "far.json")]) == 0
    assert "refused: 422" in capsys.readouterr().out
    assert main(["explain", "--policy", policy, "--path", "/metrics"]) == 0
    out = capsys.readouterr().out
    assert "note: no route opens it" in out
    assert "warning: routes[1].defences[0]" in out


def test_json_carries_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--request", str(folder / "query.json"), "--response", str(folder / "answer.json")]
    where = ["--policy", str(folder / "policy.yaml"), "--path", "/v2/models/digits/infer?x=1", "--method", "post"]
    told = run(capsys, *where, *files, "--client", "alice@org")
    assert told["route"] == "digits"
    assert told["before"] == ANSWER
    assert told["after"]["outputs"][0]["data"] == [0.6, 0.0]
    assert told["budgets"][0]["scope"] == "client:alice"
    assert told["refused"] is None
    assert told["policy"]["name"] == "example"


def test_an_answer_may_come_from_stdin() -> None:
    command = [sys.executable, "-m", "guard", "explain", "--policy", "strict", "--api", "kserve_v1", "--format", "json"]
    done = subprocess.run(
        [*command, "--response", "-"],
        input=b'{"predictions": [[0.8, 0.2]]}',
        capture_output=True,
        timeout=60,
        check=False,
    )
    # Two sample queries, one answer: what a client would get says so, and a strange answer is no usage error.
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["before"] == {"predictions": [[0.8, 0.2]]}


def test_noise_is_the_same_for_the_same_secret_and_client(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "secret").write_text("s" * 32)
    base = [
        "--policy",
        str(folder / "policy.yaml"),
        "--path",
        "/v2/models/other/infer",
        "--secret-file",
        str(folder / "secret"),
    ]
    one, again, other = (run(capsys, *base, "--client", name)["after"] for name in ("a", "a", "b"))
    assert one == again
    assert one != other


def test_no_output_shows_a_secret(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "token").write_text("hunter2hunter2")
    (folder / "policy.yaml").write_text(POLICY + "upstream_headers: [{name: authorization, value: {file: token}}]\n")
    (folder / "secret").write_text("q" * 40)
    for form in ("text", "json"):
        assert (
            main(
                [
                    "explain",
                    "--policy",
                    str(folder / "policy.yaml"),
                    "--format",
                    form,
                    "--secret-file",
                    str(folder / "secret"),
                ]
            )
            == 0
        )
        captured = capsys.readouterr()
        assert "hunter2" not in captured.out + captured.err
        assert "qqqq" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "--policy is missing"),
        (["--policy", "strict", "--api", "open_inference", "--request", "-", "--response", "-"], 2, "only one"),
        (["--policy", "strict", "--api", "open_inference", "--request", "/none"], 2, "/none"),
        (["--policy", "strict", "--api", "open_inference", "--secret-file", "/none"], 3, "secret"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *arguments]) == code
    assert words in capsys.readouterr().err


def test_an_api_with_selectors_needs_bodies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(
        'version: 1\nroutes: [{api: json, match: {path: /p}, select: {queries: "$.x[*]", scores: "$.y[*]"}}]\n'
    )
    assert main(["explain", "--policy", str(tmp_path / "p.yaml")]) == 2
    assert "give --request and --response" in capsys.readouterr().err


# samples


def test_a_sample_path_is_one_that_the_route_takes() -> None:
    for match in (None, "/v2/models/digits/infer", "/v2/models/{any}/infer", "/v2/models/m/versions/3/infer"):
        made = plan({} if match is None else {"match": {"path": match}})
        path = sample_path(made.routes[0], match)
        assert path is not None
        assert made.match("POST", path) is not None
    assert sample_path(plan().routes[0], "/nothing/like/it") is None


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        Inputs(),
        Inputs(kind="vector", size=3, low=2, high=9, step=0.7),
        Inputs(kind="vector", size=2, low=(0, 5), high=(1, 6)),
        Inputs(kind="vector", low=3),
        Inputs(kind="vector", high=-3),
    ],
)
def test_a_sample_query_lies_in_the_domain(inputs: Inputs | None) -> None:
    route = plan({} if inputs is None else {"inputs": inputs.model_dump(exclude_none=True)}).routes[0]
    values = np.asarray(features(inputs, 0.4))
    assert inputs is None or inputs.size in (None, len(values))
    made = sample(route)
    assert made is not None
    assert (
        follow(
            plan() if inputs is None else plan({"inputs": inputs.model_dump(exclude_none=True)}),
            query=json.loads(made[0]),
            answer=json.loads(made[1]),
        ).refused
        is None
    )


def test_a_sample_of_texts() -> None:
    made = plan({"inputs": {"kind": "text"}})
    bodies = sample(made.routes[0])
    assert bodies is not None
    assert follow(made, query=json.loads(bodies[0]), answer=json.loads(bodies[1])).refused is None


@pytest.mark.parametrize(
    ("api", "kind"),
    [
        *[(api, kind) for api in ("openai", "vllm") for kind in ("logprobs", "embedding", "probabilities")],
        *[("ollama", "logprobs"), ("ollama", "embedding"), ("tgi", "logprobs")],
        *[("tei", "embedding"), ("tei", "probabilities")],
    ],
)
def test_language_models_have_samples_that_their_codecs_read(
    api: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(f"version: 1\nroutes: [{{api: {api}, outputs: {{kind: {kind}}}}}]\n")
    assert main(["explain", "--policy", str(path)]) == 0
    assert "the client gets" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["probabilities", "logits", "logprobs", "value", "embedding", "labels"])
def test_a_sample_answer_is_of_the_declared_kind(kind: Kind) -> None:
    outputs = Outputs(kind=kind)
    made = plan({"outputs": {"kind": kind}})
    bodies = sample(made.routes[0])
    assert bodies is not None
    assert follow(made, query=json.loads(bodies[0]), answer=json.loads(bodies[1])).refused is None
    assert len(answers(outputs)) == (0 if kind == "labels" else 2)


def test_a_sample_value_lies_between_its_bounds() -> None:
    rows = answers(Outputs(kind="value", low=10, high=20))
    assert all(10 <= value <= 20 for row in rows for value in row)


# privacy

PRIVATE: dict[str, object] = {
    "outputs": {"kind": "probabilities", "classes": [0, 1, 2]},
    "ensemble": {"aggregate": "noisy_vote", "quorum": 20, "noise_multiplier": 9.0},
    "privacy": {"claim": "dp", "unit": "training_record", "adjacency": "replace_one", "sensitivity": "auto"},
    "budgets": [{"kind": "privacy", "per": "model", "epsilon": 8, "delta": 1e-6}],
}


def test_a_privacy_budget_is_told_in_answers_and_its_sentence_may_be_published() -> None:
    result = follow(plan(PRIVATE))
    (charged,) = result.charged
    assert charged.amount == result.rows
    assert 100 < charged.limit < 1000
    assert [step.what for step in result.steps if step.phase == "forward"] == ["ensemble: noisy_vote of 20 or more"]
    assert "(8, 1e-06)-differentially private" in result.statement[0]
    assert f"at most {charged.limit} answers" in result.statement[0]


def test_a_row_below_the_threshold_is_shown_as_refused() -> None:
    flat = {"outputs": [{"name": "p", "shape": [1, 3], "datatype": "FP64", "data": [0.33, 0.34, 0.33]}]}
    mean: dict[str, object] = {
        "defences": [
            {"kind": "noisy_max", "noise_multiplier": 300.0, "threshold": 0.9, "threshold_noise_multiplier": 0.01}
        ]
    }
    result = follow(plan({**PRIVATE, "ensemble": None, "privacy": None, "budgets": [], **mean}), answer=flat)
    assert result.refused is not None
    assert result.refused.code == "no_consensus"
    assert "below the threshold" in next(step.result for step in result.steps if step.phase == "release")


def test_without_privacy_nothing_is_published() -> None:
    assert follow(plan({})).statement == ()


# rendering


def test_bodies_are_shown_to_be_read() -> None:
    assert (
        pretty(b'{"a":[1,2],"b":[[1],[2]],"c":{}}')
        == '{\n  "a": [1, 2],\n  "b": [\n    [1],\n    [2]\n  ],\n  "c": {}\n}'
    )
    assert pretty(b"not json") == "not json"
    assert pretty(b"[" * 100_000).startswith("[")
    assert pretty(b"x\n" * 100, lines=3) == "x\nx\nx\n... 97 more lines"


def test_a_step_is_told_in_one_line() -> None:
    assert first_sentence("Keeps k. More.") == "Keeps k."
    assert costs("Keeps k.\n\nCosts: much of\nit. Does nothing.") == "Costs: much of it."
    assert costs("Keeps k.") == ""


LADDER = [
    {"false_alarm": 0.01},
    {"tier": "structure", "false_alarm": 0.001, "action": "degrade", "defences": [{"kind": "label_only"}]},
    {"tier": "protocol", "count": 9, "action": "throttle", "rows_per_minute": 6, "hold": "90m"},
]


def test_detection_says_what_runs_and_what_it_leads_to() -> None:
    assert follow(plan()).detection is None
    exempt = {"client": "alice", "skip": ["repeats"], "until": "2026-12-31", "reason": "a scan"}
    words = follow(plan({"ladder": LADDER, "exceptions": [exempt]})).detection
    assert words is not None
    assert ("repeats", "structure") in words.on
    assert ("mahalanobis", "needs a profile") in words.off
    assert words.profile.startswith("no profile")
    assert [(rule.when, rule.level, rule.action) for rule in words.ladder] == [
        ("one client's evidence", "nominal(0.01): no profile", "alert"),
        ("one client's evidence of structure", "nominal(0.001): no profile", "degrade"),
        ("offences against the protocol", "9 in an hour", "throttle"),
    ]
    assert words.exceptions == ("alice: without repeats until 2026-12-31: a scan",)


def test_levels_stand_beside_where_they_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "policy.yaml").write_text(POLICY + f"    ladder: {json.dumps(LADDER)}\n")
    told = run(capsys, "--policy", str(folder / "policy.yaml"), "--path", "/v2/models/m/infer")["detection"]
    assert told["levels_end"] == list(WHERE_IT_ENDS)
    assert told["ladder"][1]["means"][0]["kind"] == "label_only"
    assert main(["explain", "--policy", str(folder / "policy.yaml"), "--path", "/v2/models/m/infer"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in (MEANING, UNSEEN, *WHERE_IT_ENDS, "throttle: 6 rows", "90m", "nominal(0.001): no", "off: mahalanobis"):
        assert " ".join(said.split()) in shown
    assert (
        run(capsys, "--policy", str(folder / "policy.yaml"), "--path", "/v2/models/digits/infer")["detection"] is None
    )
