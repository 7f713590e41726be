from __future__ import annotations

from pathlib import Path

import pytest

from guard.errors import PolicyError
from guard.model.queries import Queries
from guard.proxy.load import load_active


def test_a_preset_by_name() -> None:
    active = load_active("balanced", api="mlflow", env={})
    assert (active.plan.name, active.plan.routes[0].api) == ("balanced", "mlflow")
    assert active.identity.warnings == () or active.plan.warnings


def test_a_preset_without_an_api_is_taken_for_open_inference_and_says_so() -> None:
    plan = load_active("balanced", api=None, env={}).plan
    assert plan.routes[0].api == "open_inference"
    assert ("routes[0].api", "taken for open_inference; write api: here, or start with --api") in [
        (warning.path, warning.hint) for warning in plan.warnings
    ]
    assert not any("API" in warning.message for warning in load_active("balanced", api="mlflow", env={}).plan.warnings)


def test_every_file_that_the_policy_names_is_watched_once(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("version: 1\nroutes: [{api: mlflow}]\n")
    keys = tmp_path / "keys"
    keys.write_text(f"alice:{'0' * 64}\n")
    keys.chmod(0o600)
    policy = tmp_path / "policy.yaml"
    source = "{kind: api_key, header: x-api-key, keys_file: keys}"
    policy.write_text(f"version: 1\nextends: base.yaml\nidentity: [{source}, {source}]\n")
    active = load_active(policy, api=None, env={})
    assert sorted(path.name for path in active.files) == ["base.yaml", "keys", "policy.yaml"]


def test_an_identity_file_that_is_not_there_is_a_bad_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nidentity: [{kind: api_key, header: x-api-key, keys_file: nowhere}]\nroutes: [{api: mlflow}]\n"
    )
    with pytest.raises(PolicyError) as caught:
        load_active(policy, api=None, env={})
    assert "nowhere" in str(caught.value)


def test_secrets_of_a_policy_come_from_the_given_environment(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nname: {env: NAME_OF_IT}\nroutes: [{api: mlflow}]\n")
    with pytest.raises(PolicyError):
        load_active(policy, api=None, env={})


def test_the_deployments_salt_keys_what_detectors_remember_and_is_no_part_of_the_digest(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nroutes: [{api: mlflow, ladder: [{false_alarm: 1e-2}]}]\n")
    keys: list[bytes] = []
    plans = [load_active(policy, api=None, env={}, salt=salt).plan for salt in (b"a" * 16, b"a" * 16, b"b" * 16)]
    for plan in plans:
        detection = plan.routes[0].detection
        assert detection is not None
        keys.append(detection.setup.sketcher.features(Queries(1, [[1.0, 2.0]])).keys.tobytes())
    assert keys[0] == keys[1] != keys[2]
    assert len({plan.digest for plan in plans}) == 1
