"""Boxes as foxglove_msgs/ImageAnnotations, which the Image panel of Foxglove draws; it draws no vision_msgs.

Serialized here (plain CDR, OMG DDS-XTypes 1.3, 7.4.1, little endian), so that recordings have them also
where foxglove_msgs is not installed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from edge_vision.core.detection_overlay import caption, class_color, label_of
from edge_vision.core.detections import Detections

TYPE = "foxglove_msgs/msg/ImageAnnotations"
_SEPARATOR = "=" * 80 + "\nMSG: "
DEFINITION = f"""\
foxglove_msgs/CircleAnnotation[] circles
foxglove_msgs/PointsAnnotation[] points
foxglove_msgs/TextAnnotation[] texts
{_SEPARATOR}foxglove_msgs/CircleAnnotation
builtin_interfaces/Time timestamp
foxglove_msgs/Point2 position
float64 diameter
float64 thickness
foxglove_msgs/Color fill_color
foxglove_msgs/Color outline_color
{_SEPARATOR}foxglove_msgs/PointsAnnotation
uint8 UNKNOWN=0
uint8 POINTS=1
uint8 LINE_LOOP=2
uint8 LINE_STRIP=3
uint8 LINE_LIST=4
builtin_interfaces/Time timestamp
uint8 type
foxglove_msgs/Point2[] points
foxglove_msgs/Color outline_color
foxglove_msgs/Color[] outline_colors
foxglove_msgs/Color fill_color
float64 thickness
{_SEPARATOR}foxglove_msgs/TextAnnotation
builtin_interfaces/Time timestamp
foxglove_msgs/Point2 position
string text
float64 font_size
foxglove_msgs/Color text_color
foxglove_msgs/Color background_color
{_SEPARATOR}foxglove_msgs/Point2
float64 x
float64 y
{_SEPARATOR}foxglove_msgs/Color
float64 r
float64 g
float64 b
float64 a
{_SEPARATOR}builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
POINTS, LINE_LOOP, FONT_PX, THICKNESS_PX = 1, 2, 14.0, 2.0


class _Cdr:
    """A message in the making. Alignment counts from the end of the encapsulation header."""

    def __init__(self) -> None:
        self.data = bytearray()

    def put(self, form: str, *values: float) -> None:
        """Values of one type, aligned to its size."""
        self.data += bytes(-len(self.data) % struct.calcsize(form))
        self.data += struct.pack(f"<{len(values)}{form}", *values)

    def text(self, text: str) -> None:
        raw = text.encode() + b"\0"
        self.put("I", len(raw))
        self.data += raw

    def stamp(self, stamp_ns: int) -> None:
        sec, nanosec = divmod(stamp_ns, 10**9)
        self.put("i", sec)
        self.put("I", nanosec)


def encode_annotations(stamp_ns: int, found: Detections, ids: Sequence[str], labels: Sequence[str]) -> bytes:
    """A serialized ImageAnnotations: each box with label, id and score. ids: of the tracks, "" = none.

    Without a box it has an annotation without points: the Image panel takes the stamps from the annotations,
    and otherwise keeps the boxes of an earlier image, or waits for some.
    """
    cdr, count = _Cdr(), len(found)
    cdr.put("I", 0)
    cdr.put("I", count or 1)
    for box, class_id in zip(found.xyxy_px, found.class_ids.tolist(), strict=True):
        left, top, right, bottom = box.tolist()
        cdr.stamp(stamp_ns)
        cdr.put("B", LINE_LOOP)
        cdr.put("I", 4)
        cdr.put("d", left, top, right, top, right, bottom, left, bottom, *_rgba(class_id))
        cdr.put("I", 0)
        cdr.put("d", 0, 0, 0, 0, THICKNESS_PX)
    if not count:
        cdr.stamp(stamp_ns)
        cdr.put("B", POINTS)
        cdr.put("I", 0)
        cdr.put("d", 0, 0, 0, 0)
        cdr.put("I", 0)
        cdr.put("d", 0, 0, 0, 0, THICKNESS_PX)
    cdr.put("I", count)
    rows = zip(found.xyxy_px, found.scores.tolist(), found.class_ids.tolist(), ids, strict=True)
    for box, score, class_id, track in rows:
        cdr.stamp(stamp_ns)
        cdr.put("d", *box[:2].tolist())
        cdr.text(caption(label_of(labels, class_id), score, track))
        cdr.put("d", FONT_PX, 0, 0, 0, 1, *_rgba(class_id))
    return b"\x00\x01\x00\x00" + bytes(cdr.data)


@lru_cache(1024)
def _rgba(class_id: int) -> tuple[float, float, float, float]:
    blue, green, red = class_color(class_id)
    return red / 255, green / 255, blue / 255, 1.0
