"""Augmentation, alike for both classes: the same generator state gives a real and its forgery the same treatment."""

from __future__ import annotations

import cv2
import numpy as np

from avdetect.types import SAMPLE_RATE, Float, UInt8


def augment_face(crop: UInt8, rng: np.random.Generator) -> UInt8:
    """(S, S, 3) RGB -> same shape. Every random number is drawn whether it is used or not, so that two pictures with
    equal generators go through equal operations."""
    size = crop.shape[0]
    flip, gray, rescale, blur, noise, jpeg, cover = rng.random(7)
    angle, scale = rng.uniform(-10, 10), rng.uniform(0.8, 1.15)
    shift = rng.uniform(-0.08, 0.08, 2) * size
    gain, bias, tint = rng.uniform(0.75, 1.25), rng.uniform(-20, 20), rng.uniform(-10, 10, 3)
    small, sigma, level, quality = (
        rng.uniform(0.3, 1),
        rng.uniform(0.4, 1.6),
        rng.uniform(1, 9),
        int(rng.integers(30, 96)),
    )
    corner, extent = rng.uniform(0, 0.7, 2), rng.uniform(0.1, 0.35, 2)
    noise_seed = int(rng.integers(2**32))

    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
    matrix[:, 2] += shift
    # Repeated edges are also what a face crop shows beyond the picture: seen in both classes, they mean nothing.
    out = cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    if flip < 0.5:
        out = out[:, ::-1]
    pixels: np.ndarray = (out.astype(np.float32) - 128) * gain + 128 + bias + tint.astype(np.float32)
    if gray < 0.05:
        pixels = np.repeat(pixels.mean(2, keepdims=True), 3, axis=2)
    if rescale < 0.5:
        side = max(16, int(size * small))
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    if blur < 0.2:
        pixels = cv2.GaussianBlur(pixels, (0, 0), sigma)
    if noise < 0.3:
        grain = np.random.default_rng(noise_seed).standard_normal(pixels.shape, np.float32)
        pixels = pixels + grain * np.float32(level)
    out = np.clip(pixels, 0, 255).astype(np.uint8)
    if jpeg < 0.6:
        encoded = cv2.imencode(".jpg", out[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)[:, :, ::-1]
    if cover < 0.15:
        y, x = (corner * size).astype(int)
        h, w = (extent * size).astype(int)
        out = out.copy()
        out[y : y + h, x : x + w] = 127
    return np.ascontiguousarray(out, np.uint8)


def augment_voice(samples: Float, rng: np.random.Generator) -> Float:
    """(num_samples,) at 16 kHz -> same shape: level, room, band limit, noise."""
    out = samples * np.float32(10 ** rng.uniform(-0.6, 0.3))
    if rng.random() < 0.2:
        decay = np.exp(-np.arange(int(0.25 * SAMPLE_RATE)) / (SAMPLE_RATE * rng.uniform(0.01, 0.06)))
        room = rng.standard_normal(len(decay)) * decay
        room *= rng.uniform(0.15, 0.9) / np.sqrt(np.sum(room**2))  # 1 to 16 dB below the direct sound
        room[0] = 1
        size = len(out) + len(room)
        out = np.fft.irfft(np.fft.rfft(out, size) * np.fft.rfft(room, size), size)[: len(out)]
    if rng.random() < 0.45:
        cutoff, slope = rng.uniform(3000, 8000), rng.uniform(100, 1500)
        spectrum = np.fft.rfft(out)
        frequency = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
        out = np.fft.irfft(spectrum / (1 + np.exp(np.clip((frequency - cutoff) / slope * 4, -50, 50))), len(out))
    if rng.random() < 0.5:
        noise = rng.standard_normal(len(out))
        if rng.random() < 0.5:
            noise = np.cumsum(noise)  # brown: -6 dB an octave, like a room
            noise -= np.convolve(noise, np.ones(801) / 801, "same")[: len(out)]
        level = np.sqrt(np.mean(out**2)) * 10 ** (-rng.uniform(10, 45) / 20) / (np.sqrt(np.mean(noise**2)) + 1e-9)
        out = out + noise * level
    return np.clip(out, -1, 1).astype(np.float32)


def augment_mouths(crops: UInt8, rng: np.random.Generator) -> UInt8:
    """(T, M, M) luma of one clip -> same shape: one flip, shift, scale, contrast and blur for all of its frames."""
    size = crops.shape[1]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), rng.uniform(-8, 8), rng.uniform(0.9, 1.12))
    matrix[:, 2] += rng.uniform(-0.05, 0.05, 2) * size
    flip, gain, bias = rng.random() < 0.5, rng.uniform(0.7, 1.3), rng.uniform(-25, 25)
    sigma = rng.uniform(0.3, 1.2) if rng.random() < 0.3 else 0.0
    out = np.empty_like(crops)
    for i, crop in enumerate(crops):
        moved = cv2.warpAffine(crop, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        frame: np.ndarray = moved.astype(np.float32)
        frame = cv2.GaussianBlur(frame, (0, 0), sigma) if sigma else frame
        out[i] = np.clip((frame - 128) * gain + 128 + bias, 0, 255)
    return out[:, :, ::-1] if flip else out
