"""Ten teachers on disjoint shards of digits, served for real, and Guard in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from guard.model.arrays import Floats
from tests.support.clients import Answered, KeepAlive, admin, spent
from tests.support.processes import Guard, guard
from tests.support.teachers import Served, parts, scores_in, serving, teachers

ANYBODY = "address:127.0.0.1"
TARGET = "/v2/models/digits/infer"
CLASSES = "outputs: {kind: probabilities, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}"
PLAIN = f"""version: 1
name: plain
routes:
  - {{name: digits, api: open_inference, {CLASSES}, ensemble: {{aggregate: AGGREGATE, quorum: 8, wait_s: 5}}}}
"""
PRIVATE = f"""version: 1
name: private
routes:
  - name: digits
    api: open_inference
    {CLASSES}
    ensemble: {{aggregate: mean, quorum: 7, wait_s: 0.05}}
    privacy: {{claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: 1437}}
    defences: [{{kind: dp_gaussian, noise_multiplier: 20}}]
    budgets: [{{kind: privacy, per: model, epsilon: 8, delta: 1.0e-5}}]
"""
LOUD = f"""version: 1
name: loud
routes:
  - name: digits
    api: open_inference
    {CLASSES}
    ensemble: {{aggregate: mean, quorum: QUORUM, wait_s: 2}}
    defences: [{{kind: dp_gaussian, noise_multiplier: 1}}]
"""


class Crowd:
    """Ten teachers in three processes: t0 to t5, t6 to t8, t9."""

    def __init__(self, processes: list[Served]) -> None:
        self.processes = processes
        self.home = {name: served for served in processes for name in served.names}

    @property
    def upstreams(self) -> str:
        return " ".join(url for served in self.processes for url in served.upstreams)

    def tell(self, **modes: str) -> None:
        for name, mode in modes.items():
            self.home[name].tell(name, mode)

    def scores(self, rows: Floats, *names: str) -> Floats:
        """Return what each teacher says itself, shape (m, n, 10)."""
        return np.stack([self.home[name].scores(name, rows) for name in names or self.home])


@contextmanager
def crowd(folder: Path) -> Generator[Crowd]:
    trained = teachers(10)
    with ExitStack() as stack:
        cuts = ((0, 6), (6, 9), (9, 10))
        yield Crowd([stack.enter_context(serving(folder / f"s{a}", trained[a:b], a)) for a, b in cuts])


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with crowd(tmp_path_factory.mktemp("ten")) as made:
        yield made


@pytest.fixture
def fine(ten: Crowd) -> Crowd:
    """Ten teachers that all behave."""
    ten.tell(**dict.fromkeys(ten.home, "fine"))
    return ten


def ask(running: Guard, rows: Floats, client: str = "") -> Answered:
    async def once() -> Answered:
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        async with KeepAlive(running.port, client) as connection:
            return await connection.ask(TARGET, {"inputs": [tensor]})

    return asyncio.run(once())


def paid(running: Guard) -> int:
    return spent(running, ANYBODY, "privacy/model")


HELD = parts()[2]


def policy(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def test_the_mean_of_ten_models_is_released_and_failing_ones_are_left_out(fine: Crowd, tmp_path: Path) -> None:
    rows = HELD[:20]
    with guard(policy(tmp_path, PLAIN.replace("AGGREGATE", "mean")), fine.upstreams, tmp_path) as running:
        whole = fine.scores(rows)
        assert np.allclose(scores_in(ask(running, rows).body), whole.mean(axis=0), rtol=0, atol=1e-12)
        fine.tell(t3="text", t9="error")
        rest = np.delete(whole, [3, 9], axis=0)
        assert np.allclose(scores_in(ask(running, rows).body), rest.mean(axis=0), rtol=0, atol=1e-12)
        fine.tell(t5="wide")
        refused = ask(running, rows)
        assert (refused.status, refused.json["error"]) == (502, "the models' answers have different forms")


def test_a_vote_releases_the_label_of_most_models_only(fine: Crowd, tmp_path: Path) -> None:
    rows = HELD[:40]
    with guard(policy(tmp_path, PLAIN.replace("AGGREGATE", "vote")), fine.upstreams, tmp_path) as running:
        tops = fine.scores(rows).argmax(axis=2)
        votes = np.stack([(tops == label).sum(axis=0) for label in range(10)], axis=1)
        released = scores_in(ask(running, rows).body)
        assert (released.argmax(axis=1) == votes.argmax(axis=1)).all()
        assert np.isin(released, (0.0, 1.0)).all()
        assert (released.sum(axis=1) == 1).all()


def test_what_is_charged_does_not_depend_on_who_answers(fine: Crowd, tmp_path: Path) -> None:
    with guard(policy(tmp_path, PRIVATE), fine.upstreams, tmp_path) as running:
        assert ask(running, HELD[:1]).status == 200
        each = paid(running)
        assert each > 0
        for place, modes in enumerate(({"t0": "nan"}, {"t1": "outside"}, {"t2": "slow"}), start=1):
            fine.tell(**modes)
            assert ask(running, HELD[place : place + 1]).status == 200
            assert paid(running) == (place + 1) * each
        assert ask(running, HELD[:4]).status == 200  # remembered
        assert paid(running) == 4 * each
        fine.tell(t3="wide")
        refused = ask(running, HELD[4:5])
        assert refused.status == 502
        assert paid(running) == 5 * each  # models have seen it, so it stays charged


@pytest.mark.lab
def test_noise_is_that_of_the_quorum_whoever_answers(fine: Crowd, tmp_path: Path) -> None:
    """Mean distance of 1,797 releases from the answering models' mean; ratios vary by 2%. Control: a lower quorum."""
    rows = np.concatenate([HELD, parts()[0]])

    def distance(quorum: int, *names: str) -> float:
        folder = tmp_path / f"{quorum} {len(names)}"
        folder.mkdir()
        with guard(policy(folder, LOUD.replace("QUORUM", str(quorum))), fine.upstreams, folder) as running:
            released = scores_in(ask(running, rows).body)
        return float(np.abs(released - fine.scores(rows, *names).mean(axis=0)).sum(axis=1).mean())

    ten, five = distance(8), distance(5)
    fine.tell(t4="nan", t8="slow")
    eight = distance(8, *[f"t{i}" for i in range(10) if i not in (4, 8)])
    assert eight == pytest.approx(ten, rel=0.12)
    assert five > 1.25 * ten


def test_killed_models_are_missed_and_below_the_quorum_nothing_is_answered(tmp_path: Path) -> None:
    with crowd(tmp_path) as ten, guard(policy(tmp_path, PRIVATE), ten.upstreams, tmp_path) as running:
        assert ask(running, HELD[:1]).status == 200
        each = paid(running)
        ten.processes[2].kill()
        assert ask(running, HELD[1:2]).status == 200
        assert admin(running, "/readyz").status == 200
        ten.processes[1].kill()
        refused = ask(running, HELD[2:3])
        assert (refused.status, refused.json["error"]) == (502, "too few models answered")
        assert paid(running) == 3 * each
        why = admin(running, "/readyz").json["checks"]["upstream"]["why"]
        assert why.startswith("6 of 10 models answer; not t6 (upstream cannot be reached), t7 (")
        assert why.endswith("; quorum 7")
        assert ask(running, HELD[:1]).status == 200  # what was paid for is still given, and needs no model
        ten.processes[0].kill()
        assert ask(running, HELD[3:4]).status == 502  # written to a connection that was about to break, perhaps
        before = paid(running)
        assert ask(running, HELD[4:5]).status == 502
        assert paid(running) == before  # nobody saw it, so it was given back
