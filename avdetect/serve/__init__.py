"""`avdetect serve`: a page and a REST interface that score uploaded videos, one process each. Extra `serve`."""

from __future__ import annotations

import importlib.util

from avdetect.errors import ConfigError

_LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "pydantic")


def require_libraries() -> None:
    """Raises ConfigError where the extra is not installed."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"avdetect serve needs {', '.join(missing)}: run pip install 'avdetect[serve]'")
