"""The message for a package that is not installed: its name, and what installs it."""

from __future__ import annotations

import os
import sys

PYPI_NAMES = {
    **{name: name for name in ("numpy", "psutil", "rich", "onnx", "onnxruntime", "openvino", "pycocotools")},
    **{name: name for name in ("matplotlib", "rosbags", "mcap", "tuf", "cryptography", "prometheus_client")},
    **{name: name for name in ("aiohttp", "ray", "zstandard")},
    "cv2": "opencv-python-headless",
    "yaml": "PyYAML",
    "pynvml": "nvidia-ml-py",
    "jinja2": "Jinja2",
    "securesystemslib": "tuf cryptography",
    "torch": "torch --index-url https://download.pytorch.org/whl/cpu",
}
"""Import name -> name on PyPI."""
_ROS_CORE = ("rclpy", "rcl_interfaces", "lifecycle_msgs", "builtin_interfaces")


def missing_package(error: ModuleNotFoundError) -> str:
    """One sentence: the package that is missing, and what installs it."""
    package = (error.name or str(error)).partition(".")[0]
    return f"package {package} is not installed: {install_command(package)}"


def install_command(package: str, *more: str) -> str:
    """What installs a Python or ROS package, by its import name. `more`: others of PyPI."""
    if package in PYPI_NAMES:
        own = sys.prefix != sys.base_prefix  # A virtual environment.
        pip = f"{sys.executable.removeprefix(os.getcwd() + os.sep)} -m pip" if own else "pip"
        return f"{pip} install {' '.join(PYPI_NAMES[name] for name in (package, *more))}"
    if package in _ROS_CORE:
        return (
            "source ROS 2 (`source /opt/ros/jazzy/setup.bash`), or run `make setup` and use .venv/bin/python"
        )
    if package.endswith(("_msgs", "_srvs", "_interfaces")):
        return (
            f"sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, or without ROS 2 "
            "run `make setup` and use .venv/bin/python"
        )
    return "rosdep install --from-paths . --ignore-src installs what package.xml lists"
