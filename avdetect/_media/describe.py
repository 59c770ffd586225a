"""What is in a media file, as one JSON document on standard output: a script, run in a confined process of its own.

    python -I -S -B describe.py PYAV URL OPTIONS

PYAV is the __init__.py of the package `av`, URL the file, OPTIONS a JSON object of libavformat's options.
`avdetect._media.probe` starts it and believes nothing of what it says. It imports nothing of avdetect.
"""

import importlib.util
import io
import json
import sys

MAX_PACKETS, MAX_BYTES = 300, 64_000_000  # read to see whether a stream can be decoded
MAX_TAGS, MAX_LENGTH = 200, 200
MANY_STREAMS = 10_000


def main(pyav, url, options):
    try:
        av = imported("av", pyav)
    except ImportError:  # no room for its libraries, perhaps
        print('{"error": "ImportError"}')
        return
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as log:
        try:
            found = described(av, url, options)
        except Exception as error:
            found = {"error": type(error).__name__}
            log.insert(0, (0, "", getattr(error, "strerror", None) or str(error)))
            found["streams_found"] = streams_found(av, url, options)
        found["log"] = [str(text).strip().replace(url, "the file")[:300] for _, _, text in log][-20:]
    json.dump(found, sys.stdout)


def imported(name, path):
    """The package at `path`: there are no site-packages here."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def described(av, url, options):
    with av.open(url, options=options, metadata_errors="replace") as file:
        streams = [stream_facts(av, stream) for stream in list(file.streams)[: int(options["max_streams"])]]
        try:
            decode_first(av, file, streams)
        except (av.error.FFmpegError, ValueError):
            pass  # a header without a body: what can be decoded is found out later
        return {
            "container": file.format.name,
            "duration": file.duration,
            "start": file.start_time,
            "bit_rate": file.bit_rate,
            "tags": tags(file.metadata),
            "streams": streams,
            "streams_found": len(file.streams),
        }


def streams_found(av, url, options):
    """Too many streams have no error of their own: how many does libavformat find if it may?"""
    try:
        with av.open(url, options=options | {"max_streams": str(MANY_STREAMS)}) as file:
            return len(file.streams)
    except Exception:
        return 0


def stream_facts(av, stream):
    context = stream.codec_context
    stated = stream.start_time is not None and stream.time_base is not None
    facts = {
        "kind": stream.type,
        "default": bool(stream.disposition & stream.disposition.default),
        "cover": bool(stream.disposition & (stream.disposition.attached_pic | stream.disposition.timed_thumbnails)),
        "tags": tags(stream.metadata),
        "start": fraction(stream.start_time * stream.time_base if stated else None),
    }
    if context is None or stream.type not in ("video", "audio"):
        return facts
    facts |= {"codec": context.codec.canonical_name, "bit_rate": context.bit_rate}
    if stream.type == "audio":
        return facts | {
            "sample_rate": context.sample_rate,
            "channels": context.layout.nb_channels,
            "channel_layout": context.layout.name,
        }
    return facts | {
        "width": context.width,
        "height": context.height,
        "pix_fmt": context.pix_fmt or "none",
        "sample_aspect": fraction(stream.sample_aspect_ratio),
        "rate": fraction(stream.average_rate),
        "color_space": int(context.colorspace),
        "color_range": int(context.color_range),
        "field_order": int(context.field_order),
        "crop": crop(av, stream),
    }


# Matroska's elements: those on the way to the picture's, and its PixelCropLeft, -Top, -Right, -Bottom (RFC 9559).
MASTERS = {0x18538067, 0x1654AE6B, 0xAE, 0xE0}
CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)


def crop(av, stream):
    """What the container crops. PyAV does not show it, but writes it: into the header of a Matroska file of this stream
    alone, which we take from its hands."""
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as file:
            file.add_stream_from_template(stream)
            file.start_encoding()
            written = header.getvalue()
    except (av.error.FFmpegError, ValueError):
        return None  # a codec that Matroska does not hold
    found = dict(elements(written))
    return [int.from_bytes(found.get(element, b"")) for element in CROPS]


def elements(data):
    """(name, content) of the elements in Matroska's `data`, but of MASTERS what is in them."""
    at = 0
    while at < len(data):
        length = 9 - data[at].bit_length()
        name, at = int.from_bytes(data[at : at + length]), at + length
        length = 9 - data[at].bit_length() if at < len(data) else 9
        if length > 8:
            return
        size = int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1)
        at += length
        if name not in MASTERS:
            yield name, data[at : at + size]
            at += size


def decode_first(av, file, streams):
    """Try to decode the first picture or samples of every stream, and note what only they tell."""
    pairs = zip(list(file.streams), streams, strict=False)
    wanted = {stream.index: stream for stream, facts in pairs if "codec" in facts and not facts["cover"]}
    for stream in wanted.values():
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {name: file.options[name] for name in ("max_pixels", "codec_whitelist")}
    count = size = 0
    for packet in file.demux(tuple(wanted.values())) if wanted else ():
        facts = streams[packet.stream_index]
        count, size = count + 1, size + packet.size
        if packet.stream_index in wanted:
            if packet.has_sidedata("encryption_info"):
                facts["encrypted"] = True
            else:
                decode(av, packet, facts)
            if facts.get("decodes") or "encrypted" in facts:
                del wanted[packet.stream_index]
        if not wanted or count > MAX_PACKETS or size > MAX_BYTES:
            return


def decode(av, packet, facts):
    try:
        frames = packet.decode()
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError):
        facts["decodes"] = False
        return
    if frames:
        facts["decodes"] = True
    if frames and facts["kind"] == "video":
        facts["interlaced"] = bool(frames[0].interlaced_frame)
        matrix = frames[0].side_data.get("DISPLAYMATRIX")
        if matrix is not None and matrix.buffer_size == 36:
            facts["matrix"] = list(memoryview(matrix).cast("B").cast("i"))


def tags(metadata):
    return {key[:MAX_LENGTH]: value[:MAX_LENGTH] for key, value in list(metadata.items())[:MAX_TAGS]}


def fraction(value):
    return None if value is None else [value.numerator, value.denominator]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
