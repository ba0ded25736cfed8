"""Coordinate frames and the transforms between them, as tf defines them (REP 105), at any time of the last
seconds.

tf2_ros is no substitute: it exists for installed ROS distributions only.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from edge_vision.core.geometry.rotations import interpolated, rotation_of_quaternion
from edge_vision.errors import LocalizationError

HISTORY_NS = 10_000_000_000
"""As tf2 keeps by default."""
MAX_SAMPLES, MAX_FRAMES, MAX_DEPTH = 4096, 1024, 64


class RigidTransform(NamedTuple):
    """Maps points of one frame to another: rotation (3, 3) @ point + translation_m (3,)."""

    rotation: np.ndarray
    translation_m: np.ndarray

    def __matmul__(self, first: RigidTransform) -> RigidTransform:
        """`first`, then this one."""
        moved_m = self.rotation @ first.translation_m + self.translation_m
        return RigidTransform(self.rotation @ first.rotation, moved_m)

    def inverse(self) -> RigidTransform:
        return RigidTransform(self.rotation.T, -self.rotation.T @ self.translation_m)


IDENTITY = RigidTransform(np.eye(3), np.zeros(3))


class _Link:
    """The transform of a frame to its parent over time. stamps_ns: empty for a static one."""

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.stamps_ns: list[int] = []
        self.samples: list[RigidTransform] = []

    def add(self, stamp_ns: int, sample: RigidTransform) -> None:
        if self.stamps_ns and stamp_ns < self.stamps_ns[-1] - HISTORY_NS:
            self.stamps_ns, self.samples = [], []  # The clock was set back, or a bag started again.
        at = bisect_left(self.stamps_ns, stamp_ns)
        known = at < len(self.stamps_ns) and self.stamps_ns[at] == stamp_ns
        self.stamps_ns[at : at + known], self.samples[at : at + known] = [stamp_ns], [sample]
        old = bisect_left(self.stamps_ns, self.stamps_ns[-1] - HISTORY_NS)
        old = max(old, len(self.stamps_ns) - MAX_SAMPLES)
        del self.stamps_ns[:old], self.samples[:old]

    def at(self, stamp_ns: int, child: str) -> RigidTransform:
        """Interpolated between two samples; never extrapolated. Raises LocalizationError(no_transform)."""
        stamps_ns = self.stamps_ns
        if not stamps_ns:
            return self.samples[0]
        if not stamps_ns[0] <= stamp_ns <= stamps_ns[-1]:
            edge_ns, side = (stamps_ns[-1], "before") if stamp_ns > stamps_ns[-1] else (stamps_ns[0], "after")
            gap = f"tf ends {abs(stamp_ns - edge_ns) / 1e6:.0f} ms {side} it"
            text = f"expected a transform from {child} to {self.parent} at the image's stamp, got none: {gap}"
            raise LocalizationError("no_transform", f"{text}: raise max_wait_ms, or check the clocks")
        after = bisect_left(stamps_ns, stamp_ns)
        if stamps_ns[after] == stamp_ns:
            return self.samples[after]
        first, second = self.samples[after - 1], self.samples[after]
        share = (stamp_ns - stamps_ns[after - 1]) / (stamps_ns[after] - stamps_ns[after - 1])
        moved_m = (1 - share) * first.translation_m + share * second.translation_m
        return RigidTransform(interpolated(first.rotation, second.rotation, share), moved_m)


class TransformTree:
    """The frames of a robot."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def add(
        self, parent: str, child: str, stamp_ns: int | None, quaternion: np.ndarray, translation_m: np.ndarray
    ) -> None:
        """Add the pose of a frame in its parent. stamp_ns: None = valid at all times. Raises ValueError."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        numbers = np.concatenate((quaternion, translation_m))
        if not np.isfinite(numbers).all() or not 0.5 < math.hypot(*quaternion) < 2:
            raise ValueError(f"expected finite numbers and a unit quaternion from {child}, got {numbers}")
        if not parent or not child or parent == child:
            raise ValueError(f"expected two different frames, got {parent!r:.80} and {child!r:.80}")
        link = self._links.get(child)
        if link is None or link.parent != parent or stamp_ns is None or not link.stamps_ns:
            if link is None and len(self._links) >= MAX_FRAMES:
                raise ValueError(f"expected at most {MAX_FRAMES} frames, got one more: {child:.80}")
            link = self._links[child] = _Link(parent)
        sample = RigidTransform(rotation_of_quaternion(quaternion), translation_m)
        if stamp_ns is None:
            link.samples = [sample]
        else:
            link.add(stamp_ns, sample)

    def lookup(self, target: str, source: str, stamp_ns: int) -> RigidTransform:
        """Maps points of `source` to `target` at a time. Raises LocalizationError(no_transform)."""
        target, source = target.lstrip("/"), source.lstrip("/")
        upwards, downwards = self._ancestors(source), self._ancestors(target)
        common = next((frame for frame in upwards if frame in downwards), None)
        if common is None:
            unknown = [frame for frame in (source, target) if not self._is_known(frame)]
            got = f"no transforms of {' and '.join(unknown)}" if unknown else "trees that are not connected"
            raise LocalizationError(
                "no_transform", f"expected transforms on /tf from {source} to {target}, got {got}"
            )
        return self._to(downwards, common, stamp_ns).inverse() @ self._to(upwards, common, stamp_ns)

    def _is_known(self, frame: str) -> bool:
        return frame in self._links or any(link.parent == frame for link in self._links.values())

    def _ancestors(self, frame: str) -> list[str]:
        """The frame, its parent and so on; cut where a loop would never end."""
        frames = [frame]
        while frames[-1] in self._links and len(frames) < MAX_DEPTH:
            frames.append(self._links[frames[-1]].parent)
        return frames

    def _to(self, frames: list[str], ancestor: str, stamp_ns: int) -> RigidTransform:
        """Maps points of the first of the frames to an ancestor."""
        total = IDENTITY
        for frame in frames[: frames.index(ancestor)]:
            total = self._links[frame].at(stamp_ns, frame) @ total
        return total
