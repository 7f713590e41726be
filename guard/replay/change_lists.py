"""Comparing specs and lists of them, key by key: nothing that differs is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, SecretStr

from guard.policy.reference import arguments
from guard.replay.change_words import Direction, direction, words

Spec = TypeVar("Spec", bound=BaseModel)


class Change(NamedTuple):
    """One thing that an edit changes.

    Args:
        way: looser, stricter, neither (`neutral`) or not to be said (`unclear`).
        path: which key of the resolved policy, routes by name.
        said: what it means.
        loud: it must not be overlooked.
    """

    way: Direction
    path: str
    said: str
    loud: bool = False


class Pairs(NamedTuple):
    """Two lists put side by side.

    Args:
        both: indices of those that are in both, old and new.
        gone: indices of the old ones that are not in the new list.
        come: indices of new ones.
        moved: those in both stand in another order.
    """

    both: tuple[tuple[int, int], ...]
    gone: tuple[int, ...]
    come: tuple[int, ...]
    moved: bool


def pair(old: Sequence[str], new: Sequence[str]) -> Pairs:
    """Put two lists side by side by what their members are called.

    >>> pair(["a", "b", "c"], ["c", "b", "d"])
    Pairs(both=((1, 1), (2, 0)), gone=(0,), come=(2,), moved=True)
    """
    blocks = SequenceMatcher(a=old, b=new, autojunk=False).get_matching_blocks()
    both = [(b.a + i, b.b + i) for b in blocks for i in range(b.size)]
    gone = [i for i in range(len(old)) if all(i != a for a, _ in both)]
    come = [i for i in range(len(new)) if all(i != b for _, b in both)]
    moved: list[tuple[int, int]] = []
    for a in tuple(gone):
        match = next((b for b in come if new[b] == old[a]), None)
        if match is not None:
            moved.append((a, match))
            gone.remove(a)
            come.remove(match)
    return Pairs(tuple(sorted([*both, *moved])), tuple(gone), tuple(come), bool(moved))


def of_fields(
    path: str, title: str, kind: str, old: BaseModel, new: BaseModel, skip: frozenset[str] = frozenset()
) -> Iterator[Change]:
    """Yield a change for every field that differs.

    Args:
        path: of the spec.
        title: what it is called; begins each sentence, unless it is empty.
        kind: that its keys' words go by.
        old: the spec before.
        new: now, of the same model.
        skip: fields that are told of elsewhere.
    """
    before, now = old.model_dump(mode="json"), new.model_dump(mode="json")
    meanings = arguments(type(new))
    for key in [*before, *(key for key in now if key not in before)]:
        if key in skip or before.get(key) == now.get(key):
            continue
        said = words(kind, key, before.get(key), now.get(key), meanings.get(key, ""))
        way = direction(kind, key, before.get(key), now.get(key))
        yield Change(way, f"{path}.{key}", f"{title}: {said}" if title else said)
    for key in type(new).model_fields:
        a, b = getattr(old, key), getattr(new, key)
        if isinstance(a, SecretStr) and isinstance(b, SecretStr) and a != b:
            yield Change("unclear", f"{path}.{key}", f"{title}: {key} has another value (a secret)")


def of_lists(
    path: str,
    old: Sequence[Spec],
    new: Sequence[Spec],
    name: Callable[[Spec], str],
    gone: Callable[[Spec], tuple[Direction, str]],
    come: Callable[[Spec], tuple[Direction, str]],
    changed: Callable[[str, Spec, Spec], Iterator[Change]],
    moved: tuple[Direction, str],
) -> Iterator[Change]:
    """Yield what changes between two lists of specs.

    Args:
        path: of the list.
        old: before.
        new: now.
        name: what a member is known by.
        gone: what it means that one is gone.
        come: what it means that one has come.
        changed: what changes within one that is in both, given its path.
        moved: what another order means; the two orders are added.
    """
    names = [name(spec) for spec in old], [name(spec) for spec in new]
    pairs = pair(*names)
    for i in pairs.gone:
        way, said = gone(old[i])
        yield Change(way, f"{path}[{names[0][i]}]", said)
    for i in pairs.come:
        way, said = come(new[i])
        yield Change(way, f"{path}[{names[1][i]}]", said)
    for a, b in pairs.both:
        yield from changed(f"{path}[{names[1][b]}]", old[a], new[b])
    if pairs.moved:
        way, said = moved
        both = [names[0][a] for a, _ in pairs.both], [names[1][b] for b in sorted(b for _, b in pairs.both)]
        yield Change(way, path, f"{said}: {' > '.join(both[1])} instead of {' > '.join(both[0])}")
