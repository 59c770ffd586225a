"""Files of whoever made a bundle: regular files of bounded size, and archives that may not grow without bound."""

import io
import math
import os
import stat
import zipfile
import zlib
from pathlib import Path

import numpy as np

from avdetect.errors import ModelError

MAX_UNPACKED_BYTES = 256 * 1024**2
MAX_ARRAYS = 64


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Content of a regular file. Raises OSError, or ModelError for anything else and for a larger one."""
    # Asked before it is opened, since opening alone can act (a device) or wait (a FIFO), and again: it may be swapped.
    _check_kind(path, os.stat(path))
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        _check_kind(path, status)
        if status.st_size > max_bytes:
            raise ModelError(f"{path} is larger than {max_bytes >> 20} MiB: it is no file of a bundle")
        return file.read(status.st_size)  # what grows meanwhile is cut here, and has another hash


def _check_kind(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} is no regular file: a bundle holds nothing else; copy the whole folder again")


def read_arrays(content: bytes) -> dict[str, np.ndarray]:
    """The plain arrays of an .npz. Raises ValueError and what zipfile and NumPy raise."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ARRAYS or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
            raise ValueError(f"it holds more than {MAX_ARRAYS} arrays, or {MAX_UNPACKED_BYTES >> 20} MiB of them")
        for entry in entries:
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename!r} is packed in a way that NumPy does not use")
            with archive.open(entry) as file:  # as many bytes as it states: only deflate stops where it is told to
                arrays[entry.filename.removesuffix(".npy")] = _array(file.read(entry.file_size))
    return arrays


def _array(content: bytes) -> np.ndarray:
    """An .npy of numbers. The header may state any shape: it is believed where the bytes for it are there."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is in a version of the format that plain numbers do not need")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biuf":
        raise ValueError(f"an array holds {dtype}, not numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"an array of shape {shape} is not as long as it says")
    values = np.frombuffer(content, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if fortran else "C").copy()


def gunzip(content: bytes) -> bytes:
    """Unpacked bytes of one gzip member. Raises ValueError when it is damaged or unpacks to more than the limit."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        data = unpacker.decompress(content, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("it is cut short, or something follows it")
    return data
