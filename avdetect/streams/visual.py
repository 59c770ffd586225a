"""Visual stream: one logit a face crop, from any timm encoder.

The head sees either the encoder's pooled output or, with `levels`, what texture statistics see: the mean and the
standard deviation of the channels of several levels. A forged face is given away by texture at every scale more than by
what it shows, and on few sources a linear head on an encoder that is left as it was remembers the sources least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import timm
import torch
from safetensors.torch import load_file
from timm.models import create_feature_extractor
from torch import Tensor, nn

from avdetect.config import VisualConfig
from avdetect.errors import ConfigError


class VisualStream(nn.Module):
    """Face crops -> frame logits. Pooling over frames and tracks is `avdetect.pooling`, shared with the Detector."""

    mean: Tensor  # (1, 1, 1) or (3, 1, 1), like std
    std: Tensor

    def __init__(self, config: VisualConfig, load_pretrained: bool = True) -> None:
        """`load_pretrained=False` builds the architecture only (a checkpoint's weights follow).

        Raises ConfigError for an unknown encoder or unreadable encoder weights.
        """
        super().__init__()
        download = config.pretrained is True and load_pretrained
        try:
            self.encoder = timm.create_model(
                config.encoder, pretrained=download, num_classes=0, exportable=True, **config.encoder_kwargs
            )
        except (RuntimeError, TypeError, ValueError, OSError) as error:  # of timm and of the hub that it asks
            if isinstance(error, OSError) or "offline" in str(error).lower():  # every failure of the hub is an OSError
                raise ConfigError(
                    f"visual.pretrained: timm could not download {config.encoder!r}. Without a network give a "
                    f"safetensors file of the encoder (--pretrained FILE, or pretrained: FILE), or pretrained: false. "
                    f"The hub said: {' '.join(str(error).split())[:200]}"
                ) from error
            raise ConfigError(f"visual.encoder {config.encoder!r} cannot be built by timm: {error}") from error
        if isinstance(config.pretrained, str) and load_pretrained:
            _load_encoder(self.encoder, config.pretrained)
        if config.levels:
            self.encoder = LevelStatistics(self.encoder, config.levels)
            width = self.encoder.width
        else:
            width = cast(int, self.encoder.head_hidden_size)
        self.frozen = config.frozen
        if config.frozen:
            self.encoder.requires_grad_(False)
        # Not learned: what is standardised is what was seen while training, as in batch normalisation.
        standardised = config.levels or config.frozen
        self.standard = nn.BatchNorm1d(width, affine=False, momentum=0.02) if standardised else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, 1)
        # One number or one a channel. Not in the state dict: they are configuration, which travels beside the weights.
        for name, value in (("mean", config.mean), ("std", config.std)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1), persistent=False)
        # The crops come as NHWC: convolutions then need not reorder them.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, crops: Tensor) -> Tensor:
        """crops (N, S, S, 3) RGB uint8 (or float in 0..255) -> logits (N,)."""
        return self.head(self.dropout(self.standard(self.features(crops)))).squeeze(1)

    def features(self, crops: Tensor) -> Tensor:
        """crops (N, S, S, 3), as above -> (N, F): what the encoder says of them, before it is standardised."""
        x = (crops.permute(0, 3, 1, 2).float() - self.mean) / self.std  # (N, 3, S, S)
        return self.encoder(x)

    def train(self, mode: bool = True) -> VisualStream:
        """A frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self


class LevelStatistics(nn.Module):
    """Mean and standard deviation of the channels of several levels: (N, 3, S, S) -> (N, width)."""

    def __init__(self, encoder: nn.Module, levels: Sequence[str]) -> None:
        """Raises ConfigError for a level that the encoder does not have."""
        super().__init__()
        known = dict(encoder.named_modules())
        for name in levels:
            if name not in known:
                raise ConfigError(f"visual.levels: the encoder has no {name!r}; it has {', '.join(_outline(encoder))}")
        self.maps = create_feature_extractor(encoder, {name: name for name in levels})
        with torch.no_grad():
            self.eval()  # or the blank picture would move the statistics of batch normalisation
            blank = torch.zeros(1, 3, 160, 160)
            for name, maps in self.maps(blank).items():
                if maps.ndim != 4:
                    raise ConfigError(f"visual.levels: {name!r} gives no maps (N, C, H, W), but {tuple(maps.shape)}")
            self.width = self(blank).shape[1]
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for maps in self.maps(x).values():  # (N, C, H, W)
            mean = maps.mean((2, 3))
            variance = maps.square().mean((2, 3)) - mean.square()
            found += [mean, variance.clamp_min(1e-5).sqrt()]
        return torch.cat(found, dim=1)


def _outline(encoder: nn.Module) -> list[str]:
    """Names of the encoder's first parts, two levels deep at most."""
    return [name for name, _ in encoder.named_modules() if name and name.count(".") < 2][:60]


def _load_encoder(encoder: nn.Module, path: str) -> None:
    try:
        state = {key: value.float() for key, value in load_file(path).items() if not key.startswith("classifier.")}
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
