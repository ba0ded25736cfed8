"""The message for a package that is not installed: its name, and what installs it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

# Import name -> name on PyPI.
PYPI_NAMES = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "psutil": "psutil",
    "yaml": "PyYAML",
    "rich": "rich",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "pynvml": "nvidia-ml-py",
    "pycocotools": "pycocotools",
    "matplotlib": "matplotlib",
    "jinja2": "Jinja2",
    "rosbags": "rosbags",
    "tuf": "tuf",
    "securesystemslib": "tuf",
    "cryptography": "cryptography",
    "torch": "torch --index-url https://download.pytorch.org/whl/cpu",
}
_ROS_CORE = ("rclpy", "rcl_interfaces", "lifecycle_msgs", "builtin_interfaces")


def missing_package(error: ModuleNotFoundError) -> str:
    """One sentence: the package that is missing, and what installs it."""
    package = (error.name or str(error)).partition(".")[0]
    return f"package {package} is not installed: {install_command(package)}"


def install_command(package: str) -> str:
    """What installs a Python or ROS package, by its import name."""
    if package in PYPI_NAMES:
        return f"{_pip()} install {PYPI_NAMES[package]}"
    if package in _ROS_CORE:
        return (
            "source ROS 2 (`source /opt/ros/jazzy/setup.bash`), or run `make setup` and use .venv/bin/python"
        )
    if package.endswith(("_msgs", "_srvs", "_interfaces")):
        return f"sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}"
    return "rosdep install --from-paths . --ignore-src installs what package.xml lists"


def _pip() -> str:
    """pip, of this Python if it is that of a virtual environment."""
    if sys.prefix == sys.base_prefix:
        return "pip"
    python = Path(sys.executable)
    shown = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    return f"{shlex.quote(str(shown))} -m pip"
