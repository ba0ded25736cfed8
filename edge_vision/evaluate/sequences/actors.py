"""Objects on their own paths: the position of each object on each frame.

In a visit, an object enters over an edge of the view, may stand still for a while, and leaves. Visits come in
bursts, so that many objects enter although some are visible in only a fifth of the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_vision.evaluate.sequences.camera import HEIGHT_PX, WIDTH_PX, to_screen
from edge_vision.evaluate.sequences.cutouts import Sprite

LONGEST_VISIT = 4000


@dataclass(frozen=True, slots=True)
class Placed:
    """An object on one frame: the position of its foot in background pixels, its scale and its picture."""

    object_id: int
    sprite: Sprite
    picture: int
    foot_px: tuple[float, float]
    scale: float
    flip: bool


@dataclass(frozen=True, slots=True)
class Visit:
    """The plan of one visit. speed_px: per frame, on the screen; inside, stand: in frames."""

    object_id: int
    start: int
    sprite: Sprite
    from_left: bool
    foot_y_px: float
    height_px: float
    speed_px: float
    inside: int
    stand: int
    through: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """How busy a sequence is. Times in frames, as a value or as (minimum, maximum).

    standers: number of visits, spread over the sequence, with a stop of long_stand frames.
    """

    bursts: int = 5
    per_burst: tuple[int, int] = (6, 7)
    spacing: tuple[int, int] = (8, 9)
    inside: tuple[int, int] = (9, 14)
    speed_px: tuple[float, float] = (2.5, 8.0)
    stand_share: float = 0.04
    through_share: float = 0.0
    stand: tuple[int, int] = (12, 25)
    first: int = 60
    standers: int = 0
    long_stand: int = 500


def plan(
    rng: np.random.Generator, n: int, path: np.ndarray, sprites: tuple[Sprite, ...], traffic: Traffic
) -> list[Visit]:
    """The visits of a sequence of n frames, ordered by their start."""
    visits: list[Visit] = []
    interval = (n - traffic.first) / (traffic.bursts + 2 * traffic.standers)
    for burst in range(traffic.bursts):
        start = traffic.first + interval * burst + (rng.uniform(0, 0.3) * interval if burst else 0)
        # Objects of a burst have similar speeds.
        speed_px = float(rng.uniform(*traffic.speed_px))
        for _ in range(int(rng.integers(traffic.per_burst[0], traffic.per_burst[1] + 1))):
            visits.append(_visit(rng, len(visits), int(start), path, sprites, traffic, speed_px))
            # Occasionally two enter together: one event.
            start += 2 if rng.random() < 0.08 else rng.integers(*traffic.spacing, endpoint=True)
    for stander in range(traffic.standers):
        start = traffic.first + interval * (traffic.bursts + 2 * stander)
        visits.append(_visit(rng, len(visits), int(start), path, sprites, traffic, 7.0, traffic.long_stand))
    return [visit for visit in visits if visit.start < n - 20]


def _visit(
    rng: np.random.Generator,
    object_id: int,
    start: int,
    path: np.ndarray,
    sprites: tuple[Sprite, ...],
    traffic: Traffic,
    mean_speed_px: float,
    stand: int = -1,
) -> Visit:
    at = min(start, len(path) - 2)
    drift = float(path[at + 1, 0] - path[at, 0])
    # Objects enter more often on the side that the view pans to.
    from_left = bool(rng.random() < 0.5) if abs(drift) < 1 else bool((drift < 0) == (rng.random() < 0.8))
    speed = mean_speed_px * float(rng.uniform(0.88, 1.12))
    if stand < 0:
        stand = int(rng.integers(*traffic.stand)) if rng.random() < traffic.stand_share else 0
    height = float(rng.uniform(140, 270))
    return Visit(
        object_id=object_id,
        start=start,
        sprite=sprites[int(rng.integers(len(sprites)))],
        from_left=from_left,
        foot_y_px=float(np.clip(rng.uniform(0.62, 1.02) * HEIGHT_PX, height * 0.8, None)),
        height_px=height,
        speed_px=speed,
        # A slow object takes longer to become visible at all.
        inside=int(rng.integers(*traffic.inside)) + int(40 / speed),
        stand=stand,
        through=bool(rng.random() < traffic.through_share),
    )


def play(visits: list[Visit], path: np.ndarray) -> list[list[Placed]]:
    """Who is where, one list per frame, the farthest first."""
    n = len(path)
    frames: list[list[Placed]] = [[] for _ in range(n)]
    for visit in visits:
        for at, placed in _steps(visit, path):
            frames[at].append(placed)
    for frame in frames:
        frame.sort(key=lambda placed: placed.foot_px[1])
    return frames


def _steps(visit: Visit, path: np.ndarray) -> list[tuple[int, Placed]]:
    scale = visit.height_px / visit.sprite.height_px
    half_px = 0.5 * scale * max(picture.color.shape[1] for picture in visit.sprite.pictures)
    inverse = _inverse(to_screen(path[visit.start]))
    edge = -half_px if visit.from_left else WIDTH_PX + half_px
    foot = inverse[:, :2] @ (edge, visit.foot_y_px) + inverse[:, 2]
    heading, left, seen, walked = (1.0 if visit.from_left else -1.0), False, 0, 0
    steps = []
    for at in range(visit.start, min(len(path), visit.start + LONGEST_VISIT)):
        screen = to_screen(path[at])
        x = float((screen[:, :2] @ foot + screen[:, 2])[0])
        inside = -half_px < x < WIDTH_PX + half_px
        seen += inside
        if not inside and (seen > 3 or at - visit.start > 30):
            break
        leaving = seen > visit.inside + visit.stand
        standing = seen > visit.inside and not leaving
        drift = (path[min(at + 1, len(path) - 1), 0] - path[at, 0]) * path[at, 2]
        if leaving and not left:
            left = True
            heading = heading if visit.through else _way_out(x, float(drift))
        flip = visit.sprite.faces * heading < 0
        pictures = len(visit.sprite.pictures)
        # Three frames of 30 Hz for each of the 10 Hz clip, to and fro.
        beat = (walked // 3) % max(1, 2 * pictures - 2)
        picture = beat if beat < pictures else 2 * pictures - 2 - beat
        steps.append(
            (
                at,
                Placed(visit.object_id, visit.sprite, picture, (float(foot[0]), float(foot[1])), scale, flip),
            )
        )
        if standing:
            continue
        walked += 1
        speed = visit.speed_px
        if leaving:
            # Whoever leaves is faster than the view that goes the same way.
            speed = max(speed, 7.0) + max(0.0, heading * drift)
        foot = foot + np.array([heading * speed / path[at, 2], 0.0])
    return steps


def _way_out(x_px: float, drift_px: float) -> float:
    """The nearer edge, or the one that the view leaves behind: -1 left, 1 right."""
    if abs(drift_px) > 6:
        return -1.0 if drift_px > 0 else 1.0
    return 1.0 if x_px > WIDTH_PX / 2 else -1.0


def _inverse(affine: np.ndarray) -> np.ndarray:
    turn = np.linalg.inv(affine[:, :2])
    return np.hstack([turn, -(turn @ affine[:, 2:])])
