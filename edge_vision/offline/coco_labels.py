"""COCO class names as numbered by TF object detection.

COCO's ids run from 1 to 90 with ten unused. class_id = COCO id - 1, so 0 is "person".
"""

from __future__ import annotations

UNUSED = "n/a"
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign "
    "parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella "
    "handbag tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard "
    "surfboard tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange "
    "broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop "
    "mouse remote keyboard cell_phone microwave oven toaster sink refrigerator book clock vase scissors "
    "teddy_bear hair_drier toothbrush"
)


def coco_labels() -> tuple[str, ...]:
    """The 90 labels; `UNUSED` where COCO has no class."""
    names = iter(_NAMES.split())
    return tuple(UNUSED if i in _UNUSED_IDS else next(names).replace("_", " ") for i in range(1, 91))
