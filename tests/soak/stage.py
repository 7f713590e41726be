"""The processes of a soak: Redis, a model, and a guard with everything switched on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guard.detectors.profile import encode
from guard.model.arrays import Floats
from tests.soak.notes import READ_TIMEOUT_S
from tests.support.model import CLASSES, Model, model, scores
from tests.support.processes import Guard, guard
from tests.support.simulated_profile import profile
from tests.support.valkey import Valkey

FEATURES = 8
LIMITED, GRADED = 3000, 100
NAMES = [
    f"{kind}-{i}" for kind in ("honest", "batch", "thief", "limited", "private", "fault", "leaver") for i in range(8)
]
LEDGERS = 5
POLICY = f"""version: 1
name: soak
limits: {{upstream_timeout_s: 2, read_timeout_s: {READ_TIMEOUT_S}, body_bytes: 65536, answer_bytes: 1048576}}
identity:
  - {{kind: api_key, header: x-api-key, keys_file: FOLDER/keys}}
  - {{kind: address, trusted_proxies: [127.0.0.1/32]}}
routes:
  - name: scores
    api: open_inference
    match: {{path: /v2/models/scores/infer}}
    inputs: {{kind: vector, size: {FEATURES}}}
    profile: FOLDER/profile.json
    detectors: default
    ladder:
      - {{tier: any, false_alarm: 1.0e-3, action: alert}}
      - {{tier: any, false_alarm: 1.0e-4, action: degrade, hold: 2m, defences: [{{kind: label_only}}]}}
      - {{tier: structure, false_alarm: 1.0e-6, action: deny, hold: 1m}}
    defences: [{{kind: round, decimals: DECIMALS}}]
    budgets: [{{kind: rows, per: client, limit: 100000000, window: 24h}}]
  - name: graded
    api: open_inference
    match: {{path: /v2/models/graded/infer}}
    inputs: {{kind: vector, size: {FEATURES}}}
    outputs: {{kind: probabilities}}
    profile: FOLDER/profile.json
    detectors: default
    defences: [{{kind: round, decimals: DECIMALS}}]
    budgets: [{{kind: information, per: client, graded_answers: {GRADED}, meter: 0.95}}]
  - name: limited
    api: open_inference
    match: {{path: /v2/models/limited/infer}}
    defences: [{{kind: round, decimals: DECIMALS}}]
    budgets: [{{kind: rows, per: client, limit: {LIMITED}}}]
  - name: private
    api: open_inference
    match: {{path: /v2/models/private/infer}}
    outputs: {{kind: probabilities, classes: [a, b, c, d, e]}}
    privacy: {{claim: dp, unit: training_record, adjacency: replace_one, sensitivity: 0.001}}
    defences: [{{kind: dp_gaussian, noise_multiplier: 100}}]
    budgets:
      - {{kind: privacy, per: model, epsilon: 500, delta: 1.0e-5}}
      - {{kind: privacy, per: client, epsilon: 500, delta: 1.0e-5}}
  - name: faulty
    api: open_inference
    defences: [{{kind: round, decimals: DECIMALS}}]
    budgets: [{{kind: rows, per: client, limit: 100000000}}]
"""


@dataclass
class Stage:
    """What runs.

    Args:
        folder: of all files.
        valkey: Redis.
        model: the model; another process after its death, on the same port.
        guard: what is soaked.
    """

    folder: Path
    valkey: Valkey
    model: contextlib.ExitStack
    model_port: int
    guard: Guard

    @property
    def policy(self) -> Path:
        return self.folder / "policy.yaml"

    def text(self, decimals: int) -> str:
        return policy_text(self.folder, decimals)

    def revive(self) -> None:
        """Start the model again."""
        self.model.enter_context(model(self.folder / "model", self.model_port))


def policy_text(folder: Path, decimals: int) -> str:
    return POLICY.replace("FOLDER", str(folder)).replace("DECIMALS", str(decimals))


def answers(rows: Floats, classes: int) -> Floats:
    """Return what the model says of rows."""
    assert classes == CLASSES
    return np.array([scores(row) for row in rows.tolist()])


@contextlib.contextmanager
def stage(folder: Path) -> Generator[Stage]:
    """Start everything."""
    (folder / "keys").write_text("".join(f"{n}:{hashlib.sha256(n.encode()).hexdigest()}\n" for n in NAMES))
    (folder / "profile.json").write_bytes(encode(profile(FEATURES, CLASSES, answer=answers)))
    (folder / "policy.yaml").write_text(policy_text(folder, 3))
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        of_model = stack.enter_context(contextlib.ExitStack())
        upstream: Model = of_model.enter_context(model(folder / "model"))
        options = ("--state", valkey.url, "--audit", f"file:{folder / 'audit.jsonl'}", "--record", str(folder / "rec"))
        secret = {"GUARD_SECRET": "one secret for the whole soak"}
        running = stack.enter_context(
            guard(folder / "policy.yaml", upstream.url, folder / "guard", *options, env=secret)
        )
        yield Stage(folder, valkey, of_model, upstream.port, running)
