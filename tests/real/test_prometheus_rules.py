"""Alert rules as promtool, from Debian's Prometheus, reads and tests them; every alert is tested and has a runbook."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.debian import program
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real
DEPLOY = ROOT / "deploy" / "prometheus"

Object = dict[str, Any]  # Any: YAML


def promtool(folder: Path, *arguments: str) -> str:
    """Run promtool on a copy of the deployment's files, and return what it says."""
    shutil.copytree(DEPLOY, folder, dirs_exist_ok=True)
    (folder / "guard-admin-token").write_text("a token of more than sixteen characters\n")
    command = [str(program("promtool", "prometheus")), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[Object]:
    document = yaml.safe_load((DEPLOY / "rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"] if "alert" in rule]


def test_configuration_and_rules_are_sound(tmp_path: Path) -> None:
    said = promtool(tmp_path, "check", "config", "prometheus.yml")
    assert "1 rule files found" in said
    assert "SUCCESS" in said


def test_every_alert_fires_when_it_must_and_only_then(tmp_path: Path) -> None:
    promtool(tmp_path, "test", "rules", "rules.test.yml")


def test_no_alert_is_left_out_of_the_tests() -> None:
    tests = yaml.safe_load((DEPLOY / "rules.test.yml").read_text())["tests"]
    expected = [found for test in tests for found in test.get("alert_rule_test", ())]
    fired = {
        (one["alertname"], alert["exp_labels"]["severity"]) for one in expected for alert in one.get("exp_alerts", ())
    }
    silent = {one["alertname"] for one in expected if "exp_alerts" not in one}
    assert fired == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()}
    assert silent >= {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_says_how_urgent_it_is_and_leads_to_a_page_that_names_it(rule: Object) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "description", "runbook_url"} == rule["annotations"].keys()
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page.parent == ROOT / "docs" / "runbooks"
    assert f"`{rule['alert']}`" in page.read_text()
