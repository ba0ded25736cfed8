"""Lamps, exposure, sensor noise and JPEG artefacts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from edge_vision.evaluate.sequences.camera import HEIGHT_PX, WIDTH_PX

_SPARE_PX = 512


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """A large plane of normal noise of deviation 1, a little smooth as after demosaicing; float32.

    A frame takes a window of it at a place of its own: fresh noise at a tenth of the price.
    """
    size = (HEIGHT_PX + _SPARE_PX, WIDTH_PX + _SPARE_PX, 3)
    noise = np.random.default_rng(5).standard_normal(size, np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 0.55)
    return np.asarray(smooth / float(np.std(smooth)), np.float32)


@lru_cache(maxsize=4)
def _scaled_noise_bank(sigma: float) -> np.ndarray:
    return np.asarray(np.rint(_noise_bank() * sigma).astype(np.int16))


def _window(rng: np.random.Generator, bank: np.ndarray) -> np.ndarray:
    top, left = rng.integers(0, _SPARE_PX, 2)
    window = bank[top : top + HEIGHT_PX, left : left + WIDTH_PX]
    return window[::-1] if rng.random() < 0.5 else window


def read_noise(rng: np.random.Generator, image: np.ndarray, sigma: float) -> np.ndarray:
    """Noise that is the same at all brightnesses; sigma in grey levels."""
    return np.asarray(cv2.add(image, _window(rng, _scaled_noise_bank(sigma)), dtype=cv2.CV_8U))


def shot_noise(rng: np.random.Generator, image: np.ndarray, sigma: float, gain: float) -> np.ndarray:
    """Read noise sigma, and photon noise whose variance is gain times the grey level."""
    levels = np.sqrt(sigma**2 + gain * np.arange(256, dtype=np.float32)).astype(np.float32)
    noise = cv2.multiply(cv2.LUT(image, levels), np.ascontiguousarray(_window(rng, _noise_bank())))
    return np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode and decode."""
    data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def curve(gain: float, offset: float = 0.0, gamma: float = 1.0) -> np.ndarray:
    """(256,) uint8 table: 255 * gain * (level / 255) ** gamma + offset."""
    levels = 255 * gain * (np.arange(256) / 255.0) ** gamma + offset
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Lamp:
    """A pool of light on the screen. field: (h, w, 3) uint8, 64 = no light; on: (n,) bool."""

    field: np.ndarray
    on: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class SequenceLight:
    """The light of a sequence. gain, offset: (n,) per frame; gamma, sigma, shot: of the whole sequence."""

    gain: np.ndarray
    offset: np.ndarray
    lamps: tuple[Lamp, ...] = ()
    gamma: float = 1.0
    sigma: float = 2.0
    shot: float = 0.0
    quality: int = 88

    def on(self, rng: np.random.Generator, image: np.ndarray, at: int) -> np.ndarray:
        """The picture of frame `at` as a camera gives it."""
        if self.gamma != 1.0 or self.gain[at] != 1.0 or self.offset[at] != 0.0:
            image = cv2.LUT(image, curve(self.gain[at], self.offset[at], self.gamma))
        # After the exposure, which would otherwise turn blown-out white into grey.
        for lamp in self.lamps:
            if lamp.on[at]:
                image = cv2.multiply(image, lamp.field, scale=1 / 64)
        if self.shot:
            return jpeg(shot_noise(rng, image, self.sigma, self.shot), self.quality)
        return jpeg(read_noise(rng, image, self.sigma), self.quality)


def steady(n: int, sigma: float = 2.0) -> SequenceLight:
    """Daylight."""
    return SequenceLight(np.ones(n), np.zeros(n), sigma=sigma)


def steps(rng: np.random.Generator, n: int) -> SequenceLight:
    """Lamps that switch on and off, exposure jumps, and a slow drift."""
    gain, offset = np.full(n, 0.8), np.zeros(n)
    for start in range(int(rng.integers(40, 70)), n, 170):
        # A camera's exposure settles within three frames.
        level, length = rng.choice([0.62, 0.75, 1.25, 1.4]), int(rng.integers(50, 120))
        ramp = np.full(min(length, n - start), level)
        ramp[:2] = [1 + (level - 1) * 0.5, 1 + (level - 1) * 0.85][: len(ramp)]
        gain[start : start + length] *= ramp
    gain *= 1 + 0.10 * np.sin(np.arange(n) * 2 * math.pi / 600 + rng.uniform(0, 6))
    offset += 4 * np.sin(np.arange(n) * 2 * math.pi / 900)
    return SequenceLight(gain, offset, tuple(lamp(rng, n) for _ in range(3)))


def lamp(rng: np.random.Generator, n: int, most: float = 0.6) -> Lamp:
    """A lamp with random position, size and colour that switches every few seconds."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX].astype(np.float32)
    radius = rng.uniform(90, 220)
    glow = np.exp(
        -((x - rng.uniform(0, WIDTH_PX)) ** 2 + (y - rng.uniform(0, HEIGHT_PX)) ** 2) / (2 * radius**2)
    )
    tint = np.array([0.75, 0.95, 1.0]) * rng.uniform(0.5 * most, most)
    field = np.rint(64 * (1 + glow[:, :, None] * tint)).astype(np.uint8)
    switches = np.cumsum(rng.integers(70, 260, size=n // 70 + 2))
    return Lamp(field, np.searchsorted(switches, np.arange(n), side="right") % 2 == 1)


def dim(rng: np.random.Generator, n: int, gain: float = 0.45) -> SequenceLight:
    """A dark room and a camera with high gain."""
    return SequenceLight(np.full(n, gain), np.full(n, 4.0), gamma=1.1, sigma=3.0, shot=0.45, quality=84)


def night(rng: np.random.Generator, n: int) -> SequenceLight:
    """Night with street lamps, one of which switches on and off."""
    lamps = (lamp(rng, n, 3.0), Lamp(lamp(rng, n, 3.0).field, np.ones(n, bool)))
    return SequenceLight(
        np.full(n, 0.22), np.full(n, 3.0), lamps, gamma=1.15, sigma=3.5, shot=0.5, quality=80
    )
