"""What changes of defences and budgets: of a route, or of a step of its ladder."""

from __future__ import annotations

from collections.abc import Iterator

from guard.budgets.base import Budget
from guard.defences.base import Defence, Mode
from guard.policy.detection_words import duration
from guard.policy.reference import summary
from guard.proxy.words import spec_in_words
from guard.replay.change_lists import Change, of_fields, of_lists, pair
from guard.replay.change_words import Direction

_PER = {"client": "per client", "group": "per group", "model": "for everybody together"}


def defence_changes(at: str, old: tuple[Defence, ...], new: tuple[Defence, ...], where: str) -> Iterator[Change]:
    """Yield what changes of defences in order; `where` begins each sentence."""

    def changed(path: str, a: Defence, b: Defence) -> Iterator[Change]:
        return in_force(of_fields(path, f"{where}{b.kind}", b.kind, a, b), a.mode, b.mode)

    def come(spec: Defence) -> tuple[Direction, str]:
        counted = ", and only counts" if spec.mode == "shadow" else ""
        way: Direction = "neutral" if counted else "unclear" if spec.kind == "temperature" else "stricter"
        return way, f"{where}a defence comes{counted}: {spec_in_words(spec)}. {summary(type(spec))}"

    def gone(spec: Defence) -> tuple[Direction, str]:
        way: Direction = "neutral" if spec.mode == "shadow" else "unclear" if spec.kind == "temperature" else "looser"
        return way, f"{where}a defence is gone: {spec_in_words(spec)}. {summary(type(spec))}"

    order: tuple[Direction, str] = ("unclear", f"{where}defences run in another order")
    yield from of_lists(at, old, new, lambda spec: spec.kind, gone, come, changed, order)


def budget_changes(at: str, old: tuple[Budget, ...], new: tuple[Budget, ...], where: str) -> Iterator[Change]:
    """Yield what changes of budgets; one whose name changes begins with an empty counter."""
    pairs = pair([b.name for b in old], [b.name for b in new])
    gone, come = list(pairs.gone), list(pairs.come)
    both = list(pairs.both)
    for i in pairs.gone:
        j = next((j for j in come if (old[i].kind, old[i].per) == (new[j].kind, new[j].per)), None)
        if j is not None:
            gone.remove(i)
            come.remove(j)
            both.append((i, j))
    for a, b in both:
        yield from _budget(f"{at}[{new[b].name}]", old[a], new[b], where)
    for i in gone:
        way: Direction = "neutral" if old[i].mode == "shadow" else "looser"
        yield Change(
            way, f"{at}[{old[i].name}]", f"{where}a budget is gone: {_title(old[i])} ({spec_in_words(old[i])})"
        )
    for i in come:
        way = "neutral" if new[i].mode == "shadow" else "stricter"
        yield Change(way, f"{at}[{new[i].name}]", f"{where}a budget comes: {_title(new[i])} ({spec_in_words(new[i])})")
    if pairs.moved:
        order = " > ".join(b.name for b in new)
        yield Change("neutral", at, f"{where}budgets stand in another order, and are charged at once: {order}")


def _budget(at: str, old: Budget, new: Budget, where: str) -> Iterator[Change]:
    title = f"{where}budget {_title(new)}"
    if old.name != new.name:
        said = (
            f"{title}: it was {_title(old)}. Its counter has another name and begins empty: what was spent is not"
            " counted, a refund"
        )
        longer = new.window_s == 0 or (0 < old.window_s < new.window_s)
        counted = old.mode == "shadow"
        way: Direction = "neutral" if counted else "unclear" if longer else "looser"
        yield Change(way, f"{at}.window", said, loud=not counted)
    # A window is part of the name; a privacy budget's is its period.
    skip = frozenset({"window", "period", "per"}) if old.name != new.name else frozenset[str]()
    yield from in_force(of_fields(at, title, new.kind, old, new, skip), old.mode, new.mode)


def in_force(changes: Iterator[Change], old: Mode, new: Mode) -> Iterator[Change]:
    """Yield changes of a step or a budget; unless it counts before and now, only its mode loosens or tightens."""
    for change in changes:
        counts = old == new == "enforce" or change.path.endswith(".mode")
        yield change if counts else change._replace(way="neutral", said=f"{change.said}, where it was only counted")


def _title(budget: Budget) -> str:
    period = f"every {duration(budget.window_s)}" if budget.window_s else "for ever"
    return f"{budget.kind} {_PER[budget.per]} {period}"
