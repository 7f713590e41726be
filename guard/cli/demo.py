"""`guard demo`: the first minute. A real model, Guard in front of it, one query twice, one theft twice."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from guard.cli.common import fail

if TYPE_CHECKING:
    from rich.console import Console

    from guard.selftest.lab import Floats

HELP = "train a model, guard it, and steal it with and without Guard"
EPILOG = """example:
  guard demo            # under a minute, then keeps serving until Ctrl-C
  guard demo --once     # stop after the report
"""
QUERIES = 650


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--once", action="store_true", help="stop after the report instead of serving on")
    parser.add_argument("--seed", type=int, default=0, help="of the data split and the attack (default: %(default)s)")
    parser.add_argument("--policy", default="balanced", help="preset or file to guard with (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    try:
        import sklearn  # noqa: F401, PLC0415
    except ImportError:
        return fail("the demo needs scikit-learn", hint='pip install "model-guard[demo]"', code=3)
    with contextlib.ExitStack() as stack:
        try:
            return _demo(args, stack)
        except (RuntimeError, OSError) as error:
            return fail(str(error), code=3)


@dataclass(frozen=True)
class Stolen:
    """What one theft came to.

    Args:
        l1: mean L1 distance between copy and model on held-out images.
        agreement: share of held-out images on which they agree.
        method: how the copy was fitted; for a theft that was stopped, why.
    """

    l1: float
    agreement: float
    method: str


def _demo(args: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    from rich.console import Console  # noqa: PLC0415

    say = Console(stderr=True)
    began = time.monotonic()
    with say.status("training a softmax regression on 898 handwritten digits and serving it"):
        model = stack.enter_context(child([sys.executable, "-m", "guard.selftest.lab", "--seed", str(args.seed)]))
        port = (model.stdout or sys.stdin).readline().strip()
        if not port.isdigit():
            raise RuntimeError("the model server did not start")
    upstream = f"http://127.0.0.1:{port}"
    with say.status(f"putting Guard in front of it with the policy {args.policy}"):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="guard-demo-"))
        guarded, admin = stack.enter_context(guard(args.policy, upstream, Path(folder)))
    _compare(say, upstream, guarded, args.seed)
    _thefts(say, upstream, guarded, args.seed)
    say.print(f"\n[dim]{time.monotonic() - began:.0f} s in all. The model:[/dim] {upstream}")
    say.print(f"[dim]Guard:[/dim] {guarded}  [dim]metrics, policy, clients:[/dim] {admin}")
    if args.once:
        return 0
    say.print("Serving until Ctrl-C. Try the query again yourself:\n" + _curl(guarded))
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    return 0


@contextlib.contextmanager
def child(command: list[str], stderr: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start a process that ends with this context."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter and modules
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def guard(policy: str, upstream: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Start `guard serve` on free ports; yields its URL and its admin URL."""
    command = [sys.executable, "-m", "guard", "serve", "--policy", policy, "--api", "open_inference"]
    command += ["--upstream", upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    command += ["--state", f"sqlite:{folder / 'guard.db'}", "--log-level", "error"]
    with child(command, stderr=subprocess.PIPE) as process:
        line = _first_line(process.stderr)
        found = re.search(r"guarded on (http://\S+), admin on (http://\S+)", line)
        if found is None:
            rest = process.stderr.read() if process.stderr else ""
            raise RuntimeError(f"guard did not start: {line}{rest}")
        yield found[1], found[2]


def _first_line(stream: IO[str] | None) -> str:
    return stream.readline() if stream is not None else ""


def _compare(say: Console, upstream: str, guarded: str, seed: int) -> None:
    """Print the same query's answer with and without Guard, side by side."""
    from rich.columns import Columns  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415

    from guard.selftest.extraction import ModelApi  # noqa: PLC0415
    from guard.selftest.lab import Digits  # noqa: PLC0415

    held_x = Digits(seed).split[4]
    shown: list[Panel] = []
    for title, url in (("the model, unguarded", upstream), ("through Guard", guarded)):
        api = ModelApi(url)
        scores = api.scores(held_x[:1])[0]
        api.close()
        rows = "\n".join(f"{digit}  {score!s:<22}" for digit, score in enumerate(scores.tolist()))
        shown.append(Panel(rows, title=title, width=38))
    say.print("\n[bold]One image, asked twice[/bold] (score of each digit)")
    say.print(Columns(shown))


def _thefts(say: Console, upstream: str, guarded: str, seed: int) -> None:
    """Steal the model with and without Guard, and print how close the copies come."""
    from rich.table import Table  # noqa: PLC0415

    from guard.selftest.extraction import ModelApi, agreement, surrogate_l1  # noqa: PLC0415
    from guard.selftest.lab import Digits  # noqa: PLC0415

    digits = Digits(seed)
    _, _, own_x, own_y, held_x, _ = digits.split
    api = ModelApi(upstream)
    truth = api.scores(held_x)
    api.close()
    own = digits.fit(own_x, own_y).predict_proba(held_x / 16.0)
    rows = [("no query at all (labels 449 images of its own)", Stolen(surrogate_l1(own, truth), agreement(own, truth), "trained"))]
    for title, url in (("650 queries to the model", upstream), ("650 queries through Guard", guarded)):
        rows.append((title, _steal(say, title, url, seed, truth)))
    table = Table(title="\nHow close the stolen copy comes, on 450 images it has never seen", title_justify="left")
    for heading in ("the attacker asks", "agrees with the model", "mean L1 distance", "copy made by"):
        table.add_column(heading, justify="left" if heading[0] in "tc" and "attacker" in heading else "right")
    for title, stolen in rows:
        table.add_row(title, f"{stolen.agreement:.1%}", f"{stolen.l1:.3g}", stolen.method)
    say.print(table)
    say.print(
        "[dim]Equation solving (Tramèr 2016) on a softmax regression with 650 unknowns. Agreement flatters every defence: whoever\n"
        "labels images of their own agrees almost as often. The distance tells a copy from a lookalike; higher is safer.\n"
        "No change of answers stops a copy that has queries enough: a policy for that has a budget (try --policy strict).[/dim]"
    )


def _steal(say: Console, title: str, url: str, seed: int, truth: Floats) -> Stolen:
    import numpy as np  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from guard.selftest.extraction import ModelApi, agreement, steal, surrogate_l1  # noqa: PLC0415
    from guard.selftest.lab import Digits  # noqa: PLC0415

    api = ModelApi(url)
    with Progress(console=say, transient=True) as progress:
        task = progress.add_task(title, total=QUERIES)
        copy = steal(
            api.scores, QUERIES, 0.0, 16.0, 64, np.random.default_rng(seed), lambda n: progress.update(task, completed=n)
        )
    api.close()
    stolen = copy.probabilities(Digits(seed).split[4])
    return Stolen(surrogate_l1(stolen, truth), agreement(stolen, truth), copy.method)


def _curl(url: str) -> str:
    pixels = ",".join(["0", "8", "16", "8"] * 16)
    body = f'{{"inputs":[{{"name":"x","datatype":"FP64","shape":[1,64],"data":[{pixels}]}}]}}'
    return f"  curl -s {url}/v2/models/digits/infer -d '{body}'"
