"""How int8 is made for a backend on this processor, and why.

On x86 without VNNI or AMX, runtimes multiply u8 by s8 with vpmaddubsw, which adds two products in 16 bits and
saturates silently: 255 * 127 * 2 overflows. Weights of 7 bits (`reduce_range`; NNCF's `overflow_fix` is
the same idea) avoid that. Sources: Intel, "Lower Numerical Precision Deep Learning Inference and
Training" (2018); ONNX Runtime's documentation on quantization, "When and why do I need to try U8U8".
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass

SAFE_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Flags in /proc/cpuinfo of processors that add u8 by s8 products in 32 bits."""
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True, slots=True)
class Int8Recipe:
    """activations, weights: u8 or s8. reduce_range: weights of 7 bits. library_default: `quantize_static`
    with its default arguments. symmetric: s8 activations around 0 and biases in fp32, as TensorRT's parser
    requires. fp32_stem: the first layers stay in fp32, see `stem`."""

    activations: str
    weights: str
    per_channel: bool
    reduce_range: bool
    why: str
    library_default: bool = False
    symmetric: bool = False
    fp32_stem: bool = False

    @property
    def largest_weight(self) -> int:
        """The largest magnitude of a quantized weight."""
        return 64 if self.reduce_range else 127


def int8_recipe(backend: str, flags: Collection[str], machine: str = "") -> Int8Recipe:
    """The recipe for a backend on a processor with these flags.

    u8 activations with s8 weights have the fast kernels of ONNX Runtime and OpenVINO on x86: s8 by s8 was
    slower than fp32 in both. OpenVINO reads the same QDQ graph. For ONNX Runtime on x86 the stem stays in
    fp32: OpenVINO gains nothing by it, and ARM was not measured.
    """
    if backend.startswith("tensorrt"):
        return Int8Recipe("s8", "s8", True, False, "TensorRT requires s8 around 0", symmetric=True)
    if backend == "litert":
        return Int8Recipe("u8", "s8", True, False, "LiteRT's kernels add in 32 bits on all processors")
    machine = machine or platform.machine()
    if machine.lower() not in ("x86_64", "amd64", "i686", "x86"):
        return Int8Recipe("u8", "s8", True, False, f"{machine} multiplies 8-bit integers without saturation")
    stem = backend == "onnxruntime"
    found = [flag for flag in SAFE_FLAGS if flag in flags]
    if found:
        why = f"this processor has {', '.join(found)}: no saturation"
        return Int8Recipe("u8", "s8", True, False, why, fp32_stem=stem)
    why = "this processor has neither VNNI nor AMX: 8-bit weights would saturate, so they have 7 bits"
    return Int8Recipe("u8", "s8", True, True, why, fp32_stem=stem)


LIBRARY_DEFAULT_RECIPE = Int8Recipe(
    "s8", "s8", False, False, "the quantizer's default arguments", library_default=True
)
