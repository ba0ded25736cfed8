"""The real Triton of nvidia-pytriton with a bundle's graph on ONNX Runtime: same arguments as v2_server.py.

Runs on a Python of its own, named by EDGE_VISION_TRITON_PYTHON: nvidia-pytriton 0.7.0 needs numpy below 2. It
also needs onnxruntime and PyYAML there.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import sysconfig
from typing import Any

import numpy as np
from v2_server import NUMPY, described, opened, parser, wait_for

PYTHON = "EDGE_VISION_TRITON_PYTHON"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    library = sysconfig.get_config_var("LIBDIR")
    if library not in os.environ.get("LD_LIBRARY_PATH", ""):  # Triton's stub loads this Python's library.
        os.environ["LD_LIBRARY_PATH"] = f"{library}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    from pytriton.model_config import ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    options = parser().parse_args()
    name, session = opened(options)

    def infer(requests: list[Any]) -> list[dict[str, np.ndarray]]:
        names = [one.name for one in session.get_outputs()]
        return [dict(zip(names, session.run(names, dict(one.items())), strict=True)) for one in requests]

    def tensors(values: list[Any]) -> list[Tensor]:
        found = map(described, values)
        return [
            Tensor(name=one["name"], dtype=NUMPY[one["datatype"]], shape=tuple(one["shape"])) for one in found
        ]

    port = options.port or free_port()
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=free_port(),
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        inputs, outputs = tensors(session.get_inputs()), tensors(session.get_outputs())
        triton.bind(name, infer, inputs=inputs, outputs=outputs, config=ModelConfig(batching=False))
        triton.run()
        wait_for(f"http://127.0.0.1:{port}/v2/models/{name}/ready")
        print("PORT", port, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
