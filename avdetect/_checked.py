"""Settings with ranges, and settings from plain values or strict YAML: no key twice, no aliases, nothing that only
PyYAML knows how to build. msgspec checks types and ranges; unknown keys are refused here, since it takes them for
dataclasses."""

import dataclasses
import json
import re
import reprlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from avdetect.errors import ConfigError

T = TypeVar("T")
LARGEST_NUMBER = 10**15  # of any setting; what is larger overflows somewhere, and means "no limit" anyhow
MAX_DEPTH = 50  # of a free value; who reads it again has a stack too
Positive = Annotated[float, Meta(gt=0, le=LARGEST_NUMBER)]
NotNegative = Annotated[float, Meta(ge=0, le=LARGEST_NUMBER)]
Count = Annotated[int, Meta(ge=1, le=LARGEST_NUMBER)]
CountOrZero = Annotated[int, Meta(ge=0, le=LARGEST_NUMBER)]
Share = Annotated[float, Meta(gt=0, le=1)]
ShareOrZero = Annotated[float, Meta(ge=0, le=1)]
BelowOne = Annotated[float, Meta(ge=0, lt=1)]  # at 1 nothing would be left
NOT_EMPTY = Meta(min_length=1)
_MAX_YAML_BYTES, _MAX_YAML_DEPTH = 1 << 16, 30
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class Checked:
    """Base of dataclasses whose fields must be of their annotated types and ranges. Raises ConfigError."""

    # Fields of earlier versions -> the one value of each that may still be given, and means nothing; `...`: none may.
    # Never a setting that scoring reads: of what is stored they are left out unseen.
    RETIRED: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type]
            _convert(hint, getattr(self, name), f"{type(self).__name__}.{name}")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON-able values (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], values: Mapping[str, Any] | None, where: str = "config", stored: bool = False) -> T:
    """Build `cls` from its defaults and the differences in `values`. stored: some earlier version may have written
    them, and all that is RETIRED is left out.

    Raises ConfigError, naming the key, for an unknown key or a value of the wrong type or range.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {type(values).__name__}")
    hints = _hints(cls)  # type: ignore[arg-type]  # of a class, which is hashable
    retired = getattr(cls, "RETIRED", {})
    if stored:
        values = {key: value for key, value in values.items() if key not in retired}
    for key, value in values.items():
        if key in retired and value != retired[key]:
            raise ConfigError(f"{where}.{key}: this version of avdetect no longer has it; leave it out")
        if key not in hints and key not in retired:
            raise ConfigError(f"{where}: unknown key {_shown(key)}; known keys: {', '.join(hints)}")
    given = {key: _build(hints[key], value, f"{where}.{key}", stored) for key, value in values.items() if key in hints}
    try:
        return cls(**given)
    except ConfigError as error:  # settings that do not go together: say where, not only what
        raise ConfigError(f"{where}: {error}") from error


def load_yaml(cls: type[T], path: str | Path) -> T:
    """Read a YAML file of differences from the defaults. Raises ConfigError."""
    return from_dict(cls, _read_yaml(Path(path)), Path(path).name)


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _build(hint: Any, value: Any, where: str, stored: bool) -> Any:
    """`value` as `hint` has it: dataclasses from mappings, the rest by msgspec."""
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where, stored)  # type: ignore[arg-type]
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(plain) is tuple and dataclasses.is_dataclass(get_args(plain)[0]) and isinstance(value, list | tuple):
        return tuple(_build(get_args(plain)[0], item, where, stored) for item in value)
    return _convert(hint, value, where)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if Any in get_args(hint):
        _check_plain(value, where)
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        text = re.sub(r" - at `.*|, got `.*|`", "", str(error)).replace("Expected", "expected")
        if choices := _choices(hint):
            text = f"must be one of {', '.join(choices)}"
        raise ConfigError(f"{where}: {text}, got {_shown(value)}{_as_number(hint, value)}") from None


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """A free value must be one that JSON can hold: it is written into bundles."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            _check_plain(item, f"{where}.{key}"[:200], depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(item, where, depth + 1)
    elif not (value is None or isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 2**63)):
        said = "expected text, numbers, lists, or mappings with names as keys"
        raise ConfigError(f"{where}: {said}, got {_shown(value)}")


def _choices(hint: Any) -> list[str]:
    """The words of the literal in `hint`, if it has one."""
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    return [word for inner in get_args(hint) for word in _choices(inner)]


def _shown(value: Any) -> str:
    """The value for a message: its beginning."""
    try:
        return _SHORT.repr(value)[:200]
    except ValueError:  # Python writes no number of thousands of digits
        return "a number that is too large"


def _as_number(hint: Any, value: Any) -> str:
    """What to write instead of a number that YAML reads as text."""
    try:
        is_number = isinstance(value, str) and {float, int} & {hint, *get_args(hint)}
        return f"; YAML reads that as text, write {float(value):.1e}" if is_number else ""
    except ValueError:
        return ""


def _read_yaml(path: Path) -> Any:
    """The one document in the file."""
    import yaml  # scoring with the defaults needs none

    class StrictLoader(yaml.SafeLoader):
        """SafeLoader takes the last of two equal keys without a word; a file of differences must not."""

        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            problem = ""
            if self.check_event(yaml.events.AliasEvent):
                problem = "aliases (*name) are refused, for a few lines of them fill any memory: write the values out"
            if self.depth > _MAX_YAML_DEPTH:  # PyYAML takes seconds for each thousand of brackets
                problem = f"it is nested more than {_MAX_YAML_DEPTH} deep"
            if problem:
                raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            keys = [(key.tag, key.value) for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                if keys.count(key) > 1:
                    problem = f"the key {key[1]!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        with path.open("rb") as file:
            content = file.read(_MAX_YAML_BYTES + 1)
        if len(content) > _MAX_YAML_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_YAML_BYTES >> 10} KiB: it is no configuration")
        return StrictLoader(content.decode("utf-8")).get_single_data()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    # PyYAML's own constructors of numbers and dates raise what Python raises.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
