"""YAML as plain values, strictly: no key twice, no aliases, nothing that only PyYAML knows how to build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError

MAX_BYTES, MAX_DEPTH = 1 << 16, 30


def read_yaml(path: Path) -> Any:
    """The one document in the file. Raises ConfigError."""
    import yaml  # scoring with the defaults needs none

    class StrictLoader(yaml.SafeLoader):
        """SafeLoader takes the last of two equal keys without a word; a file of differences must not."""

        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            problem = ""
            if self.check_event(yaml.events.AliasEvent):
                problem = "aliases (*name) are refused, for a few lines of them fill any memory: write the values out"
            if self.depth > MAX_DEPTH:  # PyYAML takes seconds for each thousand of brackets
                problem = f"it is nested more than {MAX_DEPTH} deep"
            if problem:
                raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names: set[tuple[str, str]] = set()
            keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
            for key in keys:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in names:
                        problem = f"the key {key.value!r} stands twice"
                        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
                    names.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES >> 10} KiB: it is no configuration")
        return StrictLoader(content.decode("utf-8")).get_single_data()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    # PyYAML's own constructors of numbers and dates raise what Python raises.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
