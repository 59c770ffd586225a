"""The whole model, built from its config: the speech encoder, three streams and the fusion."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from avdetect.config import ModelConfig
from avdetect.errors import ModelError
from avdetect.fusion import Fusion
from avdetect.streams.audio import AudioStream
from avdetect.streams.speech import speech_encoder
from avdetect.streams.sync import SyncStream
from avdetect.streams.visual import VisualStream


class Model(nn.Module):
    """Holds what is trained. The streams are trained and run on their own; `avdetect.pooling` stands between them and
    the fusion, so this module has no forward of its own. Audio and sync read the frames of `speech`."""

    def __init__(self, config: ModelConfig, load_pretrained: bool = True) -> None:
        super().__init__()
        self.config = config
        self.visual = VisualStream(config.visual, load_pretrained)
        self.speech = speech_encoder(config.audio, load_pretrained)
        self.audio = AudioStream(config.audio)
        self.sync = SyncStream(config.sync, config.audio)
        self.fusion = Fusion(config.fusion)

    @classmethod
    def load(cls, config: ModelConfig, path: str | Path) -> Model:
        """Rebuild from `config` and the safetensors in `path`. Raises ModelError when they do not fit."""
        model = cls(config, load_pretrained=False)
        try:
            model.load_state_dict(load_file(str(path)))
        except Exception as error:  # safetensors, OSError and torch's RuntimeError all mean the same to the caller
            raise ModelError(f"cannot load weights from {path}: {error}") from error
        return model.eval()
