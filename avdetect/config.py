"""Typed, strict configuration. YAML files hold differences from the defaults below; an unknown key is an error."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from avdetect._checked import (
    LARGEST_NUMBER,
    NOT_EMPTY,
    BelowOne,
    Checked,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Share,
    to_dict,
)
from avdetect._checked import from_dict as from_dict
from avdetect._checked import load_yaml as load_yaml
from avdetect._loops import FusionFitConfig, PairLoopConfig, StreamLoopConfig
from avdetect._loops import LoopConfig as LoopConfig
from avdetect.errors import ConfigError

_RGB = Meta(min_length=3, max_length=3)


@dataclass(frozen=True)
class MediaLimits(Checked):
    """What a hostile file may cost. Not in the preprocessing hash: a limit never changes an accepted file's crops."""

    max_pixels: Count = 64_000_000  # of one decoded picture
    max_duration_seconds: Positive = 4 * 3600.0
    max_streams: Count = 64
    max_wall_seconds: Positive = 3600.0  # for decoding one file
    stall_seconds: Positive = 60.0  # without a byte from the decoder
    max_file_seconds: Positive = 7200.0  # wall, for all of a file; where several are scored its process is ended then
    max_memory_bytes: Count = 4 * 1024**3  # address space of each ffmpeg child


@dataclass(frozen=True)
class MediaConfig(Checked):
    """How a file becomes frames and samples."""

    max_side: Count = 1920  # longer pictures are reduced to this while decoding


@dataclass(frozen=True)
class FaceConfig(Checked):
    """How frames become face tracks and crops."""

    detect_every: Count = 5  # frames between detections (5 = five a second)
    redetect_every: Count = 25  # frames between searches of the whole picture while known faces are being followed
    detect_side: Count = 512  # long side of the reduced frame that the detector sees
    min_confidence: Share | None = None  # to begin a track; None: the detector's own (mtcnn 0.9, scrfd 0.5)
    min_face_side: Share = 0.08  # of the picture's short side; smaller faces are not tracked
    min_face_pixels: Count = 32
    max_faces: Count = 4  # the largest faces of a frame
    min_iou: Share = 0.3  # to join a detection to a track
    max_gap: CountOrZero = 10  # frames a track survives without a detection
    min_track: Count = 10  # frames; shorter tracks are dropped
    shot_change: Share = 0.25  # change of luma histogram or of composition that cuts every track (0..1)
    smooth_frames: Count = 5  # landmarks are averaged over about this many frames
    crop_margin: Positive = 1.3  # side of the face crop, in sides of the face box
    crop_size: Count = 160
    crop_every: Count = 5  # frames between face crops
    mouth_size: Count = 64


@dataclass(frozen=True)
class PreprocessConfig(Checked):
    """Everything that decides the model's input. Its hash travels in the bundle."""

    media: MediaConfig = field(default_factory=MediaConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    detector: Literal["mtcnn", "scrfd"] = "mtcnn"  # avdetect.faces.DETECTORS
    clip_seconds: Positive = 12.0  # files are processed in consecutive clips of this length, to bound memory

    def digest(self) -> str:
        """16 hex digits that change when any field changes."""
        return hashlib.sha256(json.dumps(to_dict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class View(Checked):
    """What the encoder is shown of a face crop. A crop at its full size shows what a decoder leaves, one with what is
    around the face shows whether both went through the same camera; heads on views that differ err differently."""

    encoder: str | None = None  # a timm model that this view has instead of VisualConfig.encoder
    share: Share = 1.0  # of the crop's side: the square around its middle
    reduce: Count = 1  # pixels a side whose mean becomes one
    # Side in pixels of the box whose mean is taken from each pixel instead of `mean`: the encoder then sees the grain
    # that a camera or a generator leaves, neither colour nor light. Odd; 0: the picture itself. `std` still divides.
    highpass: CountOrZero = 0
    # Pixels in 0..255 become (x - mean) / std; one number, or three for R, G and B. A pretrained encoder expects what
    # it was trained with: timm's pretrained_cfg of it, times 255.
    mean: NotNegative | Annotated[tuple[NotNegative, ...], _RGB] = 127.5
    std: Positive | Annotated[tuple[Positive, ...], _RGB] = 127.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.highpass and self.highpass % 2 == 0:
            raise ConfigError(f"View.highpass must be odd, or 0, got {self.highpass}")


@dataclass(frozen=True)
class VisualConfig(Checked):
    """The frame encoder: any timm model."""

    encoder: str = "mobilenetv2_100"
    # timm arguments of every encoder: pad_type: same, which ImageNet weights of MobileNetV2 from TensorFlow expect …
    encoder_kwargs: dict[str, Any] = field(default_factory=dict)
    # True: timm's own download; a path: a safetensors file of the encoder's weights, or a folder of such files. Where
    # views have encoders of their own: a folder with a file (NAME.safetensors) or a folder (NAME) for each encoder.
    pretrained: bool | str = False
    # Side in pixels to which smaller crops are enlarged, for an encoder of one size, as vision transformers are; 0: the
    # encoder takes the crops as they are cut.
    size: CountOrZero = 0
    # Each goes through its encoder; the head sees all of them side by side.
    views: Annotated[tuple[View, ...], NOT_EMPTY] = (View(),)
    # Of a track that are judged in each clip (PreprocessConfig.clip_seconds), evenly spread; 0: all.
    crops: CountOrZero = 0
    # Modules of every encoder (timm's names: blocks.1, layer2 …) whose maps the head sees, each as the mean and the
    # standard deviation of its channels; (): the encoder's own pooled output.
    levels: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()  # those of them whose maps are also compared: upper and lower face against the rim
    # Which weights of the encoder learn beside the head. norm: those of its norms. none: the head alone learns,
    # to its optimum; `dropout`, and of the loop lr, warmup_steps and ema_decay, are then not used.
    tune: Literal["all", "norm", "none"] = "all"
    unit_features: bool = False  # the head sees the encoder's pooled output scaled to length 1
    dropout: BelowOne = 0.3
    pooling: Literal["confident", "mean"] = "confident"  # of frame logits (avdetect.pooling)

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.contrasts if name not in self.levels]:
            raise ConfigError(f"VisualConfig.contrasts: {', '.join(unknown)} must also be named in levels")
        if self.unit_features and (self.levels or self.frozen):
            raise ConfigError(
                "VisualConfig.unit_features: the head of levels, or of tune: none, sees standardised features"
            )

    @property
    def encoders(self) -> tuple[str, ...]:
        """Their names, in the order of the views that they see."""
        return tuple(dict.fromkeys(view.encoder or self.encoder for view in self.views))

    @property
    def frozen(self) -> bool:
        """The encoders keep the weights that they start with."""
        return self.tune == "none"


@dataclass(frozen=True)
class AudioConfig(Checked):
    """The encoder of log-mel windows: a CNN that is trained from scratch, or the one of a speech recogniser."""

    encoder: Literal["cnn", "whisper-tiny.en"] = "cnn"
    # A safetensors file of the encoder's weights: whisper-tiny.en needs one (tools/convert_whisper.py).
    pretrained: str | None = None
    frozen: bool = False  # as VisualConfig.tune: none; with `hidden`, dropout counts
    # A longer window has no positions in Whisper's encoder, a shorter one leaves the CNN's last layers a frame or two.
    window_seconds: Annotated[float, Meta(ge=0.5, le=30)] = 2.0
    stride_seconds: Positive = 1.0
    # The shortest part of a window that is judged by itself: the head on a frozen encoder learns from stretches of a
    # window that are so long or longer, and a file's curve is the mean of stretches so long, by second. A word must fit
    # in. None: whole windows only.
    stretch_seconds: Annotated[float, Meta(ge=0.5)] | None = None
    # Of cnn.
    channels: Annotated[tuple[Count, ...], NOT_EMPTY] = (20, 40, 80, 128)
    embedding: Count = 128
    # Of whisper-tiny.en: the head sees statistics over time of each of these (avdetect.streams.whisper).
    levels: Annotated[tuple[str, ...], NOT_EMPTY] = ("stem", "blocks.0", "blocks.1", "blocks.2")
    hidden: CountOrZero = 0  # units of the head's hidden layer; 0: the head is linear
    heads: Count = 1  # perceptrons with a hidden layer whose logits are averaged
    dropout: BelowOne = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder == "cnn" and (self.frozen or self.pretrained):
            raise ConfigError("AudioConfig: the encoder cnn starts from nothing: frozen and pretrained are not for it")
        if self.stretch_seconds and not (self.frozen and self.stretch_seconds <= self.window_seconds):
            raise ConfigError(
                "AudioConfig.stretch_seconds: a stretch is a part of a window, and only the head of a frozen encoder "
                "learns from stretches"
            )


@dataclass(frozen=True)
class SyncConfig(Checked):
    """Two towers: a stretch of mouth frames against what the speech encoder of AudioConfig makes of the voice."""

    # That a mouth embedding sees: odd, as many before the frame that it belongs to as behind it.
    mouth_frames: Annotated[int, Meta(ge=5, le=LARGEST_NUMBER)] = 13
    embedding: Count = 128
    # Of the mouth's convolutions, each of which halves the side.
    channels: Annotated[tuple[Count, ...], NOT_EMPTY] = (24, 48, 72, 96)
    max_offset: Count = 15  # frames searched each way

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mouth_frames % 2 == 0:
            raise ConfigError(f"SyncConfig.mouth_frames must be odd, got {self.mouth_frames}")


@dataclass(frozen=True)
class FusionConfig(Checked):
    """Late fusion over the streams' outputs."""

    RETIRED: ClassVar = {"hidden": ..., "dropout": ...}  # of a fusion with hidden units

    # Face, voice and match are each judged by their own stream alone, and the whole is fake if one of them is: three
    # slopes and three biases. False: a logistic regression, which is fitted for comparison.
    parts: bool = True
    # Streams of which nothing was learned: they are left out, and what they would judge abstains. Training sets it.
    silent: tuple[Literal["visual", "audio", "sync"], ...] = ()
    stream_dropout: BelowOne = 0.25  # of the logistic regression: probability of hiding a stream while training


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network. A stream that is not in `streams` was not trained: scoring leaves it out and says so."""

    streams: Annotated[tuple[Literal["visual", "audio", "sync"], ...], NOT_EMPTY] = ("visual", "audio", "sync")
    visual: VisualConfig = field(default_factory=VisualConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)


@dataclass(frozen=True)
class TrainConfig(Checked):
    """Everything `avdetect train` needs besides the data."""

    RETIRED: ClassVar = {"joint": ...}  # a last stage, of all streams together

    seed: CountOrZero = 0
    name: str = "default"
    licence: str = "unstated"  # of the weights; goes into the bundle
    limits: tuple[str, ...] = ()  # what a reader of a report must know of the model, a sentence each; goes there too
    folds: Annotated[int, Meta(ge=2, le=LARGEST_NUMBER)] = 2  # the fusion learns from out-of-fold stream outputs
    fold_by: Literal["group", "dataset"] = "group"  # what a fold never splits; dataset: whole sources are left out
    # Every choice is made: train on dev too. The folds then hold dev as well, and all that is measured is out of fold.
    release: bool = False
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    visual: PairLoopConfig = field(default_factory=PairLoopConfig)
    audio: PairLoopConfig = field(default_factory=PairLoopConfig)
    sync: StreamLoopConfig = field(default_factory=StreamLoopConfig)
    fusion: FusionFitConfig = field(default_factory=FusionFitConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        size, crop_size = self.model.visual.size, self.preprocess.faces.crop_size
        if 0 < size < crop_size:
            raise ConfigError(
                f"model.visual.size {size} is smaller than preprocess.faces.crop_size {crop_size}: shrunk crops lose "
                f"what gives a forgery away; cut them at {size} px, or raise size"
            )
        self._check_unit_features()
        for name in ("visual", "audio"):
            if getattr(self.model, name).frozen and getattr(self, name).evaluate_every:
                raise ConfigError(
                    f"{name}.evaluate_every must be 0: the encoder of model.{name} is frozen and its head is fitted to "
                    "its optimum"
                )
        for name in ("visual", "audio", "sync") if self.release else ():
            if getattr(self, name).evaluate_every:
                raise ConfigError(f"{name}.evaluate_every must be 0 with release: true, for dev is trained on")
        if self.sync.accumulate != 1:
            raise ConfigError(
                f"sync.accumulate must be 1, got {self.sync.accumulate}: its loss compares the items of a batch with "
                "each other; lower sync.batch_size instead"
            )
        trained = tuple(name for name in ModelConfig().streams if getattr(self, name).steps)
        if set(self.model.streams) not in (set(trained), set(ModelConfig().streams)):
            raise ConfigError(
                f"model.streams says {', '.join(self.model.streams)}, but the streams with steps are "
                f"{', '.join(trained) or 'none'}: leave model.streams out, and give what is not to be trained steps: 0"
            )

    def _check_unit_features(self) -> None:
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
