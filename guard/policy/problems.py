"""pydantic's validation errors as problems in plain words: where, what, and what to write instead.

No value is ever repeated, since it could be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from guard.errors import Problem
from guard.model.secret import Reference
from guard.policy.schema import Policy
from guard.policy.suggest import closest, did_you_mean
from guard.policy.yamlmap import Step, path_of

_DATE = "must be a date such as 2026-12-31"
_WORDS: dict[str, str] = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "model_type": "must be a map of keys and values",
    "model_attributes_type": "must be a map of keys and values",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "needs at least {min_length} of them, has {actual_length}",
    "too_long": "may hold at most {max_length} of them",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_pattern_mismatch": "must have the form {pattern}",
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"), _DATE),
}
_HINTS: dict[str, str] = {
    "string_type": "put a number or a word such as true in quotes",
    "tuple_type": "write [a, b], or a line with - for each",
    "list_type": "write [a, b], or a line with - for each",
    "model_type": "write key: value, one a line, indented below",
    "model_attributes_type": "write {kind: ..., key: value}",
}


def problems_of(error: ValidationError, data: object) -> list[Problem]:
    """Return one problem for each mistake, in the policy's order.

    Args:
        error: what `Policy.model_validate(data)` raised.
        data: what was validated.
    """
    found: dict[str, list[tuple[bool, Problem]]] = {}
    for details in error.errors(include_url=False):
        steps, in_union = _steps(details["loc"], data, details["input"])
        problem = _problem(details, steps)
        # pydantic counts only valid members, so a list with a bad one can seem too short.
        counted = details["type"] == "too_short" and len(cast("list[object]", details["input"])) > 0
        found.setdefault(problem.path, []).append((in_union or counted, problem))
    return [_join(path, entries) for path, entries in found.items() if not _outdone(path, entries, found)]


def _outdone(path: str, entries: list[tuple[bool, Problem]], found: Mapping[str, object]) -> bool:
    """Say whether a problem further down says more: another branch of the same union came further."""
    return all(in_union for in_union, _ in entries) and any(
        other.startswith((f"{path}[", f"{path}.")) for other in found
    )


def _join(path: str, entries: list[tuple[bool, Problem]]) -> Problem:
    """Make one problem of what the branches of a union say about the same place."""
    first = entries[0][1]
    if len(entries) == 1:
        return first
    name = path.rpartition(".")[2]
    said = list(dict.fromkeys(problem.message.removeprefix(f"{name} ") for _, problem in entries))
    hint = next((problem.hint for _, problem in entries if problem.hint), "")
    return Problem(f"{name} " + " or ".join(said).replace(" or must be ", " or "), path, hint=hint)


def _steps(location: tuple[Step, ...], data: object, given: object) -> tuple[list[Step], bool]:
    """Return the path inside the data, and whether pydantic named a branch of a union (a kind, a type) at its end.

    What is wrong with a map as a whole stands at its kind, and has the map itself as input.
    """
    steps: list[Step] = []
    branch = False
    here = data
    for index, step in enumerate(location):
        last = index == len(location) - 1
        is_step, inside = _inside(here, step, last=last, tagged=branch, whole=here is given)
        if is_step:
            steps.append(step)
            here = inside
        branch = not is_step
    return steps, branch


def _inside(here: object, step: Step, *, last: bool, tagged: bool, whole: bool) -> tuple[bool, object]:
    """Return whether `step` leads into the data (or into what is missing there), and what stands there."""
    if isinstance(here, list) and isinstance(step, int):
        items = cast("list[object]", here)
        return True, items[step] if step < len(items) else None
    if isinstance(here, dict):
        members = cast("dict[Step, object]", here)
        # A kind is named before the keys of its spec: it is a step only where it stands last, or behind another branch.
        if (not last or whole) and not tagged and members.get("kind") == step:
            return False, None
        return step in members or last, members.get(step)
    return False, None


def models_at(location: tuple[Step, ...]) -> list[type[BaseModel]]:
    """Return the models that may stand at a location that pydantic named.

    >>> [model.__name__ for model in models_at(("routes", 0, "budgets", 1, "rows"))]
    ['Rows']
    """
    models: list[type[BaseModel]] = [Policy]
    for step in location:
        if isinstance(step, int):
            continue
        tagged = [model for model in models if _tag(model) == step]
        if tagged and len(models) > 1:
            models = tagged
            continue
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        if not fields:
            continue  # a branch of a union that pydantic names in words of its own
        models = [inner for field in fields for inner in models_in(field.annotation)]
    return models


def models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def _tag(model: type[BaseModel]) -> object:
    field = model.model_fields.get("kind")
    return None if field is None else next(iter(get_args(field.annotation)), None)


def _problem(details: ErrorDetails, steps: list[Step]) -> Problem:
    context = details.get("ctx") or {}
    path = path_of(steps)
    name = path.rpartition(".")[2] or "the policy"
    match details["type"]:
        case "extra_forbidden":
            problem = _unknown_key(details["loc"], str(steps[-1]), path)
        case "value_error":
            problem = Problem(f"{name}: {context['error']}", path)
        case _ if isinstance(details["input"], Reference):
            message = f"{name}: {{{details['input'].source}: ...}} can stand only where a secret is expected"
            problem = Problem(message, path, hint="write the value itself")
        case "union_tag_invalid":
            problem = _unknown_kind(str(context["tag"]), _tags(details["loc"]), path)
        case "union_tag_not_found":
            problem = Problem(f"{name} needs a kind", path, hint=f"known: {', '.join(sorted(_tags(details['loc'])))}")
        case "literal_error":
            problem = _not_listed(details["input"], str(context["expected"]), name, path)
        case kind:
            said = details["msg"]
            words = _WORDS.get(kind, said[:1].lower() + said[1:].replace("{", "{{").replace("}", "}}"))
            problem = Problem(f"{name} {words.format_map(context)}", path, hint=_HINTS.get(kind, ""))
    return problem


def _tags(location: tuple[Step, ...]) -> list[str]:
    return [str(_tag(model)) for model in models_at(location)]


def _unknown_key(location: tuple[Step, ...], key: str, path: str) -> Problem:
    known = {name for model in models_at(location[:-1]) for name in model.model_fields}
    return Problem(f"there is no key {key} here", path, hint=did_you_mean(key, known))


def _unknown_kind(tag: str, known: list[str], path: str) -> Problem:
    return Problem(f"there is no kind {tag} here", f"{path}.kind", hint=did_you_mean(tag, known))


def _not_listed(given: object, expected: str, name: str, path: str) -> Problem:
    """Name what may stand here; the word that does is only compared, never repeated."""
    known = [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]
    near = closest(given, known) if isinstance(given, str) else None
    return Problem(
        f"{name} must be {expected.replace(chr(39), '')}", path, hint=f"did you mean {near}?" if near else ""
    )
