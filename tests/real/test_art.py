"""Guard's attacks against the Adversarial Robustness Toolbox's own, on the same models, straight and through Guard.

Both columns see the same inputs, ask the same server over HTTP, each as an account of its own, and are judged by the
undefended model and the true members, which neither has. Budgets are left out: ART's attacks know no refusal.
`pytest -s` prints the table; `docs/selftest.md` keeps a copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from guard.policy.load import load_policy
from guard.selftest import processes
from guard.selftest.attacks.evasion import inputs, reach
from guard.selftest.attacks.hopskipjump import HopSkipJump
from guard.selftest.attacks.knockoff import Knockoff, foreign
from guard.selftest.attacks.membership_shadow import MembershipShadow
from guard.selftest.attacks.registry import attack_named
from guard.selftest.base import Outcome, Tally, World
from guard.selftest.cell import Cell, Way, lab_world, run_cell
from guard.selftest.lab.registry import victim
from guard.selftest.measures import Floats, auc
from guard.selftest.transplant import choose_route, key, transplant
from tests.support.processes import client, venv_of

pytestmark = pytest.mark.real
SEED = 0
POINTS = 0.05
CLOSE = 0.025
"""For the L1 of copies of graded answers, which is about .05 itself. That of copies of labels alone moves by some .02
with the draw of a copy's first weights, Guard's and scikit-learn's alike, and is held to the five points."""
IMAGES = 150
FEW, TIGHT = 400, 0.4
"""Queries for an image, and a share of the distance between classes, at which HopSkipJump does not always succeed."""
POLICIES = ("balanced", "label-only")
WAYS = ("undefended", *POLICIES)
FLOOR = "label floor"
ATTACKS = ("knockoff", "hopskipjump", "membership_shadow", "membership_threshold", "membership_label_only")
ART_DEFAULTS = {"first": 100, "iterations": 50}
Document = dict[str, Any]  # Any: the client's JSON document


@dataclass(frozen=True)
class Pair:
    """One figure of Guard's beside ART's."""

    attack: str
    metric: str
    way: str
    art_attack: str
    guard: float
    art: float

    def __str__(self) -> str:
        figures = f"{self.guard:.3f}  {self.art:.3f}  {100 * (self.guard - self.art):+6.1f}"
        return f"{self.attack:22} {self.metric:21} {self.way:11} {figures}  {self.art_attack}"


@dataclass(frozen=True)
class Lab:
    """The lab's server and Guards before it, and how both sides' attacks are started."""

    urls: Mapping[str, str]
    folder: Path
    python: Path
    pool: ThreadPoolExecutor

    def guards(self, attack: str, way: str, changes: dict[str, object] | None = None) -> Outcome:
        """Run one of Guard's attacks."""
        kinds: dict[str, Way] = {"undefended": "undefended", FLOOR: "label_only"}
        url = self.urls.get(way, self.urls["undefended"])
        model = attack_named(attack).victim
        done = run_cell(Cell(attack, kinds.get(way, "defended"), "", SEED, model, url, url, changes=changes or {}))
        assert done.outcome is not None, done.reason
        return done.outcome

    def arts(self, attack: str, way: str, arrays: Mapping[str, object]) -> Future[Document]:
        """Start one of ART's attacks."""
        path = self.folder / f"{attack}-{way}-{len(list(self.folder.iterdir()))}.npz"
        known: Any = {**arrays, "seed": SEED}  # Any: numpy takes its own options by keyword, too
        np.savez(path, **known)
        return self.pool.submit(client, self.python, "art", attack, self.urls[way], str(path), "--api-key", key(1))

    def world(self, attack: str) -> World:
        """Return an attack's world, for what it knows and draws."""
        cell = Cell(attack, "undefended", "", SEED, attack_named(attack).victim, self.urls["undefended"])
        return lab_world(cell, Tally(), lambda share, what: None)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("art")
    python = venv_of("art")
    with ExitStack() as stack:
        urls = {"undefended": stack.enter_context(processes.lab(SEED))}
        for name in POLICIES:
            policy = load_policy(name, env=os.environ).policy
            placed = folder / name
            placed.mkdir()
            knows = victim("digits_mlp", SEED).knows  # the presets bound no inputs, so any model's knowledge will do
            written = transplant(policy, choose_route(policy, None), knows, budgets=False).write(placed)
            urls[name] = stack.enter_context(processes.guard(str(written), urls["undefended"], placed))[0]
        pool = ThreadPoolExecutor(2)
        stack.callback(pool.shutdown, cancel_futures=True)
        yield Lab(urls, folder, python, pool)


@pytest.fixture(scope="module")
def pairs(lab: Lab) -> list[Pair]:
    """All figures; ART's attacks run while Guard's do."""
    waiting = [start(lab) for start in (hopskipjump, knockoff, membership)]
    found = [pair for finish in waiting for pair in finish()]
    print(f"\n{'attack':22} {'metric':21} {'way':11} Guard  ART    points  ART's attack")
    print("\n".join(map(str, found)))
    return found


def hopskipjump(lab: Lab) -> Callable[[], list[Pair]]:
    attack, world = HopSkipJump(), lab.world("hopskipjump")
    x, y = inputs(world, IMAGES)
    near, tight = reach(world.judge, attack.share), reach(world.judge, TIGHT)
    arrays = of(world) | {
        "images": x, "labels": y, "limit": attack.limit, "iterations": attack.iterations, "first": attack.first,
        "low": world.knows.low, "high": world.knows.high, "enough": near,
    }  # fmt: skip
    running = {way: lab.arts("hopskipjump", way, arrays) for way in WAYS}
    tightly = lab.arts("hopskipjump", "undefended", arrays | {"enough": tight})
    shipped = lab.arts("hopskipjump", "undefended", arrays | ART_DEFAULTS)

    def won(document: Document, bound: float, limit: int = attack.limit) -> float:
        examples = np.array(document["examples"], dtype=np.float64)
        wrong = world.judge.truth(examples).argmax(axis=1) != y
        within = np.linalg.norm(examples - x, axis=1) <= bound
        return float((wrong & within & (np.array(document["spent"]) <= limit)).mean())

    def own(way: str, **changes: object) -> float:
        return value(lab.guards("hopskipjump", way, {"images": IMAGES, **changes}), "success")

    def pair(metric: str, way: str, guard: float, art: float, whose: str = "Guard's") -> Pair:
        return Pair("hopskipjump", metric, way, f"HopSkipJump, {whose} parameters", guard, art)

    def finish() -> list[Pair]:
        found: list[Pair] = []
        for way in WAYS:
            document = running[way].result()
            found.append(pair("success", way, own(way), won(document, near)))
            found.append(pair(f"success, {FEW} queries", way, own(way, limit=FEW), won(document, near, FEW)))
        found.append(pair(f"success, share {TIGHT}", WAYS[0], own(WAYS[0], share=TIGHT), won(tightly.result(), tight)))
        found.append(pair("success", WAYS[0], found[0].guard, won(shipped.result(), near), "ART's"))
        return found

    return finish


def knockoff(lab: Lab) -> Callable[[], list[Pair]]:
    attack, world = Knockoff(), lab.world("knockoff")
    test = cast("Floats", world.judge.test_x)
    truth = world.judge.truth(test)
    photographs = foreign(world.knows, attack.queries, world.rng("queries"))
    arrays = of(world) | {
        "pool": photographs, "test": test, "high": float(world.knows.high.max()), "queries": attack.queries,
        "hidden": attack.hidden, "epochs": attack.epochs,
    }  # fmt: skip
    running = {way: lab.arts("knockoff", way, arrays) for way in WAYS}

    def both(way: str, document: Document, how: str) -> list[Pair]:
        own, copy = lab.guards("knockoff", way), np.array(document[how], dtype=np.float64)
        art = {
            "agreement": float((copy.argmax(axis=1) == truth.argmax(axis=1)).mean()),
            "surrogate_l1": float(np.abs(copy - truth).sum(axis=1).mean()),
        }
        title = f"KnockoffNets, use_probability={how == 'answers'}"
        return [Pair("knockoff", metric, way, title, value(own, metric), figure) for metric, figure in art.items()]

    def finish() -> list[Pair]:
        found = [pair for way in WAYS for pair in both(way, running[way].result(), "answers")]
        return [*found, *both(FLOOR, running["undefended"].result(), "labels")]

    return finish


def membership(lab: Lab) -> Callable[[], list[Pair]]:
    world = lab.world("membership_shadow")
    extra, count = world.knows.extra, MembershipShadow().shadows
    truth = np.asarray(world.judge.secret("members"), dtype=bool)
    arrays = of(world) | {
        "candidates": extra["candidates_x"], "recorded": extra["candidates_y"],
        "shadows": cast("tuple[str, ...]", extra["shadows"])[:count],
        "shadow_members": cast("Floats", extra["shadow_members"])[:count],
    }  # fmt: skip
    running = {way: lab.arts("membership", way, arrays) for way in WAYS}
    mates = {
        "prediction, gb": "membership_shadow",
        "prediction, rf": "membership_shadow",
        "loss, lr": "membership_threshold",
        "rule": "membership_label_only",
    }

    def finish() -> list[Pair]:
        found: list[Pair] = []
        for way in WAYS:
            # The rule is what `membership_label_only` knows before it asks noisy copies.
            own = {name: lab.guards(name, way, {"copies": 1}) for name in sorted(set(mates.values()))}
            figures = {name: value(outcome, "auc") for name, outcome in own.items()}
            rule = next(t for t in own["membership_label_only"].tries if t.how == "its label alone")
            figures["membership_label_only"] = rule.measures["auc"].value
            for how, name in mates.items():
                art = auc(np.array(running[way].result()[how]), truth)
                title = f"MembershipInferenceBlackBox{'RuleBased' if how == 'rule' else f', {how}'}"
                found.append(Pair(name, "auc", way, title, figures[name], art))
        return found

    return finish


def of(world: World) -> dict[str, object]:
    return {"model": world.knows.name, "size": world.knows.size, "classes": world.knows.classes}


def value(outcome: Outcome, metric: str) -> float:
    """Return the published attack's figure: ART's attackers have not read Guard's source either."""
    return outcome.best(metric, plain=True).measures[metric].value


@pytest.mark.parametrize(("attack", "way"), [*product(ATTACKS, WAYS), ("knockoff", FLOOR)])
def test_figures_agree_with_arts(pairs: list[Pair], attack: str, way: str) -> None:
    found = [pair for pair in pairs if (pair.attack, pair.way) == (attack, way)]
    assert found
    for pair in found:
        close = pair.metric == "surrogate_l1" and way in ("undefended", "balanced")
        assert abs(pair.guard - pair.art) <= (CLOSE if close else POINTS), str(pair)


@pytest.mark.parametrize("attack", ATTACKS)
def test_arts_attacks_meet_guards_criteria_on_undefended_models(pairs: list[Pair], attack: str) -> None:
    # Two attacks that fail agree as well.
    for criterion in attack_named(attack).control:
        found = [p for p in pairs if (p.attack, p.metric, p.way) == (attack, criterion.metric, "undefended")]
        assert found
        assert all(criterion.met(pair.art) and criterion.met(pair.guard) for pair in found), found


def test_a_membership_rule_is_the_same_number_in_both(pairs: list[Pair]) -> None:
    rules = [pair for pair in pairs if pair.attack == "membership_label_only"]
    assert len(rules) == len(WAYS)
    assert all(pair.guard == pytest.approx(pair.art, abs=1e-12) for pair in rules)


def test_same_seeds_and_labels_give_same_successes_whatever_the_scores(pairs: list[Pair]) -> None:
    figures = {
        way: [(p.metric, p.guard, p.art) for p in pairs if p.way == way and "Guard's" in p.art_attack] for way in WAYS
    }
    assert len(figures["balanced"]) == 2
    assert figures["balanced"] == figures["label-only"] == figures["undefended"][:2]
