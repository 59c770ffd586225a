"""Typed, strict configuration. YAML files hold differences from the defaults below; an unknown key is an error."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from avdetect._strict import from_dict, load_yaml, to_dict
from avdetect.errors import ConfigError

__all__ = [
    "AudioConfig",
    "FaceConfig",
    "FusionConfig",
    "FusionFitConfig",
    "LoopConfig",
    "MediaConfig",
    "MediaLimits",
    "ModelConfig",
    "PairLoopConfig",
    "PreprocessConfig",
    "StreamLoopConfig",
    "SyncConfig",
    "TrainConfig",
    "View",
    "VisualConfig",
    "from_dict",
    "load_yaml",
    "to_dict",
]

LARGEST_NUMBER = 1e15  # of any setting; what is larger overflows somewhere, and means "no limit" anyhow
MAX_WINDOW_SECONDS = 30.0  # a longer window has no positions in Whisper's encoder
MIN_WINDOW_SECONDS = 0.5  # a shorter window leaves the audio network's last layers a frame or two, if any


class _Positive:
    """Refuses numbers that are not finite and above 0 (or at least 0, for the fields in `_zero_is_fine`), shares above
    1, shares of 1 where nothing would be left (`_below_one`), and empty lists."""

    _zero_is_fine: ClassVar[frozenset[str]] = frozenset()
    _shares: ClassVar[frozenset[str]] = frozenset()
    _below_one: ClassVar[frozenset[str]] = frozenset()
    _may_be_empty: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for field_ in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field_.name)
            if value == () and field_.name not in self._may_be_empty:
                raise ConfigError(f"{type(self).__name__}.{field_.name} must have at least one entry")
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float) and not isinstance(number, bool):
                    self._check(field_.name, number)

    def _check(self, name: str, value: float) -> None:
        where = f"{type(self).__name__}.{name}"
        if LARGEST_NUMBER < abs(value) != math.inf:  # not shown: it may have thousands of digits
            raise ConfigError(f"{where} must be at least 0 and at most {LARGEST_NUMBER:g}")
        if not math.isfinite(value) or value < 0 or (value == 0 and name not in self._zero_is_fine):
            lowest = "at least" if name in self._zero_is_fine else "above"
            raise ConfigError(f"{where} must be finite and {lowest} 0, got {value}")
        if name in self._shares and value > 1:
            raise ConfigError(f"{where} is a share and must be at most 1, got {value}")
        if name in self._below_one and value >= 1:
            raise ConfigError(f"{where} is a share and must be below 1, got {value}")


@dataclass(frozen=True)
class MediaLimits(_Positive):
    """What a hostile file may cost. Not in the preprocessing hash: a limit never changes an accepted file's crops."""

    max_pixels: int = 64_000_000  # of one decoded picture
    max_duration_seconds: float = 4 * 3600.0
    max_streams: int = 64
    max_wall_seconds: float = 3600.0  # for decoding one file
    stall_seconds: float = 60.0  # without a byte from the decoder
    max_file_seconds: float = 7200.0  # wall, for all of a file; where several are scored its process is ended then
    max_memory_bytes: int = 4 * 1024**3  # address space of each ffmpeg child


@dataclass(frozen=True)
class MediaConfig(_Positive):
    """How a file becomes frames and samples."""

    max_side: int = 1920  # longer pictures are reduced to this while decoding


@dataclass(frozen=True)
class FaceConfig(_Positive):
    """How frames become face tracks and crops."""

    _zero_is_fine = frozenset({"max_gap"})
    _shares = frozenset({"min_confidence", "min_face_side", "min_iou", "shot_change"})

    detect_every: int = 5  # frames between detections (5 = five a second)
    redetect_every: int = 25  # frames between searches of the whole picture while known faces are being followed
    detect_side: int = 512  # long side of the reduced frame that the detector sees
    min_confidence: float | None = None  # to begin a track; None: the detector's own (mtcnn 0.9, scrfd 0.5)
    min_face_side: float = 0.08  # of the picture's short side; smaller faces are not tracked
    min_face_pixels: int = 32
    max_faces: int = 4  # the largest faces of a frame
    min_iou: float = 0.3  # to join a detection to a track
    max_gap: int = 10  # frames a track survives without a detection
    min_track: int = 10  # frames; shorter tracks are dropped
    shot_change: float = 0.25  # change of luma histogram or of composition that cuts every track (0..1)
    smooth_frames: int = 5  # landmarks are averaged over about this many frames
    crop_margin: float = 1.3  # side of the face crop, in sides of the face box
    crop_size: int = 160
    crop_every: int = 5  # frames between face crops
    mouth_size: int = 64


@dataclass(frozen=True)
class PreprocessConfig(_Positive):
    """Everything that decides the model's input. Its hash travels in the bundle."""

    media: MediaConfig = field(default_factory=MediaConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    detector: Literal["mtcnn", "scrfd"] = "mtcnn"  # avdetect.faces.detector.DETECTORS
    clip_seconds: float = 12.0  # files are processed in consecutive clips of this length, to bound memory

    def digest(self) -> str:
        """16 hex digits that change when any field changes."""
        return hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class View(_Positive):
    """What the encoder is shown of a face crop. A crop at its full size shows what a decoder leaves, one with what is
    around the face shows whether both went through the same camera; heads on views that differ err differently."""

    _zero_is_fine = frozenset({"mean", "highpass"})
    _shares = frozenset({"share"})

    share: float = 1.0  # of the crop's side: the square around its middle
    reduce: int = 1  # pixels a side whose mean becomes one
    # Side in pixels of the box whose mean is taken from each pixel instead of `mean`: the encoder then sees the grain
    # that a camera or a generator leaves, neither colour nor light. Odd; 0: the picture itself. `std` still divides.
    highpass: int = 0
    # Pixels in 0..255 become (x - mean) / std; one number, or three for R, G and B. A pretrained encoder expects what
    # it was trained with: timm's pretrained_cfg of it, times 255.
    mean: float | tuple[float, ...] = 127.5
    std: float | tuple[float, ...] = 127.5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != 3:
                raise ConfigError(f"View.{name} must be one number or three (R, G, B), got {list(value)}")
        if self.highpass and self.highpass % 2 == 0:
            raise ConfigError(f"View.highpass must be odd, or 0, got {self.highpass}")


@dataclass(frozen=True)
class VisualConfig(_Positive):
    """The frame encoder: any timm model."""

    _zero_is_fine = frozenset({"dropout", "size"})
    _may_be_empty = frozenset({"levels", "contrasts"})
    _below_one = frozenset({"dropout"})

    encoder: str = "mobilenetv2_100"
    # timm arguments, as pad_type: same, which TensorFlow-trained ImageNet weights of MobileNetV2 expect.
    encoder_kwargs: dict[str, Any] = field(default_factory=dict)
    # True: timm's own download; a path: a safetensors file of the encoder's weights, or a folder of such files.
    pretrained: bool | str = False
    # Side in pixels to which smaller crops are enlarged, for an encoder of one size, as vision transformers are; 0: the
    # encoder takes the crops as they are cut.
    size: int = 0
    views: tuple[View, ...] = (View(),)  # each goes through the encoder; the head sees all of them side by side
    every: int = 1  # of the crops of a track one in so many is judged, the first among them
    # Modules of the encoder (timm's names: blocks.1, layer2 …) whose maps the head sees, each as the mean and the
    # standard deviation of its channels; (): the encoder's own pooled output.
    levels: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()  # those of them whose maps are also compared: upper and lower face against the rim
    # Which weights of the encoder learn beside the head. norm: those of its norms. none: the head alone learns,
    # to its optimum; `dropout`, and of the loop lr, warmup_steps and ema_decay, are then not used.
    tune: Literal["all", "norm", "none"] = "all"
    unit_features: bool = False  # the head sees the encoder's pooled output scaled to length 1
    dropout: float = 0.3
    pooling: Literal["confident", "mean"] = "confident"  # of a track's frame logits (avdetect.pooling)

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.contrasts if name not in self.levels]:
            raise ConfigError(f"VisualConfig.contrasts: {', '.join(unknown)} must also be named in levels")
        if self.unit_features and (self.levels or self.frozen):
            raise ConfigError(
                "VisualConfig.unit_features: the head of levels, or of tune: none, sees standardised features"
            )

    @property
    def frozen(self) -> bool:
        """The encoder keeps the weights that it starts with."""
        return self.tune == "none"


@dataclass(frozen=True)
class AudioConfig(_Positive):
    """The encoder of log-mel windows: a CNN that is trained from scratch, or the one of a speech recogniser."""

    _zero_is_fine = frozenset({"dropout", "hidden"})
    _below_one = frozenset({"dropout"})

    encoder: Literal["cnn", "whisper-tiny.en"] = "cnn"
    # A safetensors file of the encoder's weights: whisper-tiny.en needs one (tools/convert_whisper.py).
    pretrained: str | None = None
    frozen: bool = False  # as VisualConfig.tune: none; with `hidden`, dropout counts
    window_seconds: float = 2.0
    stride_seconds: float = 1.0
    # Of cnn.
    channels: tuple[int, ...] = (20, 40, 80, 128)
    embedding: int = 128
    # Of whisper-tiny.en: the head sees statistics over time of each of these (avdetect.streams.whisper).
    levels: tuple[str, ...] = ("stem", "blocks.0", "blocks.1", "blocks.2")
    hidden: int = 0  # units of the head's hidden layer; 0: the head is linear
    heads: int = 1  # perceptrons with a hidden layer whose logits are averaged
    dropout: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder == "cnn" and (self.frozen or self.pretrained):
            raise ConfigError("AudioConfig: the encoder cnn starts from nothing: frozen and pretrained are not for it")
        if self.window_seconds > MAX_WINDOW_SECONDS:
            raise ConfigError(
                f"AudioConfig.window_seconds must be at most {MAX_WINDOW_SECONDS:g}, got {self.window_seconds}"
            )
        if self.window_seconds < MIN_WINDOW_SECONDS:
            raise ConfigError(
                f"AudioConfig.window_seconds must be at least {MIN_WINDOW_SECONDS}, got {self.window_seconds}"
            )


@dataclass(frozen=True)
class SyncConfig(_Positive):
    """Two towers: a stretch of mouth frames against what the speech encoder of AudioConfig makes of the voice."""

    mouth_frames: int = 13  # that a mouth embedding sees, as many before the frame that it belongs to as behind it
    embedding: int = 128
    channels: tuple[int, ...] = (24, 48, 72, 96)  # of the mouth's convolutions, each of which halves the side
    max_offset: int = 15  # frames searched each way

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mouth_frames < 5 or self.mouth_frames % 2 == 0:
            raise ConfigError(f"SyncConfig.mouth_frames must be odd and at least 5, got {self.mouth_frames}")


@dataclass(frozen=True)
class FusionConfig(_Positive):
    """Late fusion over the streams' outputs."""

    _zero_is_fine = frozenset({"hidden", "dropout", "stream_dropout"})
    _below_one = frozenset({"dropout", "stream_dropout"})
    _may_be_empty = frozenset({"silent"})

    hidden: int = 16  # 0: logistic regression
    # Face, voice and match are each judged by their own stream alone, and the whole is fake if one of them is: three
    # slopes and three biases.
    parts: bool = False
    # Streams of which nothing was learned: they are left out, and what they would judge abstains. Training sets it.
    silent: tuple[Literal["visual", "audio", "sync"], ...] = ()
    dropout: float = 0.1
    stream_dropout: float = 0.25  # probability of hiding each present stream while training


@dataclass(frozen=True)
class ModelConfig(_Positive):
    """The network. A stream that is not in `streams` was not trained: scoring leaves it out and says so."""

    streams: tuple[Literal["visual", "audio", "sync"], ...] = ("visual", "audio", "sync")
    visual: VisualConfig = field(default_factory=VisualConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)


@dataclass(frozen=True)
class LoopConfig(_Positive):
    """One run of the training loop."""

    _zero_is_fine = frozenset(
        {"steps", "weight_decay", "warmup_steps", "label_smoothing", "ema_decay", "evaluate_every"}
    )
    _below_one = frozenset({"label_smoothing", "ema_decay"})  # at 1 nothing is taught, nothing ever moves

    steps: int = 1000  # 0: not trained
    batch_size: int = 32  # of the joint batch, over all devices and all of its accumulated parts
    accumulate: int = 1  # parts of a device's batch that go through the network one after the other
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup_steps: int = 50
    ema_decay: float = 0.998
    label_smoothing: float = 0.01
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"  # of Lightning Fabric
    checkpoint_every: int = 200  # steps
    evaluate_every: int = 0  # steps between log losses on dev, the best of which is kept; 0: the last weights are kept

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % (self.items * self.accumulate):
            group = f" groups of {self.items}" if self.items > 1 else ""
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be cut into accumulate {self.accumulate} parts{group}"
            )

    @property
    def items(self) -> int:
        """Items of a batch that belong together."""
        return 1


@dataclass(frozen=True)
class StreamLoopConfig(LoopConfig):
    """A run that draws clips from the cache."""

    _zero_is_fine = LoopConfig._zero_is_fine | {"source_balance", "codec"}
    _shares = frozenset({"source_balance", "codec"})

    # 0: every file is drawn alike; 1: every source, and of fakes every generator; .5: these by the root of their size
    source_balance: float = 0.5
    codec: float = 0.1  # probability that an item takes a round trip through a real codec


@dataclass(frozen=True)
class PairLoopConfig(StreamLoopConfig):
    """A run on pairs: a fake and its original under one augmentation, and more reals beside them."""

    _zero_is_fine = StreamLoopConfig._zero_is_fine | {"forged", "reconstructed", "alignment", "uniformity"}
    _shares = StreamLoopConfig._shares | {"forged", "reconstructed"}

    forged: float = 0.5  # share of the fakes that are forged from reals while training; 1: real media is all it takes
    # Name -> weight (avdetect.datasets.forgeries); {}: all, alike. The names are checked when training starts.
    forgeries: dict[str, float] = field(default_factory=dict)
    # Share of the forged faces that an autoencoder gives back, trained first on the same real ones
    # (avdetect.training.autoencoders). Voices have none.
    reconstructed: float = 0.0
    reals_per_fake: int = 1  # the fake's original, and reals of other files
    # light: half of the real media stays as it is; of the other half, faces lose less of their texture
    # (avdetect.datasets.augment.faces) and voices take the full augmentation.
    augmentation: Literal["full", "light"] = "full"
    # Weights of two losses on features of length 1, beside the labels' (avdetect.training.losses): each class drawn
    # together, the whole batch spread out.
    alignment: float = 0.0
    uniformity: float = 0.0
    clip_labels: bool = False  # where the part's own label is unknown, take the clip's, as the DFDC solutions did

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, weight in self.forgeries.items():
            if not 0 <= weight <= LARGEST_NUMBER:
                raise ConfigError(f"forgeries.{name} must be finite and at least 0, got {weight}")
        if self.forgeries and not any(self.forgeries.values()):
            raise ConfigError("forgeries: every weight is 0; give one above 0, or {} for all alike")

    @property
    def items(self) -> int:
        return 1 + self.reals_per_fake


@dataclass(frozen=True)
class FusionFitConfig(_Positive):
    """The fit of the fusion on out-of-fold stream outputs."""

    _zero_is_fine = frozenset({"weight_decay", "label_smoothing", "forged", "mismatched", "max_false_alarms"})
    _shares = frozenset({"max_false_alarms"})
    _below_one = frozenset({"label_smoothing"})

    steps: int = 400  # of full-batch AdamW, on a cosine
    lr: float = 0.02
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    forged: int = 1  # forged copies of each real clip that are scored and fitted on beside the manifest's files
    mismatched: int = 1  # copies of each real file with its own voice that get the voice of another person
    # best: the lowest out-of-fold log loss; all are always reported
    kind: Literal["best", "mlp", "logistic", "parts"] = "best"
    # The threshold is that of the best balanced accuracy among those that call no more of the reals fake, out of fold.
    max_false_alarms: float = 0.1


@dataclass(frozen=True)
class TrainConfig(_Positive):
    """Everything `tools/train.py` needs besides the data."""

    _zero_is_fine = frozenset({"seed"})
    _may_be_empty = frozenset({"limits"})

    seed: int = 0
    name: str = "default"
    licence: str = "unstated"  # of the weights; goes into the bundle
    limits: tuple[str, ...] = ()  # what a reader of a report must know of the model, a sentence each; goes there too
    folds: int = 2  # out-of-fold stream outputs for the fusion
    fold_by: Literal["group", "dataset"] = "group"  # what a fold never splits; dataset: whole sources are left out
    # Every choice is made: train on dev too. The folds then hold dev as well, and all that is measured is out of fold.
    release: bool = False
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    visual: PairLoopConfig = field(default_factory=PairLoopConfig)
    audio: PairLoopConfig = field(default_factory=PairLoopConfig)
    sync: StreamLoopConfig = field(default_factory=StreamLoopConfig)
    joint: StreamLoopConfig = field(
        default_factory=lambda: StreamLoopConfig(steps=0)
    )  # clips of which only `fake` is known
    fusion: FusionFitConfig = field(default_factory=FusionFitConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        size, crop_size = self.model.visual.size, self.preprocess.faces.crop_size
        if 0 < size < crop_size:
            raise ConfigError(
                f"model.visual.size {size} is smaller than preprocess.faces.crop_size {crop_size}: shrunk crops lose "
                f"what gives a forgery away; cut them at {size} px, or raise size"
            )
        if self.folds < 2:
            raise ConfigError(f"TrainConfig.folds must be at least 2, got {self.folds}: the fusion learns out of fold")
        if self.audio.reconstructed:
            raise ConfigError("audio.reconstructed must be 0: the autoencoders are of faces")
        self._check_unit_features()
        for name in ("visual", "audio"):
            if getattr(self.model, name).frozen and (getattr(self, name).evaluate_every or self.joint.steps):
                raise ConfigError(
                    f"the encoder of model.{name} is frozen and its head is fitted to its optimum: "
                    f"{name}.evaluate_every and joint.steps must be 0"
                )
        for name in ("visual", "audio", "sync", "joint") if self.release else ():
            if getattr(self, name).evaluate_every:
                raise ConfigError(f"{name}.evaluate_every must be 0 with release: true, for dev is trained on")
        for name in ("sync", "joint"):
            if (parts := getattr(self, name).accumulate) != 1:
                raise ConfigError(
                    f"{name}.accumulate must be 1, got {parts}: its loss compares the items of a batch with each other "
                    f"or divides by how many count, so parts would teach something else than the whole; lower "
                    f"{name}.batch_size instead"
                )
        if self.joint.batch_size % 2:
            raise ConfigError(f"joint.batch_size must be even, got {self.joint.batch_size}: half of it is real")
        trained = tuple(name for name in ModelConfig().streams if getattr(self, name).steps)
        if set(self.model.streams) not in (set(trained), set(ModelConfig().streams)):
            raise ConfigError(
                f"model.streams says {', '.join(self.model.streams)}, but the streams with steps are "
                f"{', '.join(trained) or 'none'}: leave model.streams out, and give what is not to be trained steps: 0"
            )

    def _check_unit_features(self) -> None:
        """What only some recipes of the face may ask for."""
        if self.audio.alignment or self.audio.uniformity:
            raise ConfigError("audio.alignment and audio.uniformity must be 0: the voice has no features of length 1")
        if not (self.visual.alignment or self.visual.uniformity):
            return
        if not self.model.visual.unit_features:
            raise ConfigError("visual.alignment and visual.uniformity need model.visual.unit_features: true")
        if self.visual.accumulate != 1:
            raise ConfigError(
                f"visual.accumulate must be 1, got {self.visual.accumulate}: alignment and uniformity compare items "
                "of a batch with each other; lower visual.batch_size instead"
            )
