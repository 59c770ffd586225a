"""YAML as plain values, strictly: no key twice, no aliases, nothing that only PyYAML knows how to build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avdetect.errors import ConfigError

MAX_BYTES = 1 << 20


def read_yaml(path: Path) -> Any:
    """The one document in the file. Raises ConfigError."""
    import yaml  # scoring with the defaults needs none

    class StrictLoader(yaml.SafeLoader):
        """SafeLoader takes the last of two equal keys without a word; a file of differences must not."""

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            if self.check_event(yaml.events.AliasEvent):
                # Aliases of aliases make a file of a few lines larger than any memory.
                raise yaml.composer.ComposerError(
                    None, None, "aliases (*name) are refused: write the values out", self.peek_event().start_mark
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in names:
                    problem = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
                names.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None)
            return super().construct_mapping(node, deep)

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES >> 20} MiB: it is no configuration")
        return StrictLoader(content.decode("utf-8")).get_single_data()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid YAML: it is nested too deeply") from error
    # PyYAML's own constructors of numbers and dates raise what Python raises.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
