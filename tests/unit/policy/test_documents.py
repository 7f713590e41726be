"""Canaries and documents of the secrets defence: read with the policy, watched, reloaded, never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guard.cli.main import main
from guard.defences.base import TextDefence
from guard.defences.secret_ngrams import encode
from guard.defences.secret_normal import normal_text
from guard.errors import PolicyError
from guard.policy.compile import compile_policy
from guard.policy.load import load_plan, load_policy, plan_of
from guard.policy.plan import Plan
from guard.proxy.load import load_active
from guard.proxy.plans import Plans
from guard.replay.changes import Version, difference

HANDBOOK = "Whoever leaves before the end of March receives no bonus, whatever was agreed before."
OTHER = "The board meets on the second Tuesday of each month and decides by simple majority."
CANARY = "vault-7947-2210"
POLICY = """version: 1
routes:
  - name: chat
    api: openai
    outputs: {kind: logprobs}
    defences:
      - {kind: secrets, find: [cards], canaries: {file: canaries}, document_files: [hr.ngrams]}
    ladder:
      - {false_alarm: 0.01}
      - {false_alarm: 0.001, action: degrade, defences: [{kind: secrets, document_files: [hr.ngrams]}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "canaries").write_text(f"{CANARY}\n")
    write(tmp_path, HANDBOOK)
    return tmp_path


def write(folder: Path, text: str, n: int = 24) -> None:
    (folder / "hr.ngrams").write_bytes(encode([normal_text(text)], n, b"s" * 16))


def plan(folder: Path) -> Plan:
    return load_plan(folder / "policy.yaml", api=None, env={})


def left(plan: Plan, text: str, route: int = 0) -> str:
    defence = plan.routes[route].defences[0]
    assert isinstance(defence, TextDefence)
    return defence.scanner("").feed(text, last=True).text


def test_documents_and_canaries_of_the_policys_folder_are_in_force(folder: Path) -> None:
    found = plan(folder)
    assert left(found, HANDBOOK).endswith("the e[redacted].")
    assert left(found, f"{OTHER} {CANARY}") == f"{OTHER} [redacted]"
    assert {folder / "hr.ngrams", folder / "canaries"} <= set(found.files)
    detection = found.routes[0].detection
    assert detection is not None
    degraded = detection.ladder[1].defences[-1]
    assert isinstance(degraded, TextDefence)
    assert degraded.scanner("").feed(HANDBOOK, last=True).redacted


def test_a_look_without_documents_leaves_them_out(folder: Path) -> None:
    policy = load_policy(folder / "policy.yaml", env={}).policy
    assert left(compile_policy(policy), HANDBOOK) == HANDBOOK


@pytest.mark.parametrize(
    ("name", "content", "path", "said", "hint"),
    [
        ("hr.ngrams", None, "document_files[0]", "cannot read the documents", "guard secrets hash FILE... > hr.ngrams"),
        ("hr.ngrams", b"text", "document_files[0]", "this is no file of n-grams", "guard secrets hash"),
        ("canaries", b"abc\n", "canaries", "line 1 has fewer than 4", ""),
        ("canaries", b"", "canaries", "is empty", ""),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(
    folder: Path, name: str, content: bytes | None, path: str, said: str, hint: str
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        plan(folder)
    problem = caught.value.problems[0]
    assert problem.path == f"routes[0].defences[0].{path}"
    assert problem.line == 7
    assert said in problem.message
    assert problem.hint.startswith(hint)


async def test_a_reload_puts_other_canaries_and_documents_in_force(folder: Path) -> None:
    told: list[tuple[bool, str]] = []
    plans = Plans(
        lambda: load_active(folder / "policy.yaml", api=None, env={}), lambda ok, message: told.append((ok, message))
    )
    before = plans.current.plan
    (folder / "canaries").write_text("orchid-1138-9000\n")
    assert (await plans.reload())[0]
    after = plans.current.plan
    # A digest says nothing of secrets, so it stays; what is in force does not.
    assert after.digest == before.digest
    assert left(before, CANARY) == "[redacted]"
    assert left(after, f"{CANARY} orchid 1138 9000") == f"{CANARY} [redacted]"
    write(folder, OTHER)
    assert (await plans.reload())[0]
    assert plans.current.plan.digest != before.digest
    assert "[redacted]" in left(plans.current.plan, OTHER)
    assert left(plans.current.plan, HANDBOOK) == HANDBOOK
    (folder / "hr.ngrams").write_bytes(b"gone bad")
    ok, message = await plans.reload()
    assert not ok
    assert "no file of n-grams" in message
    assert "[redacted]" in left(plans.current.plan, OTHER)


def test_no_command_prints_a_canary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = str(folder / "policy.yaml")
    assert main(["check", policy]) == 0
    assert main(["check", policy, "--format", "json"]) == 0
    assert main(["explain", "--policy", policy]) == 0
    assert main(["explain", "--policy", policy, "--format", "json"]) == 0
    out = capsys.readouterr()
    assert "secrets(" in out.out
    assert "7947" not in out.out + out.err


def test_diff_tells_of_other_canaries_and_documents_and_shows_neither(folder: Path) -> None:
    def version() -> Version:
        loaded = load_policy(folder / "policy.yaml", env={})
        return Version(loaded, plan_of(loaded, api=None))

    old = version()
    (folder / "canaries").write_text("orchid-1138-9000\n")
    write(folder, OTHER, 20)
    found = difference(old, version())
    said = "\n".join(change.said for change in found.changes)
    assert "canaries has another value (a secret)" in said
    assert "hr.ngrams are others" in said
    assert "7947" not in json.dumps(found)
    assert "1138" not in json.dumps(found)
