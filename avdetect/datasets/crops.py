"""Face crops of one track with their landmarks: what forgeries and augmentation work on."""

from dataclasses import dataclass

import numpy as np

from avdetect.types import Float, UInt8


@dataclass(frozen=True, repr=False)
class FaceCrops:
    """T crops of one person, in the order of time."""

    crops: UInt8  # (T, S, S, 3) RGB
    landmarks: Float  # (T, 5, 2) in the crops' own pixels: eyes, nose, mouth corners; of each pair the left one first

    def __post_init__(self) -> None:
        count, side = len(self.crops), self.crops.shape[1]
        if self.crops.shape != (count, side, side, 3) or self.landmarks.shape != (count, 5, 2):
            raise ValueError(f"crops {self.crops.shape}, landmarks {self.landmarks.shape}")

    def __len__(self) -> int:
        return len(self.crops)

    def __repr__(self) -> str:
        return f"FaceCrops({len(self)} of {self.crops.shape[1]} px)"


def landmarks_in_crops(boxes: Float, landmarks: Float, margin: float, size: int) -> Float:
    """Landmarks (T, 5, 2) of the frame in pixels of the crops that `faces.face_crop` cuts around `boxes` (T, 4)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * margin
    corners = (boxes[:, :2] + boxes[:, 2:]) / 2 - sides[:, None] / 2
    return ((landmarks - corners[:, None]) / sides[:, None, None] * size).astype(np.float32)
