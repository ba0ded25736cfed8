"""Writes a bag: the messages of the pipeline without ROS, into a file that appears when it is complete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.cli.run.frame_chain import FrameResult
from edge_vision.core.detections import Detections
from edge_vision.core.object_shapes import OrientedBoxes
from edge_vision.errors import OutputError

SUFFIXES = (".mcap", ".db3")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE = "expected space for a copy of the bag, the disk is full; free some, or move --out"
TOPICS = ("detections", "tracks", "tracks/annotations", "cascade_events", "label_info")
# Fields of vision_msgs 4.x, which rosbags does not know.
_VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
    ),
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
    "VisionClass": "uint16 class_id\nstring class_name",
    "LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold",
}


@contextlib.contextmanager
def result_file(path: Path) -> Iterator[Any]:
    """A rosbags writer. The file appears under its name, flushed to the disk, when the context ends without
    an error; otherwise nothing is left. Raises OutputError."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    class BagWriter(Writer):
        STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.MCAP: _McapStorage}

    check_result(path)
    plugin = StoragePlugin.MCAP if path.suffix == ".mcap" else StoragePlugin.SQLITE3
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        with BagWriter(folder / path.stem, version=9, storage_plugin=plugin) as writer:
            yield writer
        file = folder / path.stem / path.name  # Metadata in the file have its name.
        with file.open("rb") as written:
            os.fsync(written.fileno())
        check_result(path)  # Again: another program may have written it meanwhile.
        file.rename(path)
    except (OSError, sqlite3.Error) as error:
        full = getattr(error, "errno", 0) in _FULL or "disk is full" in str(error)
        raise OutputError(f"{path}: {_NO_SPACE if full else _trouble(error)}") from None
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def check_result(path: Path) -> None:
    """Raise OutputError unless a file can be created under this name."""
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path}: expected a file that ends with {' or '.join(SUFFIXES)}; rename --out")
    if os.path.lexists(path):
        raise OutputError(f"{path}: expected a new file, got one that exists; choose another --out")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: expected a folder that exists, got {path.parent}; create it")


def _trouble(error: Exception) -> str:
    return (
        f"expected a file to write to, got: {getattr(error, 'strerror', '') or error}; choose another --out"
    )


class _McapStorage:
    """What a writer of rosbags needs of a storage, by the writer of recordings. Without compression, which
    raw images make expensive."""

    def __init__(self, path: Path, compression: Any) -> None:
        from edge_vision.record.mcap_writer import Ros2McapWriter

        self.path = path / f"{path.name}.mcap"
        self._file = self.path.open("xb")
        self._writer = Ros2McapWriter(self._file, compress=False)
        self._channels: dict[int, int] = {}

    def add_msgtype(self, connection: Any) -> None:
        """Comes with the topic."""

    def add_connection(self, connection: Any, offered_qos_profiles: str) -> None:
        from edge_vision.record.mcap_writer import RecordedTopic

        form, encoding = connection.msgdef.format.name.lower(), connection.ext.serialization_format
        of_type = connection.msgtype, connection.msgdef.data
        topic = RecordedTopic(connection.topic, *of_type, offered_qos_profiles, f"ros2{form}", encoding)
        self._channels[connection.id] = self._writer.add_topic(topic)

    def write(self, connection: Any, time_ns: int, data: bytes | memoryview) -> None:
        self._writer.write(self._channels[connection.id], time_ns, data)

    def close(self, version: int, metadata: str) -> None:
        self._writer.add_metadata("rosbag2", {"serialized_metadata": metadata})
        self._writer.finish()
        self._file.close()

    def abort(self) -> None:
        self._file.close()


class ResultTopics:
    """The topics of the pipeline in a bag that is being written."""

    def __init__(self, writer: Any, namespace: str, labels: Sequence[str], score_threshold: float) -> None:
        """namespace: "" or "/front"."""
        from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        from edge_vision.record import annotations

        self._store = get_typestore(Stores.ROS2_JAZZY)
        for name, text in _VISION_MSGS.items():
            self._store.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
        drawn = get_types_from_msg(annotations.DEFINITION, annotations.TYPE)
        self._store.register(
            {name: fields for name, fields in drawn.items() if name not in self._store.types}
        )
        self._types, self._encode_annotations = self._store.types, annotations.encode_annotations
        self._writer = writer
        self._labels, self._threshold = labels, score_threshold
        array = "vision_msgs/msg/Detection2DArray"
        events, labelled = "diagnostic_msgs/msg/DiagnosticArray", "vision_msgs/msg/LabelInfo"
        kinds = (array, array, annotations.TYPE, events, labelled)
        never = QosTime(0, 0)
        self._connections = {}
        for name, kind in zip(TOPICS, kinds, strict=True):
            latched = QosDurability.TRANSIENT_LOCAL if name == "label_info" else QosDurability.VOLATILE
            qos = Qos(
                *(QosHistory.KEEP_LAST, 5, QosReliability.RELIABLE, latched, never, never),
                *(QosLiveliness.AUTOMATIC, never, False),
            )
            self._connections[name] = writer.add_connection(
                f"{namespace}/{name}", kind, typestore=self._store, offered_qos_profiles=[qos]
            )
        point = self._type("geometry_msgs/msg/Point")(x=0.0, y=0.0, z=0.0)
        turn = self._type("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
        pose = self._type("geometry_msgs/msg/Pose")(position=point, orientation=turn)
        self._pose = self._type("geometry_msgs/msg/PoseWithCovariance")(pose=pose, covariance=np.zeros(36))

    def write(self, result: FrameResult, time_ns: int) -> None:
        """Write the messages of a frame. time_ns: when its image was recorded."""
        header = self._header(result.event.stamp_ns, result.event.frame_id)
        self._put("cascade_events", time_ns, self._event(result, header))
        if result.detections is not None:
            self._put("detections", time_ns, self._array(result.detections, header, result.track_ids))
        if result.tracks is not None:
            ids = _texts(result.track_ids, len(result.tracks))
            self._put("tracks", time_ns, self._array(result.tracks, header, result.track_ids))
            drawn = self._encode_annotations(result.event.stamp_ns, result.tracks, ids, self._labels)
            self._writer.write(self._connections["tracks/annotations"], time_ns, drawn)

    def write_labels(self, time_ns: int) -> None:
        """Write label_info, once."""
        new = self._type("vision_msgs/msg/VisionClass")
        classes = [new(class_id=number, class_name=name) for number, name in enumerate(self._labels)]
        message = self._type("vision_msgs/msg/LabelInfo")(
            header=self._header(0, ""), class_map=classes, threshold=float(self._threshold)
        )
        self._put("label_info", time_ns, message)

    def _type(self, name: str) -> Any:
        return self._types[name]

    def _put(self, topic: str, time_ns: int, message: Any) -> None:
        data = self._store.serialize_cdr(message, message.__msgtype__)
        self._writer.write(self._connections[topic], time_ns, data)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        sec, nanosec = divmod(stamp_ns, 10**9)
        stamp = self._type("builtin_interfaces/msg/Time")(sec=sec, nanosec=nanosec)
        return self._type("std_msgs/msg/Header")(stamp=stamp, frame_id=frame_id)

    def _event(self, result: FrameResult, header: Any) -> Any:
        """As nodes/interface/frame_event_messages.py."""
        event, new = result.event, self._type("diagnostic_msgs/msg/KeyValue")
        values = [
            new(key="fate", value=event.fate),
            new(key="regions", value=json.dumps(event.regions.tolist())),
        ]
        if event.camera_motion is not None:
            motion = json.dumps(event.camera_motion.ravel().tolist())
            values.append(new(key="camera_motion", value=motion))
        status = self._type("diagnostic_msgs/msg/DiagnosticStatus")(
            level=0, name=event.stage, message=event.reason, hardware_id="", values=values
        )
        return self._type("diagnostic_msgs/msg/DiagnosticArray")(header=header, status=[status])

    def _array(self, found: Detections, header: Any, ids: np.ndarray | None) -> Any:
        """As nodes/interface/detection_messages.py."""
        boxes = found.xyxy_px.astype(np.float64)
        sizes = boxes[:, 2:] - boxes[:, :2]
        rows = np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, sizes, np.zeros((len(found), 1))])
        if isinstance(found.shapes, OrientedBoxes):
            rows = found.shapes.rows
        scores, classes = found.scores.tolist(), found.class_ids.tolist()
        one = zip(rows.tolist(), scores, classes, _texts(ids, len(found)), strict=True)
        detections = [self._detection(header, *values) for values in one]
        return self._type("vision_msgs/msg/Detection2DArray")(header=header, detections=detections)

    def _detection(self, header: Any, row: list[float], score: float, class_id: int, track: str) -> Any:
        x, y, width, height, theta = row
        position = self._type("vision_msgs/msg/Point2D")(x=x, y=y)
        center = self._type("vision_msgs/msg/Pose2D")(position=position, theta=theta)
        box = self._type("vision_msgs/msg/BoundingBox2D")(center=center, size_x=width, size_y=height)
        guess = self._type("vision_msgs/msg/ObjectHypothesis")(class_id=str(class_id), score=score)
        result = self._type("vision_msgs/msg/ObjectHypothesisWithPose")(hypothesis=guess, pose=self._pose)
        return self._type("vision_msgs/msg/Detection2D")(header=header, results=[result], bbox=box, id=track)


def _texts(ids: np.ndarray | None, count: int) -> list[str]:
    return [""] * count if ids is None else [str(number) for number in ids.tolist()]
