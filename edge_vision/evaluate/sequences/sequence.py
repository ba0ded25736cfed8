"""One constructed sequence: a background, a camera path, objects, a foreground, and light."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from edge_vision.evaluate.conditions import GroundTruth
from edge_vision.evaluate.sequences import actors, backgrounds, camera, compose, light
from edge_vision.evaluate.sequences.cutouts import Cutout

OUT_OF_VIEW_FRAMES = 60


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A foreground piece. affine: (2, 3), its pixels to a layer that moves `ratio` times the background."""

    picture: Cutout
    affine: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """The frames between two cuts. path: (n, 4), see camera.py. first_id: of the background's objects."""

    background: str
    path: np.ndarray
    visits: list[actors.Visit]
    foreground: tuple[Standing, ...] = ()
    ratio: float = 1.0
    first_id: int = 0

    def fixtures(self) -> list[GroundTruth]:
        """Per frame, the visible objects of the background. One that reappears gets a new id."""
        truths: list[GroundTruth] = [[] for _ in self.path]
        object_id = self.first_id
        for label, box in backgrounds.FIXTURES.get(self.background, ()):
            last_seen = -OUT_OF_VIEW_FRAMES
            for at, state in enumerate(self.path):
                part = compose.visible_part(box, camera.to_screen(state))
                if part is not None:
                    object_id += at - last_seen >= OUT_OF_VIEW_FRAMES
                    last_seen = at
                    truths[at].append((object_id, part, label))
            object_id += 1
        return truths


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """Consecutive shots under one light. seed: of the noise."""

    shots: tuple[Shot, ...]
    light: light.SequenceLight
    seed: int
    n: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", sum(len(shot.path) for shot in self.shots))

    def fingerprint(self) -> str:
        """A hash of paths, plans, light and pieces, and of the code that draws them."""
        digest = hashlib.sha256(_DRAWING_CODE)
        for shot in self.shots:
            digest.update(shot.path.tobytes() + repr((shot.background, shot.ratio)).encode())
            digest.update(repr(backgrounds.FIXTURES.get(shot.background, "")).encode())
            digest.update(backgrounds.background(shot.background).tobytes())
            for visit in shot.visits:
                digest.update(repr(visit).encode())
                digest.update(visit.sprite.fingerprint.encode())
            for piece in shot.foreground:
                digest.update(piece.affine.tobytes() + piece.picture.color.tobytes())
        digest.update(self.light.gain.tobytes() + self.light.offset.tobytes())
        for one in self.light.lamps:
            digest.update(one.field.tobytes() + one.on.tobytes())
        settings = (self.seed, self.light.gamma, self.light.sigma, self.light.shot, self.light.quality)
        digest.update(repr(settings).encode())
        return digest.hexdigest()

    def truths(self) -> Iterator[GroundTruth]:
        """The ground truth of each frame, without drawing it."""
        for shot in self.shots:
            played = zip(shot.path, actors.play(shot.visits, shot.path), shot.fixtures(), strict=True)
            for state, placed, fixtures in played:
                screen = camera.to_screen(state)
                yield fixtures + [seen for one in placed if (seen := _placement(one, screen)[1])]

    def render(self) -> Iterator[tuple[np.ndarray, GroundTruth]]:
        """Each image, (360, 640, 3) uint8 BGR, and its ground truth."""
        rng = np.random.default_rng(self.seed)
        at = 0
        for shot in self.shots:
            large = backgrounds.background(shot.background)
            played = zip(shot.path, actors.play(shot.visits, shot.path), shot.fixtures(), strict=True)
            for state, placed, fixtures in played:
                image, truth = _picture(large, shot, state, placed)
                yield self.light.on(rng, image, at), fixtures + truth
                at += 1


def _picture(
    large: np.ndarray, shot: Shot, state: np.ndarray, placed: list[actors.Placed]
) -> tuple[np.ndarray, GroundTruth]:
    screen = camera.to_screen(state)
    size = (camera.WIDTH_PX, camera.HEIGHT_PX)
    image = cv2.warpAffine(large, screen, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    truth: GroundTruth = []
    for one in placed:
        affine, seen = _placement(one, screen)
        compose.paste(image, one.sprite.pictures[one.picture], affine)
        if seen is not None:
            truth.append(seen)
    if shot.foreground:
        layer = camera.to_screen(state, shot.path[0, :2], shot.ratio)
        for standing in shot.foreground:
            affine = layer[:, :2] @ standing.affine
            affine[:, 2] += layer[:, 2]
            compose.paste(image, standing.picture, affine)
    return image, truth


def _placement(
    placed: actors.Placed, screen: np.ndarray
) -> tuple[np.ndarray, tuple[int, compose.Box, str] | None]:
    """(2, 3) affine of an object's picture, and the ground truth of its visible part."""
    affine = compose.placed_affine(placed, screen)
    box = compose.visible_box(placed.sprite.pictures[placed.picture], affine)
    return affine, None if box is None else (placed.object_id, box, placed.sprite.label)


def _drawing_code() -> bytes:
    """The drawing code without comments and layout. Plans are hashed as data, not as code."""
    parts = (
        *(actors.play, actors._steps, actors._way_out, actors._inverse, camera.to_screen, compose),
        *(light.SequenceLight, light.jpeg, light.curve, light.read_noise, light.shot_noise),
        *(light._window, light._noise_bank, light._scaled_noise_bank),
    )
    trees = [ast.dump(ast.parse(inspect.getsource(part))) for part in parts]
    return "".join([*trees, cv2.__version__, np.__version__]).encode()


# Read when the modules are loaded: later edits of the files do not run.
_DRAWING_CODE = _drawing_code()


def foreground(
    rng: np.random.Generator, path: np.ndarray, ratio: float, pictures: tuple[Cutout, ...]
) -> tuple[Standing, ...]:
    """Pieces along the whole path of the layer, with gaps."""
    centre_x, centre_y = path[0, :2]
    low = centre_x + ratio * (path[:, 0].min() - centre_x) - camera.WIDTH_PX / 2
    high = centre_x + ratio * (path[:, 0].max() - centre_x) + camera.WIDTH_PX / 2
    standing, x, turn = [], low + rng.uniform(0, 200), 0
    while x < high:
        picture = pictures[turn % len(pictures)]
        turn += 1
        h, w = picture.alpha.shape
        if h > camera.HEIGHT_PX:
            y, scale = centre_y - h / 2, 1.0
        else:
            scale = float(rng.uniform(0.8, 1.05))
            y = centre_y + camera.HEIGHT_PX / 2 - rng.uniform(0.55, 0.75) * h * scale
        standing.append(Standing(picture, np.array([[scale, 0, x], [0, scale, y]])))
        x += w * scale + rng.uniform(250, 480)
    return tuple(standing)
