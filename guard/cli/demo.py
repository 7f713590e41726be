"""`guard demo`: the first minute. A real model, Guard in front of it, one query twice, one theft twice."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import fail, one_thread

if TYPE_CHECKING:
    from rich.console import Console

HELP = "train a model, guard it, and steal it with and without Guard"
EPILOG = """example:
  guard demo            # under a minute, then keeps serving until Ctrl-C
  guard demo --once     # stop after the report
"""
ATTACK, MODEL = "equation_solving_softmax", "digits"
QUERIES = 650


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--once", action="store_true", help="stop after the report instead of serving on")
    parser.add_argument("--seed", type=int, default=0, help="of the data split and the attack (default: %(default)s)")
    parser.add_argument("--policy", default="balanced", help="preset or file to guard with (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    one_thread()
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

    from guard.policy.load import load_policy
    from guard.selftest import processes
    from guard.selftest.transplant import model_urls, shards_of

    shards = shards_of(load_policy(args.policy, env=os.environ).policy.routes[0].ensemble)
    say, out = Console(stderr=True), Console(highlight=False)
    began = time.monotonic()
    with say.status("training a softmax regression on 898 handwritten digits and serving it"):
        upstream = stack.enter_context(processes.lab(args.seed))
    with say.status(f"putting Guard in front of it with the policy {args.policy}"):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guard-demo-")))
        served = processes.guard(args.policy, model_urls(upstream, shards), folder, "--api", "open_inference")
        guarded, admin = stack.enter_context(served)
    _compare(out, upstream, guarded, args.seed)
    _thefts(out, say, upstream, guarded, args.seed)
    out.print(f"\nAll of it in {time.monotonic() - began:.0f} s. Where things listen:")
    out.print(f"  the model            {upstream}\n  Guard                {guarded}\n  console and metrics  {admin}")
    if args.once:
        return 0
    with contextlib.suppress(KeyboardInterrupt):  # as soon as it is said
        out.print("\nAsk it yourself; Ctrl-C ends everything:\n" + _curl(guarded), soft_wrap=True)
        signal.pause()
    return 0


def _compare(out: Console, upstream: str, guarded: str, seed: int) -> None:
    """Print the same query's answer with and without Guard, side by side."""
    from rich.table import Table

    from guard.selftest.api import HttpApi, OpenInference
    from guard.selftest.lab.registry import victim

    model = victim(MODEL, seed)
    columns: list[list[float]] = []
    for url in (upstream, guarded):
        api = HttpApi(url, OpenInference(MODEL), model.knows.classes)
        columns.append(api.ask(model.test_x[:1])[0].tolist())
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

    from guard.selftest.cell import Cell, Way, run_cell

    table = Table(title="\nThe same theft twice: how close the copy comes", title_justify="left", title_style="bold")
    for heading, justify in (
        ("the attacker asks", "left"),
        ("answers", "right"),
        ("agreement", "right"),
        ("distance", "right"),
        ("copied by", "left"),
    ):
        table.add_column(heading, justify=justify)  # pyright: ignore[reportArgumentType]  # rich's literals
    thefts: tuple[tuple[str, Way, str], ...] = (
        ("nobody: own labels", "zero_query", upstream),
        ("the model itself", "undefended", upstream),
        ("through Guard", "defended", guarded),
    )
    for title, way, url in thefts:
        with say.status(f"the attacker asks {title}"):
            cell = Cell(ATTACK, way, "", seed, MODEL, url, changes={"queries": QUERIES, "draws": "uniform"})
            done = run_cell(cell)
        if done.outcome is None:
            raise RuntimeError(done.reason)
        # The best of all copies counts, judged by the truth: no attacker could choose better.
        best = done.outcome.best("surrogate_l1")
        distance, agreed = best.measures["surrogate_l1"].value, best.measures["agreement"].value
        table.add_row(
            title, str(done.tally.rows), f"{agreed:.1%}", f"{distance:.3f}", best.how if done.tally.rows else ""
        )
    out.print(table)
    out.print(
        "Equation solving (Tramèr 2016) on a softmax regression with 650 unknowns; measured\n"
        "on 450 images that neither has seen; the best of three ways to draw 650 queries and of\n"
        "every fit counts, as the truth judges them. Distance: mean L1 between the copy's and the\n"
        "model's probabilities; 0.000 is the model itself, higher is safer. Agreement flatters\n"
        "every defence: who labels images of their own agrees almost as often. No change of\n"
        "answers stops a copy that may ask for ever; a budget does: guard demo --policy strict\n"
        "All attacks, on your own policy: guard selftest --policy POLICY",
        soft_wrap=True,
    )


def _curl(url: str) -> str:
    pixels = ",".join(["0", "8", "16", "8"] * 16)
    body = f'{{"inputs":[{{"name":"x","datatype":"FP64","shape":[1,64],"data":[{pixels}]}}]}}'
    return f"  curl -s {url}/v2/models/digits/infer -d '{body}'"
