"""The graphs of `make bench-backends`: two bundles and an SSD in both formats, and three networks of
PyTorch; each also in int8. Made once, in out/bench/models/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from parts.common import REPO

from edge_vision.bundles.store import Bundle, load_bundle, sha256_of
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor

FOLDER = REPO / "out" / "bench" / "models"
CALIBRATION_FRAMES = 32
BUNDLES = {
    "ssdlite_mobilenet_v2": "ssdlite_mobilenet_v2_coco",
    "efficientnet_lite0": "efficientnet_lite0_imagenet",
    "ssd_mobilenet_v2_oidv4": "ssd_mobilenet_v2_oidv4",
}
RANDOM = ("mobilenet_v2", "yolo_nano", "vit_tiny")


@dataclass(frozen=True, slots=True)
class Model:
    """graphs: "onnx fp32", "onnx int8", "tflite fp32" -> file. bundle: None where the weights are random."""

    name: str
    graphs: dict[str, Path]
    bundle: Bundle | None

    @property
    def input_spec(self) -> InputSpec:
        return self.bundle.manifest.input if self.bundle else _network_input(self.name)


def prepare(name: str, calibration: Path) -> Model:
    """Make missing models. calibration: a video that is not used for evaluation."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle(BUNDLES[name]) if name in BUNDLES else None
    if bundle:
        graphs = {f"{g.format} {g.precision}": bundle.verify(g) for g in bundle.manifest.graphs}
    else:
        graphs = {"onnx fp32": _exported(name)}
    spec = bundle.manifest.input if bundle else _network_input(name)
    return Model(name, {**graphs, "onnx int8": _quantized(graphs["onnx fp32"], spec, calibration)}, bundle)


def frames(video: Path, count: int) -> list[Frame]:
    """Frames from all over a video."""
    capture = cv2.VideoCapture(str(video))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    found = []
    for index in np.linspace(0, total - 1, count, dtype=int):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        ok, image = capture.read()
        if ok:
            found.append(Frame(image, int(index) + 1, "camera"))
    capture.release()
    return found


def _network_input(name: str) -> InputSpec:
    from parts.backends.networks import NETWORKS

    size_px = NETWORKS[name].size_px
    return InputSpec(name="images", width_px=size_px, height_px=size_px, std=(255.0,) * 3)


def _exported(name: str) -> Path:
    from parts.backends.networks import NETWORKS

    path = FOLDER / f"{name}-{sha256_of(Path(__file__).with_name('networks.py'))[:12]}.onnx"
    if not path.exists():
        print(f"exporting {name}", flush=True)
        NETWORKS[name].export(path)
    return path


def has_vnni() -> bool:
    """Whether this processor multiplies 8-bit numbers without saturating halfway."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "vnni" in flags or "asimddp" in flags


def _quantized(graph: Path, spec: InputSpec, video: Path) -> Path:
    """ONNX with QuantizeLinear nodes, per channel; in 7 bits where the processor has no VNNI."""
    path = FOLDER / f"int8-{sha256_of(graph)[:12]}{'' if has_vnni() else '-reduced'}.onnx"
    if path.exists():
        return path
    print(f"quantizing {graph.name}", flush=True)
    import logging

    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # It warns of each vector that has no channels.
    logging.getLogger().setLevel(logging.ERROR)
    plain, part = path.with_suffix(".plain"), path.with_suffix(".part")
    # It folds batch norms into convolutions, which would else be quantized apart.
    quant_pre_process(str(graph), str(plain), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(plain),
        str(part),
        _Reader(spec, video),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=not has_vnni(),
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    plain.unlink()
    os.replace(part, path)
    return path


class _Reader:
    """What the calibration asks for: one input after the other, then None."""

    def __init__(self, spec: InputSpec, video: Path) -> None:
        self._inputs = self._read(spec, video)

    @staticmethod
    def _read(spec: InputSpec, video: Path) -> Iterator[dict[str, Any]]:
        preprocessor = Preprocessor(spec)
        for frame in frames(video, CALIBRATION_FRAMES):
            yield {spec.name: preprocessor.prepare(frame)[0].copy()}

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)
