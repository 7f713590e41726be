"""The JSON report: the results' dataclasses as they are. Its schema is `docs/selftest.schema.json`."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Literal, Union, cast, get_args, get_origin, get_type_hints

from guard.selftest.results import SCHEMA_VERSION, Report, as_data


class Unreadable(ValueError):
    """A file is no JSON report that this version reads; the message says why."""


def render(report: Report) -> str:
    """Return the report as JSON; NaN and infinite numbers are null."""
    data = as_data(report)
    first = {name: data.pop(name) for name in ("schema_version", "passed", "partial")}  # what a reader must see at once
    return json.dumps(clean(first | data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def clean(value: object) -> object:
    """Return plain JSON data: arrays as lists, NaN and infinity as null, what JSON does not know as text.

    >>> clean({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in cast("Mapping[object, object]", value).items()}
    if callable(listed := getattr(value, "tolist", None)):
        return clean(listed())  # numpy's arrays and scalars
    if isinstance(value, set | frozenset):
        return [clean(item) for item in sorted(cast("Iterable[object]", value), key=str)]
    if isinstance(value, Iterable):
        return [clean(item) for item in cast("Iterable[object]", value)]
    return str(value)


def parse(text: str) -> Report:
    """Return the report that a JSON text holds; null reads NaN where a number must be.

    Raises:
        Unreadable: it is no report, or one of another schema version.
    """
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON: {error}") from error
    version = cast("Mapping[str, object]", data).get("schema_version") if isinstance(data, Mapping) else None
    if version is None:
        raise Unreadable("it is no report of `guard selftest`: it has no schema_version")
    if version != SCHEMA_VERSION:
        raise Unreadable(
            f"it has schema_version {version!r} and this Guard reads {SCHEMA_VERSION}; make it anew with this version"
        )
    return cast("Report", _build(Report, cast("object", data), "report"))


def _build(hint: object, data: object, at: str) -> object:
    """Return data as the type says.

    Raises:
        Unreadable: it does not fit.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in args if arg is not types.NoneType)
        return None if data is None else _build(inner, data, at)
    if origin is Literal:
        if data not in args:
            raise Unreadable(f"{at}: {data!r} is none of {', '.join(map(str, args))}")
        return data
    if origin in (tuple, Sequence):
        items = _array(data, at)
        kinds = args if origin is tuple else args[:1] * len(items)
        if len(kinds) != len(items):
            raise Unreadable(f"{at}: {len(items)} items instead of {len(kinds)}")
        return tuple(_build(kind, item, f"{at}[{i}]") for i, (kind, item) in enumerate(zip(kinds, items, strict=True)))
    if origin is Mapping:
        members = _object(data, at)
        return {name: _build(args[1], item, f"{at}.{name}") for name, item in members.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return _build_dataclass(hint, _object(data, at), at)
    return data if hint is object else _scalar(cast("type", hint), data, at)


def _build_dataclass(kind: type, data: dict[str, object], at: str) -> object:
    hints = get_type_hints(kind)
    values: dict[str, object] = {}
    for field in fields(kind):  # pyright: ignore[reportArgumentType]: the caller checked `is_dataclass`
        if field.name in data:
            values[field.name] = _build(hints[field.name], data[field.name], f"{at}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise Unreadable(f"{at}: {field.name} is missing")
    return kind(**values)


def _scalar(kind: type, data: object, at: str) -> object:
    if kind is float and data is None:
        return math.nan
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise Unreadable(f"{at}: {data!r} instead of {kind.__name__}")
    return data


def _array(data: object, at: str) -> list[object]:
    if not isinstance(data, list):
        raise Unreadable(f"{at}: {type(data).__name__} instead of a list")
    return cast("list[object]", data)


def _object(data: object, at: str) -> dict[str, object]:
    if not isinstance(data, dict):
        raise Unreadable(f"{at}: {type(data).__name__} instead of an object")
    return cast("dict[str, object]", data)
