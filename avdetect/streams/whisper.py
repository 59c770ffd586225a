"""The encoder of Whisper: log-mel -> what it makes of speech, 50 frames a second, on up to five levels.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022): two convolutions, sinusoidal
positions, pre-norm transformer blocks. The weights of tiny.en (8 million of the encoder, MIT) come from
`tools/convert_whisper.py`. It learned from 680,000 hours of every microphone and codec, so that its features tell a
synthetic voice from a human one with few of either.
"""

from collections.abc import Sequence

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from avdetect.audio import N_FFT, N_MELS, WIN_LENGTH
from avdetect.errors import ConfigError

WIDTH, HEADS, BLOCKS, POSITIONS = 384, 6, 4, 1500  # of tiny.en; 1,500 positions are 30 s
LEVELS = ("stem", *(f"blocks.{i}" for i in range(BLOCKS)))
DYNAMIC_RANGE = 8.0  # of the log10 mel below its maximum, as in Whisper
_NATURAL_TO_LOG10 = 0.4342944819
# Whisper's transform is as long as its window and ours is longer: as many more bins fall under a filter of unit area.
_FINER_BINS = 0.1072099696  # log10(N_FFT / WIN_LENGTH)
assert abs(10**_FINER_BINS - N_FFT / WIN_LENGTH) < 1e-6


class Block(nn.Module):
    """Self-attention and a perceptron, each behind a layer norm and around a shortcut: (N, T, W) -> (N, T, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        joint = self.queries_keys_values(self.attention_norm(x)).reshape(n, t, 3, self.heads, width // self.heads)
        queries, keys, values = joint.permute(2, 0, 3, 1, 4)  # each (N, heads, T, W / heads)
        attended = scaled_dot_product_attention(queries, keys, values)
        x = x + self.out(attended.transpose(1, 2).reshape(n, t, width))
        return x + self.mlp(self.mlp_norm(x))


class WhisperEncoder(nn.Module):
    """Levels of tiny.en: log-mels (N, T, N_MELS) of `avdetect.audio` -> frames (N, T / 2, L, WIDTH)."""

    positions: Tensor

    def __init__(self, levels: Sequence[str]) -> None:
        """levels: of LEVELS, in the order of the frames. Raises ConfigError for another name."""
        super().__init__()
        if unknown := [name for name in levels if name not in LEVELS]:
            raise ConfigError(f"audio.levels: the encoder has no {unknown[0]!r}; it has {', '.join(LEVELS)}")
        self.levels = tuple(levels)
        self.conv1 = nn.Conv1d(N_MELS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.zeros(POSITIONS, WIDTH))
        deepest = max((LEVELS.index(name) for name in self.levels), default=0)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(deepest))  # what no level needs is left out

    def forward(self, mels: Tensor) -> Tensor:
        x = mels * _NATURAL_TO_LOG10 - _FINER_BINS
        x = torch.maximum(x, x.amax(dim=(1, 2), keepdim=True) - DYNAMIC_RANGE) / 4 + 1
        x = gelu(self.conv2(gelu(self.conv1(x.transpose(1, 2))))).transpose(1, 2)
        levels = {"stem": x}  # (N, T / 2, WIDTH) each
        x = x + self.positions[: x.shape[1]]
        for index, block in enumerate(self.blocks):
            x = block(x)
            levels[f"blocks.{index}"] = x
        return torch.stack([levels[name] for name in self.levels], dim=2)

    def load(self, path: str) -> None:
        """Take the weights in the safetensors file `path`. Raises ConfigError."""
        try:
            stored = load_file(path)
            self.load_state_dict({key: stored[key].float() for key in self.state_dict()})
        except Exception as error:  # safetensors' own type, OSError, KeyError, torch's RuntimeError
            raise ConfigError(
                f"audio.pretrained: {path} does not hold the encoder of Whisper tiny.en ({str(error)[:200]}); "
                "make it with tools/convert_whisper.py"
            ) from error
