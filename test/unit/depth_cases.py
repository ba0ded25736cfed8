"""Depth images with known truth: a ray caster for boxes and cylinders before a wall, through a lens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from edge_vision.localize.camera import CameraModel
from edge_vision.localize.depth import DepthImage

WIDTH, HEIGHT, FOCAL = 640, 480, 420.0
LENSES = {
    "pinhole": ("plumb_bob", []),
    "plumb_bob": ("plumb_bob", [-0.28, 0.07, 0.001, -0.0005, 0.0]),
    "equidistant": ("equidistant", [-0.02, 0.004, -0.001, 0.0]),
}


def camera(lens: str = "pinhole") -> CameraModel:
    model, distortion = LENSES[lens]
    matrix = np.array([[FOCAL, 0, 322.0], [0, FOCAL * 1.01, 236.0], [0, 0, 1.0]])
    return CameraModel(matrix, np.array(distortion), WIDTH, HEIGHT, model)


def distorted(normal: np.ndarray, lens: str) -> np.ndarray:
    """(..., 2) where points (x/z, y/z) appear: the formulas of OpenCV's documentation, written out."""
    model, k = LENSES[lens]
    x, y = normal[..., 0], normal[..., 1]
    r2 = x * x + y * y
    if model == "equidistant":
        r = np.sqrt(r2)
        angle = np.arctan(r)
        a2 = angle * angle
        bent = angle * (1 + a2 * (k[0] + a2 * (k[1] + a2 * (k[2] + a2 * k[3]))))
        return normal * np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1.0)[..., None]
    k1, k2, p1, p2, k3 = k or [0.0] * 5
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return np.stack((x * radial + dx, y * radial + dy), axis=-1)


@cache
def pixel_rays(lens: str) -> np.ndarray:
    """(h, w, 3) directions of the pixels' centres, by fixed-point iteration."""
    model = camera(lens)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    seen = (np.stack((x, y), axis=-1) - model.matrix[:2, 2]) / model.matrix.diagonal()[:2]
    normal = seen.copy()
    for _ in range(60):
        normal += 0.8 * (seen - distorted(normal, lens))
    assert np.abs(seen - distorted(normal, lens)).max() < 1e-4
    return np.concatenate((normal, np.ones((HEIGHT, WIDTH, 1))), axis=-1)


@dataclass
class Block:
    """A cuboid, turned about the vertical. center, size: right, down, forward."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw_rad: float = 0.0

    def hit(self, rays: np.ndarray) -> np.ndarray:
        """The depth at which each ray meets it, infinite where it does not (slab method)."""
        c, s = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        origin, half = -turn @ self.center, np.array(self.size) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / (rays @ turn.T)
            first, second = (-half - origin) * inverse, (half - origin) * inverse
        near = np.minimum(first, second).max(axis=-1)
        far = np.maximum(first, second).min(axis=-1)
        return np.where((near <= far) & (near > 0), near, np.inf)


@dataclass
class Post:
    """An upright cylinder. center: right, down, forward."""

    center: tuple[float, float, float]
    radius: float
    height: float

    def hit(self, rays: np.ndarray) -> np.ndarray:
        x, y, z = self.center
        a = rays[..., 0] ** 2 + rays[..., 2] ** 2
        b = rays[..., 0] * x + rays[..., 2] * z
        root = b * b - a * (x * x + z * z - self.radius**2)
        near = (b - np.sqrt(np.maximum(root, 0))) / a
        seen = (root > 0) & (np.abs(near * rays[..., 1] - y) <= self.height / 2)
        return np.where(seen, near, np.inf)


@dataclass
class Picture:
    """depth_m: (h, w), noise-free. numbers: (h, w) uint16, from 1, 0 = wall. points_m: (h, w, 3)."""

    depth_m: np.ndarray
    numbers: np.ndarray
    points_m: np.ndarray

    def box_px(self, number: int) -> np.ndarray:
        rows, columns = np.nonzero(self.numbers == number)
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)

    def truth_m(self, number: int, of_mask: bool = False) -> np.ndarray:
        """(3,) the median of the visible surface, without a mask in the direction of its box's middle."""
        median_m = np.median(self.points_m[self.numbers == number], axis=0)
        if of_mask:
            return median_m
        left, top, right, bottom = self.box_px(number).astype(int)
        column, row = (left + right) // 2, (top + bottom) // 2
        return self.points_m[row, column] / self.points_m[row, column, 2] * median_m[2]


def render(objects: list[Block | Post], lens: str = "pinhole", wall_m: float = 6.0) -> Picture:
    rays = pixel_rays(lens)
    hits = np.stack([np.full(rays.shape[:2], wall_m), *(one.hit(rays) for one in objects)])
    numbers, depth_m = hits.argmin(axis=0).astype(np.uint16), hits.min(axis=0)
    return Picture(depth_m, numbers, rays * depth_m[..., None])


def spoiled(picture: Picture, rng: np.random.Generator, invalid: float = 0.3) -> np.ndarray:
    """(h, w) float32 depths as a sensor gives them: 0.5 % noise, depths between object and wall on three
    pixels on both sides of edges, and a share without depth, half of it in patches."""
    depth_m = picture.depth_m * rng.normal(1, 0.005, picture.depth_m.shape)
    seven = np.ones((7, 7), np.uint8)
    near, far = cv2.erode(picture.depth_m, seven), cv2.dilate(picture.depth_m, seven)
    mixed = near + (far - near) * rng.random(near.shape)
    depth_m = np.where(far > 1.05 * near, mixed, depth_m)
    patches = np.kron(rng.random((HEIGHT // 8, WIDTH // 8)) < invalid / 2, np.ones((8, 8))) > 0
    gone = patches | (rng.random(depth_m.shape) < invalid / 2)
    holes = rng.choice([0.0, np.nan, np.inf, -1.0], depth_m.shape)
    return np.where(gone, holes, depth_m).astype(np.float32)


def in_millimetres(depth_m: np.ndarray) -> np.ndarray:
    return np.nan_to_num(depth_m * 1000, nan=0, posinf=0, neginf=0).clip(0, 65535).astype(np.uint16)


def depth_image(values: np.ndarray, scale: float = 1.0, **fields: object) -> DepthImage:
    return DepthImage(values, 1, "camera", scale, **fields)
