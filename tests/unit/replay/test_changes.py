"""What an edit means: nothing changes silently, directions are right, secrets are never shown."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from pydantic import ValidationError

from guard.detectors.profile import encode
from guard.errors import PolicyError
from guard.policy.compile import compile_policy
from guard.policy.gates import AttackName, MetricName
from guard.policy.load import load_policy, plan_of
from guard.policy.presets import preset_directory
from guard.policy.reference import json_schema
from guard.policy.schema import Policy
from guard.replay.change_words import shown
from guard.replay.changes import Difference, Version, difference
from tests.support.profiles import a_profile

BASE = """version: 1
name: base
identity:
  - {kind: api_key, header: x-api-key, keys_file: keys}
limits: {rows: 100}
upstream_headers:
  - {name: authorization, value: {env: TOKEN}}
forward_headers: [x-tenant]
routes:
  - name: digits
    inputs: {kind: vector, size: 4, low: 0, high: 16, step: 0.5}
    outputs: {kind: probabilities, classes: [a, b, c]}
    defences:
      - {kind: top_k, k: 2}
      - {kind: round, decimals: 2}
    budgets:
      - {kind: rows, per: client, limit: 1000, window: 24h}
      - {kind: information, per: client, graded_answers: 50, then: label_only, hard_limit: 500}
    detectors: default
    ladder:
      - {tier: any, false_alarm: 1.0e-2, action: alert}
      - {tier: protocol, count: 50, action: throttle, rows_per_minute: 60}
      - {tier: any, over: group, false_alarm: 2.0e-3, action: degrade, defences: [{kind: levels}]}
      - {tier: structure, false_alarm: 1.0e-3, action: deny, hold: 1d}
    exceptions:
      - {client: nightly, skip: [repeats], until: 2100-01-01, reason: retries}
selftest:
  gates:
    - {utility: top1_changed, max: 0.0}
"""


def version(folder: Path, text: str, name: str, token: str = "a token") -> Version:
    (folder / "keys").write_text("")
    path = folder / name
    path.write_text(text)
    loaded = load_policy(path, env={"TOKEN": token})
    return Version(loaded, plan_of(loaded, api="open_inference"))


def edit(folder: Path, *edits: tuple[str, str], base: str = BASE) -> Difference:
    text = base
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return difference(version(folder, base, "old.yaml"), version(folder, text, "new.yaml"))


def test_a_policy_differs_in_nothing_from_itself(tmp_path: Path) -> None:
    assert edit(tmp_path) == Difference((), ())


def test_comments_order_of_keys_and_defaults_are_no_differences(tmp_path: Path) -> None:
    found = edit(
        tmp_path,
        ("version: 1\nname: base\n", "# the base\nname: base\nversion: 1\nmode: enforce\n"),
        ("{kind: top_k, k: 2}", "{k: 2, kind: top_k, mode: enforce}"),
        ("window: 24h", "window: 86400"),
    )
    assert found.changes == ()


@pytest.mark.parametrize(
    ("old", "new", "way", "said"),
    [
        ("decimals: 2", "decimals: 1", "stricter", "round: scores are rounded to 0.1 instead of 0.01"),
        ("k: 2", "k: 3", "looser", "top_k: of each row's scores the greatest are left, as many as 3 instead of 2"),
        ("limit: 1000", "limit: 2000", "looser", "rows per client every 1d: rows are limited to 2,000 instead of"),
        ("graded_answers: 50", "graded_answers: 20", "stricter", "graded answers are limited to 20 instead of 50"),
        (", hard_limit: 500", "", "looser", "refused behind all rows together: none instead of 500"),
        ("window: 24h", "window: 1h", "looser", "it was rows per client every 1d. Its counter has another name"),
        ("then: label_only, hard_limit: 500", "then: deny", "stricter", "leads to deny instead of label_only"),
        ("      - {kind: top_k, k: 2}\n", "", "looser", "a defence is gone: top_k: k 2"),
        ("      - {kind: top_k, k: 2}\n", "      - {kind: levels}\n", "stricter", "a defence comes: levels"),
        ("name: digits\n", "name: digits\n    ledger: fresh\n", "looser", "a refund of all that was spent"),
        ("name: digits\n", "name: figures\n", "looser", "a refund of all that was spent"),
        ("name: digits\n", "name: digits\n    mode: shadow\n", "looser", "the route changes nothing any more"),
        ("name: digits\n", "name: digits\n    fields: all\n", "looser", "answers let out every member"),
        ("high: 16", "high: 99", "looser", "the greatest value of a feature is 99 instead of 16"),
        ("low: 0", "low: [0, 0, 1, 0]", "stricter", "the least value of a feature is 0, 0, 1, 0 instead of 0"),
        ("step: 0.5", "step: 0.25", "looser", "queries are snapped to multiples of 0.25 instead of 0.5"),
        ("size: 4, low: 0, high: 16, step: 0.5", "size: 5", "looser", "the least value of a feature is none"),
        ("false_alarm: 1.0e-3", "false_alarm: 1.0e-4", "looser", "honest clients that ever reach it is 0.0001 instead"),
        ("false_alarm: 1.0e-2", "false_alarm: 1.0e-4", "neutral", "alert for any over client"),
        ("hold: 1d", "hold: 7d", "stricter", "hold is 7d instead of 1d"),
        ("action: deny", "action: alert", "looser", "a step is gone: deny for structure over client"),
        ("detectors: default", "detectors: [{kind: repeats}]", "looser", "the detector near_duplicates is off"),
        ("skip: [repeats]", "skip: [repeats, line_walk]", "unclear", "exception for nightly"),
        ("2100-01-01", "2101-01-01", "looser", "until is 2101-01-01 instead of 2100-01-01"),
        ("client: nightly", "client: weekly", "looser", "weekly is excepted from repeats"),
        ("rows: 100", "rows: 200", "looser", "the most rows in one request are 200 instead of 100"),
        ("limits: {rows: 100}", "limits: {rows: 100, drain_s: 1}", "neutral", "drain_s is 1 instead of 20"),
        ("[x-tenant]", "[x-tenant, x-debug]", "looser", "x-debug goes through to the model"),
        ("[x-tenant]", "[]", "stricter", "x-tenant is kept from the model"),
        ("keys_file: keys", "keys_file: others", "unclear", "keys_file is"),
        ("  - {kind: api_key, header: x-api-key, keys_file: keys}\n", "  []\n", "looser", "of identity is gone"),
        ("name: base\n", "name: base\nmode: shadow\n", "looser", "the policy's mode is shadow"),
        ("name: base\n", "name: base\naudit: {when_full: drop}\n", "looser", "requests lead to drop instead of refuse"),
        ("classes: [a, b, c]", "classes: [a, b, d]", "unclear", "classes is a, b, d instead of a, b, c"),
        ("max: 0.0", "max: 0.1", "neutral", "guard selftest asks for top1_changed at most 0.1"),
        ("    outputs:", "    match: {path: /v2/models/a/infer}\n    outputs:", "stricter", "it no longer answers"),
        ("name: authorization", "name: x-token", "neutral", "Guard adds the header x-token"),
    ],
)  # fmt: skip
def test_an_edit_is_told_with_its_direction(tmp_path: Path, old: str, new: str, way: str, said: str) -> None:
    found = edit(tmp_path, (old, new))
    assert any(change.way == way and said in change.said for change in found.changes), found.changes
    assert found.consequences[0].startswith("The digest changes from ")


def test_what_loosens_stands_first_and_what_is_loud_before_it(tmp_path: Path) -> None:
    found = edit(tmp_path, ("decimals: 2", "decimals: 1"), ("k: 2", "k: 3"), ("window: 24h", "window: 1h"))
    assert [(change.way, change.loud) for change in found.changes] == [
        ("looser", True),
        ("looser", False),
        ("stricter", False),
    ]


def test_another_order_of_defences_is_told(tmp_path: Path) -> None:
    top, rounded = "      - {kind: top_k, k: 2}\n", "      - {kind: round, decimals: 2}\n"
    (change,) = edit(tmp_path, (top + rounded, rounded + top)).changes
    assert change.said == "route digits: defences run in another order: round > top_k instead of top_k > round"


def test_what_is_only_counted_loosens_nothing(tmp_path: Path) -> None:
    base = BASE.replace("limit: 1000", "limit: 1000, mode: shadow")
    (change,) = edit(tmp_path, ("limit: 1000", "limit: 9000"), base=base).changes
    assert change.way == "neutral"


def test_a_secrets_value_is_compared_and_never_shown(tmp_path: Path) -> None:
    old, new = version(tmp_path, BASE, "a.yaml", "s3cret-one"), version(tmp_path, BASE, "b.yaml", "s3cret-two")
    found = difference(old, new)
    (change,) = found.changes
    assert "has another value (a secret)" in change.said
    assert "s3cret" not in repr(found)
    assert found.consequences[0].startswith("The digest stays ")


def test_another_path_with_the_same_keys_is_neither(tmp_path: Path) -> None:
    (tmp_path / "others").write_text("")
    found = edit(tmp_path, ("keys_file: keys", "keys_file: others"))
    assert [change.way for change in found.changes] == ["neutral"]


def test_profiles_are_compared_by_what_they_hold(tmp_path: Path) -> None:
    base = "version: 1\nroutes:\n  - detectors: [{kind: repeats}]\n"
    for name, clients in (("a", 40), ("same", 40), ("other", 50)):
        (tmp_path / f"{name}.json").write_bytes(encode(replace(a_profile(), clients=clients)))
    none, a, same, other = (
        version(tmp_path, base + (f"    profile: {name}.json\n" if name else ""), f"{name or 'none'}.yaml")
        for name in ("", "a", "same", "other")
    )
    told = [difference(*pair).changes for pair in ((none, a), (a, none), (a, same), (a, other))]
    assert [changes[0].way for changes in told] == ["stricter", "looser", "neutral", "unclear"]
    assert "is the same: digest" in told[2][0].said
    assert "of 50 clients" in told[3][0].said
    assert any("evidence against clients is counted anew" in said for said in difference(none, a).consequences)


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of everything that is neither a map nor a list."""
    match value:
        case dict():
            for key, item in cast("dict[str, object]", value).items():
                yield from leaves(item, (*path, key))
        case list():
            for i, item in enumerate(cast("list[object]", value)):
                yield from leaves(item, (*path, i))
        case _:
            yield path


def put(tree: Any, path: tuple[str | int, ...], new: object) -> None:  # Any: JSON
    for step in path[:-1]:
        tree = tree[step]
    tree[path[-1]] = new


def enums(schema: object) -> set[str]:
    """Return every word that the language knows."""
    found: set[str] = set()
    if isinstance(schema, dict):
        known = cast("dict[str, Any]", schema)  # Any: JSON
        found |= {word for word in (*known.get("enum", ()), known.get("const")) if isinstance(word, str)}
        return found.union(*map(enums, known.values()))
    return found.union(*map(enums, cast("list[object]", schema))) if isinstance(schema, list) else found


LANGUAGE = tuple(sorted(enums(json_schema()) - {*get_args(AttackName), *get_args(MetricName)}))


def others(value: object) -> tuple[object, ...]:
    """Return other values that the leaf may be allowed to have."""
    match value:
        case bool():
            return (not value,)
        case int() | float():
            return (value * 2, value / 2, value + 1)
        case str():
            return (f"{value}x", "2101-01-01", *LANGUAGE)
        case _:
            maps = ({"path": "/a/{b}"}, {"aggregate": "mean", "quorum": 2}, {"epsilon": 1, "delta": 1e-6})
            return (1, 0.5, 16, "x", ["x"], ["x", "y", "z"], *maps, *LANGUAGE)


@pytest.mark.parametrize("source", ["BASE", "PRIVATE", "private-ensemble"])
def test_no_leaf_changes_silently(tmp_path: Path, source: str) -> None:
    text = {"BASE": BASE, "PRIVATE": PRIVATE}.get(source) or (preset_directory() / f"{source}.yaml").read_text()
    old = version(tmp_path, text, "old.yaml")
    whole: Any = old.plan.policy.model_dump(mode="json", exclude={"extends", "upstream_headers"})  # Any: JSON
    tried: set[str] = set()
    for path in leaves(whole):
        before = reduce(lambda tree, step: tree[step], path, whole)
        for value in others(before):
            if value == before:
                continue
            edited = copy.deepcopy(whole)
            put(edited, path, value)
            try:
                policy = Policy.model_validate(edited).model_copy(
                    update={"upstream_headers": old.plan.policy.upstream_headers}
                )
                plan = compile_policy(policy, api="open_inference", profiles={})
            except (ValidationError, PolicyError, KeyError):
                continue  # no policy may say so
            new = Version(replace(old.loaded, policy=policy), plan)
            told = difference(old, new).changes
            assert bool(told) == (plan.digest != old.plan.digest), path
            key = next(step for step in reversed(path) if isinstance(step, str))
            words = " ".join(f"{change.path} {change.said}" for change in told)
            assert not told or key in words or shown(value) in words, (path, value, words)
            if told:
                tried.add(key)
                break
    assert len(tried) >= {"BASE": 40, "PRIVATE": 25, "private-ensemble": 25}[source]


PRIVATE = """version: 1
routes:
  - outputs: {kind: probabilities, classes: [a, b]}
    ensemble: {aggregate: noisy_vote, quorum: 3, noise_multiplier: 10}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 50000}
    budgets: [{kind: privacy, per: model, epsilon: 8, delta: 1.0e-6, then: deny}]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epsilon: 8", "epsilon: 4", "a live ledger default is accepted as it is"),
        ("epsilon: 8", "epsilon: 4", "remembered releases are kept"),
        ("epsilon: 8", "epsilon: 4", '(4, 1e-06)-differentially private'),
        ("delta: 1.0e-6", "delta: 1.0e-7", "is refused until it is migrated (guard budget migrate): the delta of"),
        ("quorum: 3", "quorum: 4", "remembered releases are not given again"),
        ("  - outputs", "  - ledger: fresh\n    outputs", "Nothing that was published holds any more"),
    ],
)  # fmt: skip
def test_what_follows_for_ledgers_and_claims_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    found = edit(tmp_path, (old, new), base=PRIVATE)
    assert any(said in sentence for sentence in found.consequences), found.consequences


def test_a_mechanism_that_goes_is_told(tmp_path: Path) -> None:
    plain = "version: 1\nroutes:\n  - outputs: {kind: probabilities, classes: [a, b]}\n"
    found = difference(version(tmp_path, PRIVATE, "a.yaml"), version(tmp_path, plain, "b.yaml"))
    assert any("this policy charges none" in sentence for sentence in found.consequences)
    assert any('what may be published is now: "nothing"' in sentence for sentence in found.consequences)
    assert any(change.loud and "the privacy claim is gone" in change.said for change in found.changes)


def test_noise_that_is_drawn_anew_is_told(tmp_path: Path) -> None:
    base = BASE.replace("{kind: round, decimals: 2}", "{kind: noise, scale: 0.1}")
    found = edit(tmp_path, ("      - {kind: top_k, k: 2}\n", ""), base=base)
    assert any("noise of noise is drawn anew" in sentence for sentence in found.consequences)


def test_routes_come_go_and_change_places(tmp_path: Path) -> None:
    second = "  - name: texts\n    match: {path: /v2/models/texts/infer}\n"
    head, _, tail = BASE.partition("selftest:")
    two = f"{head}{second}selftest:{tail}"
    one = version(tmp_path, BASE, "one.yaml")
    both = version(tmp_path, two, "two.yaml")
    come = difference(one, both).changes
    assert [(change.way, change.path) for change in come] == [("looser", "routes[texts]")]
    gone = difference(both, one).changes
    assert [(change.way, change.path) for change in gone] == [("stricter", "routes[texts]")]
    start, _, route = head.partition("routes:\n")
    turned = version(tmp_path, f"{start}routes:\n{second}{route}selftest:{tail}", "turned.yaml")
    assert any("tried in another order" in change.said for change in difference(both, turned).changes)
