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
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from guard.cli.common import fail

if TYPE_CHECKING:
    from rich.console import Console

    from guard.selftest.extraction import Floats

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
    if find_spec("sklearn") is None:
        return fail("the demo needs scikit-learn", hint='pip install "model-guard[demo]"', code=3)
    # Whatever ends the demo ends its children too, which a terminal's Ctrl-C does not reach.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        try:
            return _demo(args, stack)
        except (RuntimeError, OSError) as error:
            return fail(str(error), code=3)


def _demo(args: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    from rich.console import Console

    say, out = Console(stderr=True), Console(highlight=False)
    began = time.monotonic()
    with say.status("training a softmax regression on 898 handwritten digits and serving it"):
        model = stack.enter_context(child([sys.executable, "-m", "guard.selftest.lab", "--seed", str(args.seed)]))
        port = _first_line(model.stdout).strip()
        if not port.isdigit():
            raise RuntimeError("the model server did not start")
    upstream = f"http://127.0.0.1:{port}"
    with say.status(f"putting Guard in front of it with the policy {args.policy}"):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="guard-demo-"))
        guarded, admin = stack.enter_context(guard(args.policy, upstream, Path(folder)))
    _compare(out, upstream, guarded, args.seed)
    _thefts(out, say, upstream, guarded, args.seed)
    out.print(f"\nAll of it in {time.monotonic() - began:.0f} s. Where things listen:")
    out.print(f"  the model            {upstream}\n  Guard                {guarded}\n  metrics and policy   {admin}")
    if args.once:
        return 0
    out.print("\nAsk it yourself; Ctrl-C ends everything:\n" + _curl(guarded), soft_wrap=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    return 0


@contextlib.contextmanager
def child(command: list[str], stderr: int | None = None, patience_s: float = 10.0) -> Generator[subprocess.Popen[str]]:
    """Start a process that ends with this context: by itself, or killed when it takes longer than `patience_s`."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(  # noqa: S603 -- our own interpreter and modules
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def guard(policy: str, upstream: str, folder: Path) -> Generator[tuple[str, str]]:
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


def _compare(out: Console, upstream: str, guarded: str, seed: int) -> None:
    """Print the same query's answer with and without Guard, side by side."""
    from rich.table import Table

    from guard.selftest.extraction import ModelApi
    from guard.selftest.lab import Digits

    held_x = Digits(seed).split[4]
    columns: list[list[float]] = []
    for url in (upstream, guarded):
        api = ModelApi(url)
        columns.append(api.scores(held_x[:1])[0].tolist())
        api.close()
    table = Table(title="One image, asked twice: the score of each digit", title_justify="left", title_style="bold")
    table.add_column("digit", justify="right")
    table.add_column("the model itself")
    table.add_column("through Guard")
    for digit, (open_, defended) in enumerate(zip(*columns, strict=True)):
        table.add_row(str(digit), repr(open_), repr(defended))
    out.print(table)


def _thefts(out: Console, say: Console, upstream: str, guarded: str, seed: int) -> None:
    """Steal the model with and without Guard, and print how close the copies come."""
    from rich.table import Table

    from guard.selftest.extraction import ModelApi, agreement, fits, surrogate_l1
    from guard.selftest.lab import Digits

    digits = Digits(seed)
    _, _, own_x, own_y, held_x, _ = digits.split
    api = ModelApi(upstream)
    truth = api.scores(held_x)
    api.close()
    table = Table(title="\nThe same theft twice: how close the copy comes", title_justify="left", title_style="bold")
    for heading, justify in (
        ("the attacker asks", "left"),
        ("answers", "right"),
        ("agreement", "right"),
        ("distance", "right"),
        ("copied by", "left"),
    ):
        table.add_column(heading, justify=justify)  # pyright: ignore[reportArgumentType]  # rich's literals
    own = digits.fit(own_x, own_y).predict_proba(held_x / 16.0)
    table.add_row("nobody: own labels", "0", f"{agreement(own, truth):.1%}", f"{surrogate_l1(own, truth):.3f}", "")
    for title, url in (("the model itself", upstream), ("through Guard", guarded)):
        x, y = _ask(say, title, url, seed)
        # The best of all copies counts, judged by the truth: no attacker could choose better.
        copies = [(surrogate_l1(copy.probabilities(held_x), truth), copy) for copy in fits(x, y, 16.0)]
        distance, best = min(copies, key=lambda pair: pair[0])
        agreed = agreement(best.probabilities(held_x), truth)
        table.add_row(title, str(len(x)), f"{agreed:.1%}", f"{distance:.3f}", best.method)
    out.print(table)
    out.print(
        "Equation solving (Tramèr 2016) on a softmax regression with 650 unknowns; measured\n"
        "on 450 images that neither has seen. Distance: mean L1 between the copy's and the\n"
        "model's probabilities; 0.000 is the model itself, higher is safer. Agreement flatters\n"
        "every defence: who labels images of their own agrees almost as often. No change of\n"
        "answers stops a copy that may ask for ever; a budget does: guard demo --policy strict",
        soft_wrap=True,
    )


def _ask(say: Console, title: str, url: str, seed: int) -> tuple[Floats, Floats]:
    """Run the attack's queries against one URL."""
    import numpy as np
    from rich.progress import Progress

    from guard.selftest.extraction import ModelApi, harvest

    api, rng = ModelApi(url), np.random.default_rng(seed)
    with Progress(console=say, transient=True) as progress:
        task = progress.add_task(f"the attacker asks {title}", total=QUERIES)
        done = harvest(api.scores, QUERIES, 0.0, 16.0, 64, rng, lambda n: progress.update(task, completed=n))
    api.close()
    return done


def _curl(url: str) -> str:
    pixels = ",".join(["0", "8", "16", "8"] * 16)
    body = f'{{"inputs":[{{"name":"x","datatype":"FP64","shape":[1,64],"data":[{pixels}]}}]}}'
    return f"  curl -s {url}/v2/models/digits/infer -d '{body}'"
