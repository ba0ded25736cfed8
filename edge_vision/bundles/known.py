"""The bundles that `models fetch` can make; `model_zoo/recipes.py` has their recipes."""

from __future__ import annotations

FETCHABLE = (
    "ssdlite_mobilenet_v2_coco",
    "efficientnet_lite0_imagenet",
    "ssd_mobilenet_v2_oidv4",
    "person_vehicle_stage",
)
