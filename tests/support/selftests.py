"""Self-tests in process, for tests that change the policy or the Guard under test."""

from __future__ import annotations

import sys
from pathlib import Path

from guard.policy.load import load_policy, plan_of
from guard.selftest.attacks.registry import attack_named
from guard.selftest.lab.target import Lab
from guard.selftest.results import Report
from guard.selftest.runner import Runner, Settings
from guard.selftest.tuning.bench import Silent
from tests.support import faulty_guard


def selftest(folder: Path, text: str, fault: str = "none") -> Report:
    """Run the attacks that a policy's gates name against the lab, behind a Guard with a fault."""
    (folder / "p.yaml").write_text(text)
    loaded = load_policy(folder / "p.yaml", env={})
    policy, digest = loaded.policy, plan_of(loaded, api=None).digest
    gates = policy.selftest.gates
    command = (sys.executable, str(Path(faulty_guard.__file__)), fault)
    names = dict.fromkeys(str(gate.attack) for gate in gates if gate.attack)
    attacks = [attack_named(name) for name in names]
    settings = Settings(attacks, "quick", gates=gates, guard=command, remember="controls", utility=False)
    return Runner(policy, policy.routes[0], digest, Lab(policy, policy.routes[0]), settings, Silent()).run()
