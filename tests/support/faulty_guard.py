"""Guard with a planted fault: `python faulty_guard.py FAULT serve ...`. The self-test must find each of them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

from guard.cli.main import main
from guard.engine.memo import Memo
from guard.model.domain import Inputs
from guard.proxy import admission, releases
from guard.wire import rows
from guard.wire.parameters import Asked, Rules


def noise_keyed_on_raw_bytes() -> None:
    """The model sees snapped queries, and the noise is keyed by what the client sent."""
    admit = Inputs.admit

    def unsnapped(self: Inputs, queries: Any) -> Any:  # Any: passed through
        return admit(self, copy.deepcopy(queries))

    Inputs.admit = unsnapped


def second_copy_unrounded() -> None:
    """Copies of the scores are found, and nothing writes the release into them."""

    def forgotten(answer: Any, prediction: Any) -> bool:  # Any: passed over
        return any(other.scores.shape == prediction.scores.shape for other in answer.predictions)

    rows._joins_copy = forgotten  # pyright: ignore[reportPrivateUsage]  # the fault is planted where the sound code is


def requests_counted_for_rows() -> None:
    """A batch costs as much as one row."""
    charges = admission.charges

    def one(budgets: Any, client: Any, count: int, dimension: int, seen: Any, *rest: Any) -> Any:  # Any: passed through
        del count
        return charges(budgets, client, 1, dimension, seen if seen is None else seen[:1], *rest)

    admission.charges = one


def releases_forgotten() -> None:
    """A repeat is drawn anew, and paid for anew."""

    def nothing(data: bytes | None) -> None:
        del data

    releases.unpack = nothing


def private_batch_charged_as_one_row() -> None:
    """Rows drawn anew beyond a request's first cost no privacy."""
    due = Memo.due

    def one(self: Memo) -> int:
        return min(1, due(self))

    Memo.due = one


def parameters_unheeded() -> None:
    """What a policy says of a request's parameters is read, and nothing comes of it."""

    def unheeded(self: Any, document: Any) -> Asked:  # Any: passed through
        known = {one.name: document[path] for path, one in self._known.items() if one.name and path in document}
        return Asked(known)

    def never(self: Any, name: str) -> bool:  # Any: passed over
        return not (self and name)

    Rules.apply, Rules.drops = unheeded, never


FAULTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "noise_keyed_on_raw_bytes": noise_keyed_on_raw_bytes,
    "second_copy_unrounded": second_copy_unrounded,
    "requests_counted_for_rows": requests_counted_for_rows,
    "releases_forgotten": releases_forgotten,
    "private_batch_charged_as_one_row": private_batch_charged_as_one_row,
    "parameters_unheeded": parameters_unheeded,
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
