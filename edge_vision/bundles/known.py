"""The bundles that `models fetch` can make. `model_zoo/recipes.py` has how; a test compares the two."""

from __future__ import annotations

FETCHABLE = (
    "ssdlite_mobilenet_v2_coco",
    "efficientnet_lite0_imagenet",
    "ssd_mobilenet_v2_oidv4",
    "person_vehicle_stage",
)
