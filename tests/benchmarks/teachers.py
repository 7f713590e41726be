"""What privacy costs an ensemble: `python -m tests.benchmarks.teachers`, some ten minutes on two cores.

Digits (UCI, in scikit-learn): 1,437 images train, in disjoint shards of equal size, one a teacher; a teacher is the
nearest neighbour among its images, each also moved by one pixel in four directions. All teachers run in one server
process, each under a base path, and a real `guard serve` with one `--upstream` a teacher stands in front; state in
SQLite, `claim: dp`. A client asks for held-out images over HTTP, one a request: as many as the budget admits, and one
more, which must be refused. Where the budget admits few, a new ledger begins for the next images. Noise is the least
with which that many answers fit. Accuracies carry Wilson's 95% interval; noise is the operating system's, so private
rows differ from run to run by as much.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

from guard.privacy.calibrate import least_noise
from guard.privacy.events import Gaussian
from guard.selftest.measures import Measure, wilson
from tests.support.processes import Guard, guard
from tests.support.teachers import CLASSES, HELD_OUT, Served, parts, request, scores_in, serving, teachers

DELTA = 1e-5
EPSILONS = (1.0, 2.0, 4.0, 8.0)
COUNTS = (10, 25, 50, 100)
ANSWERS = 286
"""As many as PATE answered on MNIST."""
TARGET = "/v2/models/digits/infer"
POLICY = """version: 1
name: teachers
routes:
  - name: digits
    api: open_inference
    inputs: {{kind: vector, size: 64, low: 0, high: 16, step: 1}}
    outputs: {{kind: probabilities, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}
{route}
"""
CLAIM = """    privacy:
      {{claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, records: {records}}}
    budgets: [{{kind: privacy, per: model, epsilon: {epsilon}, delta: {delta}}}]
"""


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Args:
        teachers: how many; 1 is a model of all training images.
        aggregate: `mean`, `vote`, `noisy_vote`; empty for a single model.
        epsilon: of the budget; None for no noise.
    """

    teachers: int
    aggregate: str
    epsilon: float | None

    def policy(self, answers: int) -> str:
        """Return the policy in which `answers` answers use the budget up."""
        lines: list[str] = []
        noisy = "" if self.epsilon is None else f"noise_multiplier: {self.ratio(answers)!r}"
        if self.aggregate:
            inside = f", {noisy}" if self.aggregate == "noisy_vote" else ""
            lines.append(f"    ensemble: {{aggregate: {self.aggregate}, quorum: {self.teachers}, wait_s: 5{inside}}}")
        if noisy and self.aggregate != "noisy_vote":
            lines.append(f"    defences: [{{kind: dp_gaussian, {noisy}}}]")
        if self.epsilon is not None:
            lines.append(CLAIM.format(records=len(parts()[0]), epsilon=self.epsilon, delta=DELTA))
        return POLICY.format(route="\n".join(lines))

    def ratio(self, answers: int) -> float:
        """Return the noise multiplier."""
        return least_noise(Gaussian, self.epsilon or 0.0, DELTA, answers, CLASSES)


@dataclass
class Result:
    """What came of a setting.

    Args:
        right: answers with the right label.
        times_s: of each request.
        cpu_s: Guard's CPU time for all requests.
    """

    right: int = 0
    times_s: list[float] = field(default_factory=list[float])
    cpu_s: float = 0.0

    @property
    def accuracy(self) -> Measure:
        """Share of right labels."""
        return wilson(self.right, len(self.times_s))


def measure(setting: Setting, served: Served, folder: Path, answers: int) -> Result:
    """Serve a setting for real, and ask it until its budget ends, with a new ledger each time that it has ended."""
    result = Result()
    upstream = " ".join(served.upstreams) if setting.aggregate else served.url(served.names[0])
    for start in range(0, max(ANSWERS - answers, 0) + 1, answers):
        place = folder / str(start)
        place.mkdir(parents=True)
        (place / "policy.yaml").write_text(setting.policy(answers))
        with guard(place / "policy.yaml", upstream, place, "--log-level", "error") as running:
            before = cpu_s(running.running.pid)
            ask(running, range(start, start + answers), result)
            result.cpu_s += cpu_s(running.running.pid) - before
            if setting.epsilon is not None and post(running, HELD_OUT - 1)[0] != 429:
                raise AssertionError(f"the budget admits more than {answers} answers")
    return result


def ask(running: Guard, images: range, result: Result) -> None:
    """Ask for held-out images, one a request."""
    labels = parts()[3]
    for image in images:
        began = time.perf_counter()
        status, body = post(running, image)
        result.times_s.append(time.perf_counter() - began)
        if status != 200:
            raise AssertionError(f"{status} for image {image}: {body.decode()}")
        result.right += int(scores_in(body)[0].argmax() == labels[image])


def post(running: Guard, image: int) -> tuple[int, bytes]:
    """Ask for one image; returns status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    try:
        connection.request("POST", TARGET, request(parts()[2][image : image + 1]), {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settings_of(count: int) -> list[Setting]:
    """Return the settings for a number of teachers."""
    aggregates = [("mean", "mean"), ("vote", "noisy_vote")] if count > 1 else [("", "")]
    plain = [Setting(count, without, None) for without, _ in aggregates]
    return plain + [Setting(count, noisy, epsilon) for epsilon in EPSILONS for _, noisy in aggregates]


def row(setting: Setting, result: Result, answers: int) -> str:
    """Return a line of the table."""
    share, shard = result.accuracy, len(parts()[0]) // setting.teachers
    made = {"": "one model", "noisy_vote": "`noisy_vote`"}.get(setting.aggregate, f"`{setting.aggregate}`")
    epsilon, ratio, noise = "none", "", ""
    if setting.epsilon is not None:
        made = made if setting.aggregate == "noisy_vote" else f"{made}, `dp_gaussian`"
        multiplier = setting.ratio(answers)
        sigma = multiplier * sqrt(2) / setting.teachers
        votes = f" ({sigma * setting.teachers:.0f} votes)" if setting.aggregate == "noisy_vote" else ""
        epsilon, ratio, noise = f"{setting.epsilon:g}", f"{multiplier:.4g}", f"{sigma:.3g}{votes}"
    cells = [f"{setting.teachers} ({shard})", made, str(answers), epsilon, ratio, noise]
    cells.append(f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})")
    cells.append(f"{statistics.median(result.times_s) * 1e3:.0f}, {result.cpu_s / len(result.times_s) * 1e3:.1f}")
    return f"| {' | '.join(cells)} |"


HEAD = """| teachers (images each) | answer | answers | epsilon | noise multiplier | sigma | right labels | ms, CPU ms |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=int, nargs="+", default=[1, *COUNTS], help="numbers of teachers")
    parser.add_argument("--answers", type=int, default=ANSWERS, help=f"at most {ANSWERS} (default: %(default)s)")
    args = parser.parse_args()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        for count in args.teachers:
            served = stack.enter_context(serving(folder / f"t{count}", teachers(count)))
            for place, setting in enumerate(settings_of(count)):
                result = measure(setting, served, folder / f"g{count}-{place}", args.answers)
                print(row(setting, result, args.answers), flush=True)


if __name__ == "__main__":
    main()
