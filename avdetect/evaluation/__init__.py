"""What a model can do, measured by group, with intervals. Needs `pip install 'avdetect[evaluate]'`."""

from __future__ import annotations

from importlib.util import find_spec

from avdetect.errors import ConfigError

LIBRARIES = ("sklearn", "matplotlib", "jinja2")  # which nothing but the evaluation imports


def require_libraries() -> None:
    """Raises ConfigError, naming the extra to install, where a library of the evaluation is missing."""
    lacking = [name for name in LIBRARIES if find_spec(name) is None]
    if lacking:
        raise ConfigError(f"evaluating needs {', '.join(lacking)}: pip install '.[evaluate]' in its sources")
