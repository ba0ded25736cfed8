"""Packages: Python's and ROS's, required and optional."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from functools import cache

from edge_vision import __version__
from edge_vision.cli.doctor.check import ERROR, INSTALLATION, OK, Check
from edge_vision.cli.doctor.probe import ask
from edge_vision.nodes.cli import remedy

PYTHON = {"numpy": "numpy", "cv2": "opencv-python-headless", "psutil": "psutil", "yaml": "PyYAML"}
ROS = (
    "rclpy",
    "builtin_interfaces.msg",
    "diagnostic_msgs.msg",
    "lifecycle_msgs.srv",
    "nav_msgs.msg",
    "rcl_interfaces.msg",
    "sensor_msgs.msg",
    "std_msgs.msg",
    "std_srvs.srv",
    "vision_msgs.msg",
)
# What goes without, and for what one would want it.
OPTIONAL = {
    "launch_ros": "`ros2 launch`; without it: `ros2 run`, or python -m edge_vision.nodes.cli",
    "cv_bridge": "rare image encodings",
    "onnx": "making the known bundles: pip install onnx",
    "pynvml": "figures of NVIDIA GPUs: pip install nvidia-ml-py",
    "rich": "python -m edge_vision top: pip install rich",
}


def look() -> Iterator[Check]:
    """What is installed, and what is missing."""
    versions, failures = _imported(tuple(PYTHON))
    told = [f"edge_vision {__version__}", f"Python {platform.python_version()}", *_words(versions)]
    yield _check("python", told, {**versions, "python": platform.python_version()}, failures)
    versions, failures = _imported(ROS)
    told = [_distribution(bool(failures)), *_words(versions)]
    yield _check("ros", told, {**versions, "distribution": _distribution(bool(failures))}, failures)
    versions, failures = _imported(tuple(OPTIONAL))
    lacking = [f"{name} (for {OPTIONAL[name]})" for name in OPTIONAL if name not in versions]
    text = ", ".join(_words(versions)) + ("; " if versions and lacking else "")
    text += f"not there: {'; '.join(lacking)}" if lacking else ""
    yield Check(INSTALLATION, "optional", OK, text, versions)


def _check(name: str, told: Sequence[str], versions: dict[str, str], failures: dict[str, str]) -> Check:
    if not failures:
        return Check(INSTALLATION, name, OK, ", ".join(told), versions)
    return Check(INSTALLATION, name, ERROR, "; ".join(failures.values()), versions)


def ros_failures() -> list[str]:
    """What nodes lack here, a sentence each."""
    return list(_imported(ROS)[1].values())


def node_failures(ros_args: Sequence[str] = ()) -> list[str]:
    """Why a node cannot start here, a sentence; empty where it can."""
    answer = ask("node", *ros_args)
    told = [str(one["error"]) for one in answer.found if "error" in one] or [answer.trouble]
    return [f"a node cannot start: {text}" for text in told if text]


@cache
def _imported(modules: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Versions of those that can be imported, "" where unknown; of the others what is wrong."""
    answer = ask("modules", *modules)
    versions, failures, trying = {}, {}, ""
    for one in answer.found:
        trying, root = str(one["module"]), str(one["module"]).partition(".")[0]
        if "version" in one:
            versions[root] = one["version"]
        elif "error" in one:
            failures[root] = _failure(root, one["error"], one["missing"])
    if answer.trouble:
        failures[trying] = f"the import of {trying or ', '.join(modules)} failed: {answer.trouble}"
        if "RMW implementation identifier" in answer.trouble:
            failures[trying] += "; install the middleware that RMW_IMPLEMENTATION names, or unset it"
    return versions, failures


def _failure(root: str, error: str, missing: str | None) -> str:
    if missing is None:
        return f"{root} is there and cannot be imported: {error}"
    lacking = missing.partition(".")[0]
    because = "" if lacking == root else f", which {root} needs,"
    how = f"pip install {PYTHON[lacking]}" if lacking in PYTHON else remedy(missing)
    return f"{lacking}{because} is not installed: {how}"


def _words(versions: dict[str, str]) -> list[str]:
    return [f"{name} {version}".strip() for name, version in versions.items()]


def _distribution(failed: bool) -> str:
    """Where ROS comes from."""
    name = os.environ.get("ROS_DISTRO")
    if name:
        return f"ROS 2 {name}"
    return "no ROS 2 is sourced" if failed else "ROS 2 from Python packages"
