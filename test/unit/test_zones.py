"""Zones: how they are read, what lies inside, and what the gate watches."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.detection_overlay import draw_zones
from edge_vision.core.geometry.zones import MAX_VERTICES, MAX_ZONES, NO_ZONES, Zone, Zones

WIDTH, HEIGHT = 640, 360
LEFT = "exclude left 0,0 0.5,0 0.5,1 0,1"
YARD = "include yard 0.25,0.25 0.75,0.25 0.75,0.75 0.25,0.75"


def inside(texts: list[str], *bottom_centres: tuple[float, float]) -> list[bool]:
    """Whether boxes that stand at these fractions of the picture are inside."""
    at = np.array(bottom_centres) * (WIDTH, HEIGHT)
    boxes = (np.tile(at, 2) + np.array((-16, -32, 16, 0))).astype(np.float32)
    return Zones.parse(texts).contain(boxes, (WIDTH, HEIGHT)).tolist()


@st.composite
def star(draw) -> np.ndarray:
    """(n, 2) int, a simple polygon on a grid of 1000: its vertices in the order of their directions."""
    angles = np.sort(draw(st.lists(st.floats(0, 6.28), min_size=3, max_size=12, unique=True)))
    radii = draw(st.lists(st.integers(20, 400), min_size=len(angles), max_size=len(angles)))
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (500 + unit * np.array(radii)[:, None]).round().astype(int)


@given(star(), st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1))
def test_membership_is_that_of_opencv(polygon, points):
    zone = Zone("a", False, polygon / 1024)
    points = [*points, *map(tuple, polygon.tolist())]
    contour = polygon.astype(np.int32)
    expected = [cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in points]
    assert zone.contains(np.array(points) / 1024).tolist() == expected


@given(
    st.integers(1, 8), st.lists(st.tuples(st.integers(0, 640), st.integers(0, 360)), min_size=1, max_size=20)
)
def test_membership_does_not_depend_on_the_resolution(scale, points):
    zones = Zones.parse([YARD, "exclude pond 0.3,0.3 0.6,0.3 0.5,0.625"])
    at = np.array(points, np.float32)
    boxes = np.tile(at, 2) + np.array((-8, -8, 8, 0), np.float32)
    small, large = zones.contain(boxes, (640, 360)), zones.contain(boxes * scale, (640 * scale, 360 * scale))
    assert small.tolist() == large.tolist()


def test_an_object_is_inside_where_its_bottom_centre_is():
    assert inside([LEFT], (0.49, 0.9), (0.51, 0.9)) == [False, True]
    assert inside([YARD], (0.5, 0.5), (0.5, 0.76), (0.5, 0.24)) == [True, False, False]


def test_exclude_wins_whatever_the_order():
    for texts in ([LEFT, YARD], [YARD, LEFT]):
        assert inside(texts, (0.4, 0.5), (0.6, 0.5), (0.9, 0.5)) == [False, True, False]


def test_several_include_zones_add_up():
    texts = [YARD, "include gate 0.8,0.8 1,0.8 1,1 0.8,1"]
    assert inside(texts, (0.5, 0.5), (0.9, 1.0), (0.9, 0.5)) == [True, True, False]


def test_a_box_at_the_border_of_the_picture_is_inside_a_zone_that_reaches_it():
    assert inside(["include all 0,0 1,0 1,1 0,1"], (0.5, 1.0), (0.0, 1.0), (1.02, 1.02)) == [True] * 3


def test_no_zones_are_false_and_contain_everything():
    assert not NO_ZONES and Zones.parse([]) is NO_ZONES
    assert inside([], (0.5, 0.5)) == [True]


def test_a_closed_ring_is_the_same_polygon():
    zone = Zone.parse("include a 0,0 1,0 1,1 0,0")
    assert zone.vertices.tolist() == [[0, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    "text,needle",
    [
        ("", "expected 'include NAME X,Y X,Y X,Y'"),
        ("yard 0,0 1,0 1,1", "got 'yard 0,0 1,0 1,1'"),
        ("include my yard 0,0 1,0 1,1", "expected vertices X,Y"),
        ("include ümlaut 0,0 1,0 1,1", "letters, digits"),
        ("exclude a 0,0 1,0", "expected 3 to 64 vertices, got 2"),
        ("exclude a 0,0", "expected 3 to 64 vertices, got 1"),
        ("exclude a " + "x " * 1000, "expected 3 to 64 vertices, got 1000"),
        ("exclude a 0,0 1,0 0,0", "expected 3 to 64 vertices, got 2"),
        ("exclude a 0,0 0.5,0.5 1,1", "expected an area"),
        ("exclude a 0.5,0.5 0.5,0.5 0.5,0.5 0.5,0.6", "expected an area"),
        ("exclude a 0,0 1,1 1,0 0,1", "cross or touch itself, got edges 1 and 3"),
        ("exclude a 0,0 1,0 1,1 0.5,0 0,1", "cross or touch itself"),
        ("exclude a 0,0 1,0 1,1 1,0.5", "cross or touch itself"),
        ("exclude a 0,0 1,0 1,0 1,1", "cross or touch itself"),
        ("exclude a nan,0 1,0 1,1", "expected fractions of the picture, 0..1, got nan,0"),
        ("exclude a 0,0 inf,0 1,1", "got inf,0"),
        ("exclude a 0,0 640,0 640,360", "got 640,0: divide pixels"),
        ("exclude a 0,0 1,-0.1 1,1", "got 1,-0.1"),
        ("exclude a 0,0,0 1,0,0 1,1,1", "expected vertices X,Y"),
        ("exclude a 0,0 1 1,1", "expected vertices X,Y"),
        ("exclude a b c d", "expected vertices X,Y"),
        ("exclude a " + "0,0 " * 100_000, "expected 3 to 64 vertices"),
    ],
)
def test_a_bad_zone_is_refused_with_what_was_expected(text, needle):
    with pytest.raises(ValueError) as caught:
        Zones.parse([text])
    assert "expected" in str(caught.value) and needle in str(caught.value)
    assert len(str(caught.value)) < 400


def test_names_are_unique_and_the_number_is_limited():
    with pytest.raises(ValueError, match="expected each name once, got 'left' twice"):
        Zones.parse([LEFT, YARD, LEFT])
    with pytest.raises(ValueError, match=f"at most {MAX_ZONES} zones, got {MAX_ZONES + 1}"):
        Zones.parse([YARD.replace("yard", f"z{number}") for number in range(MAX_ZONES + 1)])


@given(st.text(max_size=60))
def test_any_text_is_a_zone_or_a_value_error(text):
    for start in ("", "include a ", "exclude b 0,0 "):
        try:
            zone = Zone.parse(start + text)
        except ValueError:
            continue
        assert 3 <= len(zone.vertices) <= MAX_VERTICES and np.isfinite(zone.vertices).all()


@given(star(), st.booleans())
def test_the_mask_follows_the_border_to_a_pixel(polygon, exclude):
    shape = (45, 80)
    mask = Zones((Zone("a", exclude, polygon / 1000),)).mask(shape)
    contour = (polygon / 1000 * (80, 45) - 0.5).astype(np.float32)
    pixels = np.stack(np.meshgrid(np.arange(80.0), np.arange(45.0)), axis=2).reshape(-1, 2)
    inside_px = np.array([cv2.pointPolygonTest(contour, tuple(pixel), True) for pixel in pixels.tolist()])
    inside_px = (-inside_px if exclude else inside_px).reshape(shape)
    assert set(np.unique(mask)) <= {0, 255}
    assert mask[inside_px >= 1.0].all(), "what is inside counts"
    assert not mask[inside_px <= -3.0].any(), "what is outside does not"


def test_a_box_reaches_the_inside_where_any_part_of_it_is():
    zones = Zones.parse([YARD])
    boxes = np.array(
        [[0, 0, 150, 80], [0, 0, 170, 100], [300, 150, 310, 160], [500, 0, 640, 360]], np.float32
    )
    assert zones.reach(boxes, (WIDTH, HEIGHT)).tolist() == [False, True, True, False]


def test_adjacent_exclude_zones_leave_no_seam():
    zones = Zones.parse(["exclude a 0,0 0.37,0 0.37,1 0,1", "exclude b 0.37,0 1,0 1,1 0.37,1"])
    assert not zones.mask((180, 320)).any()


def test_zones_are_drawn_with_their_names():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert draw_zones(image, NO_ZONES) is image and not image.any()
    draw_zones(image, Zones.parse([YARD, LEFT]))
    assert image[269, 400].tolist() == [0, 200, 0], "include is green"
    assert image[300, 320].tolist() == [0, 0, 255], "exclude is red"
    assert math.isclose(image[250:, 500:].mean(), 0), "nothing else"
    assert np.count_nonzero(image) > 5000
