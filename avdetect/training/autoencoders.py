"""Small autoencoders, trained on the real faces at hand, that give a face back as a generator draws it.

Talking heads, swapped faces and painted mouths all come out of a decoder that upsamples learned features. A real crop
that went through such a decoder shows the same traces and is its own pair: nothing else differs. After the simulator of
Zhang, Karaman & Chang, "Detecting and Simulating Artifacts in GAN Fake Images" (WIFS 2019), and Rajan et al., "Aligned
Datasets Improve Detection of Latent Diffusion-Generated Images" (ICLR 2025), with networks that take a minute each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import pad

from avdetect.config import PairLoopConfig
from avdetect.errors import ModelError
from avdetect.training.checkpoint import read_checkpoint, write_checkpoint
from avdetect.types import UInt8

STEPS, BATCH, LR = 400, 8, 2e-3  # the loss has then all but settled; perfect ones would leave no trace
WIDTHS = (24, 32, 48)
# (upsampling, times the side is halved, channels of the code): what generators do, from faithful to coarse.
DESIGNS = (("nearest", 2, 12), ("transposed", 2, 12), ("shuffle", 3, 32), ("bilinear", 1, 6))
UPSAMPLINGS: dict[str, Callable[[int, int], nn.Module]] = {
    "nearest": lambda a, b: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, 1, 1)),
    "bilinear": lambda a, b: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(a, b, 3, 1, 1)),
    "transposed": lambda a, b: nn.ConvTranspose2d(a, b, 4, 2, 1),
    "shuffle": lambda a, b: nn.Sequential(nn.Conv2d(a, 4 * b, 3, 1, 1), nn.PixelShuffle(2)),
}


class Autoencoder(nn.Module):
    """(N, 3, S, S) in [-1, 1] -> the same, as a decoder with this upsampling draws it. Any S."""

    def __init__(self, upsampling: str, depth: int, code: int) -> None:
        super().__init__()
        widths = WIDTHS[:depth]
        down = [layer for a, b in pairwise([3, *widths]) for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2))]
        up = UPSAMPLINGS[upsampling]
        rising = [layer for a, b in pairwise([*widths[::-1], 16]) for layer in (up(a, b), nn.LeakyReLU(0.2))]
        self.multiple = 2**depth
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], code, 3, 1, 1))
        self.decoder = nn.Sequential(
            nn.Conv2d(code, widths[-1], 3, 1, 1), nn.LeakyReLU(0.2), *rising, nn.Conv2d(16, 3, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        more = -side % self.multiple
        padded = pad(x, (0, more, 0, more), mode="reflect") if more else x
        return self.decoder(self.encoder(padded))[..., :side, :side]


class Autoencoders:
    """Trained ones. Calling it with crops (T, S, S, 3) RGB draws one of them, and gives the crops back by it."""

    def __init__(self, networks: Sequence[Autoencoder]) -> None:
        self.networks = [network.cpu().eval().requires_grad_(False) for network in networks]

    def __call__(self, crops: UInt8, rng: np.random.Generator) -> UInt8:
        network = self.networks[int(rng.integers(len(self.networks)))]
        with torch.inference_mode():
            drawn = network(_scaled(torch.from_numpy(crops))).clamp(-1, 1)
        pictures = ((drawn.permute(0, 2, 3, 1) + 1) * 127.5).round()
        return np.ascontiguousarray(pictures.to(torch.uint8).numpy())


def fit_autoencoders(
    draw: Callable[[np.random.Generator], UInt8],
    config: PairLoopConfig,
    *,
    fabric: Fabric,
    seed: int,
    path: Path,
    name: str,
    steps: int = STEPS,
) -> Autoencoders:
    """One of each of DESIGNS, from `path` when they are there, which rank 0 writes once all are trained.

    draw: a generator -> a real crop (S, S, 3). config: what `draw` depends on; another one refuses what is in `path`.
    Raises ModelError for a loss that is not finite and for a file that is damaged or of another run.
    """
    designs = {f"autoencoder {i}": f"{up} {depth} {code}" for i, (up, depth, code) in enumerate(DESIGNS)}
    identity = {"seed": seed, "steps": steps, "source_balance": config.source_balance, **designs}
    if fabric.is_global_zero and not path.exists():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = {
                str(i): _trained(Autoencoder(*design), draw, fabric.device, (seed, i), steps, f"{name} {design[0]}")
                for i, design in enumerate(DESIGNS)
            }
        write_checkpoint(path, identity, state)
    fabric.barrier()
    state = read_checkpoint(path, identity)
    with torch.random.fork_rng(devices=[]):  # what is trained next draws as it would have drawn
        networks = [Autoencoder(*design) for design in DESIGNS]
    for i, network in enumerate(networks):
        network.load_state_dict(state[str(i)])
    return Autoencoders(networks)


def _trained(
    network: Autoencoder,
    draw: Callable[[np.random.Generator], UInt8],
    device: torch.device,
    seed: tuple[int, int],
    steps: int,
    name: str,
) -> dict[str, Tensor]:
    """The weights after Adam on the L1 distance of pictures and of their gradients, which keeps edges."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(seed)
    for _ in track(range(steps), name):
        x = _scaled(torch.from_numpy(np.stack([draw(rng) for _ in range(BATCH)])).to(device))
        error = network(x) - x
        loss = error.abs().mean() + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        if not torch.isfinite(loss):
            raise ModelError(f"{name}: the loss is not finite; check the crops of the cache")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return {key: value.cpu() for key, value in network.state_dict().items()}


def _scaled(crops: Tensor) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) in [-1, 1]."""
    return crops.permute(0, 3, 1, 2).float() / 127.5 - 1
