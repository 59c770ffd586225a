"""What requests are refused for. Each has a status, a class name and words for the client; none holds a path."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is answered with an error."""

    status: int

    def __init_subclass__(cls, status: int) -> None:
        cls.status = status

    def __init__(self, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message, self.retry_after_seconds = message, retry_after_seconds

    @property
    def name(self) -> str:
        return type(self).__name__


class BadRequest(Refusal, status=400):
    """It cannot be understood."""


class Unauthorized(Refusal, status=401):
    """It bears no token, or a wrong one."""


class Forbidden(Refusal, status=403):
    """It changes something, and comes from another site's page."""


class NotFound(Refusal, status=404):
    """There is no such job (any more)."""


class UploadTimeout(Refusal, status=408):
    """The upload takes too long."""


class Conflict(Refusal, status=409):
    """The job is not in a state for it."""


class TooLarge(Refusal, status=413):
    """The file is larger than the server takes."""


class UnsupportedType(Refusal, status=415):
    """What was sent says itself that it is no video."""


class WrongHost(Refusal, status=421):
    """It is addressed to a name that is not this server's."""


class Invalid(Refusal, status=422):
    """A field is missing, unknown or out of range."""


class QueueFull(Refusal, status=503):
    """As many jobs wait as may."""


class Storage(Refusal, status=507):
    """The server has no room, or cannot write."""
