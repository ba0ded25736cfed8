"""The camera's motion between two small luma images, from the static part of the scene.

Sparse corners (Shi and Tomasi, "Good features to track", CVPR 1994), followed by pyramidal Lucas-Kanade
(Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker", Intel 2001), and a similarity, or a
homography if the corners support one, by RANSAC (Fischler and Bolles, CACM 1981). Moving objects are
outliers; if the outliers could be the majority, the result is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

MAX_CORNERS = 120
# Fewer corners, or inliers concentrated in one part of the image, could all lie on one moving object.
MIN_INLIERS = 10
MIN_INLIER_SHARE = 0.5
MIN_CELLS = 4
GRID = (4, 3)
# Corners within this distance of the model are static; Lucas-Kanade is accurate to about 0.1 px.
INLIER_PX = 0.8
# A homography has four more degrees of freedom than a similarity. To avoid overfitting it needs corners all
# over the image, many that no similarity fits, and clearly more inliers.
HOMOGRAPHY_CORNERS = 24
HOMOGRAPHY_CELLS = 7
HOMOGRAPHY_BELOW = 0.85
HOMOGRAPHY_GAIN = 1.15
# A rotation within half a second changes the scale across the image by less than this.
MAX_DEPTH = 0.4
# No camera zooms by a larger factor, or rolls by more rad, between the reference and the current image.
MAX_ZOOM = 1.6
MAX_TURN = 0.6
LK_WINDOW = (13, 13)
# Mean grey difference of a window above which it shows another corner; noise alone causes up to 8.
LK_ERROR = 16.0
LK_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.03)


@dataclass(frozen=True, slots=True, eq=False)
class EgoMotion:
    """The motion of the static scene from a reference image.

    transform: (3, 3) float64, reference to current image, luma pixels. inliers, tracked: corners that agree
    with it, and all that were tracked.
    """

    transform: np.ndarray
    inliers: int
    tracked: int


class EgoReference:
    """A luma image whose corners are tracked in later images. They are detected on first use."""

    def __init__(self, luma: np.ndarray) -> None:
        """luma: (h, w) uint8, must not be modified."""
        self.luma = luma
        self._corners: np.ndarray | None = None

    @property
    def corners(self) -> np.ndarray:
        """(n, 1, 2) float32."""
        if self._corners is None:
            distance_px = max(4, self.luma.shape[1] // 36)
            wide_enough = min(self.luma.shape) >= 2 * LK_WINDOW[0]
            found = (
                cv2.goodFeaturesToTrack(self.luma, MAX_CORNERS, 0.01, distance_px) if wide_enough else None
            )
            self._corners = np.zeros((0, 1, 2), np.float32) if found is None else found
        return self._corners

    @property
    def has_corners(self) -> bool:
        """Whether the image has enough corners to estimate a motion."""
        return len(self.corners) >= MIN_INLIERS

    def motion_to(self, luma: np.ndarray, guess: np.ndarray, sure: bool) -> EgoMotion | None:
        """The camera's motion from the reference to luma; None if the corners do not determine it.

        guess: (3, 3), the expected motion. sure: the guess is accurate to a few pixels, which saves pyramid
        levels.
        """
        corners = self.corners
        if not self.has_corners:
            return None
        expected = cv2.perspectiveTransform(corners, guess).astype(np.float32)
        tracked, status, error = cv2.calcOpticalFlowPyrLK(
            self.luma,
            luma,
            corners,
            expected,
            winSize=LK_WINDOW,
            maxLevel=2 if sure else 4,
            criteria=LK_STOP,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        height, width = luma.shape
        visible = (tracked[:, 0] >= 0).all(1) & (tracked[:, 0, 0] < width) & (tracked[:, 0, 1] < height)
        good = (status[:, 0] == 1) & (error[:, 0] < LK_ERROR) & visible
        return _fit_motion(corners[good, 0], tracked[good, 0], luma.shape)


def _fit_motion(source: np.ndarray, target: np.ndarray, shape: tuple[int, ...]) -> EgoMotion | None:
    """The motion that most corners agree with; None if it is implausible. source, target: (n, 2) float32."""
    if len(source) < MIN_INLIERS:
        return None
    # OpenCV's stub omits None, which it returns if it finds no model.
    affine: Any
    affine, mask = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=INLIER_PX, maxIters=300, confidence=0.995
    )
    if affine is None:
        return None
    inlier = mask[:, 0].astype(bool)
    transform = np.vstack([affine, (0.0, 0.0, 1.0)])
    transform, inlier = _prefer_homography(transform, source, target, inlier, shape)
    count, cells = int(inlier.sum()), _cells(target[inlier], shape)
    if (
        not _is_plausible_similarity(transform[:2])
        or count < MIN_INLIERS
        or count < MIN_INLIER_SHARE * len(source)
        or cells < MIN_CELLS
    ):
        return None
    return EgoMotion(transform, count, len(source))


def _prefer_homography(
    transform: np.ndarray, source: np.ndarray, target: np.ndarray, inlier: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A homography and its inliers if the corners clearly support one, or the similarity and its own."""
    if len(source) < HOMOGRAPHY_CORNERS or inlier.mean() > HOMOGRAPHY_BELOW:
        return transform, inlier
    found, _ = cv2.findHomography(source, target, cv2.RANSAC, INLIER_PX, maxIters=500, confidence=0.995)
    if found is None or not np.isfinite(found).all() or not _is_plausible_homography(found, shape):
        return transform, inlier
    near = _distances(found, source, target) < INLIER_PX
    if near.sum() < HOMOGRAPHY_GAIN * inlier.sum() or _cells(target[near], shape) < HOMOGRAPHY_CELLS:
        return transform, inlier
    return found, near


def _is_plausible_homography(transform: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a rotating camera could cause this homography: no corner comes much nearer."""
    depth = abs(transform[2, 0]) * shape[1] + abs(transform[2, 1]) * shape[0]
    return bool(depth < MAX_DEPTH and _is_plausible_similarity(transform[:2]))


def _distances(transform: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) distances in px between the transformed source points and the target points."""
    moved = cv2.perspectiveTransform(source[:, None], transform)[:, 0]
    return np.asarray(np.hypot(*(moved - target).T))


def _cells(points: np.ndarray, shape: tuple[int, ...]) -> int:
    """The number of cells of a 4 x 3 grid that contain points."""
    scale = np.array([GRID[0] / shape[1], GRID[1] / shape[0]])
    cell = np.clip((points * scale).astype(int), 0, np.array(GRID) - 1)
    return len(np.unique(cell[:, 0] * GRID[1] + cell[:, 1]))


def _is_plausible_similarity(affine: np.ndarray) -> bool:
    if not np.isfinite(affine).all():
        return False
    zoom = float(np.hypot(affine[0, 0], affine[1, 0]))
    turn = abs(float(np.arctan2(affine[1, 0], affine[0, 0])))
    return 1 / MAX_ZOOM < zoom < MAX_ZOOM and turn < MAX_TURN


def largest_shift_px(transform: np.ndarray, shape: tuple[int, ...]) -> float:
    """The largest displacement of an image corner by the transform."""
    height, width = shape[:2]
    corners = np.array([[[0, 0]], [[width, 0]], [[width, height]], [[0, height]]], np.float64)
    moved = cv2.perspectiveTransform(corners, transform)
    return float(np.hypot(*(moved - corners)[:, 0].T).max())
