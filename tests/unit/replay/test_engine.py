"""Replays through the product's own handler: from bodies, from sketches, and what they say they cannot do."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard.calibrate.read import read_logs
from guard.detectors import DETECTORS
from guard.detectors.base import Features, Sample
from guard.detectors.profile import encode
from guard.detectors.sketch import Sketch
from guard.evidence.bodies import Asked, Said
from guard.model.exchange import Reply
from guard.replay.engine import Engine
from guard.replay.run import check_secret, of_seed, open_traffic, replay
from guard.replay.sketched import MISSING, decimals
from guard.replay.traffic import Nothing, ReplayError, Wanted
from guard.telemetry.recorder import NameKey, Recorder
from tests.support.fakes import Seen as Asking
from tests.support.profiles import a_profile
from tests.support.replays import (
    REAL,
    Sent,
    body_of,
    compared,
    engine_sees,
    plan_of,
    policy_file,
    record,
    some,
)
from tests.support.traffic import SKETCH, honest

LIMITED = """version: 1
routes:
  - inputs: {kind: vector, size: 6, low: -9, high: 9}
    defences: [{kind: round, decimals: 1}]
    budgets: [{kind: rows, per: client, limit: 20, window: 24h}]
"""


def words(directory: Path, policy: str | Path, kind: str = "bodies") -> Counter[str]:
    seen, _ = engine_sees(directory, policy, "bodies" if kind == "bodies" else "sketches")
    return Counter("left out" if one is None else one.word for one in seen)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    outside = np.full((1, 6), 99.0)
    rubbish = [Sent(1, body=b'{"inputs": [}'), Sent(2, outside)]
    return record(folder, [*some(30), *rubbish], headers=((b"authorization", b"Bearer key-of-alice"),))


@pytest.mark.parametrize("kind", ["bodies", "sketches"])
def test_a_budget_runs_out_where_it_would_have(recorded: Path, tmp_path: Path, kind: str) -> None:
    found = words(recorded, policy_file(tmp_path, LIMITED), kind)
    # 20 rows a client are five requests of four; a sketch is left of what could be read alone.
    assert (found["allow"], found["deny"]) == (15, 15)
    assert found["refuse"] == (2 if kind == "bodies" else 1)


def test_windows_go_by_the_recorded_clock(recorded: Path, tmp_path: Path) -> None:
    policy = policy_file(tmp_path, LIMITED.replace("24h", "6s").replace("limit: 20", "limit: 4"))
    # Each client asks every third second: once in a window of six seconds there is room, then no more.
    assert words(recorded, policy)["allow"] in (15, 16, 17, 18)


def test_scores_shift_as_the_defence_makes_them(recorded: Path, tmp_path: Path) -> None:
    seen, _ = engine_sees(recorded, policy_file(tmp_path, LIMITED))
    shifts = [one.shift for one in seen if one is not None and one.word == "allow"]
    assert 0.0 < max(shifts) <= 5 * 0.1
    sketched, _ = engine_sees(recorded, policy_file(tmp_path, LIMITED), "sketches")
    assert np.allclose([one.shift for one in sketched if one is not None and one.word == "allow"], shifts, atol=1e-5)


def test_shadow_says_what_it_would_do(recorded: Path, tmp_path: Path) -> None:
    enforced = words(recorded, policy_file(tmp_path, LIMITED))
    shadow = words(recorded, policy_file(tmp_path, LIMITED.replace("version: 1", "version: 1\nmode: shadow")))
    assert enforced["deny"] == shadow["deny"] == 15
    assert enforced["refuse"] == shadow["refuse"] == 2


def test_what_no_route_opens_is_closed(recorded: Path, tmp_path: Path) -> None:
    closed = LIMITED.replace("  - inputs", "  - match: {path: /v2/models/other/infer}\n    inputs")
    seen, _ = engine_sees(recorded, policy_file(tmp_path, closed))
    assert {one.code for one in seen if one is not None} == {"closed"}


def test_nothing_is_left_of_credentials_cookies_and_names(recorded: Path) -> None:
    data = b"".join(repr(asked).encode() for asked in open_traffic([recorded], "bodies", Wanted()))
    for word in (b"alice", b"Bearer", b"cookie", b"session", b"192.0.2"):
        assert word not in data


def test_the_models_own_refusals_are_not_the_policys(tmp_path: Path) -> None:
    def refusing(seen: Asking) -> Reply:
        del seen
        return Reply(400, [], b"no")

    directory = record(tmp_path, some(3), say=refusing)
    result = compared(directory, "balanced")
    assert result.comparison.moved == {("failed", "failed"): 3}
    assert result.comparison.figures()["refused"] == 0


def test_exceptions_find_their_clients_with_the_secret_alone(tmp_path: Path) -> None:
    directory = record(tmp_path, some(6))
    text = (
        LIMITED
        + "    detectors: default\n    exceptions: [{client: 'address:192.0.2.1', until: 2100-01-01, reason: x}]\n"
    )
    plan = plan_of(policy_file(tmp_path, text))
    pseudonym = check_secret(REAL, open_traffic([directory], None, Wanted()).source)
    assert pseudonym is not None
    known, unknown = Engine(plan, REAL.key, pseudonym), Engine(plan, of_seed(0).key)
    assert (known.unmatched, unknown.unmatched) == (0, 1)
    detection = known.plan.routes[0].detection
    assert detection is not None
    assert list(detection.exempt) == [pseudonym("address:192.0.2.1")]
    clients = {request.client for request in open_traffic([directory], "bodies", Wanted())}
    assert pseudonym("address:192.0.2.1") in clients


def test_another_secret_is_refused(recorded: Path) -> None:
    other = of_seed(1)._replace(real=True)
    with pytest.raises(ReplayError, match="not the one"):
        check_secret(other, open_traffic([recorded], None, Wanted()).source)


def test_time_route_and_limit_choose(recorded: Path) -> None:
    whole = list(open_traffic([recorded], "bodies", Wanted()))
    first = whole[0].now_s
    assert [one.now_s for one in whole] == sorted(one.now_s for one in whole)
    assert len(list(open_traffic([recorded], "bodies", Wanted(since_s=first + 5, until_s=first + 9)))) == 4
    assert len(list(open_traffic([recorded], "sketches", Wanted(limit=7)))) == 7
    assert len(list(open_traffic([recorded], "bodies", Wanted(route="default", limit=7)))) == 7
    assert not list(open_traffic([recorded], "bodies", Wanted(route="other")))
    with pytest.raises(Nothing, match="route other"):
        open_traffic([recorded], "sketches", Wanted(route="other"))
    with pytest.raises(Nothing, match="in that time"):
        open_traffic([recorded], "bodies", Wanted(since_s=first + 1e6))


def test_nothing_recorded_is_said(tmp_path: Path) -> None:
    with pytest.raises(Nothing, match="nothing is recorded"):
        open_traffic([tmp_path], None, Wanted())
    directory = record(tmp_path, some(2), bodies=False)
    with pytest.raises(Nothing, match="record-bodies"):
        open_traffic([directory], "bodies", Wanted())
    assert open_traffic([directory], None, Wanted()).source.kind == "sketches"


def test_files_that_were_cut_off_are_read_up_to_there(tmp_path: Path) -> None:
    directory = record(tmp_path, some(5))
    for file in directory.iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    for kind in ("bodies", "sketches"):
        traffic = open_traffic([directory], "bodies" if kind == "bodies" else "sketches", Wanted())
        assert any("left out" in doubt for doubt in traffic.source.doubts)
        assert len(list(traffic)) >= 4


def test_another_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.bodies").write_bytes(b"hello\n")
    with pytest.raises(ReplayError, match=r"x\.bodies"):
        open_traffic([tmp_path], None, Wanted())


def test_long_vectors_and_texts_count_by_their_sketches(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    point = rng.normal(size=(1, 100)).round(3)
    sent = [Sent(1, rng.normal(size=(2, 100)).round(3)) for _ in range(5)] + [Sent(1, point) for _ in range(5)]
    directory = record(tmp_path, sent)
    text = (
        "version: 1\nroutes:\n  - inputs: {kind: vector, size: 100, low: -9, high: 9}\n    detectors: default\n"
        "    budgets: [{kind: information, graded_answers: 11}, {kind: rows, limit: 100}]\n"
    )
    exact, _ = engine_sees(directory, policy_file(tmp_path, text))
    sketched, engine = engine_sees(directory, policy_file(tmp_path, text), "sketches")
    assert [one and one.word for one in exact] == [one and one.word for one in sketched]
    # Eleven distinct queries: the repeated one is paid for once.
    assert {one.word for one in sketched if one is not None} == {"allow"}
    assert engine.missing["domain"] == 15
    assert engine.missing["vectors"] == 0
    assert set(engine.missing) <= set(MISSING)


@pytest.mark.parametrize("own", [True, False])
def test_sketches_are_held_against_a_profile_that_was_made_of_their_like(tmp_path: Path, own: bool) -> None:
    rng = np.random.default_rng(4)
    directory = record(tmp_path, [Sent(1, rng.normal(size=(4, 100)).round(3)) for _ in range(24)])
    traffic = list(open_traffic([directory], "sketches", Wanted()))
    assert not isinstance(traffic[0], Asked)
    sketch = Sketch.model_validate(traffic[0].header.sketch)
    honest_rows = [Features(np.zeros((40, 9), dtype=np.uint32), rng.normal(size=(40, 64)), True) for _ in range(8)]
    learnt = DETECTORS["mahalanobis"](kind="mahalanobis").learn(Sample(honest_rows, [None] * 8, 0))
    profile = replace(
        a_profile(64),
        sketch=sketch if own else sketch.model_copy(update={"salt": "00" * 16}),
        mean=np.full(64, -50.0),  # so that nobody here looks like them
        references={"repeats": {}, "mahalanobis": learnt},
    )
    (tmp_path / "p.json").write_bytes(encode(profile))
    text = "version: 1\nroutes:\n  - detectors: [{kind: repeats}, {kind: mahalanobis}]\n    profile: p.json\n"
    (whole, exact), (part, engine) = (
        engine_sees(directory, policy_file(tmp_path, text), kind) for kind in ("bodies", "sketches")
    )
    assert engine.missing["vectors"] == (0 if own else 96)
    assert exact.missing["vectors"] == 0
    if own:
        assert [one and (one.word, one.entered, one.spoke) for one in whole] == [
            one and (one.word, one.entered, one.spoke) for one in part
        ]
        assert any(one.spoke for one in part if one is not None)


def test_a_mechanism_of_differential_privacy_is_replayed_from_bodies_alone(tmp_path: Path) -> None:
    directory = record(tmp_path, some(2))
    text = (
        "version: 1\nroutes:\n  - outputs: {kind: probabilities, classes: [a, b, c, d, e]}\n"
        "    ensemble: {aggregate: noisy_vote, quorum: 3, noise_multiplier: 10}\n"
        "    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 50000}\n"
        "    budgets: [{kind: privacy, per: model, epsilon: 8, delta: 1.0e-6, then: deny}]\n"
    )
    policy = policy_file(tmp_path, text)
    seen, engine = engine_sees(directory, policy, "sketches")
    assert seen == [None, None]
    assert engine.missing["private"] == 8
    (why,) = engine.skipped
    assert "needs bodies" in why
    seen, engine = engine_sees(directory, policy)
    assert seen == [None, None]
    assert engine.skipped == {"recorded from one model and not several": 2}

    several = Engine(plan_of(policy), REAL.key)
    said = Said(200, [(b"content-type", b"application/json")], b"")
    asked = [request for request in open_traffic([directory], "bodies", Wanted()) if isinstance(request, Asked)]
    answers = tuple(said._replace(body=one.body) for one in asked[0].said * 3 if one is not None)
    rng = np.random.default_rng(5)

    async def spend() -> list[str]:
        paid, repeated = [await several.ask(asked[0]._replace(said=answers)) for _ in range(2)]
        assert paid is not None
        assert repeated is not None
        assert paid.charged
        assert not repeated.charged  # what was paid for is remembered, and given again
        found: list[str] = []
        for _ in range(80):
            seen = await several.ask(asked[0]._replace(body=body_of(rng.normal(size=(4, 6))), said=answers))
            assert seen is not None
            found.append(seen.word)
        return found

    spent = asyncio.run(spend())
    assert (spent[0], spent[-1]) == ("allow", "deny")


def test_each_model_of_an_ensemble_is_recorded_and_asked_again(tmp_path: Path) -> None:
    text = "version: 1\nroutes:\n  - outputs: {kind: probabilities}\n    ensemble: {aggregate: mean, quorum: 2}\n"
    directory = record(tmp_path, some(3), text)
    asked = [request for request in open_traffic([directory], "bodies", Wanted()) if isinstance(request, Asked)]
    assert [len(one.said) for one in asked] == [2, 2, 2]
    assert {one.mode for one in asked} == {"enforce"}
    assert words(directory, policy_file(tmp_path, text)) == {"allow": 3}
    _, engine = engine_sees(directory, "balanced")
    assert engine.skipped == {"recorded from several models": 3}
    result = compared(directory, policy_file(tmp_path, text))
    assert result.enforced == 3
    _, sketched = engine_sees(directory, "balanced", "sketches")
    assert sketched.missing["enforced"] == 12


def test_two_policies_are_compared_request_by_request(recorded: Path, tmp_path: Path) -> None:
    old = policy_file(tmp_path, LIMITED, "old.yaml")
    new = policy_file(tmp_path, LIMITED.replace("limit: 20", "limit: 8").replace("decimals: 1", "decimals: 0"))
    c = compared(recorded, new, old, "bodies").comparison
    assert c.moved["allow", "deny"] == 9
    assert c.moved["deny", "deny"] == 15
    assert c.new.shifts.mean > c.old.shifts.mean > 0
    assert c.figures()["refused_more"] == pytest.approx(9 / 32)
    assert sum(client.changed > 0 for client in c.clients.values()) == 3
    same = compared(recorded, old, old, "bodies").comparison
    assert same.figures()["verdicts_changed"] == 0


def test_a_cancelled_replay_has_the_figures_until_then(recorded: Path) -> None:
    traffic = open_traffic([recorded, *[recorded / f.name for f in recorded.glob("*.bodies")] * 3], "bodies", Wanted())

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None

        def stop(done: int) -> None:
            del done
            task.cancel()

        plans = (None, plan_of("strict"))
        result = await replay(traffic, plans, ("recorded", "strict"), REAL, stop)
        assert result.partial
        return result.comparison.requests

    assert asyncio.run(run()) == 32
    assert len(traffic) == 4 * 32


def test_a_route_that_the_policy_has_not_is_named(recorded: Path, tmp_path: Path) -> None:
    two = "version: 1\nroutes:\n" + "".join(
        f"  - name: {name}\n    match: {{path: /v2/models/{name}/infer}}\n" for name in ("a", "b")
    )
    with pytest.raises(ReplayError, match="no route default, only a, b"):
        engine_sees(recorded, policy_file(tmp_path, two), "sketches")


def test_a_directory_with_bodies_still_calibrates(recorded: Path) -> None:
    logs = read_logs([recorded])
    assert sum(map(len, logs.clients)) == 121
    assert len(logs.clients) == 3


def test_decimals_are_what_a_client_most_likely_wrote() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).round(4)
    assert decimals(rows.astype(np.float32)) == rows.tolist()


def test_pseudonyms_are_those_of_the_recorder(recorded: Path) -> None:
    names = NameKey(b"another key")
    clients = {request.client for request in open_traffic([recorded], "bodies", Wanted())}
    sketched = {request.client for request in open_traffic([recorded], "sketches", Wanted())}
    assert clients == sketched
    assert names.pseudonym("address:192.0.2.1") not in clients


def test_requests_are_told_apart_where_several_come_at_one_time(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, b"a key")
    for _ in range(4):
        recorder.note("default", SKETCH, "alice", 1.5, honest(0, 4).features, honest(0, 4).raw, None)
    recorder.close()
    found = [request for request in open_traffic([tmp_path], None, Wanted()) if not isinstance(request, Asked)]
    assert [len(request.records) for request in found] == [4, 4, 4, 4]
