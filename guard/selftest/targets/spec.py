"""What a worker is told about a model that is not the lab's. All of it pickles; rows stay in their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from guard.selftest.targets.wires import Wire

Scale = Literal["", "softmax", "exp"]


class TargetError(ValueError):
    """What was said about the target cannot be used: a mistake of usage.

    Args:
        problems: a sentence each.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Layout:
    """How a model's answers are read as scores, as a look at some of them showed.

    Args:
        classes: number of classes; 1 for a value.
        labels: the classes' names by column; empty when they have none.
        numbers: the numbers by which answers name the classes, by column; empty when these are the columns.
        scores: the member with the scores, or with the label when that is all; empty when unknown.
        graded: answers hold more than labels.
        lone: members that hold one probability a row, of the second class of two.
        lone_is_top: they hold that of the class that is named beside them.
        scale: what turns the members into probabilities: nothing, softmax (logits), exp (log-probabilities).
    """

    classes: int = 0
    labels: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    scores: str = ""
    graded: bool = True
    lone: tuple[str, ...] = ()
    lone_is_top: bool = False
    scale: Scale = ""

    def column(self, label: object) -> int | None:
        """Return the column of a class, by its name or number; None for one that the model does not have.

        >>> Layout(2, ("ham", "spam")).column("spam"), Layout(3).column(2), Layout(3).column(7)
        (1, 2, None)
        """
        name = str(label)
        if name in self.labels:
            return self.labels.index(name)
        if not isinstance(label, int | float) or isinstance(label, bool) or label != int(label):
            return None
        number = int(label)
        if self.numbers:
            return self.numbers.index(number) if number in self.numbers else None
        if self.labels and all(_is_number(known) for known in self.labels):
            return None
        return number if 0 <= number < self.classes else None


@dataclass(frozen=True)
class Files:
    """Where the operator's rows are.

    Args:
        queries: held-out rows, one JSON value a line.
        members: rows that trained the model; empty when the queries' own `member` says it, or nothing does.
        non_members: rows of the same kind that did not.
    """

    queries: str
    members: str = ""
    non_members: str = ""


@dataclass(frozen=True)
class TargetSpec:
    """A model that is not the lab's, as a worker needs it.

    Args:
        kind: `own`: Guard is started by the self-test; `live`: it runs already.
        files: where rows are.
        wire: how it is asked.
        layout: how its answers are read.
        batch: most rows a request.
        upstream: URL of the model itself; empty when there is none to ask.
        upstream_headers: what its requests carry.
        headers: what requests to the live Guard carry: the key and the mark.
        limit: most rows that one cell may ask; None for no limit.
        held: most held-out rows, which are asked for every figure.
        cache: folder of answers that were asked for to measure; empty for none.
    """

    kind: Literal["own", "live"]
    files: Files
    wire: Wire
    layout: Layout
    batch: int = 32
    upstream: str = ""
    upstream_headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    limit: int | None = None
    held: int = 500
    cache: str = ""


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdigit()
