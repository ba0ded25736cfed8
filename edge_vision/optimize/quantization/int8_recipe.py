"""How int8 is made for a backend on this processor, and why.

On x86 without VNNI or AMX, runtimes multiply u8 by s8 with vpmaddubsw, which adds two products in 16 bits and
saturates silently: 255 * 127 * 2 does not fit. Weights of 7 bits (`reduce_range`; NNCF's `overflow_fix` is
the same idea) keep it within. Sources: Intel, "Lower Numerical Precision Deep Learning Inference and
Training" (2018); ONNX Runtime's documentation on quantization, "When and why do I need to try U8U8".
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

SAFE_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Of /proc/cpuinfo: u8 by s8 is added in 32 bits."""
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True, slots=True)
class Int8Recipe:
    """activations, weights: u8 or s8. reduce_range: weights of 7 bits. library_default: nothing is set, which
    is what one gets who calls `quantize_static` as its signature stands. symmetric: s8 activations around 0
    and biases in fp32, as TensorRT's parser wants it."""

    name: str
    activations: str
    weights: str
    per_channel: bool
    reduce_range: bool
    why: str
    library_default: bool = False
    symmetric: bool = False

    @property
    def largest_weight(self) -> int:
        """The largest integer of a weight, of either sign."""
        return 64 if self.reduce_range else 127


def int8_recipe(backend: str, flags: Collection[str], machine: str = "") -> Int8Recipe:
    """For a backend on a processor with these flags.

    u8 activations and s8 weights are what both runtimes have their fast kernels for on x86: s8 by s8 was
    slower than fp32 in both. OpenVINO reads the same QDQ graph.
    """
    if backend.startswith("tensorrt"):
        return Int8Recipe("int8", "s8", "s8", True, False, "TensorRT takes s8 around 0", symmetric=True)
    machine = machine or platform.machine()
    if machine.lower() not in ("x86_64", "amd64", "i686", "x86"):
        return Int8Recipe(
            "int8", "u8", "s8", True, False, f"{machine} multiplies 8-bit numbers without saturation"
        )
    found = [flag for flag in SAFE_FLAGS if flag in flags]
    if found:
        return Int8Recipe(
            "int8", "u8", "s8", True, False, f"this processor has {', '.join(found)}: no saturation"
        )
    why = "this processor has neither VNNI nor AMX: full-range weights would saturate, so they have 7 bits"
    return Int8Recipe("int8", "u8", "s8", True, True, why)


LIBRARY_DEFAULT = Int8Recipe(
    "int8_default",
    "s8",
    "s8",
    False,
    False,
    "what the quantizer does where nothing is set",
    library_default=True,
)


def cpu_flags() -> frozenset[str]:
    """The flags of this processor, lower case; empty where the kernel does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    words = [line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))]
    return frozenset(" ".join(words[:1]).lower().split())


def cpu_name() -> str:
    """The processor's name, or its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
