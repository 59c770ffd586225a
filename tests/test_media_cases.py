"""Ordinary files of ordinary people: wrapping, tags, tracks, channels and containers' crops change nothing else."""

import io
import struct
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from media_factory import RENDERER, encode
from media_reading import LIMITS, frames_of, numbered, pixels_of, samples_of, whole

from avdetect._media import probe as probing
from avdetect._media.channels import Mix
from avdetect.errors import MediaError
from avdetect.media import MediaInfo, MediaReader, VideoStream, probe
from avdetect.types import SAMPLE_RATE, VideoFrames

VOICE = "aevalsrc='0.5*sin(2*PI*440*t)*(0.6+0.4*sin(2*PI*3*t))':sample_rate=48000:duration=2"
BARS = "testsrc2=size=96x64:rate=25:duration=2"
H264 = "-c:v libx264 -pix_fmt yuv420p -g 12"


def render(target: Path, command: str) -> Path:
    """`command` is split at spaces; what must not be stands in the filters above."""
    return encode(target, *({"VOICE": VOICE, "BARS": BARS}.get(part, part) for part in command.split()))


_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def boxes(data: bytes, at: int, end: int, *parents: int) -> Iterator[tuple[int, int, bytes, tuple[int, ...]]]:
    """(offset, size, name, offsets of its parents) of MP4's boxes with 32-bit sizes, sample descriptions among them."""
    while at < end:
        size, name = struct.unpack(">I4s", data[at : at + 8])
        yield at, size, name, parents
        if name in _PARENTS or name == b"stsd":
            yield from boxes(data, at + (16 if name == b"stsd" else 8), at + size, *parents, at)
        at += size


def with_clap(data: bytes, width: int, height: int, right: int = 0, down: int = 0) -> bytes:
    """An MP4 of H.264, moov first, whose container shows `width` x `height` of the picture, the middle moved."""
    at, size, _, parents = next(box for box in boxes(data, 0, len(data)) if box[2] == b"avc1")
    clap = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, right, 1, down, 1)
    patched = bytearray(data)

    def longer(place: int) -> None:
        struct.pack_into(">I", patched, place, struct.unpack_from(">I", patched, place)[0] + len(clap))

    for place in (*parents, at):
        longer(place)
    patched[at + size : at + size] = clap
    for place, length, name, _ in boxes(bytes(patched), 0, len(patched)):
        if name == b"stco":  # where the samples are: behind the moov
            for entry in range(place + 16, place + length, 4):
                longer(entry)
    return bytes(patched)


def with_unknown_codec(data: bytes, kind: bytes) -> bytes:
    """An MP4 whose first sample description named `kind` is one that nothing decodes."""
    at, size, _, _ = next(box for box in boxes(data, 0, len(data)) if box[2] == kind)
    # What is in it would give the codec away.
    entry = data[at + 4 : at + size].replace(kind, b"zzzz", 1).replace(b"esds", b"free").replace(b"avcC", b"free")
    return data[: at + 4] + entry + data[at + size :]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds of pictures and a tone that swells."""
    target = tmp_path_factory.mktemp("cases") / "clip.mp4"
    return render(target, f"-f lavfi -i BARS -f lavfi -i VOICE {H264} -c:a aac -b:a 128k -movflags faststart")


@pytest.fixture(scope="module")
def read(clip) -> tuple[MediaInfo, np.ndarray, np.ndarray]:
    """What stands in it: facts, pictures, sound."""
    return whole(clip)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tags.mp4", "-timecode 01:00:00:00 -metadata:s:v language=zh-Hans -metadata:s:a language=zh-Hans"),
        ("words.mkv", "-metadata:s:v language=[0x1]: -metadata title=Stream#0:0:Video:none"),
        ("sound_first.mkv", "-map 0:a -map 0:v -disposition:a 0 -disposition:v 0"),
    ],
)
def test_wrapping_and_tags_change_nothing(clip, read, tmp_path, name, command):
    info, shown, heard = whole(render(tmp_path / name, f"-i {clip} {command} -c copy"))
    original, pixels, before = read
    assert (info.video.codec, info.video.width, info.video.height) == ("h264", 96, 64)
    assert (info.video.fps, info.video.color_matrix, info.audio.codec) == (25, original.video.color_matrix, "aac")
    assert (len(info.videos), len(info.audios), info.unusable) == (1, 1, {})
    np.testing.assert_array_equal(shown, pixels)
    assert abs(len(heard) - len(before)) < 0.03 * SAMPLE_RATE
    assert np.corrcoef(heard[4000:28000], before[4000:28000])[0, 1] > 0.99


# ---- tracks


@pytest.fixture(scope="module")
def two_tracks(clip) -> Path:
    """A small picture and a large one; silence and the tone. The first of each is marked default."""
    return render(
        clip.with_name("two.mov"),
        f"-f lavfi -i color=gray:size=32x32:rate=25:duration=2 -f lavfi -i anullsrc=duration=2 -i {clip} "
        f"-map 0 -map 2:v -map 1 -map 2:a {H264} -c:a aac -disposition:v:0 default -disposition:v:1 0 "
        "-disposition:a:0 default -disposition:a:1 0 -movflags faststart",
    )


def test_every_track_is_known_and_can_be_chosen(two_tracks, clip):
    info = probe(two_tracks)
    assert [(video.track, video.width, video.is_default) for video in info.videos] == [(1, 32, True), (2, 96, False)]
    assert [(audio.track, audio.is_default) for audio in info.audios] == [(1, True), (2, False)]
    assert (info.video.track, info.audio.track) == (1, 1)
    with MediaReader(two_tracks, limits=LIMITS, video_track=2, audio_track=2) as reader:
        assert (reader.info.video.width, reader.info.audio.index, reader.warnings) == (96, 3, [])
        assert next(reader.video()).width == 96
        for track, loud in ((None, True), (1, False), (2, True)):
            assert any(np.abs(heard.samples).max() > 0.3 for heard in reader.audio(1.0, track=track)) == loud
    assert np.abs(samples_of(two_tracks)).max() < 0.001
    for number in (0, 3):
        with pytest.raises(MediaError, match=f"no audio track {number}: the file has 2 tracks"):
            MediaReader(two_tracks, audio_track=number)
    with pytest.raises(MediaError, match="no video track 2: the file has one track"):
        MediaReader(clip, video_track=2)


@pytest.mark.parametrize(("kind", "name"), [("audio", b"mp4a"), ("video", b"avc1")])
def test_a_track_that_nothing_decodes_is_passed_over_with_a_warning(two_tracks, tmp_path, kind, name):
    path = tmp_path / "unknown.mov"
    path.write_bytes(with_unknown_codec(two_tracks.read_bytes(), name))
    with MediaReader(path, limits=LIMITS) as reader:
        assert (reader.info.video.track, reader.info.audio.track) == ((2, 1) if kind == "video" else (1, 2))
        assert reader.warnings == [f"{kind}: track 1 is passed over (there is no decoder for it); track 2 is read"]
        assert len(list(reader.video())) > 5
        assert len(list(reader.audio(1.0))) == 2
    with pytest.raises(MediaError, match=f"{kind} track 1 cannot be decoded"):
        MediaReader(path, **{f"{kind}_track": 1})


def test_a_half_that_nothing_decodes_is_said_as_such(clip, two_tracks, tmp_path):
    path = tmp_path / "half.mp4"
    path.write_bytes(with_unknown_codec(clip.read_bytes(), b"mp4a"))
    with MediaReader(path, limits=LIMITS) as reader:
        assert (reader.info.audio, reader.info.unusable) == (None, {"audio": "there is no decoder for it"})
        with pytest.raises(MediaError, match="the audio cannot be decoded: there is no decoder"):
            reader.audio(1.0)
    path.write_bytes(with_unknown_codec(path.read_bytes(), b"avc1"))
    with pytest.raises(MediaError, match="cannot be decoded"):
        probe(path)
    # What was passed over is said of the sound that is read in the end.
    path = render(tmp_path / "three.mov", f"-i {two_tracks} -map 0 -map 0:a:1 -c copy -disposition:a:1 default")
    path.write_bytes(with_unknown_codec(with_unknown_codec(path.read_bytes(), b"avc1"), b"mp4a"))
    with MediaReader(path, limits=LIMITS) as reader:
        assert reader.info.audio.track == 2
        reader.choose_audio(3)
        passed = "{}: track 1 is passed over (there is no decoder for it); track {} is read"
        assert reader.warnings == [passed.format("video", 2), passed.format("audio", 3)]


# ---- channels


@pytest.mark.parametrize(
    ("name", "command", "level"),
    [
        ("left.wav", "-af pan=stereo|c0=c0|c1=0*c0", 0.5),
        ("phase.wav", "-af pan=stereo|c0=c0|c1=-1*c0", 1.0),
        ("surround_phase.mkv", "-af pan=5.1|FL=c0|FR=-1*c0|LFE=c0 -c:a flac", 1.0),  # rumble is no part of the mean
        ("ambisonic.mkv", "-af pan=4C|c0=c0|c1=-1*c0|c2=0*c0|c3=0*c0 -c:a libopus -mapping_family 2 -b:a 256k", 1.0),
        ("many.wav", "-ar 16000 -af pan=32C|c30=c0", 1.0),
    ],
)
def test_the_voice_is_heard_whatever_the_channels(clip, read, tmp_path, name, command, level):
    heard, reference = samples_of(render(tmp_path / name, f"-i {clip} -vn {command}")), read[2]
    middle = slice(SAMPLE_RATE, SAMPLE_RATE * 3 // 2)  # behind the half second in which it was noticed
    assert heard[middle].std() == pytest.approx(level * reference[middle].std(), rel=0.06)
    assert heard[: SAMPLE_RATE // 2].std() > 0.3 * level * reference[: SAMPLE_RATE // 2].std()


def mixed(signal: np.ndarray, chunk: int) -> np.ndarray:
    """What `Mix` makes of (n, channels), as ffmpeg pipes it, read in chunks."""
    data = io.BytesIO(np.column_stack([signal.mean(axis=1), signal]).astype(np.float32).tobytes())
    mix, chunks = Mix(lambda buffer: data.readinto(memoryview(buffer).cast("B")), signal.shape[1] + 1), []
    while not chunks or len(chunks[-1]) == chunk:
        samples = np.empty(chunk, np.float32)
        chunks.append(samples[: mix.read(samples)])
    return np.concatenate(chunks)


def test_a_mean_that_cancels_later_gives_way_once_and_without_a_click():
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    tone = 0.5 * np.sin(2 * np.pi * 200 * time)
    other = np.where(time < 2, tone, -0.8 * tone)  # the second channel turns round; then it is whole again
    other[3 * SAMPLE_RATE :] = tone[3 * SAMPLE_RATE :]
    heard = mixed(np.column_stack([tone, other]), 12_345)
    np.testing.assert_allclose(heard[: 2 * SAMPLE_RATE], tone[: 2 * SAMPLE_RATE], atol=1e-6)
    np.testing.assert_allclose(heard[SAMPLE_RATE * 5 // 2 :], tone[SAMPLE_RATE * 5 // 2 :], atol=1e-6)
    # No step is larger than the tone's own and the turn of the channel itself (which the mean has too).
    assert np.abs(np.diff(heard)).max() < 2 * np.abs(np.diff(tone)).max()


@pytest.mark.parametrize("chunk", [7, 7_999, 8_000, 64_000])
def test_chunks_do_not_change_the_mix_and_noise_that_nobody_hears_stays_the_mean(chunk):
    signal = np.random.default_rng(0).normal(size=(9_000, 3)).astype(np.float32)
    signal[:, 1] = -signal[:, 0] - signal[:, 2]
    np.testing.assert_array_equal(mixed(signal, chunk), mixed(signal, 5_000))
    quiet = 1e-4 * signal[:, 0]
    assert not mixed(np.column_stack([quiet, -quiet]), chunk).any()


# ---- pictures


def assert_as_a_player_shows_it(path: Path) -> VideoStream:
    """Turned and cropped as ffmpeg does by default."""
    info, pixels, _ = whole(path)
    command = [RENDERER, "-v", "error", "-i", path, "-map", "0:v", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    raw = subprocess.run(command, capture_output=True).stdout
    assert pixels.shape[1:] == (info.video.height * 3 // 2, info.video.width)
    np.testing.assert_array_equal(pixels.ravel(), np.frombuffer(raw, np.uint8))
    return info.video


@pytest.mark.parametrize(
    ("turn", "mirror"), [("0", "-display_hflip"), ("90", ""), ("180", ""), ("270", "-display_hflip")]
)
def test_turned_and_mirrored_pictures_are_those_of_a_player(clip, tmp_path, turn, mirror):
    path = render(tmp_path / "turned.mp4", f"-display_rotation {turn} {mirror} -i {clip} -map 0:v -c copy -t 1")
    video = assert_as_a_player_shows_it(path)
    assert (video.width, video.height) == ((96, 64) if turn in ("0", "180") else (64, 96))
    assert video.rotation_degrees == -int(turn) % 360 or mirror


@pytest.mark.parametrize(
    ("ext", "width", "height", "right", "down"),
    [("mp4", 64, 48, -8, 4), ("mp4", 90, 64, 0, 0), ("mkv", 32, 64, 20, 0)],
)
def test_a_picture_that_the_container_crops_is_that_of_a_player(clip, tmp_path, ext, width, height, right, down):
    path = tmp_path / "clap.mp4"
    path.write_bytes(with_clap(clip.read_bytes(), width, height, right, down))
    if ext == "mkv":  # its muxer writes PixelCrop
        path = render(tmp_path / "crop.mkv", f"-i {path} -c copy")
    video = assert_as_a_player_shows_it(path)
    assert (video.width, video.height, video.coded_width, video.coded_height) == (width, height, 96, 64)


# ---- gaps


def gap(folder: Path, seconds: float, ext: str) -> Path:
    lossless = "-c:v libx264 -qp 0 -pix_fmt yuv420p -g 12"  # the same pixels whatever the times
    later = f"setpts='if(gte(N,20),PTS+{seconds}/TB,PTS)'"
    return render(folder / f"gap.{ext}", f"-f lavfi -i BARS -vf {later} -fps_mode passthrough {lossless}")


def stretches(batches: list[VideoFrames]) -> list[tuple[int, int]]:
    """(first frame, how many) of consecutive ones."""
    found: list[tuple[int, int]] = []
    for batch in batches:
        if found and sum(found[-1]) == batch.first_frame:
            found[-1] = found[-1][0], found[-1][1] + len(batch)
        else:
            found.append((batch.first_frame, len(batch)))
    return found


@pytest.mark.parametrize(("seconds", "ext"), [(1, "mkv"), (2, "mp4"), (10_000, "mkv")])
def test_a_picture_is_held_for_a_second_and_not_for_the_whole_gap(tmp_path, seconds, ext):
    path = gap(tmp_path, seconds, ext)
    missing, batches = round(seconds * 25), frames_of(path)
    assert stretches(batches) == ([(0, 50 + missing)] if seconds <= 1 else [(0, 44), (20 + missing, 30)])
    pixels = np.concatenate([batch.i420 for batch in batches])
    real = [*range(20), *range(len(pixels) - 30, len(pixels))]
    np.testing.assert_array_equal(pixels[real], pixels_of(gap(tmp_path, 0, ext))[1])


@pytest.mark.parametrize("ext", ["mp4", "mkv"])
def test_a_window_gives_what_a_whole_read_gives_around_a_gap(tmp_path, ext):
    path = gap(tmp_path, 8, ext)

    with MediaReader(path, limits=LIMITS) as reader:
        every = numbered(reader.video())
        for start, length in ((0.4, 2), (1.2, 9), (3, 2), (7.5, 3), (9, 0.8)):
            first, stop = round(start * 25), round(start * 25) + round(length * 25)
            expected = {number: frame for number, frame in every.items() if first <= number < stop}
            assert numbered(reader.video(start_seconds=start, duration_seconds=length)) == expected


@pytest.mark.parametrize(("rate", "start", "frames"), [(0.001, 75_000, 25), (7.52, 0, 13)])
def test_large_pictures_do_not_block_the_times_that_number_them(tmp_path, rate, start, frames):
    """One is more than a pipe holds: who waits for the next picture's time must read on. The last is held for a
    second."""
    path = render(tmp_path / "large.mp4", f"-f lavfi -i testsrc2=size=1280x720:rate={rate} -frames:v 4 {H264}")
    assert stretches(frames_of(path))[-1] == (start, pytest.approx(frames, abs=1))


def test_an_encrypted_file_is_said_to_be_encrypted(clip, tmp_path):
    key = "-encryption_scheme cenc-aes-ctr -encryption_key 00112233445566778899aabbccddeeff"
    path = render(tmp_path / "locked.mp4", f"-i {clip} -c copy {key} -encryption_kid 112233445566778899aabbccddeeff00")
    with pytest.raises(MediaError, match="is encrypted; give a copy without protection"):
        probe(path)


@pytest.mark.parametrize(
    ("remedy", "addresses"),
    [
        ("download it first", ("http://x.org/a.mp4", "https:/x.org/a.mp4", "RTSP://10.0.0.1/", "s3://b")),
        ("give the path alone", ("file:///tmp/a b.mp4", "FILE:///tmp/%20.mp4", "file:/tmp/a.mp4")),
    ],
)
def test_addresses_are_not_opened(monkeypatch, remedy, addresses):
    monkeypatch.setattr(probing.Child, "__init__", lambda *_: pytest.fail("it was opened"))
    for address, read in product(addresses, (probe, MediaReader)):
        with pytest.raises(MediaError, match=f"is an address; addresses are not opened: {remedy}"):
            read(address)
