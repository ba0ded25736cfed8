"""The bundles that `models fetch` can make; `model_zoo/recipes.py` has their recipes."""

from __future__ import annotations

DEFAULT = (
    "ssdlite_mobilenet_v2_coco",
    "efficientnet_lite0_imagenet",
    "ssd_mobilenet_v2_oidv4",
    "person_vehicle_stage",
)
"""Made by `models fetch` without names."""
FETCHABLE = (*DEFAULT, "nanodet", "nanodet_320", "centernet")
"""The others take a large download, so they are made by name only."""
