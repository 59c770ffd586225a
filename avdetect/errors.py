"""The exceptions avdetect raises. Each message says what happened and what to do next."""


class AVDetectError(Exception):
    """Base of every error that avdetect raises on purpose; the CLI prints its message without a traceback."""


class MediaError(AVDetectError):
    """A file could not be read as media: missing, not a regular file, damaged, or in a format that is refused."""


class LimitError(MediaError):
    """A file was refused because it exceeds a limit (pixels, duration, streams, wall time, memory)."""


class ToolError(AVDetectError):
    """ffmpeg, or a library that reports need, is missing or cannot run on this machine."""


class WorkerError(AVDetectError):
    """The process that scored a file ended without an answer (killed, out of memory, a crash), and so did the next."""


class ModelError(AVDetectError):
    """Weights or a bundle are missing, damaged, or made by an incompatible version."""


class ConfigError(AVDetectError):
    """A configuration value is unknown, mistyped or out of range."""


class ManifestError(AVDetectError):
    """A training manifest lacks a column, holds an unknown label, or leaks a group across splits."""


class ServerError(AVDetectError):
    """`avdetect serve` cannot keep its jobs or hold its place: the disk, the folder, the port."""
