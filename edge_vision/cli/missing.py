"""The message for a package that is not installed: its name, and the command that installs it."""

from __future__ import annotations

from edge_vision.nodes.cli import remedy

# Import name -> name on PyPI.
REQUIRED = {"numpy": "numpy", "cv2": "opencv-python-headless", "psutil": "psutil", "yaml": "PyYAML"}
OPTIONAL = {
    "rich": "rich",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "pynvml": "nvidia-ml-py",
    "pycocotools": "pycocotools",
    "matplotlib": "matplotlib",
    "jinja2": "Jinja2",
}


def install_command(module: str) -> str:
    """What installs the package of a module."""
    root = module.partition(".")[0]
    distribution = {**REQUIRED, **OPTIONAL}.get(root)
    return f"pip install {distribution}" if distribution else remedy(module)


def missing_package(error: ModuleNotFoundError) -> str:
    """One sentence: the package that is missing, and how to install it."""
    module = error.name or ""
    name = module.partition(".")[0] or str(error)
    return (
        f"package {name} is not installed. Install it: {install_command(module).removeprefix('Install it: ')}"
    )
