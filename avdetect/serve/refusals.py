"""What requests are refused for. Each has a status, a class name and words for the client; none holds a path."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is answered with an error."""

    status = 400

    def __init__(self, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message, self.retry_after_seconds = message, retry_after_seconds

    @property
    def name(self) -> str:
        return type(self).__name__


class BadRequest(Refusal):
    """It cannot be understood."""


class Unauthorized(Refusal):
    """It bears no token, or a wrong one."""

    status = 401


class Forbidden(Refusal):
    """It changes something, and comes from another site's page."""

    status = 403


class NotFound(Refusal):
    """There is no such job (any more)."""

    status = 404


class UploadTimeout(Refusal):
    """The upload takes too long."""

    status = 408


class Conflict(Refusal):
    """The job is not in a state for it."""

    status = 409


class TooLarge(Refusal):
    """The file is larger than the server takes."""

    status = 413


class UnsupportedType(Refusal):
    """What was sent says itself that it is no video."""

    status = 415


class WrongHost(Refusal):
    """It is addressed to a name that is not this server's."""

    status = 421


class Invalid(Refusal):
    """A field is missing, unknown or out of range."""

    status = 422


class QueueFull(Refusal):
    """As many jobs wait as may."""

    status = 503


class Storage(Refusal):
    """The server has no room, or cannot write."""

    status = 507
