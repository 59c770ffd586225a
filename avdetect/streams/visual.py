"""Visual stream: one logit a face crop, from any timm encoder.

The head sees either the encoder's pooled output or, with `levels`, what texture statistics see: the mean and the
standard deviation of the channels of several levels. A forged face is given away by texture at every scale more than by
what it shows, and on few sources a linear head on an encoder that is left as it was remembers the sources least.
`contrasts` adds how the texture of the face differs from that of the rim around it, which camera and codec treated
alike: each crop is its own reference, as in methods that compare the face with its context (Nirkin et al., "DeepFake
Detection Based on Discrepancies Between Faces and their Context", TPAMI 2021). There may be several `views` of a crop,
and an encoder for each: near and wide, the picture and its grain alone (`highpass`), in which sources differ least;
residual inputs go back to Fridrich & Kodovsky, "Rich Models for Steganalysis of Digital Images" (TIFS 2012).

With a GPU and much data, a vision transformer (CLIP, DINO, PE) of which only the norms learn, with a linear head on
features of length 1 (`tune: norm`, `unit_features`), is GenD's way (Yermakov et al., "Deepfake Detection that
Generalizes Across Benchmarks", 2025, arXiv 2508.06248).
"""

from pathlib import Path
from typing import cast

import timm
import torch
from safetensors.torch import load_file
from timm.models import create_feature_extractor
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, normalize

from avdetect.config import View, VisualConfig
from avdetect.errors import ConfigError
from avdetect.streams.head import Standard

EDGE = 3.0  # what a high-passed pixel counts at most, in `std`: edges must not drown the grain


class VisualStream(nn.Module):
    """Face crops -> frame logits. Pooling over frames and tracks is `avdetect.pooling`, shared with the Detector."""

    def __init__(self, config: VisualConfig, load_pretrained: bool = True) -> None:
        """`load_pretrained=False` builds the architecture only (a checkpoint's weights follow). Raises ConfigError for
        an unknown encoder or unreadable encoder weights."""
        super().__init__()
        encoders = [_encoder(config, name, load_pretrained) for name in config.encoders]
        self.encoder, self.others = encoders[0], nn.ModuleList(encoders[1:])
        self.views = nn.ModuleList(ViewTransform(view, config.size) for view in config.views)
        self.encoder_of = [config.encoders.index(view.encoder or config.encoder) for view in config.views]
        widths = [cast(int, one.width if config.levels else one.head_hidden_size) for one in encoders]
        self.blocks = [widths[index] for index in self.encoder_of]
        width = sum(self.blocks)
        self.unit_features = config.unit_features
        self.standard = Standard(width) if config.levels or config.frozen else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, 1)
        # The crops come as NHWC: convolutions then need not reorder them.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, crops: Tensor, with_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """crops (N, S, S, 3) RGB uint8 (or float in 0..255) -> logits (N,); with_features: also what the head saw
        (N, F), before dropout."""
        seen = self.standard(self.features(crops))
        logits = self.head(self.dropout(seen)).squeeze(1)
        return (logits, seen) if with_features else logits

    def features(self, crops: Tensor) -> Tensor:
        """crops (N, S, S, 3), as above -> (N, F): what the encoders say of them, before it is standardised."""
        x = crops.permute(0, 3, 1, 2).float()  # (N, 3, S, S)
        encoders = [self.encoder, *self.others]
        seen = [encoders[index](view(x)) for index, view in zip(self.encoder_of, self.views, strict=True)]
        features = torch.cat(seen, dim=1)
        return normalize(features, dim=1) if self.unit_features else features


class ViewTransform(nn.Module):
    """A `View`: crops (N, 3, S, S) in 0..255 -> what the encoder is given (N, 3, S', S')."""

    mean: Tensor  # (1, 1, 1) or (3, 1, 1), like std
    std: Tensor

    def __init__(self, view: View, size: int = 0) -> None:
        """size: side to which smaller pictures are enlarged (`VisualConfig.size`)."""
        super().__init__()
        self.view, self.size = view, size
        # Not in the state dict: they are configuration, which travels beside the weights.
        for name, value in (("mean", view.mean), ("std", view.std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        view, side = self.view, int(x.shape[-1])
        if view.share < 1:
            margin = round(side * (1 - view.share) / 2)
            x = x[..., margin : side - margin, margin : side - margin]
        if view.reduce > 1:
            x = avg_pool2d(x, view.reduce)
        if view.highpass:
            local = avg_pool2d(x, view.highpass, stride=1, padding=view.highpass // 2, count_include_pad=False)
            x = ((x - local) / self.std).clamp(-EDGE, EDGE)
        else:
            x = (x - self.mean) / self.std
        if self.size and int(x.shape[-1]) != self.size:
            x = interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
        return x


class LevelStatistics(nn.Module):
    """Mean and standard deviation of the channels of several levels: (N, 3, S, S) -> (N, width).

    Of the levels in `contrasts` also what the upper and the lower face have more than the rim: difference of means,
    logarithm of the ratio of standard deviations.
    """

    def __init__(self, encoder: nn.Module, config: VisualConfig, name: str) -> None:
        """Raises ConfigError for a level that `encoder`, timm's `name`, does not have."""
        super().__init__()
        self.contrasts = frozenset(config.contrasts)
        known = dict(encoder.named_modules())
        for level in config.levels:
            if level not in known:
                outline = [one for one in known if one and one.count(".") < 2][:60]
                raise ConfigError(f"visual.levels: {name} has no {level!r}; it has {', '.join(outline)}")
        self.maps = create_feature_extractor(encoder, {level: level for level in config.levels})
        with torch.no_grad():
            self.eval()  # or the blank picture would move the statistics of batch normalisation
            blank = torch.zeros(1, 3, 160, 160)
            for level, maps in self.maps(blank).items():
                if maps.ndim != 4:
                    shape = tuple(maps.shape)
                    raise ConfigError(f"visual.levels: {level!r} of {name} gives no maps (N, C, H, W), but {shape}")
            self.width = self(blank).shape[1]
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for name, maps in self.maps(x).items():  # (N, C, H, W)
            mean = maps.mean((2, 3))
            variance = maps.square().mean((2, 3)) - mean.square()
            found += [mean, variance.clamp_min(1e-5).sqrt()]
            if name in self.contrasts:
                found += _contrasts(maps)
        return torch.cat(found, dim=1)


def _contrasts(maps: Tensor) -> list[Tensor]:
    """(N, C, H, W) -> four of (N, C): means, and log deviations, of the upper and of the lower face minus the rim's."""
    height, width = (int(side) for side in maps.shape[2:])  # int: constants when exported
    weights = regions(height, width).to(maps).flatten(1).T  # (HW, 3)
    flat = maps.flatten(2)  # (N, C, HW)
    mean, square = (values @ weights for values in (flat, flat.square()))  # (N, C, 3)
    spread = ((square - mean.square()).clamp_min(1e-5).sqrt() + 0.01).log()  # the 0.01 keeps flat maps from shouting
    return [values[..., face] - values[..., 2] for values in (mean, spread) for face in (0, 1)]


def regions(height: int, width: int) -> Tensor:
    """(3, height, width) weights that add up to 1: upper face, lower face, rim of a face crop.

    Two ellipses around the middle, where crops of `avdetect.faces` have the face: one inside it, halved with a gap at
    the nose, and one around it, whose outside is the rim.
    """
    y = ((torch.arange(height * 8) + 0.5) / (height * 8))[:, None]  # eight samples across each place of the map
    x = ((torch.arange(width * 8) + 0.5) / (width * 8))[None, :]
    inside = ((x - 0.5) / 0.30) ** 2 + ((y - 0.5) / 0.38) ** 2 < 1
    outside = ((x - 0.5) / 0.42) ** 2 + ((y - 0.5) / 0.48) ** 2 > 1
    masks = torch.stack([inside & (y < 0.5), inside & (y > 0.56), outside]).float()
    shares = masks.reshape(3, height, 8, width, 8).mean((2, 4))
    return shares / shares.sum((1, 2), keepdim=True)


def _encoder(config: VisualConfig, name: str, load_pretrained: bool) -> nn.Module:
    """timm's model `name` with the weights that `config` names, learning what `config.tune` lets it learn."""
    download = config.pretrained is True and load_pretrained
    try:
        encoder = timm.create_model(name, pretrained=download, num_classes=0, exportable=True, **config.encoder_kwargs)
    except (RuntimeError, TypeError, ValueError, OSError) as error:  # of timm and of the hub that it asks
        if isinstance(error, OSError) or "offline" in str(error).lower():  # every failure of the hub is an OSError
            what = "a safetensors file of the encoder" if len(config.encoders) == 1 else "a folder with a file of each"
            raise ConfigError(
                f"visual.pretrained: timm could not download {name!r}. Without a network give {what} (--pretrained "
                f"PATH, or pretrained: PATH), or pretrained: false. "
                f"The hub said: {' '.join(str(error).split())[:200]}"
            ) from error
        raise ConfigError(f"visual: the encoder {name!r} cannot be built by timm: {error}") from error
    if isinstance(config.pretrained, str) and load_pretrained:
        _load_encoder(encoder, _weights(config, Path(config.pretrained), name))
    encoder.requires_grad_(config.tune == "all")
    if config.tune == "norm":
        _tune_norms(encoder, name)
    return LevelStatistics(encoder, config, name) if config.levels else encoder


def _weights(config: VisualConfig, path: Path, name: str) -> Path:
    """Where in `path` the weights of encoder `name` are. Raises ConfigError where there are several and no such one."""
    if len(config.encoders) == 1:
        return path
    for own in (path / f"{name}.safetensors", path / name):
        if own.exists():
            return own
    raise ConfigError(
        f"visual.pretrained: {path} must be a folder that holds {name}.safetensors: the views have "
        f"{len(config.encoders)} encoders ({', '.join(config.encoders)})"
    )


def _tune_norms(encoder: nn.Module, name: str) -> None:
    """Let scales and shifts of norms of every kind learn. Raises ConfigError where the encoder has none."""
    kinds = {module: type(module).__name__.lower() for module in encoder.modules()}
    norms = [module for module, kind in kinds.items() if "norm" in kind and "normfree" not in kind]
    parameters = [parameter for norm in norms for parameter in norm.parameters(recurse=False)]
    if not parameters:
        raise ConfigError(f"visual.tune: norm: {name!r} has no norms that could learn; choose another encoder, or all")
    for parameter in parameters:
        parameter.requires_grad_(True)


def _load_encoder(encoder: nn.Module, path: Path) -> None:
    """path: a safetensors file, or a folder whose safetensors files together hold the weights."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    try:
        found = {key: value.float() for file in files for key, value in load_file(file).items()}
        state = {key: value for key, value in found.items() if not key.startswith("classifier.")}
    except Exception as error:  # safetensors raises its own type, OSError and ValueError
        raise ConfigError(f"visual.pretrained: cannot read {path}: {error}") from error
    try:
        wrong = encoder.load_state_dict(state, strict=False)
    except RuntimeError as error:  # equal names, other shapes
        raise ConfigError(f"visual.pretrained: {path} does not fit the encoder: {error}") from error
    missing = [key for key in wrong.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or wrong.unexpected_keys:
        raise ConfigError(
            f"visual.pretrained: {path} does not fit the encoder (missing {missing[:3]}, "
            f"unexpected {wrong.unexpected_keys[:3]})"
        )
