"""Uploads: multipart/form-data to a file on disk, as it comes, within limits.

Starlette's own form parser would first write all of it to the system's temporary folder, whatever its size.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from avdetect.preprocess import MAX_SECONDS
from avdetect.serve.models import Refusal
from avdetect.serve.settings import ServeSettings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_LONGEST_FIELD = 64  # bytes of a form field that is not the file
_ROOM_FOR_FORM = 64 * 1024  # bytes that the rest of the form may take beside the file
_MOST_HEADER = 8 * 1024  # bytes of a part's headers
_UPLOAD_SECONDS = 3600.0  # for all of it
_LEAST_BYTES_PER_SECOND = 16 * 1024  # on average, once it has gone on for `stall_seconds`
_LINGER_SECONDS = 5.0  # a refused upload is still read for so long, or its sender would see a broken connection
# A declared type that no media file has. Text is not refused as such: many systems take MPEG-TS (.ts) for it.
_OTHER_KINDS = re.compile(r"image/(?!gif$)|font/|text/(html|plain|csv)$|application/(pdf|zip|json|msword)$")


async def receive(request: Request, target: Path, settings: ServeSettings) -> Upload:
    """Write the field `file` of the form to `target`. Raises Refusal; `target` is then the caller's to remove."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise Refusal("UnsupportedType", "send the video as multipart/form-data, in the field `file`")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise Refusal("BadRequest", "the Content-Type header names no boundary")
    stated, stream = request.headers.get("content-length", ""), request.stream()
    try:
        if stated.isdecimal() and len(stated) < 20 and int(stated) > settings.max_upload_bytes + _ROOM_FOR_FORM:
            raise _too_large(settings)
        async with asyncio.timeout(_UPLOAD_SECONDS):
            return await _read(stream, boundary, target, settings)
    except TimeoutError:
        said = f"the upload took longer than {_UPLOAD_SECONDS:g} s, stood still or came too slowly"
        raise Refusal("UploadTimeout", said) from None
    except FormParserError as error:
        raise Refusal("BadRequest", "the body is no multipart/form-data as its header says") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = "the server's disk is full" if full else "the server cannot write the upload"
        raise Refusal("Storage", said) from error
    except Refusal:
        await linger(stream)
        raise


async def linger(stream: AsyncIterator[bytes]) -> None:
    """Read on, for nothing, so that the answer can be read by who is still sending."""
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            async for _ in stream:
                pass
    except Exception:  # the sender has gone, or the server ends
        return


async def _read(stream: AsyncIterator[bytes], boundary: bytes, target: Path, settings: ServeSettings) -> Upload:
    most, stall = settings.max_upload_bytes + _ROOM_FOR_FORM, settings.stall_seconds
    came, began = 0, time.monotonic()
    with target.open("xb") as file:
        upload = Upload(file, settings)
        parser = MultipartParser(boundary, upload.callbacks(), max_header_size=_MOST_HEADER)
        while True:
            async with asyncio.timeout(stall):
                chunk = await anext(stream, b"")
            if not chunk:
                break
            came, seconds = came + len(chunk), time.monotonic() - began
            if came > most:  # what follows the form is no file, but is read just the same
                raise _too_large(settings)
            if seconds > stall and came < _LEAST_BYTES_PER_SECOND * seconds:
                raise TimeoutError
            await run_in_threadpool(upload.take, parser, chunk)
        parser.finalize()
        file.flush()
        await run_in_threadpool(os.fsync, file.fileno())
    upload.check_whole()
    return upload


class Upload:
    """What the parser finds in a form: the file, which is written as it comes, and small fields. Raises Refusal."""

    def __init__(self, file: BinaryIO, settings: ServeSettings) -> None:
        self.name = ""  # of the file, as its sender calls it
        self._file, self._settings = file, settings
        self._size, self._has_file, self._ended = 0, False, False
        self._fields: dict[str, str] = {}
        self._header, self._value, self._text = bytearray(), bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None  # whose part this is; None: the file's

    def callbacks(self) -> MultipartCallbacks:
        """For MultipartParser."""
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def take(self, parser: MultipartParser, chunk: bytes) -> None:
        """Parse it and write what belongs to the file. Raises OSError and FormParserError too."""
        disk = os.fstatvfs(self._file.fileno())
        if disk.f_bavail * disk.f_frsize < self._settings.free_bytes + len(chunk):
            raise Refusal("Storage", "the server's disk is nearly full: delete results, or try again later")
        parser.write(chunk)

    def seconds(self, key: str, least: float, default: float | None) -> float | None:
        """The number in a field."""
        text = self._fields.get(key, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < MAX_SECONDS:
            raise Refusal("Invalid", f"{key} must be a number of seconds from {least:g} to {MAX_SECONDS:g}")
        return value

    def check_whole(self) -> None:
        """Whether nothing is missing."""
        if not self._ended:
            raise Refusal("BadRequest", "the body ends before the form does")
        if not self._size:
            raise Refusal("Invalid", "the file is empty" if self._has_file else "the form has no field `file`")

    def _header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        key = options.get(b"name", b"").decode("utf-8", "replace")
        self._text.clear()
        self._field = None if key == "file" else key
        if self._field is not None:
            if key not in ("start_seconds", "duration_seconds") or key in self._fields:
                raise Refusal("Invalid", "the form has a field that is unknown or stands in it twice")
            return
        if self._has_file:
            raise Refusal("Invalid", "the form has two fields `file`: send one video a request")
        kind = self._headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        if _OTHER_KINDS.match(kind):
            raise Refusal("UnsupportedType", "the file is sent as something that is neither video nor sound")
        self._has_file = True
        self.name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._size += end - start
            if self._size > self._settings.max_upload_bytes:
                raise _too_large(self._settings)
            self._file.write(data[start:end])
            return
        self._text.extend(data[start:end])
        if len(self._text) > _LONGEST_FIELD:
            raise Refusal("Invalid", "a field of the form is too long for a number of seconds")

    def _part_end(self) -> None:
        if self._field is not None:
            self._fields[self._field] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


def _too_large(settings: ServeSettings) -> Refusal:
    mebibytes = settings.max_upload_bytes / 1024**2
    return Refusal("TooLarge", f"the file is larger than this server takes ({mebibytes:g} MiB)")
