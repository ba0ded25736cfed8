"""Change in the images of a moving camera.

An image is compared with an *anchor*, the last unchanged image that was inferred, and not with the previous
image: slow changes accumulate until they are significant, and a slow object differs from the empty scene as a
whole, while two consecutive images differ at its edges only.

    luma -> align (camera motion since the anchor) -> compare (light, noise, parallax) -> mask -> regions

Where the anchor cannot be aligned, `camera` is "unknown" and everything counts as changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from edge_vision.core.frame import block_mean
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.geometry.homography import IDENTITY, compose, overlap, relative_motion, warp
from edge_vision.gate.motion.comparison import (
    ComparisonResult,
    MotionConfig,
    ReferenceImage,
    compare,
    is_significant,
)
from edge_vision.gate.motion.ego_motion import largest_shift_px
from edge_vision.gate.motion.image_diff import mask_regions
from edge_vision.gate.motion.light import NO_CHANGE, LightFit
from edge_vision.gate.motion.standing_camera import StandingCheck

# Corners that move less than this, at luma size, are a standing camera: warping would only blur.
STANDING_PX = 0.25
CREEP_PX = 0.75
# Weight of the previous estimate in the exponential average of the noise.
NOISE_MEMORY = 0.8
# In an image without corners, changes of less than this share are attributed to objects, not to the camera.
LOCAL_AREA = 0.3
# No camera with a usable image is noisier.
MISFIT_NOISE = 15.0
# Rows and columns of the coarse grid.
CELLS = (9, 16)
# Lucas-Kanade assumes constant brightness: larger light steps are removed first.
LK_LIGHT = 4.0


Camera = Literal["standing", "moving", "unknown"]


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """The change in one image.

    camera: "standing", "moving", or "unknown" if the anchor cannot be aligned.
    camera_motion: (3, 3) float64, previous image to this one, luma pixels; None if unknown.
    changed: the change from the anchor is significant. changed_area: its share of the image.
    new_view: share of the image that was outside the last inferred image.
    light_step: change of light since the previous image, grey levels. noise: standard deviation, grey levels.
    """

    camera: Camera
    camera_motion: np.ndarray | None
    changed: bool
    changed_area: float
    new_view: float
    light_step: float
    noise: float


UNKNOWN = Motion("unknown", None, True, 1.0, 1.0, 0.0, 0.0)


class _Aligned(NamedTuple):
    """The anchor aligned with an image by a transform, (3, 3), and the comparison; None if unknown."""

    camera: Camera
    transform: np.ndarray
    compared: ComparisonResult | None


_NOT_ALIGNED = _Aligned("unknown", IDENTITY, None)


class MotionEstimator:
    """Compares images with an anchor. One caller at a time; all images have one size, or call `forget`."""

    def __init__(self) -> None:
        self._standing = StandingCheck()
        self.forget()

    def forget(self) -> None:
        """Clear all state: the next image becomes the anchor."""
        self._config = MotionConfig()
        self._now: ReferenceImage | None = None
        self._anchor: ReferenceImage | None = None
        self._marked: ReferenceImage | None = None
        # To the current image: from the anchor, the marked image, and the last inferred one; None = unknown.
        self._from_anchor = IDENTITY
        self._from_marked: np.ndarray | None = None
        self._from_inferred: np.ndarray | None = None
        self._light = NO_CHANGE
        self._noise = 0.0
        self._mask: np.ndarray | None = None
        self._standing.reset()

    def begin(self, luma: np.ndarray) -> None:
        """Make an image the anchor without comparing it, after frames that were not analysed."""
        self._now = ReferenceImage(luma)
        self._mask = self._marked = self._from_marked = self._from_inferred = None
        self._standing.reset()
        self.rebase()

    def observe(self, luma: np.ndarray, config: MotionConfig, prior: np.ndarray | None = None) -> Motion:
        """The change in an image, (h, w) uint8.

        prior: (3, 3), the camera's motion since the previous image by another sensor, luma pixels.
        """
        now = self._now = ReferenceImage(luma)
        self._config, self._mask = config, None
        if self._anchor is None or self._anchor.smooth.shape != luma.shape:
            self.rebase()
            return UNKNOWN
        before = self._from_anchor
        aligned = self._align(self._anchor, now, prior)
        self._from_anchor = aligned.transform
        step = relative_motion(before, aligned.transform) if aligned.compared is not None else None
        self._from_marked = compose(step, self._from_marked)
        self._from_inferred = compose(step, self._from_inferred)
        if aligned.compared is None:
            return Motion("unknown", None, True, 1.0, self._new_view(now), 0.0, self._noise)
        light_step, compared = self._take(aligned.compared), aligned.compared
        changed, area, new_view = compared.changed, compared.changed_area, self._new_view(now)
        return Motion(aligned.camera, step, changed, area, new_view, light_step, self._noise)

    def _take(self, compared: ComparisonResult) -> float:
        """Update light, noise and mask. Returns the light step."""
        light_step = compared.light.relative_to(self._light).step
        self._light = compared.light
        sigma = compared.sigma
        self._noise = NOISE_MEMORY * self._noise + (1 - NOISE_MEMORY) * sigma if self._noise else sigma
        self._mask = compared.mask if compared.changed else None
        return light_step

    def _new_view(self, now: ReferenceImage) -> float:
        """Share of the current image that was outside the last inferred one."""
        if self._from_inferred is None:
            return 1.0
        if self._from_inferred is IDENTITY:
            return 0.0
        return 1.0 - overlap(self._from_inferred, now.smooth.shape)

    # Alignment.
    def _align(self, anchor: ReferenceImage, now: ReferenceImage, prior: np.ndarray | None) -> _Aligned:
        expected = self._from_anchor
        if prior is not None and largest_shift_px(prior, now.smooth.shape) >= STANDING_PX:
            expected = prior @ expected
        if expected is IDENTITY or not self._config.ego_motion:
            return self._align_standing(anchor, now)
        return self._align_by_corners(anchor, now, expected, self._light, sure=True)

    def _align_standing(self, anchor: ReferenceImage, now: ReferenceImage) -> _Aligned:
        """Assume a standing camera; track corners only if the comparison suggests otherwise."""
        compared = compare(now, anchor, self._noise, IDENTITY, self._config)
        if self._config.ego_motion and (
            self._creeps(anchor, now, compared.sigma) or self._may_have_moved(anchor, compared)
        ):
            return self._align_by_corners(anchor, now, IDENTITY, compared.light, sure=False)
        return _Aligned("standing", IDENTITY, compared)

    def _creeps(self, anchor: ReferenceImage, now: ReferenceImage, sigma: float) -> bool:
        """Whether the corners show a motion too slow for a significant change."""
        if not self._standing.creep_check_due(sigma, self._noise):
            return False
        found = anchor.ego.motion_to(now.ego.luma, IDENTITY, sure=True)
        return found is not None and largest_shift_px(found.transform, now.smooth.shape) >= CREEP_PX

    def _may_have_moved(self, anchor: ReferenceImage, compared: ComparisonResult) -> bool:
        """Whether the corners must decide if the camera or an object has moved."""
        if self._misfits(compared):
            return True
        if not compared.changed or not self._standing.change_needs_corners(compared.changed_area):
            return False
        return compared.changed_area >= LOCAL_AREA or anchor.ego.has_corners

    def _align_by_corners(
        self, anchor: ReferenceImage, now: ReferenceImage, expected: np.ndarray, light: LightFit, sure: bool
    ) -> _Aligned:
        """Track the anchor's corners, compare, and verify. light: an estimate against the anchor."""
        self._standing.checked()
        luma = light.undone(now.ego.luma) if light.step > LK_LIGHT else now.ego.luma
        found = anchor.ego.motion_to(luma, expected, sure)
        if found is None:
            return _NOT_ALIGNED
        stands = largest_shift_px(found.transform, luma.shape) < STANDING_PX
        transform = IDENTITY if stands else found.transform
        compared = compare(now, anchor, self._noise, transform, self._config)
        if stands:
            self._standing.verified(compared.changed_area)
        if self._misfits(compared):
            return _NOT_ALIGNED
        return _Aligned("standing" if stands else "moving", transform, compared)

    def _misfits(self, compared: ComparisonResult) -> bool:
        """True if half of the image differs by more than noise: it is another scene."""
        return compared.sigma > max(MISFIT_NOISE, 4.0 * self._noise)

    # The anchor and the marked image.
    def rebase(self) -> None:
        """Make the current image the anchor."""
        self._anchor = self._now
        self._from_anchor = IDENTITY
        self._light = NO_CHANGE

    def seen(self) -> None:
        """The current image is inferred."""
        self._from_inferred = IDENTITY

    def mark(self) -> None:
        """Remember the current image, for `settled` and `fall_back`."""
        self._marked, self._from_marked = self._now, IDENTITY

    def fall_back(self) -> None:
        """Make the marked image the anchor, or the current one if the motion since the mark is unknown."""
        if self._marked is None or self._from_marked is None:
            self.rebase()
            return
        self._anchor, self._from_anchor = self._marked, self._from_marked
        self._light = NO_CHANGE

    def settled(self) -> bool:
        """True if nothing has moved between the marked image and the current one."""
        if self._marked is None or self._now is None or self._from_marked is None:
            return False
        # Thin lines count: they are the edges of slow objects.
        compared = compare(
            self._now, self._marked, self._noise, self._from_marked, self._config, opened=False
        )
        return not compared.changed

    @property
    def anchor_view(self) -> float:
        """Share of the current image that the anchor covers."""
        if self._from_anchor is IDENTITY or self._now is None:
            return 1.0
        return overlap(self._from_anchor, self._now.smooth.shape)

    # The change in the current image.
    def regions(self, width_px: int, height_px: int) -> np.ndarray:
        """Boxes of the changed regions, (n, 4) float32 xyxy_px in a source image of that size."""
        return NO_REGIONS if self._mask is None else mask_regions(self._mask, width_px, height_px)

    def cells(self) -> np.ndarray:
        """(9, 16) bool: the cells of a coarse grid that contain a change."""
        if self._mask is None:
            return np.zeros(CELLS, bool)
        # Reducing by 4 first takes a third of the time.
        return cv2.resize(block_mean(self._mask, 4), CELLS[::-1], interpolation=cv2.INTER_AREA) > 2

    def changed_beside(self, boxes_px: np.ndarray) -> bool:
        """Whether the change outside these boxes, (n, 4) xyxy in luma pixels, is significant."""
        if self._mask is None:
            return False
        outside = self._mask.copy()
        for left, top, right, bottom in np.rint(boxes_px).astype(int).tolist():
            outside[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 0
        return is_significant(outside, self._config)

    def pictures(self) -> dict[str, np.ndarray]:
        """For display, each (h, w) uint8: image, aligned anchor, their difference, and the mask."""
        if self._now is None or self._anchor is None:
            return {}
        anchor, valid = warp(self._anchor.smooth, self._from_anchor)
        difference = cv2.absdiff(self._now.smooth, self._light.applied(anchor))
        if valid is not None:
            difference = cv2.bitwise_and(difference, valid)
        mask = np.zeros_like(anchor) if self._mask is None else self._mask
        return {"image": self._now.smooth, "anchor": anchor, "difference": difference, "mask": mask}
