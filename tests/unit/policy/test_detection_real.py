"""A profile as `guard calibrate` makes it, in a policy: what is checked is what serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guard.calibrate.fit import Settings, make_profile
from guard.detectors.profile import encode
from guard.engine.ladder import Verdict, decide
from guard.engine.tracker import Tracker
from guard.model.queries import Queries
from guard.policy.detection import Detection
from guard.policy.load import load_plan
from guard.proxy.dry_run import dry_run
from guard.proxy.identity import Identity
from tests.support.traffic import SKETCH, WIDTH, Asked, honest, log_of, thief

POLICY = f"""version: 1
identity: [{{kind: api_key, keys_file: keys}}]
routes:
  - api: open_inference
    inputs: {{kind: vector, size: {WIDTH}}}
    outputs: {{classes: [a, b, c]}}
    profile: made.profile
    defences: [{{kind: grid}}]
    ladder:
      - {{false_alarm: 0.02}}
      - {{false_alarm: 1e-3, action: degrade, defences: [{{kind: codebook}}, {{kind: label_only}}]}}
      - {{tier: structure, false_alarm: 1e-3, action: deny}}
"""


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> Detection:
    folder: Path = tmp_path_factory.mktemp("policy")
    profile, _ = make_profile("r", SKETCH, [log_of(honest(i)) for i in range(160)], Settings())
    (folder / "made.profile").write_bytes(encode(profile))
    (folder / "keys").write_text("")
    (folder / "policy.yaml").write_text(POLICY)
    plan = load_plan(folder / "policy.yaml", api=None, env={}, salt=b"a salt of the deployment")
    dry_run(plan, Identity(()))
    found = plan.routes[0].detection
    assert found is not None
    return found


def placed(detection: Detection, asked: Asked) -> Verdict:
    tracker = Tracker(detection.setup)
    for row in asked.raw:
        tracker.ask(detection.setup.sketcher.features(Queries(1, [row.tolist()])))
    return decide(detection, {"client": tracker.strength()}, {}, 0, 1e9, deniable=True)


def test_its_levels_are_calibrated_as_far_as_its_clients_reach(detection: Detection) -> None:
    assert [str(step.level).partition("(")[0] for step in detection.ladder] == ["calibrated", "nominal", "nominal"]
    assert detection.off == ()


def test_a_thief_is_denied_and_honest_clients_are_not(detection: Detection) -> None:
    assert placed(detection, thief(1)).action == "deny"
    actions = [placed(detection, honest(1000 + i)).action for i in range(20)]
    assert not {"degrade", "deny"} & set(actions)
    assert np.mean([action is None for action in actions]) >= 0.9
