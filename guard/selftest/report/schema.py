"""The JSON report's JSON Schema (draft 2020-12), made from the dataclasses in `guard.selftest.results`.

Numbers that may have come out as NaN or infinite read null in JSON. Members may be added under the same
`schema_version`: whoever reads a report passes over those that they do not know.

    python -m guard.selftest.report.schema > docs/selftest.schema.json
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from inspect import getdoc
from typing import Literal, Union, cast, get_args, get_origin, get_type_hints

from guard.selftest.results import SCHEMA_VERSION, Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, object]


def json_schema() -> Schema:
    """Return the schema of the JSON report."""
    defs: dict[str, Schema] = {}
    root = _dataclass(Report, defs)
    cast("dict[str, Schema]", root["properties"])["schema_version"]["const"] = SCHEMA_VERSION
    return {"$schema": DIALECT, "title": "Guard's attack self-test: JSON report", **root, "$defs": defs}


def _dataclass(kind: type, defs: dict[str, Schema]) -> Schema:
    hints, told = get_type_hints(kind), described(kind)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for field in fields(kind):  # pyright: ignore[reportArgumentType]: callers checked `is_dataclass`
        properties[field.name] = _schema(hints[field.name], defs)
        if field.name in told:
            properties[field.name]["description"] = told[field.name]
        if field.default is MISSING and field.default_factory is MISSING:
            required.append(field.name)
    title = (getdoc(kind) or "").partition("\n")[0]
    return {"description": title, "type": "object", "properties": properties, "required": required}


def _schema(hint: object, defs: dict[str, Schema]) -> Schema:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _nullable(next(arg for arg in args if arg is not types.NoneType), defs)
    if origin is Literal:
        return {"type": "string", "enum": list(args)}
    if origin is tuple:
        each = [_schema(arg, defs) for arg in args]
        return {"type": "array", "prefixItems": each, "items": False, "minItems": len(args)}
    if origin is Sequence:
        return {"type": "array", "items": _schema(args[0], defs)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(args[1], defs)}
    if isinstance(hint, type) and is_dataclass(hint):
        if hint.__name__ not in defs:
            defs[hint.__name__] = {}  # a name first: a class may hold itself
            defs[hint.__name__] = _dataclass(hint, defs)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    plain: dict[object, Schema] = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: {"type": ["number", "null"]},
        object: {},
    }
    return dict(plain[hint])


def _nullable(hint: object, defs: dict[str, Schema]) -> Schema:
    inner = _schema(hint, defs)
    kind = inner.get("type")
    if isinstance(kind, str) and "enum" not in inner:
        return {**inner, "type": [kind, "null"]}
    return inner if isinstance(kind, list) else {"anyOf": [inner, {"type": "null"}]}


def described(kind: type) -> dict[str, str]:
    """Return what a dataclass's docstring says of each of its arguments."""
    _, _, args = (getdoc(kind) or "").partition("Args:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", args, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
