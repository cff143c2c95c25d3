"""From a foreign row (a JSON object) to our fields: selection, dotted paths, constants, types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.sources.base import DEFAULT_TYPES, BadRow, Source

_PYTHON = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
_MUST_BE = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_IS = {**_MUST_BE, int: "a number", bool: "a truth value", type(None): "null"}
_SHOWN = 60


def show(value: Any) -> str:
    """A value as one short line of JSON, for messages."""
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        text = ascii(value)
    text = show_place(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def show_place(path: str) -> str:
    """A path as a place in messages: one line, valid UTF-8."""
    return path if path.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)


def follow(row: Mapping[str, Any], parts: tuple[str, ...]) -> Any:
    """The value at a dotted path; None where there is nothing.

    A whole number stands for a position in a list, `1:` for what follows from there on, perhaps nothing.

    Raises BadRow when the path runs through something that has no parts.
    """
    value: Any = row
    for depth, part in enumerate(parts):
        if value is None:
            return None
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, list) and part.endswith(":") and part[:-1].isdecimal():
            value = value[int(part[:-1]) :]
        else:
            above = ".".join(parts[:depth])
            raise BadRow(
                "wrong type",
                f"{above} is {_IS[type(value)]} ({show(value)}), must be an object that has {part!r}",
            )
    return value


def mistyped(path: str, value: Any, wanted: type) -> BadRow:
    """The complaint about a value of the wrong type."""
    shown = "" if value is None else f" ({show(value)})"
    return BadRow("wrong type", f"{path} is {_IS[type(value)]}{shown}, must be {_MUST_BE[wanted]}")


def named_files(role: str, path: str, named: Any) -> list[str]:
    """The paths that a value names, a text or a list of texts, in order; raises BadRow for anything else.

    None at all is a BadRow too, unless the path asks for the rest of a list (`inputs.1:`), which may be empty.
    """
    if not isinstance(named, list):
        if type(named) is not str:
            raise mistyped(path, named, str)
        return [named]
    if not named and not path.endswith(":"):
        raise BadRow(f"no {role}", f"{path} is an empty list, must name at least one")
    for place, one in enumerate(named):
        if type(one) is not str:
            raise mistyped(f"{path}.{place}", one, str)
    return named


class FieldMap:
    """A source's `select`, `map`, `const` and `types`, prepared once and applied to every row."""

    def __init__(self, source: Source) -> None:
        types = {**DEFAULT_TYPES, **source.types}
        self._entries = [
            (name, path, tuple(path.split(".")), _PYTHON[types[name]] if name in types else None)
            for name, path in source.map.items()
        ]
        self._const = {
            name: self._typed(name, name, value, _PYTHON[types[name]] if name in types else None)
            for name, value in source.const.items()
        }
        self._select = [
            (tuple(path.split(".")), _as_set(wanted if isinstance(wanted, list) else [wanted]))
            for path, wanted in source.select.items()
        ]

    def selects(self, row: Mapping[str, Any]) -> bool:
        """Whether the row is an input at all."""
        for parts, wanted in self._select:
            try:
                value = row.get(parts[0]) if len(parts) == 1 else follow(row, parts)
            except BadRow:
                return False
            if isinstance(value, (list, dict)) or (type(value) is bool, value) not in wanted:
                return False
        return True

    def apply(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Our fields; a path that leads nowhere gives null. Raises BadRow at a value of the wrong type."""
        fields = {}
        for name, path, parts, wanted in self._entries:
            value = row.get(path) if len(parts) == 1 else follow(row, parts)
            if value is None or type(value) is wanted:
                fields[name] = value
            else:
                fields[name] = self._typed(name, path, value, wanted)
        if self._const:
            fields.update(self._const)
        return fields

    @staticmethod
    def _typed(name: str, path: str, value: Any, wanted: type | None) -> Any:
        if wanted is float and type(value) is int:
            return float(value)
        if wanted is not None and value is not None and type(value) is not wanted:
            raise mistyped(path, value, wanted)
        if isinstance(value, (list, dict)):
            try:
                orjson.dumps(value)
            except orjson.JSONEncodeError as error:
                raise BadRow("not storable", f"{path} cannot be stored as JSON: {error}") from None
        return value


def _as_set(wanted: list[Any]) -> frozenset[tuple[bool, Any]]:
    # True equals 1 in Python but not in JSON.
    return frozenset((type(value) is bool, value) for value in wanted)
