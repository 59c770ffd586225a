"""Make the clip that `avdetect demo` scores: a still portrait whose mouth is moved by a synthetic voice.

    python tools/make_sample.py            # needs scikit-image (extra `dev`) for the portrait

Picture: `skimage.data.astronaut()`, NASA's portrait of Eileen Collins. scikit-image's note on it: "This image was
downloaded from the NASA Great Images database <https://flic.kr/p/r9qvLn>. No known copyright restrictions, released
into the public domain."

Voice: no recording and no speech engine. A source-filter synthesiser after D. Klatt, "Software for a cascade/parallel
formant synthesizer", JASA 67(3), 1980: a glottal pulse and aspiration run through five formant resonators in cascade,
frication runs through one resonator beside them. The text is "Hello. I am not real. My voice is made of numbers."

So the clip is a manipulation in both halves: the face is animated and the voice is synthetic.
Nothing here is random between runs: one ffmpeg build gives the same bytes every time.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

from avdetect.extras import script_imports

with script_imports("make_sample", "dev"):
    from scipy.interpolate import PchipInterpolator
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import lfilter

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "avdetect" / "weights" / "sample" / "sample.mp4"
SAMPLE_RATE = 16_000
FPS = 25
SIZE = 480  # output pixels, square
STEP = 20  # samples in one control step (1.25 ms): longer steps make the resonators click where formants move fast
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS

# --------------------------------------------------------------------------------------------------------------- voice


@dataclass(frozen=True)
class Phone:
    """Targets of one speech sound; a diphthong is two of them."""

    formants: tuple[float, float, float]  # F1, F2, F3 in Hz, an adult woman's
    voicing: float = 1.0
    aspiration: float = 0.0  # noise at the glottis: runs through the formants
    frication: float = 0.0  # noise at a constriction: runs beside them
    fric_hz: float = 5500.0
    fric_bandwidth: float = 2000.0


PHONES = {
    "_": Phone((500, 1500, 2700), voicing=0.0),
    "h": Phone((600, 1600, 2800), voicing=0.0, aspiration=0.5),
    "uh": Phone((640, 1350, 2750)),
    "eh": Phone((650, 2050, 2900)),
    "l": Phone((400, 1150, 3050), voicing=0.55),
    "o": Phone((580, 980, 2750)),
    "u": Phone((400, 850, 2650), voicing=0.8),
    "ah": Phone((900, 1350, 2800)),
    "ae": Phone((880, 1950, 2900)),
    "i": Phone((400, 2550, 3200), voicing=0.85),
    "ih": Phone((470, 2250, 3000), voicing=0.9),
    "aw": Phone((720, 1080, 2800)),
    "er": Phone((520, 1500, 1950)),
    "r": Phone((420, 1250, 1750), voicing=0.6),
    "m": Phone((260, 1150, 2450), voicing=0.3),
    "n": Phone((270, 1700, 2700), voicing=0.3),
    "v": Phone((280, 1250, 2500), voicing=0.22, frication=0.05, fric_hz=3800, fric_bandwidth=4500),
    "s": Phone((320, 1850, 2800), voicing=0.0, frication=0.34, fric_hz=6100, fric_bandwidth=1700),
    "z": Phone((300, 1800, 2800), voicing=0.2, frication=0.2, fric_hz=6100, fric_bandwidth=1700),
    "b0": Phone((240, 900, 2400), voicing=0.08),  # lips closed
    "d0": Phone((260, 1850, 2800), voicing=0.08),
    "t0": Phone((350, 1850, 2800), voicing=0.0),
    "t1": Phone((400, 1850, 2800), voicing=0.0, frication=0.22, fric_hz=5000, fric_bandwidth=2500),  # the burst
}

TEMPO = 1.18  # stretches every duration below: a machine's careful speech
# (phone, seconds), one line a phrase; "^" in front of a phone puts a pitch accent on it.
PHRASES = (
    "_:.24 h:.07 uh:.09 l:.08 ^o:.17 u:.12 _:.26",  # hello
    "_:.08 ah:.12 ih:.09 ae:.14 m:.11 n:.08 ^ah:.19 t0:.06 t1:.04 r:.09 ^i:.16 uh:.09 l:.13 _:.32",  # I am not real
    "_:.08 m:.09 ah:.11 ih:.08 v:.07 ^aw:.13 ih:.12 s:.12 ih:.09 z:.08",  # my voice is
    "m:.09 ^eh:.10 ih:.10 d0:.06 uh:.08 v:.08 n:.09 ^uh:.14 m:.09 b0:.06 er:.18 z:.15 _:.30",  # made of numbers
)
BREATH_GROUPS = ((0,), (1,), (2, 3))  # phrases that share one falling pitch line


@dataclass(frozen=True)
class Controls:
    """The synthesiser's parameters, one value a control step."""

    formants: np.ndarray  # (steps, 3) Hz
    voicing: np.ndarray
    aspiration: np.ndarray
    frication: np.ndarray
    fric_hz: np.ndarray
    fric_bandwidth: np.ndarray
    pitch_hz: np.ndarray


def parse(phrase: str) -> list[tuple[Phone, int, bool]]:
    """A phrase in the notation of PHRASES -> (phone, control steps, accented)."""
    sounds = []
    for token in phrase.split():
        name, seconds = token.split(":")
        steps = round(float(seconds) * TEMPO * SAMPLE_RATE / STEP)
        sounds.append((PHONES[name.lstrip("^")], steps, name.startswith("^")))
    return sounds


def controls_for(phrases: tuple[str, ...]) -> Controls:
    """One breath group: targets held for each sound, then smoothed, because articulators glide and lips close fast."""
    sounds = [sound for phrase in phrases for sound in parse(phrase)]
    lengths = [steps for _, steps, _ in sounds]

    def held(values: list[float], sigma_ms: float) -> np.ndarray:
        sigma = sigma_ms * SAMPLE_RATE / 1000.0 / STEP
        return gaussian_filter1d(np.repeat(np.asarray(values, float), lengths), sigma, mode="nearest")

    phones = [phone for phone, _, _ in sounds]
    steps = sum(lengths)
    accents = held([float(accented) for _, _, accented in sounds], 40.0)
    fall = np.linspace(205.0, 160.0, steps)
    flutter = 2.0 * np.sin(2 * np.pi * 5.1 * np.arange(steps) * STEP / SAMPLE_RATE)
    return Controls(
        formants=np.stack([held([p.formants[k] for p in phones], 20.0) for k in range(3)], axis=1),
        voicing=held([p.voicing for p in phones], 12.0),
        aspiration=held([p.aspiration for p in phones], 12.0),
        frication=held([p.frication for p in phones], 8.0),
        fric_hz=held([p.fric_hz for p in phones], 10.0),
        fric_bandwidth=held([p.fric_bandwidth for p in phones], 10.0),
        pitch_hz=fall + 38.0 * accents + flutter,
    )


def glottal_flow(pitch_hz: np.ndarray, open_quotient: float = 0.62) -> np.ndarray:
    """Derivative of the glottal flow, one value a sample: rises and falls as t^2 - t^3 while the folds are open."""
    phase = np.cumsum(np.repeat(pitch_hz, STEP)) / SAMPLE_RATE % 1.0
    t = phase / open_quotient
    return np.where(t < 1.0, 2.0 * t - 3.0 * t**2, 0.0)


def resonate(
    signal: np.ndarray, centre_hz: np.ndarray, bandwidth_hz: np.ndarray, unity_at_peak: bool = False
) -> np.ndarray:
    """Klatt's two-pole resonator with a new centre every control step; unity gain at 0 Hz or at the peak."""
    out = np.empty_like(signal)
    state = np.zeros(2)
    radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE)
    angle = 2 * np.pi * centre_hz / SAMPLE_RATE
    b = 2 * radius * np.cos(angle)
    c = -(radius**2)
    gain = (1 - radius) * np.sqrt(1 - 2 * radius * np.cos(2 * angle) + radius**2) if unity_at_peak else 1 - b - c
    for k in range(len(signal) // STEP):
        part = slice(k * STEP, (k + 1) * STEP)
        out[part], state = lfilter([gain[k]], [1.0, -b[k], -c[k]], signal[part], zi=state)
    return out


def synthesize(controls: Controls, seed: int = 0) -> np.ndarray:
    """Control tracks -> waveform (num_samples,) float64, not normalised. The same controls give the same samples."""
    steps = len(controls.voicing)
    # Three uniforms are near enough to normal, and numpy changes its uniform stream less readily than its normal one.
    noise = np.random.default_rng(seed).random((2, 3, steps * STEP)).sum(axis=1) * 2.0 - 3.0
    ramp = np.arange(steps * STEP) / STEP - 0.5  # control values stand at the middle of their step

    def per_sample(track: np.ndarray) -> np.ndarray:
        return np.interp(ramp, np.arange(steps), track)

    breath = 0.06 * controls.voicing + controls.aspiration
    source = per_sample(controls.voicing) * glottal_flow(controls.pitch_hz) + 0.25 * per_sample(breath) * noise[0]
    f1, f2, f3 = controls.formants.T
    ones = np.ones(steps)
    voice = source
    formants = ((f1, 50.0 + 0.13 * f1), (f2, 110 * ones), (f3, 170 * ones), (4000 * ones, 280 * ones))
    for centre, bandwidth in (*formants, (5000 * ones, 400 * ones)):
        voice = resonate(voice, centre, bandwidth)
    hiss = resonate(noise[1], controls.fric_hz, controls.fric_bandwidth, unity_at_peak=True)
    return voice + per_sample(controls.frication) * hiss


@dataclass(frozen=True)
class Speech:
    """The spoken text and what the mouth needs to follow it, one value a video frame."""

    samples: np.ndarray  # (num_samples,) in [-1, 1], a whole number of video frames long
    loudness: np.ndarray  # RMS of the frame's samples, its maximum is 1
    f1: np.ndarray  # Hz
    f2: np.ndarray


def speak() -> Speech:
    """The whole text, with the pitch line reset at each breath group."""
    groups = [controls_for(tuple(PHRASES[i] for i in group)) for group in BREATH_GROUPS]
    samples = np.concatenate([synthesize(group, seed) for seed, group in enumerate(groups)])
    formants = np.concatenate([group.formants for group in groups])
    frames = len(samples) // SAMPLES_PER_FRAME
    samples = samples[: frames * SAMPLES_PER_FRAME]
    samples = 0.7 * samples / np.abs(samples).max()
    # A trace of room noise: no real recording holds digital silence.
    samples = samples + 6e-4 * (2.0 * np.random.default_rng(99).random(len(samples)) - 1.0)
    rms = np.sqrt((samples.reshape(frames, -1) ** 2).mean(axis=1))
    per_frame = formants[: frames * SAMPLES_PER_FRAME // STEP].reshape(frames, -1, 3).mean(axis=1)
    return Speech(samples, rms / rms.max(), per_frame[:, 0], per_frame[:, 1])


# ------------------------------------------------------------------------------------------------------------- picture

# Measured by hand on the 512 x 512 portrait (pixels of `skimage.data.astronaut()`, x to the right, y down).
FACE_CENTRE = (226.0, 118.0)
NECK_PIVOT = (224.0, 196.0)
MOUTH_CENTRE = (224.5, 146.0)
# Where teeth end and the lower lip begins, from corner to corner of her smile.
LIP_LINE = PchipInterpolator(
    [190, 203, 206.5, 210, 215, 220, 225, 230, 235, 240, 245, 258],
    [137, 139.5, 142.5, 146, 148.8, 149.6, 149.8, 149.3, 147.2, 144.2, 140.5, 138],
)
# How much of the jaw's way each height goes: all of it at the lip, less at the chin (y 177), nothing at the collar.
JAW_SHARE = PchipInterpolator([0, 154, 177, 191, 512], [1.0, 1.0, 0.62, 0.0, 0.0])
JAW_HALF_WIDTH = PchipInterpolator([0, 139, 150, 178, 512], [22.0, 22.0, 29.0, 46.0, 46.0])
JAW_CLOSED, JAW_OPEN = -5.6, 6.4  # pixels of the lower lip from where the portrait has it
# Edge of the upper lashes, and the lower lid, of each eye.
EYES = (
    (
        PchipInterpolator([192, 198, 203, 208, 213.5], [100.4, 98.2, 97.7, 98.8, 101.4]),
        PchipInterpolator([192, 198, 203, 208, 213.5], [100.8, 104.2, 105.4, 104.6, 101.8]),
    ),
    (
        PchipInterpolator([235, 240, 246, 252, 259], [104.2, 101.7, 100.2, 100.9, 103.4]),
        PchipInterpolator([235, 240, 246, 252, 259], [104.6, 107.0, 107.9, 107.0, 103.8]),
    ),
)
LID_HEIGHT = 6.5  # pixels from under the brow to the lashes' edge: bare skin that a blink stretches over the eye
LASH_HEIGHT = 1.8  # the lashes, which do not stretch
BLINKS = (1.2, 3.05, 5.0)  # seconds; none is on a beat of the speech
CROP_HALF = 112.0  # portrait pixels from the centre to the frame's edge
MOUTH_DARK = np.array([38, 14, 14], np.float32)  # RGB, under the teeth
MOUTH_TONGUE = np.array([128, 62, 60], np.float32)  # RGB, above the lower lip


@dataclass(frozen=True)
class Pose:
    """What one video frame shows."""

    jaw: float  # pixels, JAW_CLOSED..JAW_OPEN
    rounding: float  # 0..1, lips drawn in for o and u
    blink: float  # 0 open, 1 shut
    tilt: float  # radians about the neck
    shift: tuple[float, float]  # pixels of the head against the background
    zoom: float


def poses(speech: Speech) -> list[Pose]:
    """Mouth from loudness and F1 (a jaw that drops raises F1), lips from F2; head and eyes have curves of their own."""
    opening = speech.loudness**0.6 * np.clip((speech.f1 - 230.0) / 450.0, 0.15, 1.0)
    opening = np.convolve(opening / opening.max(), [0.2, 0.6, 0.2], "same")  # symmetric: adds no lag
    voiced = np.clip(speech.loudness * 3.0, 0.0, 1.0)
    # A dropping jaw draws the corners in a little too.
    rounded = voiced * np.clip((1250.0 - speech.f2) / 350.0, 0.0, 1.0)
    rounding = 0.3 * opening + 0.7 * np.convolve(rounded, [0.25, 0.5, 0.25], "same")
    result = []
    for i in range(len(opening)):
        t = (i + 0.5) / FPS  # the middle of the frame's samples
        blink = max(float(np.clip(1.35 - abs(t - at) / 0.085, 0.0, 1.0)) for at in BLINKS)
        result.append(
            Pose(
                jaw=JAW_CLOSED + (JAW_OPEN - JAW_CLOSED) * float(opening[i]),
                rounding=float(rounding[i]),
                blink=blink * blink * (3.0 - 2.0 * blink),
                tilt=0.024 * np.sin(2 * np.pi * t / 4.3 + 0.4) + 0.008 * np.sin(2 * np.pi * t / 1.9),
                shift=(1.2 * np.sin(2 * np.pi * t / 5.7), 0.9 * np.sin(2 * np.pi * t / 2.9 + 1.0)),
                zoom=1.0 + 0.02 * (1.0 - np.cos(2 * np.pi * t / 9.0)),
            )
        )
    return result


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, no corner between."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def head_map(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """For each output pixel its place on the portrait, (SIZE, SIZE) twice, with camera and head motion taken out."""
    axis = ((np.arange(SIZE) + 0.5) / SIZE * 2.0 - 1.0) * CROP_HALF / pose.zoom
    x, y = np.meshgrid(axis + FACE_CENTRE[0], axis + FACE_CENTRE[1])
    # The head turns, the studio background does not: full motion within the hair's outline, none 1.5 times further out.
    radius = np.hypot((x - 226.0) / 84.0, (y - 105.0) / 98.0)
    share = 1.0 - smoothstep((radius - 0.95) / 0.55)
    rx, ry = x - NECK_PIVOT[0], y - NECK_PIVOT[1]
    cos, sin = np.cos(pose.tilt), np.sin(pose.tilt)
    dx = cos * rx + sin * ry - rx - pose.shift[0]
    dy = -sin * rx + cos * ry - ry - pose.shift[1]
    return x + share * dx, y + share * dy


def shut_eyes(face: np.ndarray, portrait: np.ndarray, x: np.ndarray, y: np.ndarray, blink: float) -> np.ndarray:
    """The face with its lashes come down towards the lower lids, the skin above them stretched after them."""
    for lashes, lower in EYES:
        first, last = lashes.x[0], lashes.x[-1]
        at = np.clip(x, first, last)
        edge = lashes(at)
        drop = blink * np.maximum(lower(at) - edge, 0.0)
        top, skin = edge - LID_HEIGHT, LID_HEIGHT - LASH_HEIGHT
        stretched = top + (y - top) * skin / (skin + drop)
        lid_y = np.where(y < top, y, np.where(y < edge - LASH_HEIGHT + drop, stretched, y - drop))
        alpha = smoothstep((edge + drop - y) / 0.7 + 0.5) * smoothstep((x - first) / 2.0) * smoothstep((last - x) / 2.0)
        alpha = (alpha * (y > top))[..., None].astype(np.float32)
        face = face + alpha * (sample_at(portrait, x, lid_y) - face)
    return face


def jaw_map(x: np.ndarray, y: np.ndarray, jaw: float) -> np.ndarray:
    """Where the jaw's pixels come from: solves source + shift(source) = y by iteration (the shift's slope is < 0.5)."""
    source = y
    for _ in range(6):
        reach = np.clip(np.abs(x - MOUTH_CENTRE[0]) / JAW_HALF_WIDTH(source), 0.0, 1.0)
        source = y - jaw * np.cos(0.5 * np.pi * reach) ** 2 * JAW_SHARE(source)
    return source


def sample_at(portrait: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Portrait colours at fractional places, float32."""
    return cv2.remap(
        portrait, x.astype(np.float32), y.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


def render(portrait: np.ndarray, pose: Pose) -> np.ndarray:
    """One frame (SIZE, SIZE, 3) RGB uint8 from three layers: face with upper teeth, the mouth's inside, the jaw."""
    x, y = head_map(pose)
    near = np.exp(-(((x - MOUTH_CENTRE[0]) / 26.0) ** 2) - ((y - MOUTH_CENTRE[1]) / 15.0) ** 2)
    x = x + 0.13 * pose.rounding * near * (x - MOUTH_CENTRE[0])
    line = LIP_LINE(np.clip(x, 190.0, 258.0))
    jaw_y = jaw_map(x, y, pose.jaw)
    face = sample_at(portrait, x, y)
    if pose.blink > 0.0:
        face = shut_eyes(face, portrait, x, y, pose.blink)
    lower = sample_at(portrait, x, jaw_y)
    # Inside the mouth: dark under the teeth, tongue towards the lip, and the darker the wider it is open.
    depth = np.clip((y - line) / max(pose.jaw, 1.0), 0.0, 1.0)[..., None] ** 2
    inside = MOUTH_DARK + (0.8 * depth * (MOUTH_TONGUE - MOUTH_DARK)).astype(np.float32)
    soft = 0.7  # portrait pixels over which one layer gives way to the next
    # No gap outside the corners, and none while the lip still rests on the teeth.
    opened = smoothstep((x - 203.0) / 5.0) * smoothstep((246.0 - x) / 5.0) * np.clip(pose.jaw / 1.5, 0.0, 1.0)
    shown = (opened * smoothstep((y - line + 0.1) / soft))[..., None].astype(np.float32)
    face += shown * (inside - face)
    over = smoothstep((jaw_y - line - 0.25) / soft)[..., None].astype(np.float32)
    face += over * (lower - face)
    face += 0.3 * (face - cv2.GaussianBlur(face, (0, 0), 1.6))  # enlarging a portrait by two leaves it soft
    return np.clip(face + 0.5, 0.0, 255.0).astype(np.uint8)


def frames(portrait: np.ndarray, speech: Speech) -> Iterator[np.ndarray]:
    """All video frames in order."""
    source = portrait.astype(np.float32)
    for pose in poses(speech):
        yield render(source, pose)


# ----------------------------------------------------------------------------------------------------------- container


def write_wav(path: Path, samples: np.ndarray) -> None:
    """16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767.0).astype("<i2").tobytes())


def encode_command(wav: Path, out: Path, crf: int) -> list[str]:
    """H.264 and AAC; one thread and bit-exact flags, so that the file depends only on the input and the encoder."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE}x{SIZE}", "-r", str(FPS), "-i", "pipe:0"]
    video = ["-c:v", "libx264", "-preset", "veryslow", "-crf", str(crf), "-pix_fmt", "yuv420p", "-threads", "1"]
    # RGB is converted as BT.709 and says so, or players guess.
    scale = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+bitexact"
    tags = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    colour = ["-vf", f"{scale},format=yuv420p,{tags}"]
    audio = ["-c:a", "aac", "-b:a", "64k", "-ar", "48000", "-ac", "1"]
    exact = ["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1"]
    title = ["-metadata", "title=avdetect sample: a still portrait animated by a synthetic voice"]
    head = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y"]
    return [*head, *raw, "-i", str(wav), *colour, *video, *audio, *exact, *title, "-movflags", "+faststart", str(out)]


def make(out: Path, crf: int) -> None:
    """Render and encode the clip."""
    from skimage import data  # here, so that the synthesiser can be tested without scikit-image

    speech = speak()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "voice.wav"
        write_wav(wav, speech.samples)
        with subprocess.Popen(encode_command(wav, out, crf), stdin=subprocess.PIPE) as encoder:
            assert encoder.stdin is not None
            for frame in frames(data.astronaut(), speech):
                encoder.stdin.write(frame.tobytes())
            encoder.stdin.close()
        if encoder.returncode != 0:
            raise SystemExit(f"ffmpeg failed with status {encoder.returncode}")
    seconds = len(speech.samples) / SAMPLE_RATE
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB, {seconds:.2f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the sample clip of `avdetect demo`.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--crf", type=int, default=20, help="H.264 quality; higher is smaller")
    arguments = parser.parse_args()
    make(arguments.out, arguments.crf)


if __name__ == "__main__":
    main()
