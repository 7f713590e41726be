"""Every panel's and every rule's query, asked of a real Prometheus that scrapes a live Guard under mixed load.

Alerts are evaluated as they are shipped, but for `for`, of which each is a second here: what must last minutes in
production is tested by promtool.
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.error
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support.observed import Prometheus, scene
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.real
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"

Json = Any  # Any: JSON


@dataclass
class Seen:
    """What a Prometheus has seen.

    Args:
        prometheus: it.
        until_s: end of the story.
    """

    prometheus: Prometheus
    until_s: float

    def filled_in(self, expr: str) -> str:
        """Fill in variables as Grafana does, all of every choice."""
        values = {"job": ".*", "instance": ".*", "route": ".*", "__rate_interval": "5s"}
        values["__range"] = f"{math.ceil(self.until_s - self.prometheus.began_s)}s"
        return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)

    def numbers(self, expr: str, *, instant: bool = False) -> list[float]:
        """Return all that a query finds over the whole story, or at its end."""
        expr = self.filled_in(expr)
        if instant:
            found = [series["value"] for series in self.prometheus.instant(expr, self.until_s)]
        else:
            found = [one for series in self.prometheus.range(expr, end_s=self.until_s) for one in series["values"]]
        return [float(value) for _, value in found if value != "NaN"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Generator[Seen]:
    """Tell the whole story once: all go on asking, while one thing after the other breaks."""
    rules = re.sub(r"for: \d+[mh]", "for: 1s", RULES.read_text())
    with scene(tmp_path_factory.mktemp("observed"), rules) as found:
        prometheus = found.prometheus
        prometheus.until('sum(guard_audit_sequence) > 500 and sum(guard_budget_refusals_total{route="shared"}) > 20')
        found.edit("second")
        prometheus.until('guard_policy_info{name="second"}')
        with found.full_disk():
            prometheus.until("sum(guard_audit_dropped_total) > 0")
        found.slow_state(6)
        found.edit("")
        prometheus.until("max(guard_policy_reload_failing) == 1")
        found.spare.running.kill()
        found.state.kill()
        for alert in ("GuardStateLost", "GuardFailingClosed", "GuardReloadFailing", "GuardDown", "GuardProfileStale"):
            # For two scrapes, so that every step of a range sees it. Drift is looked at after 20 s, then each minute.
            prometheus.until(f'ALERTS{{alertname="{alert}", alertstate="firing"}} offset 2s')
        yield Seen(prometheus, time.time())


def targets() -> list[Any]:
    found: list[Any] = []
    for name in ("overview", "security"):
        document: Json = json.loads((ROOT / "deploy" / "grafana" / f"{name}.json").read_text())
        for panel in document["panels"]:
            for target in panel.get("targets", ()):
                identity = f"{name}-{panel['title']}-{target['refId']}"
                found.append(pytest.param(target["expr"], bool(target.get("instant")), id=identity))
        for annotation in document["annotations"]["list"]:
            found.append(pytest.param(annotation["expr"], False, id=f"{name}-annotation-{annotation['name']}"))
    return found


def rules() -> list[Json]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(("expr", "instant"), targets())
def test_a_panels_query_returns_data(seen: Seen, expr: str, instant: bool) -> None:
    found = seen.numbers(expr, instant=instant)
    assert found
    assert all(math.isfinite(number) for number in found)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("record") or rule["alert"])
def test_a_rules_query_returns_data(seen: Seen, rule: Json) -> None:
    if rule.get("alert") == "GuardMissing":  # only a Prometheus that has not scraped a Guard yet has an answer
        assert seen.prometheus.instant(rule["expr"], seen.prometheus.began_s - 60)
    else:
        assert seen.numbers(rule["expr"])


def questions() -> list[Any]:
    found: list[Any] = []
    for page in sorted((ROOT / "docs" / "runbooks").glob("*.md")):
        blocks = re.findall(r"```promql\n(.*?)\n```", page.read_text(), re.DOTALL)
        found += [pytest.param(query, id=f"{page.stem}-{number}") for number, query in enumerate(blocks)]
    return found


@pytest.mark.parametrize("query", questions())
def test_what_a_runbook_asks_has_an_answer(seen: Seen, query: str) -> None:
    assert seen.numbers(query)


def test_every_rule_is_evaluated_without_an_error(seen: Seen) -> None:
    found = [rule for group in seen.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules())
    assert {(rule["name"], rule["health"], rule.get("lastError")) for rule in found} == {
        (rule["name"], "ok", None) for rule in found
    }


def test_every_alert_has_fired_with_its_words(seen: Seen) -> None:
    fired = seen.prometheus.range('ALERTS{alertstate="firing"}', end_s=seen.until_s)
    expected = {(rule["alert"], rule["labels"]["severity"]) for rule in rules() if "alert" in rule}
    assert {(found["metric"]["alertname"], found["metric"]["severity"]) for found in fired} >= expected - {
        ("GuardMissing", "page")
    }
    said = [alert["annotations"]["summary"] for alert in seen.prometheus.ask("alerts")["alerts"]]
    assert said
    assert not [text for text in said if "%!" in text or "<error" in text or "NaN" in text], said


def test_alerts_name_the_route_that_is_ill_and_no_other(seen: Seen) -> None:
    fired = seen.prometheus.range('ALERTS{alertstate="firing"}', end_s=seen.until_s)
    routes: dict[str, set[str]] = {}
    for found in fired:
        routes.setdefault(found["metric"]["alertname"], set()).add(found["metric"].get("route", ""))
    assert routes["GuardUnreadableAnswers"] == {"odd"}
    assert routes["GuardUpstreamFailing"] == {"busy"}
    assert routes["GuardBudgetNearlySpent"] == {"shared"}
    assert routes["GuardAttackUnderWay"] <= {"digits", "shadow"}
    assert routes["GuardProfileStale"] == {"digits"}


def test_no_series_names_a_client(seen: Seen) -> None:
    names = seen.prometheus.ask("label/__name__/values")
    assert [name for name in names if name.startswith("guard_")]
    for label in seen.prometheus.ask("labels"):
        for value in seen.prometheus.ask(f"label/{label}/values"):
            assert not re.search(r"customer|stranger|thief|clumsy", value), (label, value)


def test_what_a_variable_offers_is_there(seen: Seen) -> None:
    document: Json = json.loads((ROOT / "deploy" / "grafana" / "overview.json").read_text())
    asked = [variable for variable in document["templating"]["list"] if variable["type"] == "query"]
    assert [variable["name"] for variable in asked] == ["job", "instance", "route"]
    for variable in asked:
        query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        assert query is not None
        series = seen.prometheus.range(seen.filled_in(query[1]), end_s=seen.until_s)
        assert {found["metric"][query[2]] for found in series}, variable["name"]


def test_a_query_that_is_none_is_noticed(seen: Seen) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        seen.prometheus.instant("sum by (le (guard_requests_total")
    assert seen.numbers("guard_requests_totals") == []
