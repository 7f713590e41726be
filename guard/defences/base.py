"""What a defence is: a frozen spec with one pure function over a whole batch.

Defences run in the policy's order. Each takes the `Batch` that the one before left, and returns a new one; none
changes its argument's arrays. `top` is the argmax of what the model said: every defence hands on a batch whose
`scores.argmax(axis=1)` is exactly `top` again, so that a label read from the release is the model's. Only noise with
`keep_argmax: false`, `boundary_response` and mechanisms draw another `top`, which the steps after them keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from guard.errors import Problem
from guard.model.arrays import Bools, Floats, Ints, Words
from guard.model.domain import Inputs
from guard.model.outputs import CLASS_KINDS, Kind, Outputs

if TYPE_CHECKING:
    from guard.defences.secret_ngrams import Ngrams

DROPPED_LOGPROB = -9999.0
"""What a dropped log-probability reads where it has to read something: as OpenAI's servers write `unlikely`."""

Reuse = Literal["query", "cell", "none"]
Mode = Literal["shadow", "enforce"]


class Randomness(Protocol):
    """Randomness for the rows of one batch; the engine supplies it, keyed by secret, client and query."""

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        """Return words that are uniform over 0 to 65535, shape (n, width), uint16; fewer are the beginning of more.

        Args:
            reuse: `query`: a function of secret, client and snapped query; `cell`: of the query's coarse cell; `none`:
                fresh.
            width: words a row.
            salt: tells apart defences and predictions that need independent words for the same query.
        """
        ...

    def fresh(self, size: int) -> bytes:
        """Return `size` bytes of the operating system's cryptographic source: for differential privacy."""
        ...

    def constant(self, name: bytes) -> float:
        """Return a secret number in (0, 1): one for all clients, queries and routes of a ledger.

        Args:
            name: tells apart secrets. Never a step's salt: that counts the predictions of an answer, whose number and
                order a client may choose.
        """
        ...

    def own(self, name: bytes, size: int) -> bytes:
        """Return `size` secret bytes that are one client's own: the same for all its queries on a ledger.

        Args:
            name: as for `constant`.
            size: how many; fewer are the beginning of more.
        """
        ...


class Batch(NamedTuple):
    """Scores on their way through the defences.

    Args:
        scores: shape (n, k), float64; finite; probabilities are at least 0. Never changed in place.
        top: first column of the greatest score, shape (n,). Means nothing for values and embeddings.
        kind: what the scores are.
        complete: rows are whole distributions.
        kept: shape (n, k), False where a score was dropped (it is 0 there, of logprobs `DROPPED_LOGPROB`); None when
            all are kept.
        labels_only: no row carries more than its label.
    """

    scores: Floats
    top: Ints
    kind: Kind
    complete: bool = True
    kept: Bools | None = None
    labels_only: bool = False


class Defence(BaseModel, frozen=True):
    """Base of all defences: `kind` names it in YAML, its fields are its parameters.

    Subclasses set `suits`, narrow `kind` to its literal, and implement `apply`.

    Args:
        mode: `shadow` computes and counts what this step would change, and changes nothing.
    """

    model_config = ConfigDict(extra="forbid")

    suits: ClassVar[frozenset[Kind]]
    """Kinds of outputs that it can work on."""
    coarsens: ClassVar[bool] = False
    """It maps scores to fewer values, so noise after it would be seen for what it is."""
    random: ClassVar[bool] = False
    """It draws from `Randomness`."""
    leaves_labels: ClassVar[bool] = False
    """No row carries more than its label behind it."""
    spends: ClassVar[bool] = False
    """It is a mechanism of differential privacy: see `guard.defences.mechanism`."""
    calibrates: ClassVar[bool] = False
    """It learns from calibration answers, which a profile carries."""
    instead: ClassVar[str] = "drop this step"
    """What to write on a route whose outputs it does not suit."""

    kind: str
    mode: Mode = "enforce"

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the batch as this defence leaves it.

        Args:
            batch: what the step before left.
            rng: keyed randomness.
            salt: this step's own, so that two noises in one policy are independent.
        """
        raise NotImplementedError

    def knowing(self, **private: object) -> Self:
        """Return a copy with private attributes set, which type checkers take to be as frozen as the fields."""
        made = self.model_copy()
        for name, value in private.items():
            setattr(made, name, value)
        return made

    def calibrated(self, answers: Floats) -> Defence:
        """Return the defence as calibration answers make it; itself unless it `calibrates`.

        Args:
            answers: whole distributions, shape (r, k); none when there is no profile or it has none.

        Raises:
            ValueError: it cannot do without; the message says what is missing.
        """
        del answers
        return self

    def reads(self) -> tuple[str, ...]:
        """Return the files of hashed documents that it is made with: paths; the loader reads them."""
        return ()

    def having_read(self, documents: Mapping[str, Ngrams]) -> Defence:
        """Return the defence with what its files hold; itself when it `reads` none.

        Args:
            documents: by path.
        """
        del documents
        return self

    def check(self, outputs: Outputs, inputs: Inputs | None) -> list[Problem]:
        """Return what is wrong with these parameters on a route with such outputs and inputs; paths are field names."""
        del inputs
        if outputs.kind in self.suits:
            return []
        return [Problem(f"{self.kind} does not suit outputs of kind {outputs.kind}", "kind", hint=self.instead)]


class Cleared(NamedTuple):
    """What a scanner lets out.

    Args:
        text: may leave now, redactions made.
        upto: characters of the text, counted from its beginning as they were fed, that `text` and all before it deal
            with; what lies behind them waits.
        redacted: spans of the text, in the same count, that left as a redaction in this step, merged and in order.
        ends: the answer ends here: nothing that follows may leave.
    """

    text: str
    upto: int
    redacted: tuple[tuple[int, int], ...] = ()
    ends: bool = False


class Scanner(Protocol):
    """Looks through one text as it is generated; holds back no more than its bound, at most 1,024 characters."""

    def feed(self, text: str, *, last: bool) -> Cleared:
        """Take what is added to the text, and say what may leave.

        Args:
            text: what is added.
            last: nothing follows, so nothing may wait.
        """
        ...

    def completes(self, token: str) -> bool:
        """Say whether a candidate that was not chosen would have completed something that must not leave.

        Args:
            token: what it would have added behind all that was fed so far.
        """
        ...


class TextDefence(Defence, frozen=True):
    """Base of the defences that look at generated text and not at scores."""

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the batch as it is: scores are not looked at."""
        del rng, salt
        return batch

    def scanner(self, before: str) -> Scanner:
        """Return the scanner of one text; the engine asks for one that looks at the text by itself, and for this one.

        Args:
            before: the end of the text that it goes on from, which the client knows and may have chosen to end inside
                what must not leave.
        """
        raise NotImplementedError


Registry = Mapping[str, type[Defence]]


def keep_top(scores: Floats, top: Ints) -> Floats:
    """Make column `top` each row's argmax.

    It changes places with a greater score, and is parted from an equal one that stands before it.

    Args:
        scores: shape (n, k).
        top: shape (n,).

    Returns:
        Shape (n, k), `scores` itself when nothing had to change. A row holds the same values, but for a tie: there the
        scores that stand before `top` lose their last bit (in a row with nothing below 0, a tie at 0 is parted by
        raising `top` to the least positive number).

    >>> keep_top(np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), np.array([2, 1])).round(3)
    array([[0.2, 0.3, 0.5],
           [0.4, 0.4, 0.2]])
    """
    found = scores.argmax(axis=1)
    if same_columns(found, top):
        return scores
    wrong = np.flatnonzero(found != top)
    result = swap_top(scores, top, found, wrong)
    for row in wrong:
        best = result[row, top[row]]
        tied = np.flatnonzero(result[row, : top[row]] == best)
        if best == 0 and result[row].min() >= 0:
            result[row, top[row]] = np.nextafter(0.0, 1.0) if tied.size else 0.0
        else:
            result[row, tied] = np.nextafter(best, -np.inf)
    return result


def swap_top(scores: Floats, top: Ints, found: Ints, rows: Ints) -> Floats:
    """Return a copy in which, for the given rows, columns `top` and `found` have changed places.

    Args:
        scores: shape (n, k).
        top: shape (n,).
        found: shape (n,), the columns of the greatest scores.
        rows: which rows, shape (m,).
    """
    result = scores.copy()
    result[rows, found[rows]] = scores[rows, top[rows]]
    result[rows, top[rows]] = scores[rows, found[rows]]
    return result


def drop(scores: Floats, kept: Bools, kind: Kind) -> Floats:
    """Return the scores with what is not kept at what stands for a dropped one: the least that there can be.

    >>> drop(np.array([[-0.1, -2.0]]), np.array([[True, False]]), "logprobs")
    array([[-1.000e-01, -9.999e+03]])
    """
    return np.where(kept, scores, DROPPED_LOGPROB) if kind == "logprobs" else scores * kept


def same_columns(found: Ints, top: Ints) -> bool:
    """Say whether two lists of columns agree; for few rows, bytes compare in a tenth of numpy's time."""
    return found.tobytes() == top.tobytes()


def apportion(remainders: Floats, units: Floats) -> Floats:
    """Hand out whole units by largest remainder (Hamilton's method); negative units are taken from the smallest.

    Args:
        remainders: exact share less what an entry holds by now, shape (n, k).
        units: how many to hand out in each row, whole numbers in [-k, k], shape (n,).

    Returns:
        -1, 0 or 1 for each entry, shape (n, k); rows sum to `units`. Equal remainders: the first column comes first.

    >>> apportion(np.array([[0.4, 0.1, 0.4], [-0.4, -0.3, -0.3]]), np.array([1.0, -1.0]))
    array([[ 1.,  0.,  0.],
           [-1., -0., -0.]])
    """
    n, k = remainders.shape
    sign, due = np.sign(units)[:, None], np.abs(units)
    wanted = remainders * sign
    # A sort and a threshold cost a tenth of an argsort.
    ordered = np.sort(wanted, axis=1)
    border = ordered[np.arange(n), k - np.maximum(due, 1.0).astype(np.int64)][:, None]
    picked = (wanted >= border) & (due > 0)[:, None]
    if np.count_nonzero(picked) != due.sum():
        above, tied = wanted > border, wanted == border
        need = due - above.sum(axis=1)
        picked = above | (tied & (tied.cumsum(axis=1) <= need[:, None]))
    return np.multiply(picked, sign)


def has_classes(kind: Kind) -> bool:
    """Say whether the columns are classes, so that an argmax means something and has to be kept."""
    return kind in CLASS_KINDS


def has_cells(inputs: Inputs | None) -> bool:
    """Say whether queries can be put into coarse cells, for `reuse: cell`."""
    if inputs is None:
        return False
    return inputs.kind == "text" or not (inputs.size is None or inputs.low is None or inputs.high is None)
