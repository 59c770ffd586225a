"""Dataclasses from plain values, strictly: what is unknown, mistyped or stated twice is refused by its name."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import types as builtin_types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from avdetect._yaml import read_yaml
from avdetect.errors import ConfigError

T = TypeVar("T")
MAX_DEPTH = 50  # of a free value; who reads it again has a stack too
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON-able values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], values: Mapping[str, Any] | None, where: str = "config") -> T:
    """Build `cls` from its defaults and the differences in `values`.

    Raises ConfigError, naming the key, for an unknown key or a value of the wrong type.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {type(values).__name__}")
    hints = get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigError(f"{where}: unknown key {shown(key)}; known keys: {', '.join(names)}")
    given = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**given)
    except ConfigError as error:  # out of range: say where, not only what
        raise ConfigError(f"{where}: {error}") from error


def load_yaml(cls: type[T], path: str | Path) -> T:
    """Read a YAML file of differences from the defaults. Raises ConfigError."""
    return from_dict(cls, read_yaml(Path(path)), Path(path).name)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return _plain(value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where}: must be one of {', '.join(map(str, args))}, got {shown(value)}")
        return value
    if origin in (Union, builtin_types.UnionType):
        for option in args:
            try:
                return _convert(option, value, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where}: got {shown(value)}, expected {hint}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {shown(value)}")
        return tuple(_convert(args[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {shown(value)}")
        return {
            _convert(args[0], key, f"{where}: the key {shown(key)}"): _convert(args[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where}: the number is too large") from None
    if hint is type(None) and value is None:
        return None
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    hint_text = _as_number(value) if hint in (int, float) else ""
    raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {shown(value)}{hint_text}")


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A value that JSON can hold: these settings are written into bundles."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where, depth + 1) for item in value]
    if value is None or isinstance(value, bool | str | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    raise ConfigError(f"{where}: expected text, numbers, lists, or mappings with names as keys, got {shown(value)}")


def shown(value: Any) -> str:
    """The value for a message: its beginning."""
    try:
        return _SHORT.repr(value)[:200]
    except ValueError:  # Python writes no number of thousands of digits
        return "a number that is too large"


def _as_number(value: Any) -> str:
    """What to write instead of a number that YAML reads as text."""
    try:
        return f"; YAML reads that as text, write {float(value):.1e}" if isinstance(value, str) else ""
    except ValueError:
        return ""
