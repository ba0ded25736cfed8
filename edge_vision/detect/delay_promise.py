"""Whether a detector can keep the delay promises of its cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CameraNeed:
    """One camera's promise, and what it costs.

    service_ms: the detector's time for one frame. period_ms: between two frames of the camera. max_delay_ms:
    longest time from an object's first frame to the frame that is inferred.
    """

    service_ms: float
    period_ms: float
    max_delay_ms: float

    @property
    def interval_ms(self) -> float:
        """The longest interval between inferences: an object appears one frame after the last of them."""
        return self.max_delay_ms + self.period_ms

    @property
    def share(self) -> float:
        """The least share of the detector's time."""
        return self.service_ms / self.interval_ms


def unmet_promise(needs: Mapping[str, CameraNeed]) -> str:
    """The promise that no schedule can keep, in one sentence with figures and remedy; "" if all can be kept.

    needs: by camera.
    """
    for camera, need in needs.items():
        # A detector that is faster than its camera infers every frame, however short the delay.
        if need.service_ms > max(need.max_delay_ms, need.period_ms):
            return (
                f"the detector takes {need.service_ms:.0f} ms for a frame of {camera}, more than its "
                f"max_delay_ms {need.max_delay_ms:.0f}, which no schedule can keep: {_REMEDY}"
            )
    total = sum(need.share for need in needs.values())
    if total <= 1.0:
        return ""
    parts = ", ".join(
        f"{camera} {need.service_ms:.0f} ms every {need.interval_ms:.0f} ms"
        for camera, need in sorted(needs.items())
    )
    return f"max_delay_ms of all cameras together needs {total:.0%} of the detector ({parts}): {_REMEDY}"


_REMEDY = "raise max_delay_ms, or select a faster model, backend or device"
