"""What all sources of images have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from edge_vision.core.frame import Frame
from edge_vision.source.frame_times import FrameTimes
from edge_vision.source.uri import SourceKind


class ImageSource(ABC):
    """An open source. Used by one thread.

    fps_hz: its nominal rate. frames: its number of images as declared; 0 if unknown. times: of its images.
    """

    kind: SourceKind
    fps_hz: float
    frames: int
    times: FrameTimes

    @abstractmethod
    def grab(self) -> bool:
        """Advance to the next image. False at the end, or if the source is lost."""

    @abstractmethod
    def frame(self) -> Frame | None:
        """The image that `grab` advanced to, with its recorded header; None on failure.

        The header is stamp 0 and no frame_id if the source records none.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the file, device or connection."""

    @property
    @abstractmethod
    def damage(self) -> str:
        """Description of what could not be read so far; "" if nothing, as far as the format shows."""

    def retrieve(self) -> np.ndarray | None:
        """The image that `grab` advanced to, (h, w, 3) uint8 BGR, upright; None on failure."""
        frame = self.frame()
        return None if frame is None else frame.bgr()

    def read(self) -> np.ndarray | None:
        """The next image, as `retrieve` returns it; None at the end, or if the source is lost."""
        return self.retrieve() if self.grab() else None

    @property
    def time_s(self) -> float:
        """The last image's own time since the first image; frames may be unevenly spaced."""
        return self.times.time_s

    @property
    def shortest_interval_s(self) -> float:
        """The shortest interval between two images so far, at most 1 / fps_hz."""
        return self.times.shortest_interval_s
