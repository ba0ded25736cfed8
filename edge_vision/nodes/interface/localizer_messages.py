"""Conversions between messages and what the localizer computes with."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Pose, PoseWithCovariance, TransformStamped
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage
from vision_msgs.msg import Detection2D, Detection2DArray, Detection3D, ObjectHypothesisWithPose

from edge_vision.core.frame import MAX_PIXELS, Encoding, check_size, view_values
from edge_vision.core.geometry.rotations import quaternion_of_rotation
from edge_vision.core.model_spec import MAX_DETECTIONS
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.errors import ImageError
from edge_vision.localize.camera import CameraModel, bad_calibration
from edge_vision.localize.depth import DepthImage
from edge_vision.localize.placing import Placement
from edge_vision.localize.transforms import RigidTransform, TransformTree
from edge_vision.nodes.interface.calibration import calibration_of

DEPTH_UNITS_M = {"16UC1": 0.001, "mono16": 0.001, "32FC1": 1.0}
UNKNOWN_ANGLE_RAD2 = np.pi**2 / 3
"""Variance of an angle of which nothing is known."""
MAX_TRANSFORMS = 1000


def boxes_of(message: Detection2DArray) -> np.ndarray:
    """(n, 4) float64 xyxy in pixels, in the message's order; around rotated boxes. Raises ValueError."""
    if len(message.detections) > MAX_DETECTIONS:
        raise ValueError(f"expected at most {MAX_DETECTIONS} detections, got {len(message.detections)}")
    with np.errstate(invalid="ignore", over="ignore"):  # Boxes that are not finite are no places later.
        return np.array([_box(one) for one in message.detections], np.float64).reshape(-1, 4)


def _box(detection: Detection2D) -> tuple[float, float, float, float]:
    box = detection.bbox
    x, y, theta = box.center.position.x, box.center.position.y, box.center.theta
    turn = np.abs(np.array([[np.cos(theta), np.sin(theta)], [np.sin(theta), np.cos(theta)]]))
    half_x, half_y = turn @ (box.size_x / 2, box.size_y / 2)
    return x - half_x, y - half_y, x + half_x, y + half_y


def camera_of(message: CameraInfo, rectified: bool) -> CameraModel:
    """The camera of a CameraInfo's images, after its ROI and binning. Raises LocalizationError."""
    found = calibration_of(message, rectified)
    if found is None:
        raise bad_calibration(f"expected pixels and equal binning, got {message.width}x{message.height}")
    distortion = np.zeros(0) if rectified else np.array(message.d, np.float64)
    return CameraModel(found[0], distortion, found[1], found[2], message.distortion_model or "plumb_bob")


def depth_of(message: Image | DisparityImage, max_pixels: float) -> DepthImage:
    """The depth image of a message, as a view of its bytes. Raises ImageError with a reason."""
    stamp_ns, frame_id = stamp_to_ns(message.header.stamp), message.header.frame_id
    if isinstance(message, DisparityImage):
        values = _values(message.image, ("32FC1",), max_pixels)
        scale, limits = message.f * message.t, (message.min_disparity, message.max_disparity)
        if not (0 < scale < np.inf and limits[0] < limits[1]):
            text = f"got {scale:g} and {limits[0]:g}..{limits[1]:g}"
            raise ImageError("bad_disparity", f"expected positive f * t and a range of disparities, {text}")
        return DepthImage(values, stamp_ns, frame_id, scale, limits)
    values = _values(message, tuple(DEPTH_UNITS_M), max_pixels)
    return DepthImage(values, stamp_ns, frame_id, DEPTH_UNITS_M[message.encoding])


def instances_of(message: Image, max_pixels: float = MAX_PIXELS) -> np.ndarray:
    """(h, w) uint16, a view of the bytes of a masks message. Raises ImageError with a reason."""
    return _values(message, ("mono16", "16UC1"), max_pixels)


def _values(message: Image, encodings: tuple[str, ...], max_pixels: float) -> np.ndarray:
    """(h, w) uint16 or float32, as one of the encodings."""
    if message.encoding not in encodings:
        text = f"expected {' or '.join(encodings)}, got '{message.encoding:.40}'"
        raise ImageError("unsupported_encoding", f"{text}: choose the uncompressed topic of the driver")
    check_size(message.width, message.height, max_pixels)
    spec = Encoding("f4" if message.encoding == "32FC1" else "u2", 1, None)
    size = message.width, message.height, message.step
    return view_values(message.data, *size, spec, bool(message.is_bigendian), message.encoding)


def add_transforms(tree: TransformTree, transforms: list[TransformStamped], static: bool) -> None:
    """Add the transforms of a TFMessage. Raises ValueError, ImageError(bad_stamp)."""
    if len(transforms) > MAX_TRANSFORMS:
        raise ValueError(f"expected at most {MAX_TRANSFORMS} transforms, got {len(transforms)}")
    for one in transforms:
        q, t = one.transform.rotation, one.transform.translation
        stamp_ns = None if static else stamp_to_ns(one.header.stamp)
        quaternion, translation_m = np.array((q.x, q.y, q.z, q.w)), np.array((t.x, t.y, t.z))
        tree.add(one.header.frame_id, one.child_frame_id, stamp_ns, quaternion, translation_m)


def detection_3d(
    detection: Detection2D, placement: Placement, header: Header, to_target: RigidTransform | None
) -> Detection3D:
    """A detection with its place. to_target: from the camera's frame to the header's; None if equal.

    In a target frame the box's axes are forward, left and up as in REP 103; in the camera's, right, down and
    forward.
    """
    forward, left, up = placement.axes.T
    center_m, size_m, covariance = placement.center_m, placement.size_m, placement.covariance_m2
    if to_target is None:
        axes, size_m = np.column_stack((-left, -up, forward)), size_m[[1, 2, 0]]
    else:
        axes, center_m = to_target.rotation @ placement.axes, to_target.rotation @ center_m
        center_m = center_m + to_target.translation_m
        covariance = to_target.rotation @ covariance @ to_target.rotation.T
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = center_m.tolist()
    q = pose.orientation
    q.x, q.y, q.z, q.w = quaternion_of_rotation(axes).tolist()
    full = np.diag([0.0] * 3 + [UNKNOWN_ANGLE_RAD2] * 3)
    full[:3, :3] = covariance
    known = PoseWithCovariance(pose=pose, covariance=full.ravel())
    placed = Detection3D(header=header, id=detection.id)
    placed.results = [
        ObjectHypothesisWithPose(hypothesis=one.hypothesis, pose=known) for one in detection.results
    ]
    placed.bbox.center = pose
    placed.bbox.size.x, placed.bbox.size.y, placed.bbox.size.z = size_m.tolist()
    return placed
