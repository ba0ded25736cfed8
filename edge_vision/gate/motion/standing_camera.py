"""Decides when the corners of a camera that seems to stand are tracked, which costs more than comparing."""

from __future__ import annotations

# The corners are tracked at least every so many frames, to notice a camera that creeps.
CHECK_EVERY_FRAMES = 10
# They are tracked at once if the image seems noisier, as a drifting scene of low contrast does.
NOISIER = 1.25
# After a check has shown a standing camera, changes up to this factor need no other one for so many frames.
VERIFIED_FRAMES = 5
VERIFIED_GROWTH = 1.3


class StandingCheck:
    """Counts frames since the last check, and how far a verified standing camera is trusted."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._unchecked_frames = self._verified_frames = 0
        self._verified_area = 0.0

    def checked(self) -> None:
        """The corners have been tracked on this frame."""
        self._unchecked_frames = 0

    def verified(self, changed_area: float) -> None:
        """The corners have shown a standing camera while this share of the image changed."""
        self._verified_frames, self._verified_area = VERIFIED_FRAMES, changed_area

    def creep_check_due(self, sigma: float, noise: float) -> bool:
        """Count a frame; True if the corners must be tracked for a camera that may creep."""
        self._unchecked_frames += 1
        noisier = sigma > NOISIER * noise + 0.25
        if self._unchecked_frames < CHECK_EVERY_FRAMES and not noisier:
            return False
        self.checked()
        return True

    def change_needs_corners(self, changed_area: float) -> bool:
        """Count a frame with a change; True if the corners must show whether the camera caused it.

        While an object moves before a verified standing camera, they need not be tracked on each frame: a
        camera that starts to move changes the whole image.
        """
        self._verified_frames -= 1
        return self._verified_frames < 0 or changed_area > VERIFIED_GROWTH * self._verified_area
