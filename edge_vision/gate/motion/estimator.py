"""What is new in an image, on a camera that moves: the gate's eye.

An image is compared with an *anchor*, the last image that showed nothing new and that the detector saw, not
with the image before it: slow changes add up until they count, and a slow object differs from the empty
scene as a whole, where two neighbouring images differ in its edges only.

    luma -> camera motion since the anchor -> anchor moved there, under today's light -> what differs
         -> noise threshold, opening, area -> regions

Where the anchor cannot be aligned, `camera` is "unknown" and nothing else is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from edge_vision.core.frame import block_mean
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.geometry.homography import IDENTITY, compose, overlap, relative_motion, warp
from edge_vision.gate.motion.comparison import ComparisonResult, MotionConfig, ReferenceImage, compare, counts
from edge_vision.gate.motion.ego_motion import largest_shift_px
from edge_vision.gate.motion.image_diff import NO_CHANGE, LightFit, regions_of

# A picture whose corners move less than this, at luma size, stays as it is: warping would only blur.
STANDING_PX = 0.25
# The noise of one picture is a rough figure; it is averaged over some.
NOISE_MEMORY = 0.8
# A camera that was proven to stand is not asked again for so many frames, unless this much more changes.
PROVEN_FRAMES = 5
SAME_THING = 1.3
# A camera that seems to stand is asked every so many frames whether it creeps, by so much since the anchor.
ASK_EVERY = 10
NOISIER = 1.25
CREEP_PX = 0.75
# Differences in less than this share of a picture without corners are things, not the camera.
LOCAL_AREA = 0.3
# No camera that still shows something has more than this.
MISFIT_NOISE = 15.0
# The picture in coarse parts, rows and columns.
CELLS = (9, 16)
# Lucas-Kanade takes grey for what it is: light differences above this are taken out first.
LK_LIGHT = 4.0


Camera = Literal["standing", "moving", "unknown"]


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What is new in one image.

    camera: "standing", "moving", or "unknown" where it could not be told.
    camera_motion: (3, 3) float64, previous image to this one, luma pixels; None where unknown.
    changed: enough differs from the anchor. changed_area: share of the picture that does.
    new_view: share of the picture that the last seen image did not show.
    light_step: grey levels that the whole picture changed by since the last image.
    """

    camera: Camera
    camera_motion: np.ndarray | None
    changed: bool
    changed_area: float
    new_view: float
    light_step: float
    noise: float


UNKNOWN = Motion("unknown", None, True, 1.0, 1.0, 0.0, 0.0)


class MotionEstimator:
    """Compares images with an anchor. One caller at a time; all images have one size, or call `forget`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew: the next image becomes the anchor."""
        self._config = MotionConfig()
        self._now: ReferenceImage | None = None
        self._anchor: ReferenceImage | None = None
        self._earlier: ReferenceImage | None = None
        # Where the anchor's and the earlier image's scene is now, and the scene that was last seen.
        self._from_anchor = IDENTITY
        self._from_earlier: np.ndarray | None = None
        self._from_seen: np.ndarray | None = None
        self._light = NO_CHANGE
        self._noise = 0.0
        # Frames since the corners were last asked about a camera that seems to stand.
        self._unasked = 0
        # For how many frames more, and with how much changing, the camera is known to stand.
        self._proven_frames, self._proven_area = 0, 0.0
        self._mask: np.ndarray | None = None

    def begin(self, luma: np.ndarray) -> None:
        """Make an image the anchor without judging it: the ones before are of too long ago."""
        self._now = ReferenceImage(luma, cv2.blur(luma, (3, 3)))
        self._mask = self._earlier = self._from_earlier = self._from_seen = None
        self._unasked = self._proven_frames = 0
        self.rebase()

    def observe(self, luma: np.ndarray, config: MotionConfig, prior: np.ndarray | None = None) -> Motion:
        """Judge an image, (h, w) uint8. prior: (3, 3), camera motion since the image before, luma pixels."""
        self._now, self._config = ReferenceImage(luma, cv2.blur(luma, (3, 3))), config
        self._mask = None
        if self._anchor is None or self._anchor.smooth.shape != luma.shape:
            self.rebase()
            return UNKNOWN
        guess = self._from_anchor
        if prior is not None and largest_shift_px(prior, luma.shape) >= STANDING_PX:
            guess = prior @ guess
        was = self._from_anchor
        if guess is IDENTITY or not config.ego_motion:
            motion = self._standing(self._anchor, self._now, config)
        else:
            motion = self._moving(self._anchor, self._now, config, guess, self._light, sure=True)
        step = relative_motion(was, self._from_anchor) if motion.camera != "unknown" else None
        self._from_earlier = compose(step, self._from_earlier)
        self._from_seen = compose(step, self._from_seen)
        return Motion(
            motion.camera,
            step,
            motion.changed,
            motion.changed_area,
            self._new_view(),
            motion.light_step,
            self._noise,
        )

    # What the gate tells.
    def rebase(self) -> None:
        """Make the last image the anchor."""
        self._anchor = self._now
        self._from_anchor = IDENTITY
        self._light = NO_CHANGE

    def seen(self) -> None:
        """The detector saw the last image."""
        self._from_seen = IDENTITY

    def mark(self) -> None:
        """Remember the last image, for `settled` and `fall_back`."""
        self._earlier, self._from_earlier = self._now, IDENTITY

    def fall_back(self) -> None:
        """Make the marked image the anchor, or the last one where the way from the marked one is lost."""
        if self._earlier is None or self._from_earlier is None:
            self.rebase()
            return
        self._anchor, self._from_anchor = self._earlier, self._from_earlier
        self._light = NO_CHANGE

    def pictures(self) -> dict[str, np.ndarray]:
        """What the last image was compared with, for whoever wants to see: each (h, w) uint8.

        image; anchor: as the camera's motion moved it; difference; mask: what counts as new.
        """
        if self._now is None or self._anchor is None:
            return {}
        anchor, valid = warp(self._anchor.smooth, self._from_anchor)
        difference = cv2.absdiff(self._now.smooth, self._light.applied(anchor))
        if valid is not None:
            difference = cv2.bitwise_and(difference, valid)
        mask = np.zeros_like(anchor) if self._mask is None else self._mask
        return {"image": self._now.smooth, "anchor": anchor, "difference": difference, "mask": mask}

    def changed_beside(self, boxes_px: np.ndarray) -> bool:
        """Whether enough differs outside these boxes, (n, 4) xyxy in luma pixels."""
        if self._mask is None:
            return False
        rest = self._mask.copy()
        for left, top, right, bottom in np.rint(boxes_px).astype(int).tolist():
            rest[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = 0
        return counts(rest, self._config)

    @property
    def anchor_view(self) -> float:
        """Share of the picture that the anchor shows."""
        if self._from_anchor is IDENTITY or self._now is None:
            return 1.0
        return overlap(self._from_anchor, self._now.smooth.shape)

    def cells(self) -> np.ndarray:
        """(9, 16) bool: the parts of the picture in which something differs."""
        if self._mask is None:
            return np.zeros(CELLS, bool)
        # Halved twice first, which takes a third of the time of one step.
        return cv2.resize(block_mean(self._mask, 4), CELLS[::-1], interpolation=cv2.INTER_AREA) > 2

    def settled(self) -> bool:
        """True where nothing has moved between the marked image and the last one."""
        config = self._config
        if self._earlier is None or self._now is None or self._from_earlier is None:
            return False
        # Thin lines count here: the edges of something slow.
        compared = compare(self._now, self._earlier, self._noise, self._from_earlier, config, opened=False)
        return not counts(compared.mask, config)

    def regions(self, width_px: int, height_px: int) -> np.ndarray:
        """Where the last image differs, (n, 4) float32 xyxy_px in a source image of that size."""
        return NO_REGIONS if self._mask is None else regions_of(self._mask, width_px, height_px)

    # How.
    def _standing(self, anchor: ReferenceImage, now: ReferenceImage, config: MotionConfig) -> Motion:
        """The judgement of a camera that has not moved as far as is known."""
        compared = compare(now, anchor, self._noise, IDENTITY, config)
        if config.ego_motion and self._creeps(anchor, now, compared.sigma):
            return self._moving(anchor, now, config, IDENTITY, compared.light, sure=False)
        if config.ego_motion and self._may_have_moved(compared, config):
            # Without corners nobody can tell, and a local difference is better called a thing that moves.
            local = cv2.countNonZero(compared.mask) < LOCAL_AREA * compared.mask.size
            if not local or self._misfits(compared) or anchor.ego.has_corners:
                return self._moving(anchor, now, config, IDENTITY, compared.light, sure=False)
        return self._judged("standing", compared, config)

    def _creeps(self, anchor: ReferenceImage, now: ReferenceImage, sigma: float) -> bool:
        """True where the corners show that the camera moves, so slowly that nothing differs yet.

        They are asked now and then, and when the picture seems to become noisier: so a scene of little
        contrast looks when it slips away.
        """
        self._unasked += 1
        noisier = sigma > NOISIER * self._noise + 0.25
        if self._unasked < ASK_EVERY and not noisier:
            return False
        self._unasked = 0
        found = anchor.ego.motion_to(now.ego.luma, IDENTITY, sure=True)
        return found is not None and largest_shift_px(found.transform, now.smooth.shape) >= CREEP_PX

    def _may_have_moved(self, compared: ComparisonResult, config: MotionConfig) -> bool:
        """Whether something moves, or the camera does, and the corners must tell which.

        While a thing moves before a camera that was just proven to stand, they need not be asked each time: a
        camera that starts to move makes differences all over the picture.
        """
        if self._misfits(compared):
            return True
        if not counts(compared.mask, config):
            return False
        area = cv2.countNonZero(compared.mask) / compared.mask.size
        self._proven_frames -= 1
        return self._proven_frames < 0 or area > SAME_THING * self._proven_area

    def _moving(
        self,
        anchor: ReferenceImage,
        now: ReferenceImage,
        config: MotionConfig,
        guess: np.ndarray,
        light: LightFit,
        sure: bool,
    ) -> Motion:
        """The judgement of a camera that may have moved. light: about what it is against the anchor."""
        self._unasked = 0
        luma = now.ego.luma
        if light.step > LK_LIGHT:
            luma = light.undone(luma)
        found = anchor.ego.motion_to(luma, guess, sure)
        if found is None:
            self._from_anchor = IDENTITY
            return UNKNOWN
        stands = largest_shift_px(found.transform, luma.shape) < STANDING_PX
        self._from_anchor = IDENTITY if stands else found.transform
        compared = compare(now, anchor, self._noise, self._from_anchor, config)
        if stands:
            self._proven_frames = PROVEN_FRAMES
            self._proven_area = cv2.countNonZero(compared.mask) / compared.mask.size
        if self._misfits(compared):
            self._from_anchor = IDENTITY
            return UNKNOWN
        return self._judged("standing" if stands else "moving", compared, config)

    def _misfits(self, compared: ComparisonResult) -> bool:
        """True where half of the picture differs by more than noise does: it is not the same scene."""
        return compared.sigma > max(MISFIT_NOISE, 4.0 * self._noise)

    def _judged(self, camera: Camera, compared: ComparisonResult, config: MotionConfig) -> Motion:
        step, self._light = compared.light.relative_to(self._light).step, compared.light
        sigma, mask = compared.sigma, compared.mask
        self._noise = sigma if self._noise == 0.0 else NOISE_MEMORY * self._noise + (1 - NOISE_MEMORY) * sigma
        changed = counts(mask, config)
        self._mask = mask if changed else None
        return Motion(camera, None, changed, cv2.countNonZero(mask) / mask.size, 0.0, step, self._noise)

    def _new_view(self) -> float:
        """Share of the picture that the last seen image did not show."""
        assert self._now is not None
        if self._from_seen is None:
            return 1.0
        if self._from_seen is IDENTITY:
            return 0.0
        return 1.0 - overlap(self._from_seen, self._now.smooth.shape)
