"""What a server may do and how much of it, checked before it starts."""

import ipaddress
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from avdetect.batch.options import ScoringOptions
from avdetect.config import MediaLimits
from avdetect.errors import ConfigError

TOKEN_VARIABLE = "AVDETECT_TOKEN"
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class ServerLimits(MediaLimits):
    """Of a file that somebody sends: less than of one that the command's user has named."""

    max_pixels: int = 2**25  # 8K
    max_duration_seconds: float = 3600.0
    max_wall_seconds: float = 900.0
    max_file_seconds: float = 1800.0


@dataclass(frozen=True)
class ServeSettings:
    """Raises ConfigError for what makes no server, or an open one."""

    data: Path  # the folder of jobs and results
    host: str = "127.0.0.1"
    port: int = 8765  # 0: any that is free
    token: str | None = field(default=None, repr=False)  # None: whoever reaches the port may use it
    allowed_hosts: tuple[str, ...] = ()  # names under which browsers may call it, beside addresses
    workers: int = 1  # jobs that are scored at a time
    queue: int = 100  # jobs that may wait
    max_upload_bytes: int = 1024 * 1024**2
    free_bytes: int = 1024**3  # with less room on its disk it takes no more of an upload: what it has must be finished
    stall_seconds: float = 60.0  # without a byte of it
    keep_seconds: float = 24 * 3600.0  # from a job's end to the deletion of all that is known of it
    options: ScoringOptions = field(default_factory=lambda: ScoringOptions(limits=ServerLimits()))

    def __post_init__(self) -> None:
        for name in ("workers", "queue", "max_upload_bytes", "stall_seconds", "keep_seconds"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be a number above 0, got {value}")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port must be from 0 to 65535, got {self.port}")
        if self.token is None and not is_loopback(self.host):
            raise ConfigError(
                f"--host {self.host} is open to other machines, so it needs a token: python3 -c 'import secrets; "
                f"print(secrets.token_urlsafe())' > token.txt, then --token-file token.txt (or ${TOKEN_VARIABLE})"
            )
        if self.token is not None and (len(self.token) < _SHORTEST_TOKEN or not self.token.isascii()):
            raise ConfigError(f"the token must be ASCII and at least {_SHORTEST_TOKEN} characters long")

    def share_of(self, client: str) -> float:
        """How many of its jobs may wait, uploads included. This machine has no share: a proxy may stand there."""
        return math.inf if is_loopback(client) else max(1, self.queue // 2)

    def allows_host(self, name: str) -> bool:
        """Whether a request may be addressed to `name`, without its port.

        A browser that was led here by another page's DNS (rebinding) sends that page's name. On loopback only its own
        names are ours; elsewhere also every address, which no DNS answer can stand behind.
        """
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in {"localhost", "127.0.0.1", "::1", *(host.lower() for host in (self.host, *self.allowed_hosts))}:
            return True
        return "%" not in name and address(name) is not None and not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether it is an address, or the name, of this machine only."""
    found = address(host)
    return host == "localhost" or (found is not None and found.is_loopback)


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that `text` is, without its zone, and as IPv4 where IPv6 only carries that; else None."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def default_data() -> Path:
    """The folder in the user's state directory (XDG base directories)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "avdetect" / "serve"


def read_token(file: Path | None) -> str | None:
    """The token in `file`, else that of the environment, else None. Raises ConfigError."""
    if file is None:
        return os.environ.pop(TOKEN_VARIABLE, "").strip() or None  # workers and ffmpeg need not know it
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read --token-file {file}: {getattr(error, 'strerror', None) or error}") from error
    if not token:
        raise ConfigError(f"--token-file {file} is empty: it must hold the token")
    return token
