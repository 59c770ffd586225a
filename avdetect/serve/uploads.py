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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from avdetect.preprocess import MAX_SECONDS
from avdetect.serve.refusals import BadRequest, Invalid, Refusal, Storage, TooLarge, UnsupportedType, UploadTimeout
from avdetect.serve.settings import ServeSettings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MIN_DURATION_SECONDS = 0.04  # one frame
_LONGEST_FIELD = 64  # bytes of a form field that is not the file
_ROOM_FOR_FORM = 64 * 1024  # bytes that the rest of the form may take beside the file
_MOST_HEADER = 8 * 1024  # bytes of a part's headers
_WRITE_BYTES = 1024**2  # what is gathered before it is written
_LINGER_SECONDS = 5.0  # a refused upload is still read for so long, or its sender would see a broken connection
# A declared type that no media file has. Text is not refused as such: many systems take MPEG-TS (.ts) for it.
_OTHER_KINDS = re.compile(r"image/(?!gif$)|font/|text/(html|plain|csv)$|application/(pdf|zip|json|msword)$")


@dataclass
class Form:
    """What an upload was sent with."""

    name: str = ""
    size: int = 0  # bytes of the file
    fields: dict[str, str] = field(default_factory=dict)

    def seconds(self, key: str, least: float, default: float | None) -> float | None:
        """The number in a field. Raises Invalid."""
        text = self.fields.get(key, "").strip()
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < MAX_SECONDS:
            raise Invalid(f"{key} must be a number of seconds from {least:g} to {MAX_SECONDS:g}")
        return value


async def receive(request: Request, target: Path, settings: ServeSettings) -> Form:
    """Write the field `file` of the form to `target`. Raises Refusal; `target` is then the caller's to remove."""
    boundary = _boundary(request)
    most = settings.max_upload_bytes
    stated = request.headers.get("content-length", "")
    stream = request.stream()
    try:
        if stated.isdecimal() and len(stated) < 20 and int(stated) > most + _ROOM_FOR_FORM:
            raise _too_large(most)
        async with asyncio.timeout(settings.upload_seconds):
            return await _read(stream, boundary, target, settings)
    except TimeoutError:
        said = f"the upload took longer than {settings.upload_seconds:g} s, stood still or came too slowly"
        raise UploadTimeout(said) from None
    except FormParserError as error:
        raise BadRequest("the body is no multipart/form-data as its header says") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Storage("the server's disk is full" if full else "the server cannot write the upload") from error
    except Refusal:
        await linger(stream)
        raise


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise UnsupportedType("send the video as multipart/form-data, in the field `file`")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise BadRequest("the Content-Type header names no boundary")
    return boundary


async def _read(stream: AsyncIterator[bytes], boundary: bytes, target: Path, settings: ServeSettings) -> Form:
    most, stall = settings.max_upload_bytes, settings.stall_seconds
    with target.open("xb") as file:
        parts, left, began = _Parts(file, settings), most + _ROOM_FOR_FORM, time.monotonic()
        parser = MultipartParser(boundary, parts.callbacks(), max_header_size=_MOST_HEADER)
        while True:
            async with asyncio.timeout(stall):
                chunk = await anext(stream, b"")
            if not chunk:
                break
            left -= len(chunk)
            if left < 0:  # what follows the form is no file, but is read just the same
                raise _too_large(most)
            came, seconds = most + _ROOM_FOR_FORM - left, time.monotonic() - began
            if seconds > stall and came < settings.least_bytes_per_second * seconds:
                raise TimeoutError
            parser.write(chunk)
            if parts.waiting >= _WRITE_BYTES:
                await run_in_threadpool(parts.flush)
        parser.finalize()
        await run_in_threadpool(parts.flush)
        await run_in_threadpool(os.fsync, file.fileno())
    return parts.checked()


async def linger(stream: AsyncIterator[bytes]) -> None:
    """Read on, for nothing, so that the answer can be read by who is still sending."""
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            async for _ in stream:
                pass
    except Exception:  # the sender has gone, or the server ends
        return


class _Parts:
    """Takes in what the parser finds: the file, and small fields."""

    def __init__(self, file: BinaryIO, settings: ServeSettings) -> None:
        self._file, self._most, self._free = file, settings.max_upload_bytes, settings.free_bytes
        self._pending: list[bytes] = []
        self.waiting = 0  # bytes that are not written yet
        self._form, self._has_file, self._ended = Form(), False, False
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None  # whose part this is; None: the file's
        self._text = bytearray()

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

    def flush(self) -> None:
        """Write what waits. Raises OSError, Storage."""
        disk = os.fstatvfs(self._file.fileno())
        if disk.f_bavail * disk.f_frsize < self._free + self.waiting:
            raise Storage("the server's disk is nearly full: delete results, or try again later")
        pending, self._pending, self.waiting = self._pending, [], 0
        self._file.write(b"".join(pending))
        self._file.flush()

    def checked(self) -> Form:
        """The whole form. Raises Refusal."""
        if not self._ended:
            raise BadRequest("the body ends before the form does")
        if not self._has_file:
            raise Invalid("the form has no field `file`")
        if not self._form.size:
            raise Invalid("the file is empty")
        return self._form

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
            if key not in ("start_seconds", "duration_seconds") or key in self._form.fields:
                raise Invalid("the form has a field that is unknown or stands in it twice")
            return
        if self._has_file:
            raise Invalid("the form has two fields `file`: send one video a request")
        kind = self._headers.get(b"content-type", b"").split(b";")[0].strip().lower().decode("latin-1")
        if _OTHER_KINDS.match(kind):
            raise UnsupportedType("the file is sent as something that is neither video nor sound")
        self._has_file = True
        self._form.name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is not None:
            self._text.extend(data[start:end])
            if len(self._text) > _LONGEST_FIELD:
                raise Invalid("a field of the form is too long for a number of seconds")
            return
        self._form.size += end - start
        if self._form.size > self._most:
            raise _too_large(self._most)
        self._pending.append(bytes(data[start:end]))
        self.waiting += end - start

    def _part_end(self) -> None:
        if self._field is not None:
            self._form.fields[self._field] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the file is larger than this server takes ({most / 1024**2:g} MiB)")
