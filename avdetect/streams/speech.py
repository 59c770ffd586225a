"""The speech encoder: log-mels -> frames, made once and read by the voice's stream and by lip-sync.

Frames are (N, T', L, C): T' steps of time, L levels of C channels. `cnn` has no encoder of its own: its frames are the
log-mels, one level of N_MELS channels, so that what follows is one.
"""

from torch import Tensor, nn

from avdetect.audio import N_MELS
from avdetect.config import AudioConfig
from avdetect.streams.whisper import WIDTH, WhisperEncoder


class Mels(nn.Module):
    """The identity: log-mels (N, T, N_MELS) -> frames (N, T, 1, N_MELS)."""

    def forward(self, mels: Tensor) -> Tensor:
        return mels.unsqueeze(2)


def speech_encoder(config: AudioConfig, load_pretrained: bool = True) -> Mels | WhisperEncoder:
    """`load_pretrained=False` builds the architecture only (a checkpoint's weights follow). Raises ConfigError for
    unknown levels and for unreadable weights."""
    if config.encoder == "cnn":
        return Mels()
    encoder = WhisperEncoder(config.levels)
    if config.pretrained and load_pretrained:
        encoder.load(config.pretrained)
    return encoder.requires_grad_(not config.frozen)


def frame_shape(config: AudioConfig) -> tuple[int, int]:
    """Levels and channels of a frame, (L, C)."""
    return (1, N_MELS) if config.encoder == "cnn" else (len(config.levels), WIDTH)
