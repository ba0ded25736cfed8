"""Places boxes of an image in space, in the camera's optical frame, from depth or on a ground plane."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from edge_vision.errors import LocalizationError
from edge_vision.localize.camera import CameraModel
from edge_vision.localize.depth import WINDOW, DepthImage, median_and_spread, nearest_surface

CENTRAL_SHARE = 0.6
"""Of a box's sides: the border shows mostly background."""
SAMPLES_PER_SIDE = 48
MASK_BORDER = 8
"""An eighth of a mask's sides is its border."""
MASK_WINDOW = 1.3
"""As WINDOW, for the inner part of a mask, which shows hardly any background: long objects are not cut."""
MARGIN = 1.02
"""Of the depths of the inner part, for the border."""
MIN_SPREAD = 0.0025
"""Of the distance: no sensor's resolution is better."""
EXTENT_PERCENTILES = (1, 99)
"""Of a mask's points."""
ELONGATED = 2.0
"""Ratio of the variances along both axes above which a footprint has a direction."""
LEVEL = 0.5
"""Cosine between optical axis and horizon up to which upright objects appear upright."""
MAX_ASPECT_ERROR = 0.02
CAMERA_UP = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """An object in the camera's optical frame.

    center_m: (3,). axes: (3, 3), columns are the box's forward, left and up directions. size_m: (3,) along
    them. covariance_m2: (3, 3) of the centre.
    """

    center_m: np.ndarray
    axes: np.ndarray
    size_m: np.ndarray
    covariance_m2: np.ndarray


@dataclass(slots=True, eq=False)
class CameraView:
    """What the boxes of one image are placed with.

    up: (3,) unit vector in the camera's frame. height_m: of the camera above the ground, on which objects
    stand where there is no `depth`. instances: (h, w), the number of the object that a pixel belongs to.
    """

    camera: CameraModel
    max_range_m: float
    up: np.ndarray
    height_m: float = 0.0
    depth: DepthImage | None = None
    instances: np.ndarray | None = None
    axes: np.ndarray = field(init=False)
    """(3, 3) forward (horizontal, as the camera looks), left, up; in columns."""
    facing: np.ndarray = field(init=False)
    """(3,) normal of the plane in which objects extend: upright, or the image's for a steep camera."""

    def __post_init__(self) -> None:
        optical = np.array([0.0, 0.0, 1.0])
        ahead = optical if abs(self.up[2]) < 0.99 else CAMERA_UP
        self.axes = _axes(ahead - (ahead @ self.up) * self.up, self.up)
        self.facing = self.axes[:, 0] if self.axes[2, 0] > LEVEL else optical

    def check_shape(self, image: np.ndarray, what: str) -> None:
        """Raise LocalizationError(size) for an image that is no scaled view of the camera."""
        height, width = image.shape
        if abs(width * self.camera.height_px / (height * self.camera.width_px) - 1) > MAX_ASPECT_ERROR:
            size = f"{self.camera.width_px}x{self.camera.height_px}"
            raise LocalizationError(
                "size",
                f"expected {what} in the shape of camera_info, {size}, got {width}x{height}: use the topic "
                "that is aligned with the camera, or its camera_info",
            )

    def place(self, box_px: np.ndarray, number: int = 0) -> Placement:
        """The place of an object: of its visible surface, or on the ground.

        box_px: (4,) xyxy in camera pixels. number: of the object in `instances`; without pixels there, the
        box counts. Raises LocalizationError(bad_box, no_depth, cut_off, above_horizon, out_of_range).
        """
        clipped = np.clip(box_px, 0, (self.camera.width_px, self.camera.height_px) * 2)
        if not np.isfinite(box_px).all() or (clipped[2:] - clipped[:2] < 1).any():
            shown = ", ".join(f"{value:.4g}" for value in box_px)
            raise LocalizationError(
                "bad_box", f"expected a box of at least one pixel in the image, got {shown}"
            )
        if self.depth is None:
            return _on_ground(self, clipped)
        return _by_depth(self, self.depth, clipped, number)


def _by_depth(view: CameraView, depth: DepthImage, box_px: np.ndarray, number: int) -> Placement:
    if view.instances is not None:
        xy_px = _grid(box_px, 1.0)
        inside = _sampled(view, view.instances, xy_px) == number
        if inside.any():
            return _of_points(view, _masked_points(view, depth, xy_px, inside))
    xy_px = _grid(box_px, CENTRAL_SHARE)
    depth_m = depth.metres(_sampled(view, depth.values, xy_px), view.max_range_m)
    points = _points(view, xy_px, depth_m, _between(depth_m, _surface(view, depth_m, WINDOW)))
    return _of_box(view, box_px, *_distance(points, view.facing))


def _masked_points(view: CameraView, depth: DepthImage, xy_px: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(n, 3) points of a mask (h, w). Its inner part shows at which depths: its border is mixed with the
    background, in the mask as in the depth image."""
    depth_m = depth.metres(_sampled(view, depth.values, xy_px), view.max_range_m)
    kernel = np.ones([2 * (side // MASK_BORDER) + 1 for side in inside.shape], np.uint8)
    inner = cv2.erode(inside.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
    inner = inner if inner.any() else inside
    core_m = depth_m[inner]
    core_m = core_m[_between(core_m, _surface(view, core_m, MASK_WINDOW))]
    near_m, far_m = np.percentile(core_m, EXTENT_PERCENTILES)
    beyond_m = (far_m - near_m) / (MASK_BORDER - 2)  # A slope goes on in the border.
    limits_m = (near_m - beyond_m) / MARGIN, (far_m + beyond_m) * MARGIN
    return _points(view, xy_px, depth_m, inside & _between(depth_m, limits_m))


def _surface(view: CameraView, depth_m: np.ndarray, window: float) -> tuple[float, float]:
    """As `nearest_surface`. Raises LocalizationError(no_depth)."""
    found = nearest_surface(depth_m, window)
    if found is None:
        valid, limit = np.count_nonzero(np.isfinite(depth_m)), f"within max_range_m {view.max_range_m:g}"
        raise LocalizationError(
            "no_depth", f"expected depth in the object, got {valid} of {depth_m.size} pixels {limit}"
        )
    return found


def _between(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return np.asarray((values >= limits[0]) & (values <= limits[1]))


def _points(view: CameraView, xy_px: np.ndarray, depth_m: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(n, 3) of the chosen pixels (h, w)."""
    return view.camera.rays(xy_px[chosen]) * depth_m[chosen][:, None]


def _grid(box_px: np.ndarray, share: float) -> np.ndarray:
    """(h, w, 2) camera pixels, evenly spaced in the central share of a box."""
    center, half = (box_px[:2] + box_px[2:]) / 2, (box_px[2:] - box_px[:2]) / 2 * share
    counts = np.clip(np.ceil(2 * half), 1, SAMPLES_PER_SIDE).astype(int)
    x, y = (center[i] + half[i] * ((2 * np.arange(counts[i]) + 1) / counts[i] - 1) for i in (0, 1))
    return np.stack(np.meshgrid(x, y), axis=-1)


def _sampled(view: CameraView, image: np.ndarray, xy_px: np.ndarray) -> np.ndarray:
    """(h, w) the values at camera pixels (h, w, 2) of an image of the same view, whatever its size."""
    scale = np.array(image.shape[1::-1]) / (view.camera.width_px, view.camera.height_px)
    at = (xy_px * scale).astype(int)
    return image[at[..., 1], at[..., 0]]


def _of_points(view: CameraView, points: np.ndarray) -> Placement:
    """The box around the points of a mask, along the principal axes of their footprint (PCA), as thick as
    four standard deviations of their distance."""
    axes = _along_footprint(points, view.axes)
    low, high = np.percentile(points @ axes, EXTENT_PERCENTILES, axis=0)
    ahead_m, thickness_m = _distance(points, axes[:, 0])
    middle_m = np.array([ahead_m, *(low + high)[1:] / 2])
    covariance = _covariance(view, *_distance(points, view.facing))
    return Placement(axes @ middle_m, axes, np.array([4 * thickness_m, *(high - low)[1:]]), covariance)


def _along_footprint(points: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The axes, turned about the vertical by at most 45 degrees onto the principal axes of the footprint."""
    variances, principal = np.linalg.eigh(np.cov((points @ axes[:, :2]).T))
    if not variances[1] > ELONGATED * variances[0]:
        return axes
    ahead = principal[:, int(np.argmax(np.abs(principal[0])))]
    return _axes(axes[:, :2] @ (ahead * np.sign(ahead[0])), axes[:, 2])


def _of_box(view: CameraView, box_px: np.ndarray, distance_m: float, spread_m: float) -> Placement:
    """The box whose sides' middles are seen in the facing plane at this distance, as thick as four standard
    deviations of it."""
    left, top, right, bottom = box_px
    x, y = (left + right) / 2, (top + bottom) / 2
    rays = view.camera.rays(np.array([(left, y), (right, y), (x, top), (x, bottom)]))
    sides = rays * (distance_m / np.maximum(rays @ view.facing, 1e-3))[:, None] @ view.axes
    low, high = sides.min(axis=0), sides.max(axis=0)
    size_m = high - low + 4 * spread_m * np.abs(view.facing @ view.axes)
    covariance = _covariance(view, distance_m, spread_m)
    return Placement(view.axes @ (low + high) / 2, view.axes, size_m, covariance)


def _on_ground(view: CameraView, box_px: np.ndarray) -> Placement:
    """An object that stands where the ray of the middle of its lower edge meets the ground. Its length is
    unknown, and set to its width."""
    if box_px[3] >= view.camera.height_px - 1:
        raise LocalizationError("cut_off", "expected the object's lower edge in the image, got one below it")
    middle_px = (box_px[0] + box_px[2]) / 2
    # The second point, one pixel higher, shows how much a pixel matters.
    rays = view.camera.rays(np.array([(middle_px, box_px[3]), (middle_px, box_px[3] - 1)]))
    fall = -rays @ view.up
    if fall.min() <= 0 or view.height_m <= 0:
        text = "expected a camera above the ground that looks down on the object, got height"
        raise LocalizationError("above_horizon", f"{text} {view.height_m:.2f} m")
    foot, farther = rays * (view.height_m / fall)[:, None]
    if (range_m := float(np.linalg.norm(foot))) > view.max_range_m:
        text = f"expected an object within max_range_m {view.max_range_m:g}, got {range_m:.1f} m"
        raise LocalizationError("out_of_range", text)
    flat = _of_box(view, box_px, float(view.facing @ foot), float(view.facing @ (farther - foot)))
    size_m = flat.size_m[[1, 1, 2]]
    return Placement(foot + view.up * size_m[2] / 2, flat.axes, size_m, flat.covariance_m2)


def _distance(points: np.ndarray, normal: np.ndarray) -> tuple[float, float]:
    """Median and spread of the points' distance along a normal."""
    distance_m, spread_m = median_and_spread(points @ normal)
    return distance_m, max(spread_m, MIN_SPREAD * abs(distance_m))


def _covariance(view: CameraView, distance_m: float, spread_m: float) -> np.ndarray:
    """(3, 3): the spread along the normal of the facing plane, and one pixel across it."""
    across_m = distance_m / view.camera.matrix[0, 0]
    outer = np.outer(view.facing, view.facing)
    return spread_m**2 * outer + across_m**2 * (np.eye(3) - outer)


def _axes(forward: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(3, 3) forward, left and up in columns, of a direction perpendicular to up."""
    forward = forward / np.linalg.norm(forward)
    return np.column_stack((forward, np.cross(up, forward), up))
