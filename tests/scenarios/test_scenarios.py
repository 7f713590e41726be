"""Scenarios as data: a policy, exchanges, and what must and must not happen.

A file holds several scenarios. `expect.json` is compared whole; `has` and `hasnt` look for text in the answer;
`upstream.saw` likewise in what the model was sent; `upstream.asked: false` says that the model must not have been
asked at all.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from guard.errors import UpstreamError
from guard.model.exchange import Reply
from tests.support.fakes import Answered, Guarded, Seen

HERE = Path(__file__).parent
EXPECTED = 58
"""How many scenarios there are: a runner that finds fewer has lost some."""
Json = Any  # Any: decoded YAML


def scenarios() -> list[tuple[str, Json]]:
    found: list[tuple[str, Json]] = []
    for path in sorted(HERE.glob("*.yaml")):
        for scenario in yaml.safe_load(path.read_text()):
            found.append((f"{path.stem}:{scenario['name']}", scenario))
    return found


def test_no_scenario_is_lost() -> None:
    assert len(scenarios()) == EXPECTED
    assert sum("hasnt" in json.dumps(s) or '"asked": false' in json.dumps(s) for _, s in scenarios()) >= 20


@pytest.mark.parametrize(("name", "scenario"), scenarios(), ids=[name for name, _ in scenarios()])
async def test_scenario(name: str, scenario: Json, tmp_path: Path) -> None:
    del name
    for file, text in scenario.get("files", {}).items():
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(0o600)
    guarded = Guarded(scenario["policy"], tmp_path, api=scenario.get("api"), env=scenario.get("env"))
    for number, exchange in enumerate(scenario["exchanges"]):
        guarded.clock.wall += exchange.get("after_s", 0)
        guarded.upstream.seen.clear()
        upstream = exchange.get("upstream", {})
        guarded.upstream.answer = lambda seen, given=upstream: reply(given)
        for _ in range(exchange.get("times", 1)):
            answered = await send(guarded, exchange["send"])
        check(f"exchange {number}", exchange.get("expect", {}), answered)  # pyright: ignore[reportPossiblyUnboundVariable]  # times >= 1
        check_upstream(f"exchange {number}", upstream, guarded.upstream.seen)


async def send(guarded: Guarded, given: Json) -> Answered:
    headers = [(k.lower().encode(), str(v).encode()) for k, v in given.get("headers", {}).items()]
    body = encoded(given)
    return await guarded.ask(given.get("method", "POST"), given["path"], body, headers, given.get("peer", "192.0.2.1"))


def encoded(given: Json) -> bytes:
    if "json" in given:
        return json.dumps(given["json"]).encode()
    if "base64" in given:
        return base64.b64decode(given["base64"])
    return given.get("text", "").encode()


def reply(given: Json) -> Reply:
    if "fails" in given:
        raise UpstreamError("the model cannot be reached", reached=given["fails"] != "unreached")
    headers = [(k.lower().encode(), str(v).encode()) for k, v in given.get("headers", {}).items()]
    return Reply(given.get("status", 200), headers, encoded(given))


def check(where: str, expected: Json, answered: Answered) -> None:
    text = answered.body.decode(errors="replace")
    assert answered.status == expected.get("status", 200), f"{where}: {text}"
    if "json" in expected:
        assert json.loads(answered.body) == expected["json"], where
    for part in expected.get("has", []):
        assert part in text, where
    for part in expected.get("hasnt", []):
        assert part not in text, where
    for name, value in expected.get("headers", {}).items():
        assert answered.headers.get(name) == value, f"{where}: {answered.headers}"
    if "content-length" in answered.headers:
        assert int(answered.headers["content-length"]) == len(answered.body)


def check_upstream(where: str, given: Json, seen: list[Seen]) -> None:
    if "asked" in given:
        assert bool(seen) is given["asked"], where
    if "saw" in given:
        for part in given["saw"]:
            assert part in seen[-1].body.decode() + repr(seen[-1].headers) + seen[-1].target.decode(), where
    for part in given.get("saw_not", []):
        assert part not in seen[-1].body.decode() + repr(seen[-1].headers) + seen[-1].target.decode(), where
