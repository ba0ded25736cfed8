"""The int8 graph of a shipped bundle, quantized with activation ranges that were measured once.

So making a bundle needs no images, and a version of ONNX Runtime gives the same bytes on every processor.
Weights are rounded to nearest. On six clips without calibration frames, GPTQ would add 0.01 to the F1 with
fp32, but its weights take 0.4 MB; a bias correction with shipped statistics added nothing.
`python -m scripts.calibrate` measures the ranges.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from edge_vision.errors import BundleError
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe

DATA = Path(__file__).parent / "data"
_RECIPE = Int8Recipe("u8", "s8", True, False, "the layers that would saturate stay in fp32")


def quantized(graph: bytes, statistics: str) -> bytes:
    """The QDQ graph of a serialised fp32 one. statistics: file in data/ without its suffix.

    The stem (what precedes the second layer) stays in fp32. The first convolution is the only one of NanoDet
    whose sums saturate on x86 without VNNI (see `int8_recipe`): a quarter of its outputs.
    Raises BundleError if onnxruntime, which quantizes, is not installed.
    """
    ranges = json.loads((DATA / f"{statistics}.json").read_text("utf-8"))["ranges"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "fp32.onnx")
            file.write_bytes(graph)
            model = graph_session.folded(file)
        nodes = [node.name for node in model.graph.node]
        stem = nodes[: nodes.index(list(ptq.layers(model))[1])]
        quantized = ptq.quantize(model, ranges, _RECIPE, fp32_nodes=stem)
    except ImportError as error:
        raise BundleError(
            f"making an int8 graph expects the package onnxruntime, got: {error}; "
            "install it: pip install onnxruntime"
        ) from None
    return bytes(quantized.SerializeToString(deterministic=True))
