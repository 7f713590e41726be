"""How far the information meter is from a strong clone: `python -m tests.benchmarks.meter`, some minutes on one core.

Data that ship in packages (digits, breast cancer, Fair's affairs); a third trains the victim (softmax, network,
regression, tree). The meter and the strong clone see the same released answers, exact, on a grid of .05 and as four
levels, and each is judged on held-out queries of its own. The strong clone is the best of ridge on log scores, logistic
regression and extra trees. `--seed` chooses the split and the queries. Printed: Spearman correlation with the strong
clone's agreement of the meter and of the number of answers, and what the meter understates by.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from guard.defences.base import Batch, Defence
from guard.defences.grid import Grid
from guard.defences.levels import Levels
from guard.engine.randomness import QueryNoise
from guard.evidence.meter import MARGIN, Meter, MeterBase
from guard.model.arrays import Floats, Ints
from guard.model.queries import Queries
from guard.selftest.lab.data import affairs, breast_cancer, digits, untyped

COUNTS = (12, 30, 60, 100, 300, 1000)
DEFENCES: dict[str, Defence | None] = {"exact": None, "grid .05": Grid(step=0.05), "levels": Levels()}
UNUSED = QueryNoise(b"\0" * 32, "", "", Queries(1, [[0.0]]), None)


@dataclass(frozen=True)
class Domain:
    """A victim, and records that it was not trained on.

    Args:
        name: of the table's row.
        records: standardised, shape (n, m).
        victim: a fitted scikit-learn classifier.
    """

    name: str
    records: Floats
    victim: Any  # scikit-learn has no types

    def answers(self, x: Floats) -> Floats:
        """Return probabilities, shape (n, K)."""
        return np.asarray(self.victim.predict_proba(x), dtype=np.float64)


def domains(seed: int) -> list[Domain]:
    """Train the victims."""
    linear, trees, nets = untyped("sklearn.linear_model"), untyped("sklearn.tree"), untyped("sklearn.neural_network")
    made: list[Domain] = []
    for name, (x, y), victim in (
        ("digits softmax", digits(), linear.LogisticRegression(max_iter=500, C=0.1)),
        ("digits network", digits(), nets.MLPClassifier((32,), max_iter=200, random_state=seed)),
        ("breast cancer regression", breast_cancer(), linear.LogisticRegression(max_iter=500)),
        ("affairs tree", affairs()[:2], trees.DecisionTreeClassifier(max_depth=8, min_samples_leaf=10)),
    ):
        order = np.random.default_rng(seed).permutation(len(x))
        third, spread = len(x) // 3, x.std(axis=0)
        z = ((x - x.mean(axis=0)) / np.maximum(spread, 1e-6 * spread.max()))[order]
        made.append(Domain(name, z[third:], victim.fit(z[:third], y[order][:third])))
    return made


def streams(domain: Domain, rng: np.random.Generator, n: int) -> dict[str, Floats]:
    """Return queries of several clients, each of shape (n, m)."""
    pool = domain.records[: len(domain.records) // 2]
    width = pool.shape[1]
    low, high = pool.min(axis=0), pool.max(axis=0)
    direction: Floats = rng.standard_normal((width,))
    along: Floats = (pool - pool.mean(axis=0)) @ direction
    few = pool[rng.integers(len(pool), size=n // 50 + 1)]
    return {
        "records": pool[rng.integers(len(pool), size=n)],
        "narrow": pool[rng.choice(np.argsort(along)[-len(pool) // 5 :], size=n)],
        "marginals": np.stack([rng.choice(pool[:, j], size=n) for j in range(width)], axis=1),
        "uniform": rng.uniform(low, high, (n, width)),
        "averaging": np.repeat(few, 50, axis=0)[:n],
        "differences": np.repeat(few, 50, axis=0)[:n] + 0.1 * rng.standard_normal((n, width)),
    }


def released(defence: Defence | None, scores: Floats) -> Floats:
    """Return what a client gets."""
    if defence is None:
        return scores
    return defence.apply(Batch(scores, scores.argmax(axis=1), "probabilities"), UNUSED, b"").scores


def _share(labels: Ints, top: Ints) -> float:
    """Return how often labels agree."""
    return int(np.count_nonzero(np.equal(labels, top))) / len(top)


def strong(x: Floats, scores: Floats, held_out: Floats, top: Ints) -> float:
    """Return the agreement of the best of several copies."""
    linear, ensemble = untyped("sklearn.linear_model"), untyped("sklearn.ensemble")
    labels = scores.argmax(axis=1)
    logs: Floats = linear.Ridge(0.01).fit(x, np.log(np.clip(scores, 1e-3, 1.0))).predict(held_out)
    found = [float(np.bincount(top).max() / len(top)), _share(logs.argmax(axis=1), top)]
    if len(set(labels.tolist())) > 1:
        for copy in (linear.LogisticRegression(max_iter=200, C=10), ensemble.ExtraTreesClassifier(60, random_state=0)):
            predicted: Ints = copy.fit(x, labels).predict(held_out)
            found.append(_share(predicted, top))
    return max(found)


def measure(domain: Domain, defence: Defence | None, seed: int) -> tuple[Floats, Floats, Floats]:
    """Return readings, strong clones' agreements and numbers of answers, over all streams and counts."""
    rng = np.random.default_rng(seed + 1000)
    kept = domain.records[len(domain.records) // 2 :][:1500]
    mine, theirs = kept[::2], kept[1::2]
    tops = [np.asarray(domain.answers(x).argmax(axis=1), dtype=np.int64) for x in (mine, theirs)]
    base = MeterBase(mine, tops[0], domain.answers(mine[:1]).shape[1], b"benchmark")
    rows: list[tuple[float, float, float]] = []
    for x in streams(domain, rng, max(COUNTS)).values():
        scores = released(defence, domain.answers(x))
        meter, done = Meter(base), 0
        for n in COUNTS:
            for i in range(done, n):
                meter.add(x[i : i + 1], scores[i : i + 1])
            rows.append((meter.reading, strong(x[:n], scores[:n], theirs, tops[1]), n))
            done = n
    columns = np.asarray(rows).T
    return columns[0], columns[1], columns[2]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=41)
    seed = parser.parse_args().seed
    warnings.simplefilter("ignore")  # copies that have not converged are what a thief has, too
    rank = untyped("scipy.stats").spearmanr
    print(
        f"seed {seed}; margin {MARGIN}\n| domain | answers | meter | count | gap mean | gap p95 | within the margin |"
    )
    print("|---|---|---|---|---|---|---|")
    for domain in domains(seed):
        for name, defence in DEFENCES.items():
            reading, agreement, count = measure(domain, defence, seed)
            gap = agreement - reading
            ranks = f"{rank(reading, agreement)[0]:.2f} | {rank(count, agreement)[0]:.2f}"
            gaps = f"{gap.mean():.2f} | {np.quantile(gap, 0.95):.2f} | {np.mean(gap <= MARGIN):.2f}"
            print(f"| {domain.name} | {name} | {ranks} | {gaps} |", flush=True)


if __name__ == "__main__":
    main()
