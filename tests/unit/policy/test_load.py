"""Loading: extends, secrets, files, and every mistake told with file, line, path and hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.errors import PolicyError, Problem
from guard.policy.load import MAX_BYTES, Loaded, load_plan, load_policy, problem_lines
from guard.policy.schema import ApiKeyIdentity

MINIMAL = "version: 1\nroutes: [{api: open_inference}]\n"


def write(folder: Path, text: str, name: str = "policy.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, text: str, **env: str) -> Loaded:
    return load_policy(write(folder, text), env=env)


def problems(folder: Path, text: str, **env: str) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        load(folder, text, **env)
    return caught.value.problems


def route(text: str) -> str:
    return f"version: 1\nroutes:\n  - name: r\n    api: open_inference\n{text}"


def test_loads_a_minimal_policy(tmp_path: Path) -> None:
    loaded = load(tmp_path, MINIMAL)
    assert loaded.policy.routes[0].api == "open_inference"
    assert loaded.files == (tmp_path / "policy.yaml",)
    assert loaded.source == tmp_path / "policy.yaml"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_policy(path, env={}).policy.version == 1


@pytest.mark.parametrize(
    ("text", "path", "line", "message", "hint"),
    [
        (
            "    defences:\n      - {kind: top_k, kk: 3, k: 1}\n",
            "routes[0].defences[0].kk",
            6,
            "no key kk",
            "did you mean k?",
        ),
        (
            "    defences:\n      - {kind: topk, k: 3}\n",
            "routes[0].defences[0].kind",
            6,
            "no kind topk",
            "did you mean top_k?",
        ),
        ("    defences:\n      - {k: 3}\n", "routes[0].defences[0]", 6, "needs a kind", "known: "),
        ("    defences:\n      - top_k\n", "routes[0].defences[0]", 6, "must be a map", "kind"),
        ("    defences: {kind: top_k}\n", "routes[0].defences", 5, "must be a list", "write [a, b]"),
        ("    defences:\n      - kind: top_k\n        k: 0\n", "routes[0].defences[0].k", 7, "at least 1", ""),
        ("    defences:\n      - kind: top_k\n", "routes[0].defences[0].k", 6, "k is missing", ""),
        (
            "    defences:\n      - {kind: noise, scale: many}\n",
            "routes[0].defences[0].scale",
            6,
            "must be a number",
            "",
        ),
        ("    inputs: {size: 1.5}\n", "routes[0].inputs.size", 5, "whole number", ""),
        ("    inputs: [1]\n", "routes[0].inputs", 5, "map", "key: value"),
        ("    inputs: {low: 3, high: 1}\n", "routes[0].inputs", 5, "low must be below high", ""),
        ("    inputs: {low: x}\n", "routes[0].inputs.low", 5, "number or a list", ""),
        ("    inputs: {size: 2, low: [1, x]}\n", "routes[0].inputs.low[1]", 5, "must be a number", ""),
        ("    outputs: {kind: probabilites}\n", "routes[0].outputs.kind", 5, "must be", "did you mean probabilities?"),
        ("    outputs: {kind: zzz}\n", "routes[0].outputs.kind", 5, "must be", ""),
        ("    mode: 3\n", "routes[0].mode", 5, "must be shadow or enforce", ""),
        ("    ladder: [{tiers: any}]\n", "routes[0].ladder[0].tiers", 5, "no key tiers", "did you mean tier?"),
        ("    ladder: [{tier: structur}]\n", "routes[0].ladder[0].tier", 5, "must be", "did you mean structure?"),
        ("    ladder: [{false_alarm: 1}]\n", "routes[0].ladder[0].false_alarm", 5, "below 1", ""),
        ("    ladder: [{hold: soon}]\n", "routes[0].ladder[0].hold", 5, "duration", ""),
        ("    ladder: [{defences: [{kind: topk}]}]\n", "routes[0].ladder[0].defences[0].kind", 5, "no kind", "top_k?"),
        ("    detectors: defalt\n", "routes[0].detectors", 5, "must be default or a list", "did you mean default?"),
        ("    detectors: []\n", "routes[0].detectors", 5, "at least 1", ""),
        (
            "    exceptions: [{client: a, reason: b, until: soon}]\n",
            "routes[0].exceptions[0].until",
            5,
            "must be a date such as 2026-12-31",
            "",
        ),
        ("    budgets: [{kind: privacy, delta: .1}]\n", "routes[0].budgets[0].epsilon", 5, "epsilon is missing", ""),
        ("    budgets: [{kind: rows, limit: 5, window: soon}]\n", "routes[0].budgets[0].window", 5, "duration", ""),
        (
            "    budgets: [{kind: information, graded_answers: autp}]\n",
            "routes[0].budgets[0].graded_answers",
            5,
            "whole number or auto",
            "auto?",
        ),
        ("    ledger: 'a b'\n", "routes[0].ledger", 5, "form", ""),
        ("    match: {path: 3}\n", "routes[0].match.path", 5, "text", "quotes"),
        ("    match: {methods: [], path: /x}\n", "routes[0].match.methods", 5, "at least 1", ""),
        ("    match: {path: '/{a}/{a}'}\n", "routes[0].match.path", 5, "same name", ""),
        ("    match: {path: '/{a'}\n", "routes[0].match.path", 5, "braces", ""),
        ("    match: {path: '/a/../b'}\n", "routes[0].match.path", 5, "dot segment", ""),
        ("    match: {path: '/a%zz'}\n", "routes[0].match.path", 5, "percent", ""),
        ("    fields: {env: X}\n", "routes[0].fields", 5, "only where a secret is expected", "write the value"),
        ("    defences: [{env: X}]\n", "routes[0].defences[0]", 5, "only where a secret is expected", ""),
        ("    defences: [{kind: {env: X}}]\n", "routes[0].defences[0].kind", 5, "no kind", "known"),
    ],
)
def test_a_mistake_is_told_with_path_line_and_hint(
    *, tmp_path: Path, text: str, path: str, line: int, message: str, hint: str
) -> None:
    (problem,) = problems(tmp_path, route(text))
    assert (problem.path, problem.line, problem.file) == (path, line, str(tmp_path / "policy.yaml"))
    assert message in problem.message
    assert hint in problem.hint


def test_many_mistakes_are_told_at_once_in_order(tmp_path: Path) -> None:
    text = (
        route("    fields: some\n    defences: [{kind: top_k, k: x}, {kind: nope}]\n")
        + "modes: shadow\nlimits: {row: 1}\n"
    )
    assert [p.path for p in problems(tmp_path, text)] == [
        "limits.row",
        "routes[0].fields",
        "routes[0].defences[0].k",
        "routes[0].defences[1].kind",
        "modes",
    ]


def test_an_unknown_key_at_the_top_knows_the_keys_of_the_top(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, MINIMAL + "limit: {}\n")
    assert "did you mean limits?" in problem.hint


def test_a_network_that_is_none_is_told(tmp_path: Path) -> None:
    text = MINIMAL + "identity:\n  - {kind: address, trusted_proxies: [10.0.0.0/8, nowhere]}\n"
    (problem,) = problems(tmp_path, text)
    assert (problem.path, problem.line) == ("identity[0].trusted_proxies", 4)
    assert load(tmp_path, text.replace(", nowhere", "")).policy.identity


def test_missing_keys_are_told(tmp_path: Path) -> None:
    assert {p.message for p in problems(tmp_path, "name: x\n")} == {"version is missing", "routes is missing"}


def test_what_is_wrong_with_a_defence_as_a_whole_is_told_where_it_stands(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, route("    defences: [{kind: dp_gaussian}]\n"))
    assert problem.path == "routes[0].defences[0]"
    assert problem.line == 5
    assert problem.message.startswith("defences[0]: nothing says how much noise")


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "3\n"])
def test_a_policy_is_a_map(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert "map" in problem.message


def test_a_file_that_is_no_text_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"version: 1\nname: \xff\n")
    with pytest.raises(PolicyError) as caught:
        load_policy(path, env={})
    assert caught.value.problems[0].line == 2


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "#" * (MAX_BYTES + 1))
    assert "larger than" in problem.message


def test_a_folder_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no file"):
        load_policy(tmp_path, env={})


def test_a_file_that_goes_away_while_it_is_read_is_a_policy_error(tmp_path: Path) -> None:
    # /proc/self/mem is a regular file that opens and cannot be read from its beginning.
    with pytest.raises(PolicyError, match="cannot read"):
        load_policy(Path("/proc/self/mem"), env={})


# extends


def test_extends_a_preset_by_name(tmp_path: Path) -> None:
    loaded = load(tmp_path, "extends: balanced\nname: mine\nmode: shadow\n")
    assert (loaded.policy.name, loaded.policy.mode) == ("mine", "shadow")
    assert loaded.policy.routes[0].defences[0].kind == "grid"
    assert [path.name for path in loaded.files] == ["policy.yaml", "balanced.yaml"]


def test_extends_a_file_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", MINIMAL + "limits: {rows: 5, concurrency: 7}\n", "b.yaml")
    write(tmp_path / "base", "extends: b.yaml\n", "c.yaml")
    loaded = load(tmp_path, "extends: base/c.yaml\nlimits: {rows: 6}\n")
    assert (loaded.policy.limits.rows, loaded.policy.limits.concurrency) == (6, 7)
    assert [path.name for path in loaded.files] == ["policy.yaml", "c.yaml", "b.yaml"]


def test_a_mistake_in_what_is_extended_names_that_file(tmp_path: Path) -> None:
    base = write(tmp_path, MINIMAL + "mod: shadow\n", "base.yaml")
    (problem,) = problems(tmp_path, "extends: base.yaml\nname: x\n")
    assert (problem.file, problem.line) == (str(base), 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"policy.yaml": "extends: policy.yaml\n"}, "cannot extend itself"),
        ({"policy.yaml": "extends: a.yaml\n", "a.yaml": "extends: policy.yaml\n"}, "cannot extend itself"),
        ({"policy.yaml": "extends: [balanced]\n"}, "one name or path"),
        ({"policy.yaml": "extends: {env: X}\n"}, "one name or path"),
        ({"policy.yaml": "extends: balancd\n"}, "no preset"),
        ({"policy.yaml": "extends: ./none.yaml\n"}, "no file"),
        (
            {"policy.yaml": "extends: 1.yaml\n", **{f"{i}.yaml": f"extends: {i + 1}.yaml\n" for i in range(1, 12)}},
            "more than 8 deep",
        ),
    ],
)
def test_extends_that_cannot_be_followed_is_told_where_it_stands(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        write(tmp_path, text, name)
    with pytest.raises(PolicyError) as caught:
        load_policy(tmp_path / "policy.yaml", env={})
    (problem,) = caught.value.problems
    assert message in problem.message
    assert (problem.path, problem.line) == ("extends", 1)
    assert problem.hint


def test_extends_nothing_is_no_mistake(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL + "extends: ~\n").policy.extends is None


def test_the_digest_does_not_tell_how_a_policy_was_put_together(tmp_path: Path) -> None:
    write(tmp_path, "version: 1\nroutes: [{api: mlflow}]\n", "base.yaml")
    one = load_plan(write(tmp_path, "extends: base.yaml\nname: x\n"), api=None, env={})
    other = load_plan(write(tmp_path, "name: x\nroutes: [{api: mlflow}]\nversion: 1\n", "o.yaml"), api=None, env={})
    assert one.digest == other.digest


# secrets and files

HEADER = MINIMAL + "upstream_headers:\n  - name: authorization\n    value: "


def test_a_secret_comes_from_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEADER + "{env: TOKEN}\n", TOKEN="hunter2")
    assert loaded.policy.upstream_headers[0].value.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(loaded) + loaded.policy.model_dump_json()


def test_a_secret_comes_from_a_file_beside_the_policy_which_is_watched(tmp_path: Path) -> None:
    secret = write(tmp_path, "hunter2\n", "token")
    loaded = load(tmp_path, HEADER + "{file: token}\n")
    assert loaded.policy.upstream_headers[0].value.get_secret_value() == "hunter2"
    assert secret in loaded.files


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hunter2", "never written in a policy"),
        ("{env: TOKEN, file: x}", "never written in a policy"),
        ("{env: [TOKEN]}", "never written in a policy"),
        ("{env: NONE}", "NONE is not set"),
        ("{file: none}", "No such file"),
        ("{file: empty}", "is empty"),
        ("{file: binary}", "not UTF-8"),
        ("{file: huge}", "larger than"),
        ("{file: two-lines}", "one line"),
    ],
)
def test_a_secret_that_cannot_be_had_is_told_without_it(tmp_path: Path, value: str, message: str) -> None:
    write(tmp_path, "\n", "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    write(tmp_path, "x" * (2**16 + 1), "huge")
    write(tmp_path, "hunter2\r\nx-more: 1", "two-lines")
    (problem,) = problems(tmp_path, HEADER + value + "\n")
    assert message in problem.message
    assert (problem.path, problem.line) == ("upstream_headers[0].value", 5)
    assert "hunter2" not in problem.message + problem.hint


def test_key_files_are_relative_to_the_file_that_names_them_and_watched(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", MINIMAL + "identity: [{kind: api_key, keys_file: keys}]\n", "b.yaml")
    write(tmp_path / "base", "", "keys")
    loaded = load(tmp_path, "extends: base/b.yaml\n")
    identity = loaded.policy.identity[0]
    assert isinstance(identity, ApiKeyIdentity)
    assert Path(identity.keys_file) == tmp_path / "base" / "keys"
    assert tmp_path / "base" / "keys" in loaded.files
    assert loaded.warnings == ()


def test_a_key_file_that_is_not_there_is_a_warning_with_its_line_and_watched(tmp_path: Path) -> None:
    text = MINIMAL + "identity:\n  - {kind: jwt, jwks_file: /none/jwks.json, audience: a}\n"
    plan = load_plan(write(tmp_path, text), api=None, env={})
    warning = next(w for w in plan.warnings if "jwks.json" in w.message)
    assert (warning.path, warning.line) == ("identity[0].jwks_file", 4)
    assert Path("/none/jwks.json") in plan.files


# plans


def test_contradictions_found_by_compiling_get_file_and_line(tmp_path: Path) -> None:
    text = route("    defences:\n      - {kind: round, decimals: 2}\n      - {kind: noise, scale: 0.1}\n")
    path = write(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        load_plan(path, api=None, env={})
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.path) == (str(path), 7, "routes[0].defences[1]")


def test_a_route_without_an_api_takes_the_one_that_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, "version: 1\nroutes: [{}]\n")
    assert load_plan(path, api="mlflow", env={}).routes[0].api == "mlflow"
    assert load_plan(path, api=None, env={}).routes[0].api == "open_inference"
    with pytest.raises(PolicyError, match="no API nope"):
        load_plan(path, api="nope", env={})


def test_a_route_that_bounds_parameters_is_taken_for_a_language_models(tmp_path: Path) -> None:
    text = "version: 1\nroutes: [{outputs: {kind: logprobs}, parameters: [{name: n, max: 2}]}]\n"
    path = write(tmp_path, text)
    assert load_plan(path, api=None, env={}).routes[0].api == "openai"
    with pytest.raises(PolicyError, match="open_inference is no language model's API"):
        load_plan(path, api="open_inference", env={})


def test_a_line_that_is_known_already_stays(tmp_path: Path) -> None:
    root = load(tmp_path, MINIMAL).root
    (problem,) = problem_lines([Problem("m", "version", 9)], root)
    assert problem.line == 9
