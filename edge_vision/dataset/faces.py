"""Makes faces unrecognisable, before a picture is encoded: the heads of persons, and faces that OpenCV finds.

The heads are the upper part of the boxes of persons, low-score ones included. A face of a person that the
detector misses is only covered if the face detector finds it: this lowers the risk, it is no anonymisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_vision.dataset.errors import DatasetError

PERSON_LABELS = frozenset({"person", "man", "woman", "boy", "girl", "pedestrian"})
FACE_LABELS = frozenset({"face", "human face"})
_CASCADES = ("haarcascade_frontalface_default.xml", "haarcascade_profileface.xml")
_FOLDERS = (getattr(getattr(cv2, "data", None), "haarcascades", ""), "/usr/share/opencv4/haarcascades")
"""Of the wheels and of Debian's opencv-data."""
_HEAD_WIDTHS, _HEAD_HEIGHTS = 0.7, 0.2
"""A head ends above this share of the box's width, as with a person cut off below the shoulders, or of its
height, whichever is more."""
_MARGIN = 0.15
_CELLS = 6
"""Cells of a covered face in each direction, too few to recognise anyone."""
_SCORE = 0.6
_SEARCH_PX = 1280
"""Longer sides are reduced to this, for time."""


class FaceBlur:
    """One thread at a time. detector: which one finds faces, "" = none is available, heads only."""

    def __init__(self, model: str = "") -> None:
        """model: a YuNet face detector (face_detection_yunet_*.onnx of OpenCV's model zoo); "" = the Haar
        cascades that OpenCV ships. Raises DatasetError if it cannot be loaded."""
        self._yunet, self._cascades = None, []
        if model:
            try:
                self._yunet = cv2.FaceDetectorYN.create(str(Path(model).expanduser()), "", (320, 320), _SCORE)
            except cv2.error:
                raise DatasetError(
                    f"face_model: expected a YuNet .onnx file, got {model:.200}; leave it empty for OpenCV's "
                    f"own cascades"
                ) from None
        else:
            self._cascades = _cascades()
        self.detector = "yunet" if self._yunet else "cascades" if self._cascades else ""

    def covered(
        self, image: np.ndarray, xyxy_px: np.ndarray, labels: Sequence[str]
    ) -> tuple[np.ndarray, int]:
        """A copy of the (h, w, 3) uint8 BGR image with covered faces, and the number of covered areas.

        xyxy_px: (n, 4), boxes with their labels."""
        areas = [
            _head(box) if label.lower() in PERSON_LABELS else box
            for box, label in zip(xyxy_px, labels, strict=True)
            if label.lower() in PERSON_LABELS | FACE_LABELS
        ]
        areas += [_widened(box) for box in self._found(image)]
        covered = image.copy()
        for area in areas:
            _cover(covered, area)
        return covered, len(areas)

    def _found(self, image: np.ndarray) -> list[np.ndarray]:
        """xyxy_px of faces."""
        factor = min(1.0, _SEARCH_PX / max(image.shape[:2]))
        if factor < 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        if self._yunet:
            self._yunet.setInputSize((image.shape[1], image.shape[0]))
            found = self._yunet.detect(image)[1]
            rows = [] if found is None else found[:, :4].tolist()
        else:
            gray = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
            rows = [row for one in self._cascades for row in one.detectMultiScale(gray, 1.15, 4, 0, (20, 20))]
        return [np.array([x, y, x + w, y + h], float) / factor for x, y, w, h in rows]


def _cascades() -> list[cv2.CascadeClassifier]:
    files = (next((p for d in _FOLDERS if (p := Path(d, name)).is_file()), None) for name in _CASCADES)
    return [cv2.CascadeClassifier(str(file)) for file in files if file]


def _head(box: np.ndarray) -> np.ndarray:
    """The part of a person's box that has the head."""
    left, top, right, bottom = map(float, box)
    height = max(_HEAD_WIDTHS * (right - left), _HEAD_HEIGHTS * (bottom - top))
    return np.array([left, top - 0.05 * (bottom - top), right, min(bottom, top + height)])


def _widened(box: np.ndarray) -> np.ndarray:
    margin = _MARGIN * (box[2:] - box[:2])
    return np.concatenate([box[:2] - margin, box[2:] + margin])


def _cover(image: np.ndarray, area: np.ndarray) -> None:
    """Replace an area, xyxy_px, by few cells."""
    height, width = image.shape[:2]
    left, right = (int(np.clip(one, 0, width)) for one in (np.floor(area[0]), np.ceil(area[2])))
    top, bottom = (int(np.clip(one, 0, height)) for one in (np.floor(area[1]), np.ceil(area[3])))
    part = image[top:bottom, left:right]
    if part.size:
        cells = min(_CELLS, part.shape[1]), min(_CELLS, part.shape[0])
        small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        image[top:bottom, left:right] = cv2.resize(
            small, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_LINEAR
        )
