"""Messages of masks and key points."""

from __future__ import annotations

from array import array

import numpy as np
from geometry_msgs.msg import Point32, PolygonInstance, PolygonInstanceStamped
from sensor_msgs.msg import PointCloud2, PointField

from edge_vision.nodes.interface.headers import Headed, header_of

_FIELDS = ("u", "v", "score")


def keypoints_message(points: np.ndarray, of: Headed) -> PointCloud2:
    """(n, k, 3) x, y in pixels and score as a cloud of n rows and k columns, fields u, v and score."""
    fields = [
        PointField(name=name, offset=4 * at, datatype=PointField.FLOAT32, count=1)
        for at, name in enumerate(_FIELDS)
    ]
    data = np.ascontiguousarray(points, "<f4")
    return PointCloud2(
        header=header_of(of.stamp_ns, of.frame_id),
        height=points.shape[0],
        width=points.shape[1],
        fields=fields,
        point_step=4 * len(_FIELDS),
        row_step=4 * len(_FIELDS) * points.shape[1],
        data=array("B", data.tobytes()),
        is_dense=True,
    )


def polygon_message(outline: np.ndarray, number: int, of: Headed) -> PolygonInstanceStamped:
    """(k, 2) pixels as a polygon with the id of its instance."""
    points = [Point32(x=x, y=y) for x, y in outline.astype(float).tolist()]
    polygon = PolygonInstance(id=number)
    polygon.polygon.points = points
    return PolygonInstanceStamped(header=header_of(of.stamp_ns, of.frame_id), polygon=polygon)
