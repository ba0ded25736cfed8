"""Whether two runtimes compute the same from the same graph."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from edge_vision.core.frame import Frame

SAME_DB = 100.0
"""What is given for outputs that differ in nothing."""


def sqnr_db(reference: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> float:
    """The worst output's signal to noise ratio in dB, the noise being what differs from the reference.

    As for quantization (Jacob et al., CVPR 2018, and common use): 10 log10(sum r^2 / sum (r - o)^2). At most
    SAME_DB; minus infinity where an output is missing, has another shape, or is not finite.
    """
    return min((_one(value, outputs.get(name)) for name, value in reference.items()), default=SAME_DB)


def _one(reference: np.ndarray, output: np.ndarray | None) -> float:
    if output is None or output.shape != reference.shape or not np.isfinite(output).all():
        return float("-inf")
    wanted = reference.astype(np.float64)
    noise = float(np.square(wanted - output).sum())
    signal = float(np.square(wanted).sum())
    if noise == 0.0:
        return SAME_DB
    return min(SAME_DB, 10.0 * float(np.log10(signal / noise))) if signal else float("-inf")


def sample_image(width_px: int, height_px: int) -> Frame:
    """A picture of coarse and fine structure, always the same: for runtimes that no camera has fed yet."""
    rng = np.random.default_rng(0)
    image = np.zeros((height_px, width_px, 3), np.float32)
    for cells in (4, 12, 48):
        coarse = rng.random((cells, cells, 3), np.float32)
        image += cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    image = (image - image.min()) / (image.max() - image.min())
    return Frame(np.rint(image * 255.0).astype(np.uint8), 0, "", "bgr8")
