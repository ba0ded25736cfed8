"""The localizer node: places detections or tracks in space.

Everything runs in the executor: a box takes about a millisecond. Boxes wait for what arrives after them.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image
from stereo_msgs.msg import DisparityImage
from vision_msgs.msg import Detection2DArray, Detection3DArray

from edge_vision.core.latency import LatencyWindow
from edge_vision.core.missing_package import missing_package
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.errors import ImageError, LocalizationError
from edge_vision.localize.camera import CameraModel
from edge_vision.localize.depth import DepthHistory
from edge_vision.localize.placing import CAMERA_UP, CameraView
from edge_vision.localize.transforms import RigidTransform, TransformTree
from edge_vision.nodes import run
from edge_vision.nodes.base_node import OK, WARN, BaseNode, latency_values
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.detection_messages import MAX_MESSAGE_BYTES
from edge_vision.nodes.interface.headers import header_of
from edge_vision.nodes.interface.localizer import needs_tf
from edge_vision.nodes.interface.localizer_messages import (
    add_transforms,
    boxes_of,
    camera_of,
    depth_of,
    detection_3d,
    instances_of,
)
from edge_vision.nodes.transport.qos import LATEST_IMAGE, RESULTS

MAX_WAITING, MAX_MASKS = 8, 8
RECENT_S = 3.0
DEPTH_IMAGES = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
TRANSFORMS = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.RELIABLE)
STATIC_TRANSFORMS = QoSProfile(
    depth=100, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)
COUNTED = ("received", "published", "placed")


@dataclass(slots=True)
class WaitingBoxes:
    """A message of the 2D side. boxes_px: (n, 4). until_s: monotonic time of the last attempt."""

    message: Detection2DArray
    stamp_ns: int
    boxes_px: np.ndarray
    until_s: float

    @property
    def frame_id(self) -> str:
        return str(self.message.header.frame_id)

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.until_s


class LocalizerNode(BaseNode):
    """Publishes one message for each one of its input, or counts the reason why not. It sends nothing to the
    other nodes: the 2D side does not depend on it."""

    spec = specs.LOCALIZER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened: list[Any] = []
        self._publisher: Any = None
        self._counts: Counter[str] = Counter()
        self._process_ms = LatencyWindow()
        self._last_refusal, self._last_not_placed = "", ""
        self._refused_s = self._published_s = -np.inf
        self._forget()

    def _forget(self) -> None:
        self._waiting: deque[WaitingBoxes] = deque()
        self._camera: tuple[str, CameraModel] | LocalizationError = LocalizationError(
            "no_camera_info",
            "expected camera_info, got none: start the driver, remap camera_info to its topic, or run "
            "examples/fixed_camera.py",
        )
        self._depth = DepthHistory()
        self._masks: dict[int, np.ndarray] = {}
        self._tree = TransformTree()

    # Life cycle.
    def activate(self) -> None:
        self._forget()
        params, subscribe = self.params, self.create_subscription
        self._publisher = self.create_publisher(Detection3DArray, "detections_3d", RESULTS)
        # Serialized, because rclpy takes 0.1 ms to convert a detection: the size is checked before.
        boxes = subscribe(Detection2DArray, params["input"], self._on_boxes, RESULTS, raw=True)
        self._opened = [boxes, subscribe(CameraInfo, "camera_info", self._on_camera_info, LATEST_IMAGE)]
        if params["method"] != "ground":
            kind = Image if params["method"] == "depth" else DisparityImage
            self._opened.append(subscribe(kind, params["method"], self._on_depth, DEPTH_IMAGES))
        if params["use_masks"]:
            self._opened.append(subscribe(Image, "masks", self._on_masks, DEPTH_IMAGES))
        if needs_tf(params.values()):
            self._subscribe_to_tf()

    def _subscribe_to_tf(self) -> None:
        try:
            from tf2_msgs.msg import TFMessage
        except ModuleNotFoundError as error:
            text = f"target_frame and method: ground need tf: {missing_package(error)}"
            raise LocalizationError("no_transform", text) from None
        for name, qos in (("/tf", TRANSFORMS), ("/tf_static", STATIC_TRANSFORMS)):
            self._opened.append(self.create_subscription(TFMessage, name, partial(self._on_tf, name), qos))

    def deactivate(self) -> None:
        for subscription in self._opened:
            self.destroy_subscription(subscription)
        self._opened = []
        if self._publisher:
            self.destroy_publisher(self._publisher)
            self._publisher = None
        self._forget()

    # Input.
    def _take(self, topic: str, receive: Callable[[], None]) -> None:
        """Receive a message and continue with the waiting boxes. Refuses an invalid one."""
        try:
            receive()
        except (ImageError, ValueError, RuntimeError) as error:  # RuntimeError: cannot be deserialized.
            self.refuse_message(topic, error)
        self._work()

    def _on_boxes(self, serialized: bytes) -> None:
        self._take(self.params["input"], partial(self._add_boxes, serialized))

    def _add_boxes(self, serialized: bytes) -> None:
        if len(serialized) > MAX_MESSAGE_BYTES:
            raise ValueError(f"expected at most {MAX_MESSAGE_BYTES} bytes, got {len(serialized)}")
        message = deserialize_message(serialized, Detection2DArray)
        until_s = time.monotonic() + self.params["max_wait_ms"] / 1e3
        waiting = WaitingBoxes(message, stamp_to_ns(message.header.stamp), boxes_of(message), until_s)
        self._counts["received"] += 1
        self._waiting.append(waiting)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._refuse(LocalizationError("superseded", "newer boxes came before depth or tf for these"))

    def _on_camera_info(self, message: CameraInfo) -> None:
        rectified = self.params["rectified"] or self.params["method"] == "disparity"
        try:
            self._camera = str(message.header.frame_id), camera_of(message, rectified)
        except LocalizationError as error:
            self._camera = error
        self._work()

    def _on_depth(self, message: Image | DisparityImage) -> None:
        self._take(self.params["method"], lambda: self._depth.add(depth_of(message, self._max_pixels)))

    def _on_masks(self, message: Image) -> None:
        self._take("masks", partial(self._add_masks, message))

    def _add_masks(self, message: Image) -> None:
        self._masks[stamp_to_ns(message.header.stamp)] = instances_of(message, self._max_pixels)
        while len(self._masks) > MAX_MASKS:
            del self._masks[next(iter(self._masks))]

    def _on_tf(self, topic: str, message: Any) -> None:
        self._take(topic, lambda: add_transforms(self._tree, message.transforms, topic == "/tf_static"))

    @property
    def _max_pixels(self) -> float:
        return float(self.params["max_image_megapixels"]) * 1e6

    # Work.
    def _work(self) -> None:
        """Place the waiting boxes in order, as far as everything that they need has arrived."""
        while self._waiting:
            waiting, started_s = self._waiting[0], time.monotonic()
            try:
                message = self._placed(waiting)
                if message is None:
                    return
                self._publisher.publish(message)
                self._published_s = started_s
                self._counts["published"] += 1
                self._process_ms.add((time.monotonic() - started_s) * 1e3)
            except LocalizationError as error:
                if not waiting.expired:
                    return
                self._refuse(error)
            except Exception as error:  # A defect must not hold up the boxes behind it.
                self._refuse(LocalizationError("internal_error", f"{error!r}. Please report this"))
            self._waiting.popleft()

    def _refuse(self, error: LocalizationError) -> None:
        self._counts[f"refused.{error.reason}"] += 1
        self._last_refusal, self._refused_s = f"{error.reason}: {error}", time.monotonic()
        self.log_throttled("warning", self._last_refusal, error.reason)

    def _placed(self, waiting: WaitingBoxes) -> Detection3DArray | None:
        """The message to publish; None = something better may still arrive. Raises LocalizationError."""
        header = header_of(waiting.stamp_ns, self.params["target_frame"] or waiting.frame_id)
        result = Detection3DArray(header=header)
        if not len(waiting.boxes_px):
            return result
        view, to_target = self._view(waiting)
        if self.params["method"] != "ground" and not self._add_images(view, waiting):
            return None
        for i, detection in enumerate(waiting.message.detections):
            try:
                placement = view.place(waiting.boxes_px[i], i + 1)
                result.detections.append(detection_3d(detection, placement, header, to_target))
            except LocalizationError as error:
                self._counts[f"not_placed.{error.reason}"] += 1
                self._last_not_placed = f"{error.reason}: {error}"
        self._counts["placed"] += len(result.detections)
        return result

    def _view(self, waiting: WaitingBoxes) -> tuple[CameraView, RigidTransform | None]:
        """The camera at the stamp of the boxes, and how to get to the target frame."""
        if isinstance(self._camera, LocalizationError):
            raise self._camera
        params, (camera_frame, camera) = self.params, self._camera
        check_frame(camera_frame, "camera_info", waiting.frame_id)
        to_target = to_ground = None
        if target := params["target_frame"]:
            to_target = self._tree.lookup(target, waiting.frame_id, waiting.stamp_ns)
        if params["method"] == "ground":
            to_ground = self._tree.lookup(params["ground_frame"], waiting.frame_id, waiting.stamp_ns)
        upright = to_ground or to_target
        up = CAMERA_UP if upright is None else upright.rotation[2]
        height_m = float(to_ground.translation_m[2]) if to_ground else 0.0
        return CameraView(camera, params["max_range_m"], up, height_m), to_target

    def _add_images(self, view: CameraView, waiting: WaitingBoxes) -> bool:
        """Add depth and masks to the view. False if better ones may arrive. Raises LocalizationError."""
        limit_ns = self.params["max_stamp_difference_ms"] * 1e6
        view.depth, is_nearest = self._depth.nearest(waiting.stamp_ns, limit_ns)
        if not is_nearest and not waiting.expired:
            return False
        check_frame(view.depth.frame_id, "the depth image", waiting.frame_id)
        view.check_shape(view.depth.values, "the depth image")
        return not self.params["use_masks"] or self._add_instances(view, waiting)

    def _add_instances(self, view: CameraView, waiting: WaitingBoxes) -> bool:
        """Add the masks to the view, unless they do not fit. False if they may still arrive."""
        instances, expected, reason = self._masks.get(waiting.stamp_ns), len(waiting.boxes_px), "no_masks"
        if instances is None and not waiting.expired and all(at <= waiting.stamp_ns for at in self._masks):
            return False
        try:
            if instances is not None:
                view.check_shape(instances, "the masks image")
                if (count := int(instances.max())) > expected:
                    raise LocalizationError("count", f"expected masks of {expected} detections, got {count}")
                view.instances = instances
                return True
        except LocalizationError as error:
            reason = f"masks_{error.reason}"
            self.log_throttled("warning", f"{error}. The boxes are used", reason)
        self._counts[f"without_masks.{reason}"] += 1
        return True

    # Reports.
    def publish_status(self) -> None:
        self._work()  # Boxes whose time is over, where nothing else arrives.
        super().publish_status()

    def health(self) -> tuple[int, str]:
        if self._refused_s > max(self._published_s, time.monotonic() - RECENT_S):
            return WARN, f"no places: {self._last_refusal}"
        return OK, "running"

    def status_values(self) -> dict[str, Any]:
        return {
            **dict.fromkeys(COUNTED, 0),
            **self._counts,
            "waiting": len(self._waiting),
            "depth_images_mb": self._depth.bytes / 1e6,
            "last_refusal": self._last_refusal,
            "last_not_placed": self._last_not_placed,
            **latency_values("process_ms", self._process_ms),
        }

    def reset_stats(self) -> None:
        self._counts.clear()
        self._process_ms.reset()


def check_frame(frame_id: str, what: str, camera_frame: str) -> None:
    """Raise LocalizationError(frame_id) for data of another frame than the boxes."""
    if frame_id != camera_frame:
        text = f"expected {what} in the frame of the boxes, {camera_frame!r:.80}, got {frame_id!r:.80}"
        raise LocalizationError("frame_id", f"{text}: use the topic that is aligned with the camera")


def main(args: list[str] | None = None) -> int:
    return run.main([LocalizerNode], "localizer_node", args)
