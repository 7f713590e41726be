"""What changes on one route: what may be asked, what is taken out of answers, how much, what is watched for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydantic import BaseModel

from guard.detectors.profile import Profile
from guard.policy.detection import Exempt, Rung
from guard.policy.detection_words import duration, in_words
from guard.policy.plan import RoutePlan
from guard.policy.schema import Route
from guard.proxy.words import spec_in_words
from guard.replay.change_lists import Change, of_fields, of_lists
from guard.replay.change_steps import budget_changes, defence_changes
from guard.replay.change_words import Direction, direction, shown, words

_ELSEWHERE = frozenset({"defences", "budgets"})
_OPTIONAL = {
    "inputs": ("the queries' domain", "stricter"),
    "ensemble": ("the ensemble", "unclear"),
    "privacy": ("the privacy claim", "unclear"),
    "match": ("the route's match", "unclear"),
    "select": ("where queries and scores are", "unclear"),
}


class Half(NamedTuple):
    """A route of one of the two policies.

    Args:
        route: as the policy has it.
        plan: compiled.
        profiles: of its policy, by path.
    """

    route: Route
    plan: RoutePlan
    profiles: Mapping[str, Profile]


def route_changes(old: Half, new: Half) -> Iterator[Change]:
    """Yield everything that changes on a route that both policies have."""
    at = f"routes[{new.route.name}]"
    yield from _modes(at, old, new)
    yield from _endpoints(at, old.plan, new.plan)
    for key, (title, gained) in _OPTIONAL.items():
        yield from _optional(at, key, title, gained, getattr(old.route, key), getattr(new.route, key))
    if old.route.fields != new.route.fields:
        way = direction("route", "fields", old.route.fields, new.route.fields)
        said = {"known": "what the API defines and the scores", "all": "every member, known or not"}
        yield Change(way, f"{at}.fields", f"answers let out {said[new.route.fields]}")
    yield from of_fields(f"{at}.outputs", "outputs", "outputs", old.route.outputs, new.route.outputs)
    yield from defence_changes(f"{at}.defences", old.route.defences, new.route.defences, "")
    yield from budget_changes(f"{at}.budgets", old.route.budgets, new.route.budgets, "")
    yield from _watching(at, old, new)


def _modes(at: str, old: Half, new: Half) -> Iterator[Change]:
    a, b = old.plan, new.plan
    if a.mode != b.mode:
        said = {
            "shadow": "the route changes nothing any more: it decides and counts, and lets out what the model says",
            "enforce": "the route enforces: what it only counted, it now does",
        }
        yield Change(direction("route", "mode", a.mode, b.mode), f"{at}.mode", said[b.mode], loud=b.mode == "shadow")
    elif old.route.mode != new.route.mode:
        yield Change("neutral", f"{at}.mode", f"mode is written here ({shown(new.route.mode)}), and comes to the same")
    names = [plan.ledger.removeprefix("shadow:") for plan in (a, b)]
    if names[0] != names[1]:
        said = (
            f"budgets are kept under the ledger {names[1]} instead of {names[0]}: every budget of every client begins"
            " empty, and so does evidence: a refund of all that was spent"
        )
        yield Change("looser", f"{at}.ledger", said, loud=True)
    elif a.ledger != b.ledger:
        said = f"counters of shadow and of enforcement are kept apart: budgets go on where {b.ledger} stands"
        yield Change("neutral", f"{at}.ledger", said)
    elif old.route.ledger != new.route.ledger:
        yield Change("neutral", f"{at}.ledger", f"the ledger is written here, and is the same: {b.ledger}")
    if a.api != b.api or old.route.api != new.route.api:
        said = (
            f"api is {b.api} instead of {a.api}" if a.api != b.api else f"api is written here, and is the same: {b.api}"
        )
        yield Change("unclear" if a.api != b.api else "neutral", f"{at}.api", said)


def _endpoints(at: str, old: RoutePlan, new: RoutePlan) -> Iterator[Change]:
    before, now = (
        {f"{o.endpoint.method} {o.endpoint.template}" + (f" within {o.narrow.pattern}" if o.narrow else "")
         for o in plan.endpoints if o.endpoint.access == "scoring"}
        for plan in (old, new)
    )  # fmt: skip
    for endpoint in sorted(now - before):
        yield Change("looser", f"{at}.match", f"it answers {endpoint}")
    for endpoint in sorted(before - now):
        yield Change("stricter", f"{at}.match", f"it no longer answers {endpoint}")


def _optional(
    at: str, key: str, title: str, gained: str, old: BaseModel | None, new: BaseModel | None
) -> Iterator[Change]:
    if old is not None and new is not None:
        yield from of_fields(f"{at}.{key}", title, key, old, new)
    elif new is not None:
        yield Change("stricter" if gained == "stricter" else "unclear", f"{at}.{key}", f"{title} comes: {_brief(new)}")
    elif old is not None:
        way: Direction = "looser" if gained == "stricter" else "unclear"
        yield Change(way, f"{at}.{key}", f"{title} is gone: it was {_brief(old)}", loud=key == "privacy")


def _brief(spec: BaseModel) -> str:
    return ", ".join(f"{k} {shown(v)}" for k, v in spec.model_dump(mode="json", exclude_none=True).items())


def _watching(at: str, old: Half, new: Half) -> Iterator[Change]:
    if old.route.profile != new.route.profile or _digest(old) != _digest(new):
        yield from _profile(at, old, new)
    yield from _detectors(at, old, new)
    yield from _ladder(f"{at}.ladder", old.route.ladder, new.route.ladder)
    yield from _exceptions(f"{at}.exceptions", old.route.exceptions, new.route.exceptions)


def _digest(half: Half) -> str:
    profile = None if half.route.profile is None else half.profiles.get(half.route.profile)
    return "" if profile is None else profile.digest


def _profile(at: str, old: Half, new: Half) -> Iterator[Change]:
    path = f"{at}.profile"
    if old.route.profile is None:
        yield Change("stricter", path, f"a profile of honest traffic comes: {new.route.profile}")
    elif new.route.profile is None:
        yield Change("looser", path, f"the profile is gone: {old.route.profile}; detectors that need one are off")
    elif _digest(old) == _digest(new):
        said = f"the profile is {new.route.profile} instead of {old.route.profile}, and is the same: digest"
        yield Change("neutral", path, f"{said} {_digest(new)[:12]}")
    else:
        a, b = old.profiles[old.route.profile], new.profiles[new.route.profile]
        said = f"another profile: of {b.clients:,} clients and {b.queries:,} queries, made {b.made[:10]}, instead of"
        yield Change("unclear", path, f"{said} {a.clients:,} and {a.queries:,}, {a.made[:10]}")


def _detectors(at: str, old: Half, new: Half) -> Iterator[Change]:
    """Tell which detectors run, by what was compiled; and of the key itself where that comes to the same."""
    path = f"{at}.detectors"
    before, now = (_on(half.plan) for half in (old, new))
    if old.route.detects and not new.route.detects:
        yield Change("looser", path, "clients are not watched any more: no detector, no ladder", loud=True)
    elif new.route.detects and not old.route.detects:
        yield Change("stricter", path, f"clients are watched: {', '.join(now)}")
    else:
        yield from (Change("looser", path, f"the detector {kind} is off") for kind in before if kind not in now)
        yield from (Change("stricter", path, f"the detector {kind} is on") for kind in now if kind not in before)
    a, b = (half.route.model_dump(mode="json")["detectors"] for half in (old, new))
    if a != b and set(before) == set(now):
        same = "the same run" if new.route.detects == old.route.detects else "these"
        yield Change("neutral", path, f"detectors are written otherwise, and {same}: {', '.join(now) or 'none'}")


def _on(plan: RoutePlan) -> list[str]:
    return [] if plan.detection is None else [kind for kind, _ in in_words(plan.detection).on]


def _ladder(at: str, old: tuple[Rung, ...], new: tuple[Rung, ...]) -> Iterator[Change]:
    def changed(path: str, a: Rung, b: Rung) -> Iterator[Change]:
        for change in of_fields(path, f"ladder, {_rung(b)}", "rung", a, b, _ELSEWHERE):
            yield change._replace(way="neutral") if b.action == "alert" else change
        yield from defence_changes(f"{path}.defences", a.defences, b.defences, f"ladder, {_rung(b)}: ")
        yield from budget_changes(f"{path}.budgets", a.budgets, b.budgets, f"ladder, {_rung(b)}: ")

    def come(rung: Rung) -> tuple[Direction, str]:
        return ("neutral" if rung.action == "alert" else "stricter"), f"ladder: a step comes: {_whole(rung)}"

    def gone(rung: Rung) -> tuple[Direction, str]:
        return ("neutral" if rung.action == "alert" else "looser"), f"ladder: a step is gone: {_whole(rung)}"

    order: tuple[Direction, str] = ("unclear", "ladder: steps stand in another order")
    yield from of_lists(at, old, new, _rung, gone, come, changed, order)


def _rung(rung: Rung) -> str:
    over = "offences" if rung.tier == "protocol" else f"{rung.tier} over {rung.over}"
    return f"{rung.action} for {over}"


def _whole(rung: Rung) -> str:
    at = f"{rung.count} an hour" if rung.tier == "protocol" else f"false alarms {shown(rung.false_alarm)}"
    means = [spec_in_words(spec) for spec in (*rung.defences, *rung.budgets)]
    does = f": {', '.join(means)}" if means else ""
    return f"{_rung(rung)}, {at}, for {duration(rung.hold)}{does}"


def _exceptions(at: str, old: tuple[Exempt, ...], new: tuple[Exempt, ...]) -> Iterator[Change]:
    def changed(path: str, a: Exempt, b: Exempt) -> Iterator[Change]:
        for key in ("skip", "until", "reason"):
            before, now = (entry.model_dump(mode="json")[key] for entry in (a, b))
            if before != now:
                way: Direction = "neutral"
                if key == "until":
                    way = "looser" if b.until > a.until else "stricter"
                elif key == "skip":
                    way = "unclear"
                yield Change(way, f"{path}.{key}", f"exception for {b.client}: {words('exempt', key, before, now)}")

    def come(entry: Exempt) -> tuple[Direction, str]:
        which = ", ".join(entry.skip) or "all detectors"
        return "looser", f"{entry.client} is excepted from {which} until {entry.until}: {entry.reason}"

    def gone(entry: Exempt) -> tuple[Direction, str]:
        return "stricter", f"{entry.client} is no longer excepted"

    order: tuple[Direction, str] = ("neutral", "exceptions stand in another order")
    yield from of_lists(at, old, new, lambda entry: entry.client, gone, come, changed, order)
