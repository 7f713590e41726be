"""What the model said, and what the client gets of it.

A codec reads an upstream's answer into an `Answer`: a list of `Prediction`s (score matrices, each with the place that
it was read from) and of `LabelSlot`s (places that repeat the label). The engine turns each prediction into a
`Release` and writes it back through the same places, so that labels, scores and every copy of them agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from guard.model.arrays import Bools, Floats, Ints
from guard.model.text import Piece

Shape = Literal["fixed", "sparse", "two_class", "top_score"]
"""How scores stand in the answer:

* `fixed`: n rows of k numbers; a dropped score reads 0.
* `sparse`: maps or lists of (label, score); a dropped score leaves, and so does its label.
* `two_class`: one number a row, the second class's probability; `scores` holds (n, 2) all the same.
* `top_score`: one number a row that repeats the greatest score of the first prediction; takes what that one releases.
"""


@dataclass(slots=True)
class Release:
    """What the client gets of one prediction.

    Args:
        scores: shape (n, k).
        kept: shape (n, k), False where a score was dropped (it is 0 there, of logprobs -9999); None when all are kept.
        labels_only: no row carries more than its label.
    """

    scores: Floats
    kept: Bools | None = None
    labels_only: bool = False


@dataclass(slots=True)
class Prediction:
    """One score matrix of an answer.

    Args:
        name: where it was read, for messages: a tensor's name or a JSON path.
        scores: shape (n, k), float64.
        write: puts a release back where the scores were read from. Called at most once, with scores of the same shape.
        shape: how the scores stand in the answer.
        complete: rows are whole distributions (a top-5 list is not).
        rows: which of the request's rows these are, shape (n,); None for all in order.
        labels: of `sparse`: each row's labels in the order of its columns, or None where nothing names them.
    """

    name: str
    scores: Floats
    write: Callable[[Release], None]
    shape: Shape = "fixed"
    complete: bool = True
    rows: Ints | None = None
    labels: Sequence[Sequence[str]] | None = None


@dataclass(slots=True)
class LabelSlot:
    """A place that repeats the label.

    Args:
        name: where it is, for messages.
        write: puts labels back; gets the column of the released argmax per row, shape (n,). Only called when an argmax
            has changed, which policies allow only with `classes` declared.
    """

    name: str
    write: Callable[[Ints], None]


@dataclass(slots=True)
class Answer:
    """An upstream's answer, decoded.

    Args:
        rows: how many rows it answers.
        predictions: score matrices, the principal one first.
        labels: places that repeat the label.
        dropped: names of members that `fields: known` left out.
        document: the codec's own decoded form, which `write` changes and `render` encodes.
        relabel: labels in it are another answer's (one model's of an ensemble), so every one is written anew.
        around: says what is let out beside scores and labels (the model's name and version); None for nothing.
        headers: response headers that the API's clients need beside Content-Type (Inference-Header-Content-Length).
        pieces: generated text that it adds, with its log-probabilities; such an answer has no predictions.
        choices: texts that it has answered so far or adds to, at most: more than were charged are withheld.
        usage: how many tokens have been generated so far, all choices together, as upstream counts; None: unsaid.
    """

    rows: int
    document: object
    predictions: list[Prediction] = field(default_factory=list[Prediction])
    labels: list[LabelSlot] = field(default_factory=list[LabelSlot])
    dropped: list[str] = field(default_factory=list[str])
    relabel: bool = False
    around: Callable[[], bytes] | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    pieces: list[Piece] = field(default_factory=list[Piece])
    choices: int = 0
    usage: int | None = None
