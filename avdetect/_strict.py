"""Dataclasses from plain values, strictly: what is unknown, mistyped or stated twice is refused by its name."""

from __future__ import annotations

import dataclasses
import json
import types as builtin_types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from avdetect.errors import ConfigError

T = TypeVar("T")


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
            raise ConfigError(f"{where}: unknown key {key!r}; known keys: {', '.join(names)}")
    given = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**given)
    except ConfigError as error:  # out of range: say where, not only what
        raise ConfigError(f"{where}: {error}") from error


def load_yaml(cls: type[T], path: str | Path) -> T:
    """Read a YAML file of differences from the defaults. Raises ConfigError."""
    import yaml  # scoring with the defaults needs none

    class StrictLoader(yaml.SafeLoader):
        """SafeLoader takes the last of two equal keys without a word; a file of differences must not."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value]
            for name in names:
                if names.count(name) > 1:
                    problem = f"the key {name!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        values = StrictLoader(Path(path).read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return from_dict(cls, values, Path(path).name)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where}: must be one of {', '.join(map(str, args))}, got {value!r}")
        return value
    if origin in (Union, builtin_types.UnionType):
        for option in args:
            try:
                return _convert(option, value, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where}: got {value!r}, expected {hint}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(args[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {value!r}")
        return {
            _convert(args[0], key, f"{where}: the key {key!r}"): _convert(args[1], item, f"{where}.{key}")
            for key, item in value.items()
        }
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is type(None) and value is None:
        return None
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    hint_text = _as_number(value) if hint in (int, float) else ""
    raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}{hint_text}")


def _as_number(value: Any) -> str:
    """What to write instead of a number that YAML reads as text."""
    try:
        return f"; YAML reads that as text, write {float(value):.1e}" if isinstance(value, str) else ""
    except ValueError:
        return ""
