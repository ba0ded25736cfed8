"""Head of TFLite detection models that end in the operator TFLite_Detection_PostProcess.

Source: tensorflow/lite/kernels/detection_postprocess.cc, whose outputs are boxes, classes, scores and their
count.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_vision.detect.heads.decoded import DecodedHead


class TfliteDetectionHead(DecodedHead):
    """Roles: boxes (1, n, 4) as top, left, bottom, right, 0 to 1; classes (1, n); scores (1, n); count (1).

    Options as DecodedHead, with the operator's order, unit and first class as defaults.
    """

    defaults: Mapping[str, object] = {"box_order": "yxyx", "box_unit": "relative", "first_class": 0}
