"""What an edit of a policy means: two policies compared as they are in force, `extends` resolved and plans compiled.

Two policies of one digest differ in nothing but a secret's value; of two digests, at least one change is told. What no
rule has words for is told as a key and its two values (`_left_over`), so that nothing changes silently. Values of
secrets are compared and never shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from guard.defences.secret_ngrams import Ngrams
from guard.policy.gates import Gate
from guard.policy.load import Loaded
from guard.policy.plan import Plan
from guard.policy.schema import AnyIdentity, Policy, UpstreamHeader
from guard.proxy.words import spec_in_words
from guard.replay.change_consequences import consequences
from guard.replay.change_lists import Change, of_fields, of_lists, pair
from guard.replay.change_route import Half, route_changes
from guard.replay.change_words import Direction, direction, shown

_RANK: dict[Direction, int] = {"looser": 0, "unclear": 1, "stricter": 2, "neutral": 3}


class Version(NamedTuple):
    """One of the two policies.

    Args:
        loaded: as it was read.
        plan: compiled.
    """

    loaded: Loaded
    plan: Plan


class Difference(NamedTuple):
    """What an edit means.

    Args:
        changes: what loosens first; within that what must not be overlooked.
        consequences: what follows for a running Guard, sentence by sentence.
    """

    changes: tuple[Change, ...]
    consequences: tuple[str, ...]


def difference(old: Version, new: Version) -> Difference:
    """Compare two policies."""
    found = [*_policy(old, new), *_routes(old, new), *_documents(old.loaded.documents, new.loaded.documents)]
    found += _left_over(old.plan.policy, new.plan.policy, found)
    found.sort(key=lambda change: (_RANK[change.way], not change.loud))
    return Difference(tuple(found), tuple(consequences(old.plan, new.plan)) if found else ())


def _policy(old: Version, new: Version) -> Iterator[Change]:
    a, b = old.plan.policy, new.plan.policy
    if a.name != b.name:
        yield Change("neutral", "name", f"the policy is called {b.name} instead of {a.name}")
    if a.mode != b.mode:
        way = direction("policy", "mode", a.mode, b.mode)
        said = "routes enforce unless they say otherwise" if b.mode == "enforce" else "every route is in shadow"
        yield Change(way, "mode", f"the policy's mode is {b.mode} instead of {a.mode}: {said}", loud=b.mode == "shadow")
    yield from _identity(a.identity, b.identity)
    yield from of_fields("limits", "limits", "limits", a.limits, b.limits)
    yield from of_fields("audit", "", "audit", a.audit, b.audit)
    yield from _headers(a.upstream_headers, b.upstream_headers)
    for name in sorted({*b.forward_headers} - {*a.forward_headers}):
        yield Change("looser", "forward_headers", f"the request header {name} goes through to the model")
    for name in sorted({*a.forward_headers} - {*b.forward_headers}):
        yield Change("stricter", "forward_headers", f"the request header {name} is kept from the model")
    gates = [list(map(_gate, policy.selftest.gates)) for policy in (a, b)]
    found = pair(*gates)
    if found.moved:
        yield Change("neutral", "selftest.gates", "gates of guard selftest stand in another order")
    for i in found.gone:
        yield Change("neutral", "selftest.gates", f"guard selftest no longer asks for {gates[0][i]}")
    for i in found.come:
        yield Change("neutral", "selftest.gates", f"guard selftest asks for {gates[1][i]}")


def _gate(gate: Gate) -> str:
    bound = f"at least {gate.min!r}" if gate.max is None else f"at most {gate.max!r}"
    return f"{gate.attack} {gate.metric} {bound}" if gate.attack else f"{gate.utility} {bound}"


def _identity(old: tuple[AnyIdentity, ...], new: tuple[AnyIdentity, ...]) -> Iterator[Change]:
    anew = "clients that it names are named otherwise, so their budgets begin anew"

    def come(spec: AnyIdentity) -> tuple[Direction, str]:
        return "unclear", f"a source of identity comes: {spec_in_words(spec)}; {anew}"

    def gone(spec: AnyIdentity) -> tuple[Direction, str]:
        return "looser", f"a source of identity is gone: {spec_in_words(spec)}; {anew.replace('names', 'named')}"

    def changed(path: str, a: AnyIdentity, b: AnyIdentity) -> Iterator[Change]:
        for change in of_fields(path, f"identity, {_source(b)}", b.kind, a, b):
            key = change.path.rpartition(".")[2]
            same = key.endswith("_file") and _same_file(getattr(a, key), getattr(b, key))
            yield change._replace(way="neutral", said=f"{change.said}; its contents are the same") if same else change

    moved: tuple[Direction, str] = ("unclear", "sources of identity are asked in another order")
    yield from of_lists("identity", old, new, _source, gone, come, changed, moved)


def _source(spec: AnyIdentity) -> str:
    header = getattr(spec, "header", "")
    return f"{spec.kind} in {header}" if header else spec.kind


def _same_file(old: str, new: str) -> bool:
    try:
        return Path(old).read_bytes() == Path(new).read_bytes()
    except OSError:
        return False


def _headers(old: tuple[UpstreamHeader, ...], new: tuple[UpstreamHeader, ...]) -> Iterator[Change]:
    def come(spec: UpstreamHeader) -> tuple[Direction, str]:
        return "neutral", f"Guard adds the header {spec.name} to requests to the model"

    def gone(spec: UpstreamHeader) -> tuple[Direction, str]:
        return "neutral", f"Guard no longer adds the header {spec.name} to requests to the model"

    def changed(path: str, a: UpstreamHeader, b: UpstreamHeader) -> Iterator[Change]:
        if a.value.get_secret_value() != b.value.get_secret_value():
            yield Change("neutral", f"{path}.value", f"the header {b.name} to the model has another value (a secret)")

    moved: tuple[Direction, str] = ("neutral", "headers to the model stand in another order")
    yield from of_lists("upstream_headers", old, new, lambda spec: spec.name, gone, come, changed, moved)


def _documents(old: Mapping[str, Ngrams], new: Mapping[str, Ngrams]) -> Iterator[Change]:
    for path, now in new.items():
        if (was := old.get(path)) is not None and was.digest != now.digest:
            said = f"the documents {path} are others: {len(now.hashes):,} runs of {now.n}, instead of"
            yield Change("unclear", f"documents[{path}]", f"{said} {len(was.hashes):,} of {was.n}")


def _routes(old: Version, new: Version) -> Iterator[Change]:
    names = [[route.name for route in version.plan.policy.routes] for version in (old, new)]
    found = pair(*names)
    gone, come, both = list(found.gone), list(found.come), list(found.both)
    if len(gone) == len(come) == 1:
        a, b = gone.pop(), come.pop()
        both.append((a, b))
        said = f"the route {names[0][a]} is called {names[1][b]}: so are its metrics"
        yield Change("neutral", f"routes[{names[1][b]}].name", said)
    for i in gone:
        yield Change("stricter", f"routes[{names[0][i]}]", f"the route {names[0][i]} is gone: what it took is closed")
    for i in come:
        plan = new.plan.routes[i]
        said = f"a route comes: {plan.name}, {plan.api}, {plan.mode}, with defences"
        does = ", ".join(spec.kind for spec in plan.defences) or "none"
        yield Change("looser", f"routes[{plan.name}]", f"{said} {does}")
    for a, b in both:
        for change in route_changes(_half(old, a), _half(new, b)):
            yield change._replace(said=f"route {names[1][b]}: {change.said}")
    if found.moved:
        order = " > ".join(names[1])
        yield Change(
            "unclear", "routes", f"routes are tried in another order, and the first that matches wins: {order}"
        )


def _half(version: Version, index: int) -> Half:
    return Half(version.plan.policy.routes[index], version.plan.routes[index], version.loaded.profiles)


def _left_over(old: Policy, new: Policy, found: list[Change]) -> list[Change]:
    """Return what differs and no rule has told: keys of the policy and of its routes."""
    told = [change.path for change in found]
    return [
        Change("unclear", path, f"{path} is {shown(b)} instead of {shown(a)}")
        for path, a, b in _unequal(old, new)
        if not any(one == path or one.startswith((f"{path}.", f"{path}[")) for one in told)
    ]


def _unequal(old: Policy, new: Policy) -> Iterator[tuple[str, Any, Any]]:  # Any: JSON
    before, now = old.model_dump(mode="json"), new.model_dump(mode="json")
    for key in now:
        if key not in ("routes", "extends") and before.get(key) != now[key]:
            yield key, before.get(key), now[key]
    routes = {route["name"]: route for route in before["routes"]}
    for route in now["routes"]:
        if (was := routes.get(route["name"])) is None:
            continue
        for key in route:
            if was.get(key) != route[key]:
                yield f"routes[{route['name']}].{key}", was.get(key), route[key]
