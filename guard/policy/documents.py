"""Hashed documents that defences are made with: which files a policy names, and defences that know them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from guard.defences.base import Defence
from guard.defences.secret_ngrams import Ngrams
from guard.policy.schema import Policy, Route


def named(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield the path of each file of documents, and where the policy names it."""
    for i, route in enumerate(policy.routes):
        steps = [(f"routes[{i}].defences[{j}]", defence) for j, defence in enumerate(route.defences)]
        for j, rung in enumerate(route.ladder):
            steps += [(f"routes[{i}].ladder[{j}].defences[{k}]", defence) for k, defence in enumerate(rung.defences)]
        for at, defence in steps:
            yield from ((path, f"{at}.document_files[{k}]") for k, path in enumerate(defence.reads()))


def documented(route: Route, documents: Mapping[str, Ngrams] | None) -> Route:
    """Return the route with defences, its own and its ladder's, that know their documents; None: for a look at it."""
    if not documents:
        return route
    ladder = [rung.model_copy(update={"defences": _knowing(rung.defences, documents)}) for rung in route.ladder]
    return route.model_copy(update={"defences": _knowing(route.defences, documents), "ladder": tuple(ladder)})


def _knowing(defences: tuple[Defence, ...], documents: Mapping[str, Ngrams]) -> tuple[Defence, ...]:
    return tuple(defence.having_read(documents) for defence in defences)
