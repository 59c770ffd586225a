"""Settings of training's loops and fits; `avdetect.config` has them all."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from avdetect._checked import BelowOne, Checked, Count, CountOrZero, NotNegative, Positive, ShareOrZero
from avdetect.errors import ConfigError


@dataclass(frozen=True)
class LoopConfig(Checked):
    """One run of the training loop."""

    steps: CountOrZero = 1000  # 0: not trained
    batch_size: Count = 32  # of the joint batch, over all devices and all of its accumulated parts
    accumulate: Count = 1  # parts of a device's batch that go through the network one after the other
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.02
    warmup_steps: CountOrZero = 50
    ema_decay: BelowOne = 0.998
    label_smoothing: BelowOne = 0.01
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"  # of Lightning Fabric
    checkpoint_every: Count = 200  # steps
    # Steps between log losses on dev, the best of which is kept; 0: the last weights are kept.
    evaluate_every: CountOrZero = 0

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

    # 0: every file is drawn alike; 1: every source, and of fakes every generator; .5: these by the root of their size
    source_balance: ShareOrZero = 0.5
    codec: ShareOrZero = 0.1  # probability that an item takes a round trip through a real codec


@dataclass(frozen=True)
class PairLoopConfig(StreamLoopConfig):
    """A run on pairs: a fake and its original under one augmentation, and more reals beside them."""

    RETIRED: ClassVar = {"reconstructed": 0.0}  # the share of faces that autoencoders gave back

    # Share of the fakes that are forged from reals while training; 1: real media is all it takes.
    forged: ShareOrZero = 0.5
    # Name -> weight (avdetect.datasets.forgeries); {}: all, alike. The names are checked when training starts.
    forgeries: dict[str, NotNegative] = field(default_factory=dict)
    reals_per_fake: Count = 1  # the fake's original, and reals of other files
    # light: half of the real media stays as it is; of the other half, faces lose less of their texture
    # (avdetect.datasets.augment.faces) and voices take the full augmentation.
    augmentation: Literal["full", "light"] = "full"
    # Weights of two losses on features of length 1, beside the labels' (avdetect.training.losses): each class drawn
    # together, the whole batch spread out.
    alignment: NotNegative = 0.0
    uniformity: NotNegative = 0.0
    # Penalty on a bias for each source, learned beside a linear head on a frozen encoder and then forgotten
    # (avdetect.training.probe); 0: no such biases.
    source_biases: NotNegative = 0.0
    clip_labels: bool = False  # where the part's own label is unknown, take the clip's, as the DFDC solutions did

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.forgeries and not any(self.forgeries.values()):
            raise ConfigError("forgeries: every weight is 0; give one above 0, or {} for all alike")

    @property
    def items(self) -> int:
        return 1 + self.reals_per_fake


@dataclass(frozen=True)
class FusionFitConfig(Checked):
    """The fit of the fusion on out-of-fold stream outputs."""

    steps: Count = 400  # of full-batch AdamW, on a cosine
    lr: Positive = 0.02
    weight_decay: NotNegative = 0.05
    label_smoothing: BelowOne = 0.0
    forged: CountOrZero = 1  # forged copies of each real clip that are scored and fitted on beside the manifest's files
    mismatched: CountOrZero = 1  # copies of each real file with its own voice that get the voice of another person
    # Of the shipped fusion; both are fitted and reported. The noisy-or alone is never below its largest part.
    kind: Literal["logistic", "parts"] = "parts"
    # The upper threshold has the best balanced accuracy of those that call no more of the reals fake, out of fold.
    max_false_alarms: ShareOrZero = 0.1
