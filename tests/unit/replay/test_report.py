"""Reports of replays: every format says the same, gates read figures, and nothing of a recording is markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from guard.replay.compare import Comparison, Side
from guard.replay.formats import FORMATS, html, markdown, target, text
from guard.replay.gates import FIGURES, gate
from guard.replay.run import Result, of_seed
from guard.replay.seen import Charged, Seen, Step
from guard.replay.traffic import Source
from tests.support.replays import plan_of


@pytest.fixture(scope="module")
def result() -> Result:
    c = Comparison(Side("old.yaml"), Side("<b>new|x</b>"))
    allowed = Seen("allow", "ok", rows=2, answered=2, shift=0.1, steps=(Step("round", 0.2),), route="r")
    for second, word in enumerate(("allow", "label_only", "deny", "deny")):
        reason = "" if word == "allow" else "budget rows/client"
        charged = (Charged("r: rows/client", "client:aa", second + 1, 3, word != "allow"),)
        cut, entered = word == "label_only", ("r: alert",) if second == 1 else ()
        code, answered = ("budget_spent", 0) if word == "deny" else ("ok", 2)
        new = Seen(word, code, reason, 2, answered, second / 10, cut, charged, entered, ("repeats",), route="r")
        c.add("aa" if second < 3 else "bb", 1.75e9 + second, allowed, new)
    source = Source("sketches", (Path("x.rec"),), ("r",), frozenset({"k"}), ["x.rec ends within a record"])
    missing = {"codec": 8, "domain": 0}
    plans = (None, plan_of("balanced"))
    return Result(c, source, 4, plans, of_seed(3), missing, {"left": 1}, unmatched=2, seconds=2.0)


def test_the_text_says_what_moved_and_what_it_does_not_tell(result: Result) -> None:
    said = re.sub(r"\s+", " ", text(result))
    assert "4 requests, 8 rows, 2 clients, from 2025-06-15 15:06:40Z" in said
    assert "3 of 4 requests (75.0%) get another verdict" in said
    assert "Refused: 0 (0.0%) under old.yaml, 2 (50.0%) under <b>new|x</b>" in said
    assert "Ran out under <b>new|x</b>, r: rows/client: client:aa from 2025-06-15 15:06:41Z (3 requests)" in said
    assert "keyed by seed 3" in said
    assert "2 exceptions name clients" in said
    assert "no live ledger, of a budget or of differential privacy, was read or charged" in said
    assert "x.rec ends within a record" in said
    assert "requests left out: left 1" in said
    assert "policy's domain" not in said  # of which there was none


def test_markup_in_names_is_text(result: Result) -> None:
    page = html(result)
    assert "<b>new" not in page
    assert "&lt;b&gt;new|x&lt;/b&gt;" in page
    assert "default-src &#x27;none&#x27;" in page
    assert "<script" not in page
    assert "\\<b\\>new\\|x\\</b\\>" in markdown(result)


def test_json_holds_every_figure_that_a_gate_may_ask_for(result: Result) -> None:
    found = json.loads(FORMATS["json"](result))
    assert found["figures"].keys() == FIGURES.keys()
    assert found["figures"]["refused"] == 0.5
    assert found["figures"]["denied_clients"] == 2
    assert found["figures"]["top1_changed"] == pytest.approx(1 / 8)
    assert found["figures"]["spent_budgets"] == 1
    assert found["new"]["shift"] == {"rows": 4, "mean": 0.05, "p50": 0.0, "p95": 0.1}
    assert found["new"]["budgets"]["r: rows/client"]["spent"]["most"] == pytest.approx(4 / 3)
    assert found["moved"] == [
        {"old": "allow", "new": "allow", "requests": 1},
        {"old": "allow", "new": "deny", "requests": 2},
        {"old": "allow", "new": "label_only", "requests": 1},
    ]


@pytest.mark.parametrize(
    ("said", "fails"),
    [
        ("refused>0.4", True),
        ("refused>0.5", False),
        ("refused >= 0.5", True),
        ("shift_mean<1e-3", False),
        ("label_only<=0.25", True),
    ],
)
def test_a_gate_reads_its_figure(result: Result, said: str, fails: bool) -> None:
    assert gate(said).fails(result.comparison.figures()) is fails


@pytest.mark.parametrize("said", ["refused", "refuse>0", "refused>x", "refused=0", "refused>0.1.2", ""])
def test_what_is_no_gate_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"--fail-if|float"):
        gate(said)


@pytest.mark.parametrize("given", ["pdf=x", "html", "json=", "html=/"])
def test_what_is_no_report_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"format|FILE|directory"):
        target(given)


def test_requests_beyond_the_most_clients_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guard.replay.compare.MOST_CLIENTS", 2)
    c = Comparison(Side("a"), Side("b"))
    for name in ("x", "y", "z", "w", "x"):
        c.add(name, 0.0, Seen("allow", "ok"), Seen("deny", "denied"))
    assert {name: client.requests for name, client in c.clients.items()} == {"x": 2, "y": 1, "others": 2}
