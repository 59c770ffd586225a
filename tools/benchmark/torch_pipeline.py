"""The shape of what people run today: 32 frames, MTCNN at half size, one EfficientNet on the faces, the mean.

    python tools/benchmark/torch_pipeline.py clip.mp4 --encoder tf_efficientnet_b7

The Deepfake Detection Challenge's winner (Seferbekov, 2020), with one network of its seven and random weights: only
the cost counts, the score means nothing. pipelines.py runs it. Prints one JSON line: how many frames and faces,
the score, wall seconds by stage.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np

from avdetect.extras import script_imports

with script_imports("torch_pipeline", "dev"):
    import timm
    import torch
    from facenet_pytorch import MTCNN
    from PIL import Image

THRESHOLDS = [0.7, 0.8, 0.8]  # the winner's
MARGIN = 1 / 3  # of the face's box on each side, as there
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--encoder", default="tf_efficientnet_b7", help="any model of timm")
    args = parser.parse_args()
    clock = [time.perf_counter()]
    detector = MTCNN(margin=0, thresholds=THRESHOLDS, keep_all=True)
    encoder = timm.create_model(args.encoder, pretrained=False, num_classes=1).eval()
    clock.append(time.perf_counter())
    frames = read(args.clip, 32)
    clock.append(time.perf_counter())
    faces = [face for frame in frames for face in find(detector, frame)]
    clock.append(time.perf_counter())
    score = encode(encoder, faces) if faces else 0.5
    clock.append(time.perf_counter())
    seconds = dict(zip(("load", "decode", "detect", "encode"), np.diff(clock).round(3).tolist(), strict=True))
    print(json.dumps({"frames": len(frames), "faces": len(faces), "score": score, "timing_seconds": seconds}))


def read(clip: Path, count: int) -> list[np.ndarray]:
    """`count` frames (H, W, 3) RGB at equal distances; every frame up to the last of them is decoded."""
    capture = cv2.VideoCapture(str(clip))
    wanted = set(np.linspace(0, capture.get(cv2.CAP_PROP_FRAME_COUNT) - 1, count, dtype=int).tolist())
    frames = []
    for number in range(max(wanted) + 1):
        if not capture.grab():
            break
        if number in wanted:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return frames


def find(detector: MTCNN, frame: np.ndarray) -> list[np.ndarray]:
    """The faces (380, 380, 3) of a frame, found at half its size and cut from the whole."""
    height, width = frame.shape[:2]
    boxes, _ = detector.detect(Image.fromarray(frame).resize((width // 2, height // 2)), landmarks=False)
    faces = []
    for x0, y0, x1, y1 in () if boxes is None else (boxes * 2).astype(int):
        x, y = int((x1 - x0) * MARGIN), int((y1 - y0) * MARGIN)
        face = frame[max(y0 - y, 0) : y1 + y, max(x0 - x, 0) : x1 + x]
        if face.size:
            faces.append(cv2.resize(face, (380, 380), interpolation=cv2.INTER_AREA))
    return faces


def encode(encoder: torch.nn.Module, faces: list[np.ndarray]) -> float:
    """The mean of the faces' probabilities, all of them in one batch, as there."""
    batch = (np.stack(faces).astype(np.float32) / 255 - MEAN) / STD
    with torch.inference_mode():
        logits = encoder(torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))))
    return float(torch.sigmoid(logits).mean())


if __name__ == "__main__":
    main()
