"""The policy language described from its own specs: JSON Schema for editors, Markdown for `docs/policy.md`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, cast

from pydantic import BaseModel

from guard.policy.problems import models_in
from guard.policy.schema import Policy


def json_schema() -> dict[str, Any]:  # Any: JSON Schema
    """Return the policy's JSON Schema, with the meaning of every key from its spec's docstring."""
    schema: dict[str, Any] = Policy.model_json_schema()
    described = {model.__name__: model for model in models()}
    for name, part in [("Policy", schema), *schema.get("$defs", {}).items()]:
        model = described[name]
        part["description"] = summary(model)
        if "const" in part["properties"].get("kind", {}):
            part["required"] = ["kind", *part.get("required", [])]
        for key, meaning in arguments(model).items():
            part["properties"][key]["description"] = meaning
    # A policy that extends another may leave anything to it.
    schema["required"] = []
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Guard policy"}


def markdown() -> str:
    """Return `docs/policy.md`: a table for each model: key, type, default, meaning."""
    schema = json_schema()
    parts = [_HEAD]
    for model in models():
        part: dict[str, Any] = schema if model is Policy else schema["$defs"][model.__name__]  # Any: JSON Schema
        kind = part["properties"].get("kind", {}).get("const")
        parts.append(
            f"\n## {_title(model, kind)}\n\n{details(model)}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
        )
        meanings = arguments(model)
        for key, value in part["properties"].items():
            if key == "kind" and kind is not None:
                continue
            default = "required" if key in _required(model) else _default(value)
            parts.append(f"| `{key}` | {_type(value)} | {default} | {_cell(meanings.get(key, ''))} |\n")
    return "".join(parts)


_HEAD = """# The policy language

<!-- Generated from the specs: guard schema --format markdown > docs/policy.md -->

A policy is a YAML file (1.2 scalars; no anchors, tags or duplicate keys). `guard check POLICY` names every mistake
with file, line and path. `{env: NAME}` and `{file: PATH}` are the only ways to a secret; relative paths start at the
policy's own folder. `extends` starts from a preset or a file: maps merge, lists replace.
"""


def models() -> list[type[BaseModel]]:
    """Return all models of the language, parents before what they hold, each once."""
    found: dict[type[BaseModel], None] = {}

    def visit(model: type[BaseModel]) -> None:
        found[model] = None
        for field in model.model_fields.values():
            for inner in models_in(field.annotation):
                visit(inner)

    visit(Policy)
    return list(found)


def summary(model: type[BaseModel]) -> str:
    """Return the first line of a model's docstring."""
    return (inspect.getdoc(model) or "").partition("\n")[0]


def details(model: type[BaseModel]) -> str:
    """Return a model's docstring down to its arguments or examples."""
    doc = inspect.getdoc(model) or ""
    return re.split(r"\n(?=Args:|Source:|>>> )", doc, maxsplit=1)[0].strip()


def arguments(model: type[BaseModel]) -> dict[str, str]:
    """Return what each key means, from the `Args:` of the model's docstring and of those that it inherits from.

    >>> arguments(Policy)["version"]
    '1.'
    """
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            meanings |= dict(_arguments(inspect.cleandoc(base.__doc__ or "")))
    return meanings


def _arguments(doc: str) -> Iterator[tuple[str, str]]:
    found = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n(?=[ ]{4}))+)", doc, re.MULTILINE)
    for match in re.finditer(r"^ {4}(\w+): ((?:.*\n?)(?: {8}.*\n?)*)", found[1] if found else "", re.MULTILINE):
        yield match[1], " ".join(match[2].split())


def _title(model: type[BaseModel], kind: str | None) -> str:
    if kind is None:
        return {"Policy": "The policy"}.get(model.__name__, model.__name__)
    group = model.__module__.split(".")[1]
    word = {"defences": "Defence", "budgets": "Budget", "detectors": "Detector"}.get(group, "Identity")
    return f"{word} `{kind}`"


def _required(model: type[BaseModel]) -> set[str]:
    return {name for name, field in model.model_fields.items() if field.is_required()}


def _default(value: dict[str, Any]) -> str:  # Any: JSON Schema
    default: object = value.get("default")
    if default is None:
        return ""
    if isinstance(default, dict | list) and not default:
        return "none"
    if isinstance(default, dict):
        return "its defaults"
    words = cast("list[object]", default) if isinstance(default, list) else [default]
    return ", ".join(f"`{_word(word)}`" for word in words)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _type(value: dict[str, Any]) -> str:  # Any: JSON Schema
    """Return a JSON Schema type in words."""
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(option) for option in value["anyOf"] if option.get("type") != "null"))
    if "discriminator" in value:
        return "one of " + ", ".join(f"`{kind}`" for kind in value["discriminator"]["mapping"])
    if "const" in value or "enum" in value:
        return ", ".join(f"`{word}`" for word in value.get("enum", [value.get("const")]))
    if value.get("format") == "date":
        return "date (`2026-12-31`)"
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}"
    return _SIMPLE[str(value["type"])] + _bounds(value)


_SIMPLE = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "`{env: NAME}` or `{file: PATH}`",
    "['integer', 'string']": "duration (`90s`, `30m`, `24h`, `7d`, or seconds)",
}


def _bounds(value: dict[str, Any]) -> str:  # Any: JSON Schema
    if isinstance(value["type"], list):
        return ""
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{word} {_number(value[key])}" for key, word in words.items() if key in value]
    return f" ({', '.join(said)})" if said else ""


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
