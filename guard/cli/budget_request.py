"""What `guard budget plan` is asked: from options to a request whose numbers fit together."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context
from typing import TYPE_CHECKING, Literal, cast

from guard.cli.common import Exit
from guard.errors import InvariantError
from guard.policy.suggest import did_you_mean
from guard.privacy.planner import MOST_EPSILON

if TYPE_CHECKING:
    from guard.budgets.base import Per
    from guard.defences.mechanism import Mechanism
    from guard.model.outputs import Outputs
    from guard.privacy.events import Event

MECHANISMS: tuple[str, ...] = (
    "dp_gaussian", "dp_laplace", "noisy_max", "noisy_vote", "exponential", "randomised_response",
)  # fmt: skip
OF_AN_EPSILON = ("exponential", "randomised_response")
"""Mechanisms whose noise is given as the epsilon of one answer."""
KINDS = ("probabilities", "value", "embedding")
PERS = ("client", "group", "model")
USUAL_DELTA = 1e-6


class Unplannable(Exception):
    """Nothing can be planned from what was asked.

    Args:
        message: why.
        hint: what to do.
        code: the command's exit code.
    """

    def __init__(self, message: str, hint: str = "", code: int = Exit.USAGE) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


@dataclass(frozen=True, slots=True)
class Request:
    """A plan to be made.

    Args:
        mechanism: its name; `noisy_vote` stands in the ensemble, the others in defences.
        outputs: the scores' domain.
        teachers: models trained on disjoint shards; 1 for a single one.
        quorum: how many of them must answer.
        per: whose budget it is.
        records: training records, or None.
        epsilon: of the budget; None is to be solved.
        delta: of the budget.
        delta_from: where delta comes from when it was not given.
        answers: how many; None is to be solved.
        noise: the mechanism's parameter; None is to be solved.
    """

    mechanism: str
    outputs: Outputs
    teachers: int
    quorum: int
    per: Per
    records: int | None
    epsilon: float | None
    delta: float
    delta_from: str
    answers: int | None
    noise: float | None

    @property
    def parameter(self) -> Literal["noise_multiplier", "epsilon"]:
        """The mechanism's parameter that sets its noise."""
        return "epsilon" if self.mechanism in OF_AN_EPSILON else "noise_multiplier"

    @property
    def columns(self) -> int:
        """Scores a row, as a route of these outputs would have them accounted for."""
        from guard.policy.private import columns
        from guard.policy.schema import Route

        return columns(Route(outputs=self.outputs))

    def bound(self, noise: float) -> Mechanism:
        """Return the mechanism with so much noise, bound to these outputs.

        Raises:
            Unplannable: it does not suit them, or nothing bounds them.
        """
        from pydantic import ValidationError

        from guard.defences import DEFENCES
        from guard.defences.mechanism import Mechanism

        kind = "noisy_max" if self.mechanism == "noisy_vote" else self.mechanism
        try:
            made = DEFENCES[kind].model_validate({"kind": kind, self.parameter: noise})
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise Unplannable(f"{self.parameter} {noise:g} is out of bounds: {why}") from error
        if not isinstance(made, Mechanism):
            raise InvariantError(f"{kind} is no mechanism")
        for problem in made.check(self.outputs, None):
            raise Unplannable(problem.message, problem.hint)
        try:
            return made.bind(self.outputs, self.quorum, self.columns)
        except ValueError as error:
            raise Unplannable(str(error), "another range of values") from error

    def event(self, noise: float) -> Event:
        """Return what one answer costs."""
        return self.bound(noise).event()


def read(args: argparse.Namespace, columns: int | None) -> Request:
    """Return the request that options make.

    Args:
        args: the command's.
        columns: of the data that were given; None without any.

    Raises:
        Unplannable: they contradict each other, or do not say enough.
    """
    mechanism = _known("--mechanism", str(args.mechanism), MECHANISMS)
    kind = _known("--outputs", str(args.outputs), KINDS)
    noise = _noise(args, mechanism)
    given = {"--epsilon": args.epsilon, "--answers": args.answers, _noise_option(mechanism): noise}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) != 1:
        names = ", ".join(given)
        what = "nothing is left to plan" if not missing else f"{' and '.join(missing)} are missing"
        raise Unplannable(f"give two of {names}: {what}", "guard budget plan --epsilon 8 --answers 1000 --teachers 100")
    for name in ("--epsilon", "--answer-epsilon"):
        if (given.get(name) or 0.0) > MOST_EPSILON:
            raise Unplannable(f"{name} is at most {MOST_EPSILON:g}, and above 10 it promises little", f"{name} 8")
    teachers, quorum = _ensemble(args, mechanism)
    delta, delta_from = _delta(args.delta, args.records)
    return Request(
        mechanism=mechanism,
        outputs=_outputs(args, kind, columns),
        teachers=teachers,
        quorum=quorum,
        per=cast("Per", _known("--per", str(args.per), PERS)),
        records=args.records,
        epsilon=args.epsilon,
        delta=delta,
        delta_from=delta_from,
        answers=args.answers,
        noise=noise,
    )


def _known(option: str, word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        raise Unplannable(f"{option}: there is no {word or '(empty)'}", did_you_mean(word, known))
    return word


def _noise_option(mechanism: str) -> str:
    return "--answer-epsilon" if mechanism in OF_AN_EPSILON else "--noise-multiplier"


def _noise(args: argparse.Namespace, mechanism: str) -> float | None:
    wanted = _noise_option(mechanism)
    other = "--noise-multiplier" if wanted == "--answer-epsilon" else "--answer-epsilon"
    given = {"--noise-multiplier": args.noise_multiplier, "--answer-epsilon": args.answer_epsilon}
    if given[other] is not None:
        raise Unplannable(f"{mechanism} takes {wanted}, not {other}", f"write {wanted}")
    return cast("float | None", given[wanted])


def _ensemble(args: argparse.Namespace, mechanism: str) -> tuple[int, int]:
    """Return how many teachers there are, and how many must answer."""
    teachers: int | None = args.teachers
    quorum: int | None = args.quorum
    if teachers is None and quorum is not None:
        raise Unplannable("--quorum is of an ensemble, and nothing says how large it is", "add --teachers K")
    if teachers is None:
        if mechanism == "noisy_vote":
            hint = "add --teachers K, or plan --mechanism noisy_max for a single model"
            raise Unplannable("noisy_vote is a vote of teachers", hint)
        return 1, 1
    quorum = teachers if quorum is None else quorum
    if quorum > teachers:
        raise Unplannable(f"--quorum {quorum} is more than there are teachers", f"at most {teachers}")
    if teachers > 4096:
        raise Unplannable("an ensemble has at most 4,096 teachers", "--teachers 4096")
    return teachers, quorum


def _delta(delta: float | None, records: int | None) -> tuple[float, str]:
    """Return delta, and where it comes from when it was not given."""
    if delta is not None:
        if delta >= 1:
            raise Unplannable(f"--delta {delta:g} is no probability below 1", "below 1 / number of training records")
        if records is not None and delta * records >= 1:
            hint = f"at most {0.1 / records:.1g}, for {records:,} records"
            raise Unplannable("delta is no smaller than 1 / records: giving whole records away would meet it", hint)
        return delta, ""
    if records is not None:
        # Rounded down, so that a round number is never above a tenth of 1 / records.
        tenth = float(Context(prec=1, rounding=ROUND_FLOOR).create_decimal_from_float(0.1 / records))
        return tenth, f"0.1 / {records:,} records, rounded down"
    return USUAL_DELTA, "the default; --records makes it 0.1 / records"


def _outputs(args: argparse.Namespace, kind: str, columns: int | None) -> Outputs:
    from pydantic import ValidationError

    from guard.model.outputs import Outputs

    bounds = {"low": args.low, "high": args.high}
    if kind == "value":
        if args.low is None or args.high is None or not args.low < args.high:
            raise Unplannable("values need a range: nothing bounds them otherwise", "--low 0 --high 5, low below high")
    elif args.low is not None or args.high is not None:
        raise Unplannable(f"--low and --high are of --outputs value, not of {kind}", "drop them, or --outputs value")
    if kind == "embedding" and args.norm is None:
        raise Unplannable("embeddings need a greatest norm: nothing bounds them otherwise", "--norm 1")
    if kind != "embedding" and args.norm is not None:
        raise Unplannable(f"--norm is of --outputs embedding, not of {kind}", "drop it, or --outputs embedding")
    classes = _classes(args.classes, columns) if kind == "probabilities" else None
    given = {"kind": kind, **bounds, "norm": args.norm, "classes": classes}
    try:
        return Outputs.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise Unplannable(f"--{first['loc'][0]}: {first['msg']}", f"another --{first['loc'][0]}") from error


def _classes(written: str | None, columns: int | None) -> tuple[str | int, ...]:
    """Return the classes: given by number or by name, or as many as the data have, or ten."""
    if written is None:
        return tuple(range(columns or 10))
    if written.isdecimal():
        named: tuple[str | int, ...] = tuple(range(int(written)))
    else:
        named = tuple(name.strip() for name in written.split(","))
    if not 2 <= len(named) <= 4096 or len(set(named)) < len(named) or "" in named:
        raise Unplannable(
            "--classes is a number from 2 to 4096, or as many names", "--classes 10, or --classes cat,dog"
        )
    if columns is not None and len(named) != columns:
        raise Unplannable(f"--classes says {len(named)}, and the data have {columns} columns", f"--classes {columns}")
    return named
