"""Camera paths over a background: one row per frame, from a seed.

A path is (n, 4) float64: centre x, y of the view in background pixels, zoom, roll in radians.
"""

from __future__ import annotations

import math

import numpy as np

WIDTH_PX, HEIGHT_PX = 640, 360
MARGIN_PX = 6.0


class Room:
    """The allowed range of the view's centre on a background of this size."""

    def __init__(
        self, width_px: int, height_px: int, zoom: float = 1.0, margin_px: float = MARGIN_PX
    ) -> None:
        half_x = min(WIDTH_PX / 2 / zoom + margin_px, width_px / 2)
        half_y = min(HEIGHT_PX / 2 / zoom + margin_px, height_px / 2)
        self.low = np.array([half_x, half_y])
        self.high = np.array([width_px - half_x, height_px - half_y])

    def pick(self, rng: np.random.Generator) -> np.ndarray:
        """A random allowed centre, (2,) float64."""
        return np.asarray(rng.uniform(self.low, self.high))

    def clip(self, centres: np.ndarray) -> np.ndarray:
        """The nearest allowed centres, (n, 2) float64."""
        return np.clip(centres, self.low, self.high)


def to_screen(state: np.ndarray, origin: np.ndarray | None = None, ratio: float = 1.0) -> np.ndarray:
    """(2, 3) float64: background pixel to screen pixel for a row of a path.

    A layer in front moves `ratio` times as much on the screen, from where the camera was at `origin`.
    """
    x, y, zoom, roll = state
    if origin is not None:
        x, y = origin[0] + ratio * (x - origin[0]), origin[1] + ratio * (y - origin[1])
    c, s = zoom * math.cos(roll), zoom * math.sin(roll)
    return np.array(
        [[c, -s, WIDTH_PX / 2 - c * x + s * y], [s, c, HEIGHT_PX / 2 - s * x - c * y]], dtype=np.float64
    )


def fixed(rng: np.random.Generator, n: int, room: Room) -> np.ndarray:
    """A camera on a tripod."""
    return np.tile(np.append(room.pick(rng), [1.0, 0.0]), (n, 1))


def pan_tilt(rng: np.random.Generator, n: int, room: Room, mean_dwell: float = 45.0) -> np.ndarray:
    """Minimum-jerk moves of at most 14 px per frame, like a head's, with stops of 0.5 to 3 s."""
    centres = [room.pick(rng)]
    while len(centres) < n:
        here, goal = centres[-1], room.pick(rng)
        goal[1] = here[1] + 0.5 * (goal[1] - here[1])
        way_px = float(np.hypot(*(goal - here)))
        # A minimum-jerk move is 1.875 times as fast in its middle as on average.
        steps = max(6, int(1.875 * way_px / rng.uniform(4.0, 14.0)))
        t = np.arange(1, steps + 1) / steps
        share = 10 * t**3 - 15 * t**4 + 6 * t**5
        centres += list(here + share[:, None] * (goal - here))
        centres += [goal] * int(np.clip(rng.exponential(mean_dwell), 15, 90))
    path = np.ones((n, 4))
    path[:, :2] = room.clip(np.array(centres[:n]))
    path[:, 3] = 0.0
    return path


def drive(rng: np.random.Generator, n: int, room: Room, most_zoom: float = 1.5) -> np.ndarray:
    """Driving towards the scene and back: a slow zoom with steering sway and short stops."""
    phase = np.cumsum(_with_stops(rng, n, 2 * math.pi / rng.uniform(330, 480)))
    zoom = 1.0 + (most_zoom - 1.0) * (0.5 - 0.5 * np.cos(phase))
    path = np.zeros((n, 4))
    sway = np.stack([60 * np.sin(1.7 * phase), 8 * np.sin(2.9 * phase)], axis=1)
    path[:, :2] = room.clip(room.pick(rng) + sway)
    path[:, 2] = zoom
    path[:, 3] = 0.004 * np.sin(2.3 * phase)
    return path


def _with_stops(rng: np.random.Generator, n: int, step: float) -> np.ndarray:
    """A constant step per frame with gentle stops, (n,)."""
    steps = np.full(n, step)
    for start in np.arange(rng.integers(150, 250), n, 330):
        steps[start : start + 45] = 0.0
    return np.convolve(np.pad(steps, 8, mode="edge"), np.ones(17) / 17, mode="valid")


def sideways(rng: np.random.Generator, n: int, room: Room) -> np.ndarray:
    """Rolling past the scene at 1 to 5 px per frame, forth and back, with short stops."""
    speed = rng.uniform(2.5, 4.5)
    width = room.high[0] - room.low[0]
    way = np.cumsum(_with_stops(rng, n, 1.0) * speed * (1 + 0.3 * np.sin(np.arange(n) / 40.0)))
    start = rng.uniform(0, width)
    # Forth and back over the background: a triangle wave with rounded corners.
    turn = np.abs((way + start) % (2 * width) - width)
    turn = np.convolve(np.pad(turn, 12, mode="edge"), np.ones(25) / 25, mode="valid")
    path = np.zeros((n, 4))
    path[:, 0] = room.low[0] + turn
    path[:, 1] = np.clip(room.pick(rng)[1] + 3 * np.sin(np.arange(n) / 23.0), room.low[1], room.high[1])
    path[:, 2] = 1.0
    return path


def hand_held(rng: np.random.Generator, path: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Add hand-held shake: about 3 px and 0.4 degrees rms, slow sway and fast tremor."""
    n = len(path)
    scale = np.array([3.0, 2.2, 0.002, 0.007]) * strength
    shake = np.zeros((n, 4))
    for smooth, share in ((9, 0.9), (3, 0.35)):
        kernel = np.hanning(2 * smooth + 3)[1:-1]
        noise = rng.standard_normal((n + len(kernel) - 1, 4))
        shake += share * np.stack(
            [np.convolve(noise[:, i], kernel / np.linalg.norm(kernel), mode="valid") for i in range(4)],
            axis=1,
        )
    return path + shake * scale
