"""Compares the outputs of two runtimes for the same graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edge_vision.core.frame import Frame

SAME_DB = 100.0
"""The value for identical outputs."""


def sqnr_db(reference: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> float:
    """The lowest signal-to-noise ratio of all outputs in dB; the noise is the difference from the reference.

    10 log10(sum r^2 / sum (r - o)^2), as is common for quantization. At most SAME_DB; minus infinity if an
    output is missing, has another shape, or is not finite where the reference is not minus infinity, too.
    """
    return min(
        (_output_sqnr_db(value, outputs.get(name)) for name, value in reference.items()), default=SAME_DB
    )


def _output_sqnr_db(reference: np.ndarray, output: np.ndarray | None) -> float:
    if output is None or output.shape != reference.shape:
        return float("-inf")
    # Masked logits are minus infinity in both.
    masked = np.isneginf(reference) & np.isneginf(output)
    expected, output = np.where(masked, 0.0, reference.astype(np.float64)), np.where(masked, 0.0, output)
    if not np.isfinite(output).all():
        return float("-inf")
    noise = float(np.square(expected - output).sum())
    signal = float(np.square(expected).sum())
    if noise == 0.0:
        return SAME_DB
    return min(SAME_DB, 10.0 * float(np.log10(signal / noise))) if signal else float("-inf")


def sample_image(width_px: int, height_px: int) -> Frame:
    """A fixed synthetic image with coarse and fine structure."""
    # Imported here: only the measuring process needs OpenCV.
    import cv2

    from edge_vision.core.frame import Frame

    rng = np.random.default_rng(0)
    image = np.zeros((height_px, width_px, 3), np.float32)
    for cells in (4, 12, 48):
        coarse = rng.random((cells, cells, 3), np.float32)
        image += cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    image = (image - image.min()) / (image.max() - image.min())
    return Frame(np.rint(image * 255.0).astype(np.uint8), 0, "", "bgr8")
