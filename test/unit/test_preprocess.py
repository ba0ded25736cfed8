"""The tensor equals a plain reference, and boxes find their way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import noise_image

from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor
from edge_vision.errors import BundleError

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def reference(frame: Frame, spec: InputSpec) -> np.ndarray:
    """The same in the plainest way: convert, cut or pad, resize, float, normalise, transpose."""
    image = frame.bgr()[..., ::-1].copy() if spec.color == "rgb" else frame.bgr()
    h, w = image.shape[:2]
    if spec.resize == "letterbox":
        ratio = min(spec.width_px / w, spec.height_px / h)
        size = max(1, round(w * ratio)), max(1, round(h * ratio))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        x, y = spec.width_px - size[0], spec.height_px - size[1]
        pad = [spec.pad_value] * 3
        image = cv2.copyMakeBorder(
            image, y // 2, y - y // 2, x // 2, x - x // 2, cv2.BORDER_CONSTANT, value=pad
        )
    elif spec.resize == "center_crop":
        ratio = min(w / spec.width_px, h / spec.height_px)
        cw, ch = round(spec.width_px * ratio), round(spec.height_px * ratio)
        image = image[(h - ch) // 2 :, (w - cw) // 2 :][:ch, :cw]
    image = cv2.resize(image, (spec.width_px, spec.height_px), interpolation=cv2.INTER_LINEAR)
    if spec.color == "gray":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[:, :, None]
    channels = image.shape[2]
    values = (image.astype(np.float64) - spec.mean[:channels]) / np.array(spec.std[:channels])
    if spec.dtype == "uint8":
        values = np.clip(np.rint(values), 0, 255)
    values = values.transpose(2, 0, 1) if spec.layout == "nchw" else values
    return values[None]


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_equals_the_plain_reference(resize, layout, color, dtype):
    mean, std = ((0.0,) * 3, (1.0,) * 3) if dtype == "uint8" else (MEAN, STD)
    spec = InputSpec("images", 64, 48, layout, color, dtype, mean, std, resize, 100)
    preprocessor = Preprocessor(spec)
    for i, (w, h) in enumerate([(160, 120), (200, 90), (50, 130), (33, 21), (160, 120)]):
        frame = Frame(noise_image(w, h, seed=i), 0, "camera")
        tensor, _ = preprocessor.prepare(frame)
        assert tensor.shape == spec.shape and tensor.dtype == dtype and tensor.flags.c_contiguous
        tolerance = {"float32": 1e-5, "float16": 2e-3, "uint8": 0}[dtype]
        np.testing.assert_allclose(
            tensor.astype(np.float64), reference(frame, spec), atol=tolerance, rtol=1e-6
        )


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "bgra8", "rgba8", "8UC3", "8UC4", "mono8", "8UC1"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_every_direct_encoding_equals_conversion_first(encoding, color):
    channels = {"m": 1, "8UC1": 1, "8UC3": 3, "8UC4": 4}.get(encoding) or (4 if "a8" in encoding else 3)
    channels = 1 if encoding == "mono8" else channels
    frame = Frame(noise_image(80, 60, channels), 0, "camera", encoding)
    spec = InputSpec("images", 32, 24, color=color, resize="letterbox")
    tensor, _ = Preprocessor(spec).prepare(frame)
    # Grey of a resized pixel and resized grey differ by rounding.
    np.testing.assert_allclose(tensor, reference(frame, spec), atol=1.01 if color == "gray" else 1e-5)


@pytest.mark.parametrize(
    "encoding", ["yuyv", "uyvy", "bayer_rggb8", "nv12", "mono16", "bgr16", "bayer_gbrg16"]
)
def test_other_encodings_are_converted(encoding):
    rows = 90 if encoding == "nv12" else 60
    image = noise_image(80, rows, 2 if encoding in ("yuyv", "uyvy") else 3 if encoding == "bgr16" else 1)
    image = image.astype(np.uint16) * 257 if encoding.endswith("16") else image
    frame = Frame(image, 0, "camera", encoding)
    spec = InputSpec("images", 32, 24)
    tensor, _ = Preprocessor(spec).prepare(frame)
    np.testing.assert_allclose(tensor, reference(frame, spec), atol=1e-5)


def test_padded_and_read_only_rows_need_no_copy():
    wide = noise_image(100, 60)
    wide.flags.writeable = False
    spec = InputSpec("images", 32, 24)
    tensor, _ = Preprocessor(spec).prepare(Frame(wide[:, :80], 0, "camera"))
    np.testing.assert_allclose(tensor, reference(Frame(wide[:, :80].copy(), 0, "camera"), spec), atol=1e-5)


def test_encodings_may_change_from_frame_to_frame():
    preprocessor = Preprocessor(InputSpec("images", 32, 32, resize="letterbox"))
    for encoding, channels in [("bgr8", 3), ("mono8", 1), ("bgra8", 4), ("bgr8", 3), ("mono8", 1)]:
        frame = Frame(noise_image(80, 60, channels), 0, "camera", encoding)
        tensor, _ = preprocessor.prepare(frame)
        np.testing.assert_allclose(tensor, reference(frame, preprocessor.input_spec), atol=1e-5)


sizes = st.integers(1, 2000)
specs = st.builds(
    InputSpec,
    name=st.just("images"),
    width_px=st.integers(8, 640),
    height_px=st.integers(8, 640),
    resize=st.sampled_from(["stretch", "letterbox"]),
)


@settings(deadline=None, max_examples=200)
@given(specs, sizes, sizes, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_of_the_source_comes_back_from_the_model(spec, width_px, height_px, shares):
    frame = Frame(np.zeros((height_px, width_px), np.uint8), 0, "camera", "mono8")
    _, transform = Preprocessor(spec).prepare(frame)
    x, y = sorted(shares[:2]), sorted(shares[2:])
    xyxy_px = np.array([[x[0] * width_px, y[0] * height_px, x[1] * width_px, y[1] * height_px]])
    xyxy_model = (xyxy_px - transform.offset) / transform.scale
    back = transform.to_source(xyxy_model)
    np.testing.assert_allclose(back, xyxy_px, atol=max(width_px, height_px) * 1e-5 + 1e-3)


@settings(deadline=None, max_examples=100)
@given(specs, sizes, sizes, st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4))
def test_boxes_never_leave_the_image(spec, width_px, height_px, numbers):
    frame = Frame(np.zeros((height_px, width_px), np.uint8), 0, "camera", "mono8")
    _, transform = Preprocessor(spec).prepare(frame)
    box = transform.to_source(np.array([numbers], np.float32))[0]
    assert (box >= 0).all() and (box[[0, 2]] <= width_px).all() and (box[[1, 3]] <= height_px).all()


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
def test_a_painted_rectangle_is_found_where_it_was_painted(resize):
    image = np.zeros((240, 400), np.uint8)
    image[60:180, 120:280] = 255
    spec = InputSpec("images", 200, 160, color="gray", mean=(0.0,), std=(1.0,), resize=resize, pad_value=0)
    tensor, transform = Preprocessor(spec).prepare(Frame(image, 0, "camera", "mono8"))
    ys, xs = np.nonzero(tensor[0, 0] > 127)
    xyxy_model = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    np.testing.assert_allclose(transform.to_source(xyxy_model)[0], [120, 60, 280, 180], atol=2)


def test_std_of_zero_is_refused():
    with pytest.raises(BundleError, match="std not 0"):
        Preprocessor(InputSpec("images", 8, 8, std=(1.0, 0.0, 1.0)))


def test_the_tensor_is_reused():
    preprocessor = Preprocessor(InputSpec("images", 8, 8))
    first, _ = preprocessor.prepare(Frame(noise_image(20, 20), 0, "camera"))
    second, _ = preprocessor.prepare(Frame(noise_image(40, 20), 0, "camera"))
    assert first is second
