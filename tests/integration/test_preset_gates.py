"""Presets' gates: each holds as shipped, and fails without the part of the preset that it is there for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from guard.policy.load import load_policy
from guard.policy.presets import preset_directory, preset_names
from tests.support.selftests import selftest

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Removal:
    """A part of a preset, as a pattern of its lines, and the gate that fails without it."""

    preset: str
    part: str
    attack: str
    metric: str

    def __str__(self) -> str:
        return f"{self.preset}-{self.part}"


LINES = {
    "ensemble": r"^    ensemble:.*",
    "inputs": r"^    inputs:(\n      .*|.*)+?(?=\n    \w)",
    "information": r"^      - \{kind: information.*",
    "grid": r"^      - \{kind: grid.*",
    "levels": r"^      - \{kind: levels.*",
    "label_only": r"^      - \{kind: label_only.*",
    "top_k": r"^      - \{kind: top_k.*",
    "secrets": r"^    defences:\n(      #.*\n)+      - \{kind: secrets.*",
}
REMOVALS = [
    Removal("balanced", "grid", "equation_solving_softmax", "surrogate_l1"),
    Removal("balanced", "inputs", "tree_partial_inputs", "partial_answers"),
    Removal("strict", "levels", "equation_solving_softmax", "surrogate_l1"),
    Removal("strict", "information", "retrain_in_distribution", "graded_answers"),
    Removal("strict", "inputs", "tree_partial_inputs", "partial_answers"),
    Removal("label-only", "label_only", "attribute_leaked_answer_sex", "accuracy"),
    Removal("label-only", "inputs", "tree_partial_inputs", "partial_answers"),
    Removal("private-ensemble", "ensemble", "membership_lira", "auc"),
    Removal("private-ensemble", "levels", "membership_lira", "auc"),
    Removal("private-ensemble", "inputs", "tree_partial_inputs", "partial_answers"),
    Removal("llm", "secrets", "canary_extraction", "canary_returned"),
]
CARRIES_NONE = {("strict", "top_k"), ("llm", "clip"), ("llm", "round"), ("llm", "grid")}
"""`levels` behind top_k shares what is left evenly, so that it changes an answer's form and not what it says. The lab
attacks llm's route of generated text alone: what stands on its others is theirs."""


def without(preset: str, part: str) -> str:
    text = (preset_directory() / f"{preset}.yaml").read_text()
    changed = re.sub(LINES[part], "", text, flags=re.MULTILINE)
    assert changed != text
    # An empty list of defences or budgets reads as null.
    return re.sub(
        r"^    (defences|budgets):\s*\n(?=    \w|\n|#|\s*#.*\n\n|selftest)",
        r"    \1: []\n",
        changed,
        flags=re.MULTILINE,
    )


def only(text: str, attack: str) -> str:
    """Keep the gates of one attack."""
    head, _, gates = text.partition("\nselftest:\n  gates:\n")
    kept = [line for line in gates.splitlines() if f"attack: {attack}," in line]
    assert kept
    return head + "\nselftest:\n  gates:\n" + "\n".join(kept) + "\n"


@pytest.mark.parametrize("removal", REMOVALS, ids=str)
def test_a_gate_holds_as_shipped_and_fails_without_what_it_is_there_for(tmp_path: Path, removal: Removal) -> None:
    shipped = (preset_directory() / f"{removal.preset}.yaml").read_text()
    sound = selftest(tmp_path, only(shipped, removal.attack))
    assert sound.passed, sound.gates
    broken = selftest(tmp_path, only(without(removal.preset, removal.part), removal.attack))
    failed = {gate.metric for gate in broken.gates if gate.held is False}
    assert removal.metric in failed, broken.gates
    assert not broken.passed


def test_the_gate_of_the_last_layer_fails_where_nothing_comes_of_parameters(tmp_path: Path) -> None:
    """No line of the preset can be taken out for it: that a bias and log-probabilities never go together is Guard's."""
    shipped = only((preset_directory() / "llm.yaml").read_text(), "last_layer")
    assert selftest(tmp_path, shipped).passed
    broken = selftest(tmp_path, shipped, "parameters_unheeded")
    assert [(gate.metric, gate.held, gate.value) for gate in broken.gates] == [("dimension_error", False, 0.0)]


def test_every_defence_of_a_gated_preset_carries_a_gate_or_says_why_not() -> None:
    tried = {(removal.preset, removal.part) for removal in REMOVALS} | CARRIES_NONE
    for preset in preset_names():
        policy = load_policy(preset, env={}).policy
        if policy.selftest.gates:
            defences = {(preset, defence.kind) for route in policy.routes for defence in route.defences}
            ensembles = {(preset, "ensemble") for route in policy.routes if route.ensemble is not None}
            assert defences | ensembles <= tried
