"""Which keys a client has used in its last `HORIZON` queries."""

from __future__ import annotations

from guard.detectors.base import Keys
from guard.model.arrays import Bools


class Index:
    """A ring of the keys of the last `HORIZON` queries; grows to 4 bytes a column and query.

    A horizon keeps hit rates from drifting up with the length of a client's history.

    Args:
        columns: keys a row.
    """

    __slots__ = ()

    def __init__(self, columns: int) -> None:
        raise NotImplementedError

    def look(self, keys: Keys) -> Bools:
        """Look rows up, in order, and remember them.

        Args:
            keys: shape (n, columns).

        Returns:
            Shape (n, columns): True where the same column of one of the `HORIZON` queries before that row, those of
            this batch included, held the same key.
        """
        raise NotImplementedError
