"""Zones: named polygons that decide which objects are reported and which changes count.

Vertices are fractions of the picture, x to the right and y down, so that a zone survives another resolution.
Zones are fixed in the picture: they do not follow a moving camera.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

MAX_ZONES, MAX_VERTICES = 64, 64
MIN_AREA = 1e-5
"""Of a zone, as a share of the picture: 3 x 3 pixels of 1280 x 720."""
_ZONE = re.compile(r"(include|exclude)\s+([\w-]{1,64})\s+(\S.*)", re.ASCII)
_FORM = "expected 'include NAME X,Y X,Y X,Y' or 'exclude NAME X,Y X,Y X,Y', with at least 3 vertices"
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Zone:
    """A simple polygon. vertices: (n, 2) float64 x, y in fractions of the picture, 0..1."""

    name: str
    exclude: bool
    vertices: np.ndarray

    @classmethod
    def parse(cls, text: str) -> Zone:
        """From "include NAME X,Y X,Y X,Y ...". Raises ValueError."""
        match = _ZONE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{_FORM}; NAME of letters, digits, _ and -, got '{text:.100}'")
        kind, name, rest = match.groups()
        try:
            return cls(name, kind == "exclude", _vertices(rest))
        except ValueError as error:
            raise ValueError(f"zone '{name}': {error}") from None

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(n,) bool: which points, (n, 2) in fractions of the picture, lie inside or on the border.

        By the even-odd rule: M. Shimrat, "Algorithm 112: Position of point relative to polygon", 1962.
        """
        start, end = self.vertices, np.roll(self.vertices, -1, axis=0)
        to_start, to_end = points[:, None] - start, points[:, None] - end
        side = _cross(end - start, to_start)
        on_border = (side == 0) & (to_start * to_end <= 0).all(axis=2)
        crossed = (to_start[..., 1] >= 0) != (to_end[..., 1] >= 0)
        right_of_point = crossed & ((side > 0) == (end[:, 1] > start[:, 1]))
        odd = np.count_nonzero(right_of_point, axis=1) % 2 == 1
        return np.asarray(odd | on_border.any(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Zones:
    """The zones of one camera: false if there are none.

    Inside: in an include zone, or anywhere if there is none, and in no exclude zone.
    """

    all: tuple[Zone, ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Zones:
        """From one text per zone, see `Zone.parse`. Raises ValueError."""
        if len(texts) > MAX_ZONES:
            raise ValueError(f"expected at most {MAX_ZONES} zones, got {len(texts)}: join some of them")
        zones = tuple(map(Zone.parse, texts))
        names = [zone.name for zone in zones]
        if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"expected each name once, got '{repeated[0]}' twice: rename one of the zones")
        return cls(zones) if zones else NO_ZONES

    def __bool__(self) -> bool:
        return bool(self.all)

    def contain(self, xyxy_px: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        """(n,) bool: the boxes, (n, 4), whose bottom centre is inside. size_px: the image's width and height.

        The bottom centre is where an object stands, the usual anchor for zones on the ground.
        """
        x_px, y_px = (xyxy_px[:, 0] + xyxy_px[:, 2]) / 2, xyxy_px[:, 3]
        points = np.clip(np.stack((x_px, y_px), axis=1) / np.array(size_px, np.float64), 0.0, 1.0)
        inside = np.full(len(points), all(zone.exclude for zone in self.all))
        for zone in sorted(self.all, key=lambda zone: zone.exclude):
            contained = zone.contains(points)
            inside = inside & ~contained if zone.exclude else inside | contained
        return inside

    def reach(self, xyxy_px: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        """(n,) bool: the boxes, (n, 4), of which some part is inside, to 1/100 of the picture."""
        mask = self.mask((100, 100))
        box = xyxy_px * np.tile(100.0 / np.array(size_px), 2)
        corners = np.concatenate([np.floor(box[:, :2]), np.ceil(box[:, 2:])], axis=1).astype(int)
        return np.array([mask[y0:y1, x0:x1].any() for x0, y0, x1, y1 in corners.tolist()], bool)

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """(h, w) uint8: 255 for pixels that are at least partly inside, or next to one, otherwise 0.

        What an exclude zone leaves free is lost where it is narrower than a pixel.
        """
        mask = np.full(shape[:2], 255 if all(zone.exclude for zone in self.all) else 0, np.uint8)
        for zone in sorted(self.all, key=lambda zone: zone.exclude):
            # OpenCV's integer coordinates are centres of pixels.
            at = (zone.vertices * (shape[1], shape[0]) - 0.5) * 2**_SUBPIXEL_BITS
            value = (0 if zone.exclude else 255,)
            cv2.fillPoly(mask, [at.round().astype(np.int32)], value, shift=_SUBPIXEL_BITS)
        # Filling takes in the pixels on the border, which are partly outside an exclude zone.
        return cv2.dilate(mask, np.ones((3, 3), np.uint8))


NO_ZONES = Zones()


@lru_cache(MAX_ZONES)  # A parameter is parsed several times until it is set.
def _vertices(text: str) -> np.ndarray:
    """(n, 2) from "X,Y X,Y ..."; a repeated first vertex at the end is left out. Raises ValueError."""
    pairs = text.split()
    if len(pairs) > MAX_VERTICES + 1:
        raise ValueError(f"expected 3 to {MAX_VERTICES} vertices, got {len(pairs)}")
    try:
        vertices = np.array([[float(value) for value in pair.split(",")] for pair in pairs])
        if vertices.ndim != 2 or vertices.shape[1] != 2:
            raise ValueError
    except ValueError:
        raise ValueError(f"expected vertices X,Y separated by spaces, got '{text:.100}'") from None
    bad = ~((vertices >= 0.0) & (vertices <= 1.0)).all(axis=1)
    if bad.any():
        raise ValueError(
            f"expected fractions of the picture, 0..1, got {pairs[int(bad.argmax())]:.50}: divide pixels by "
            "the picture's width and height"
        )
    if len(vertices) > 1 and (vertices[0] == vertices[-1]).all():
        vertices = vertices[:-1]
    if not 3 <= len(vertices) <= MAX_VERTICES:
        raise ValueError(f"expected 3 to {MAX_VERTICES} vertices, got {len(vertices)}")
    _check_simple(vertices)
    return vertices


def _check_simple(vertices: np.ndarray) -> None:
    """Raise ValueError for a polygon without area, or whose border crosses or touches itself."""
    area = cv2.contourArea(cv2.convexHull(vertices.astype(np.float32)))
    if area < MIN_AREA:
        raise ValueError(f"expected an area of at least {MIN_AREA:g} of the picture, got {area:.2g}")
    n = len(vertices)
    a, b = np.triu_indices(n, 1)
    p, q, r, s = vertices[a], vertices[(a + 1) % n], vertices[b], vertices[(b + 1) % n]
    on_one_side = (_cross(q - p, r - p) * _cross(q - p, s - p) > 0) | (
        _cross(s - r, p - r) * _cross(s - r, q - r) > 0
    )
    apart = (np.maximum(p, q) < np.minimum(r, s)) | (np.maximum(r, s) < np.minimum(p, q))
    # Neighbouring edges share a vertex; they must not run back on each other.
    folded = (_cross(q - p, s - r) == 0) & (((q - p) * (s - r)).sum(axis=1) <= 0)
    neighbours = (b == a + 1) | ((a == 0) & (b == n - 1))
    meet = np.where(neighbours, folded, ~on_one_side & ~apart.any(axis=1))
    if meet.any():
        first = int(meet.argmax())
        raise ValueError(
            f"expected a border that does not cross or touch itself, got edges {a[first] + 1} and "
            f"{b[first] + 1} that meet: list the vertices in order around the zone"
        )


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The z component of the cross product of (..., 2) vectors."""
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
