"""Privacy events for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from guard.privacy.events import BoundedRange, Composed, Event, Gaussian, Laplace, NonPrivate, NoOp, Pure

NUMBERS = st.floats(min_value=0.0, max_value=None, exclude_min=True, allow_infinity=False, allow_nan=False)


def simple(numbers: st.SearchStrategy[float] = NUMBERS) -> st.SearchStrategy[Event]:
    """Return events that are not compositions, of any number unless told."""
    return st.one_of(
        st.builds(Gaussian, numbers, fine=st.booleans()),
        *(st.builds(kind, numbers) for kind in (Laplace, Pure, BoundedRange)),
        st.just(NoOp()),
        st.just(NonPrivate()),
    )


def composed(numbers: st.SearchStrategy[float] = NUMBERS) -> st.SearchStrategy[Event]:
    """Return compositions of them."""
    return st.lists(simple(numbers), min_size=2, max_size=4).map(lambda parts: Composed(tuple(parts)))
