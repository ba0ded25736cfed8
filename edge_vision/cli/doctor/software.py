"""Checks of Python and ROS packages, required and optional."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from functools import cache

from edge_vision import __version__
from edge_vision.cli.doctor.check import ERROR, INSTALLATION, OK, Check
from edge_vision.cli.doctor.probe import run_probe
from edge_vision.core.missing_package import PYPI_NAMES, install_command

PYTHON = ("numpy", "cv2", "psutil", "yaml")
ROS = (
    "rclpy",
    "builtin_interfaces.msg",
    "diagnostic_msgs.msg",
    "geometry_msgs.msg",
    "lifecycle_msgs.srv",
    "nav_msgs.msg",
    "rcl_interfaces.msg",
    "sensor_msgs.msg",
    "std_msgs.msg",
    "std_srvs.srv",
    "vision_msgs.msg",
)
# Package -> what needs it.
OPTIONAL = {
    "launch_ros": "`ros2 launch`; `ros2 run` and python -m edge_vision.nodes.cli work without it",
    "cv_bridge": "rare image encodings",
    "onnx": "`edge-vision models fetch` and `import`",
    "pynvml": "figures of NVIDIA GPUs",
    "rich": "`edge-vision top`",
    "rosbags": "bags as a source",
    "stereo_msgs": "the localizer",
    "tf2_msgs": "`target_frame` and `method: ground` of the localizer",
}


def checks() -> Iterator[Check]:
    """The installed versions, and what is missing."""
    versions, failures = _imported(PYTHON)
    versions = {"edge_vision": __version__, "python": platform.python_version(), **versions}
    yield _check("python", _names(versions), versions, failures)
    versions, failures = _imported(ROS)
    distribution = _distribution(bool(failures))
    names = [distribution, *_names(versions)]
    yield _check("ros", names, {**versions, "distribution": distribution}, failures)
    versions, _ = _imported(tuple(OPTIONAL))
    yield Check(INSTALLATION, "optional", OK, _optional(versions), versions)


def _optional(versions: dict[str, str]) -> str:
    missing = [_optional_package(name, use) for name, use in OPTIONAL.items() if name not in versions]
    parts = [", ".join(_names(versions))] if versions else []
    return "; ".join(parts + ([f"not installed: {'; '.join(missing)}"] if missing else []))


def _optional_package(name: str, use: str) -> str:
    install = f": {install_command(name)}" if name in PYPI_NAMES else ""
    return f"{name} (for {use}{install})"


def _check(name: str, names: Sequence[str], versions: dict[str, str], failures: dict[str, str]) -> Check:
    if not failures:
        return Check(INSTALLATION, name, OK, ", ".join(names), versions)
    return Check(INSTALLATION, name, ERROR, "; ".join(failures.values()), versions)


def ros_failures() -> list[str]:
    """The ROS packages that nodes need and that cannot be imported, a sentence each."""
    return list(_imported(ROS)[1].values())


def node_failures(ros_args: Sequence[str] = ()) -> list[str]:
    """Why a node cannot start here, a sentence each; empty if it can."""
    result = run_probe("node", *ros_args)
    errors = [str(one["error"]) for one in result.findings if "error" in one] or [result.failure]
    return [f"a node cannot start: {text}" for text in errors if text]


@cache
def _imported(modules: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """(versions, failures) by package: "" for an unknown version, a sentence for a failed import."""
    result = run_probe("modules", *modules)
    versions, failures, last = {}, {}, ""
    for finding in result.findings:
        last = str(finding["module"])
        package = last.partition(".")[0]
        if "version" in finding:
            versions[package] = finding["version"]
        elif "error" in finding:
            failures[package] = _import_failure(package, finding["error"], finding["missing"])
    if result.failure:
        failures[last] = f"the import of {last or ', '.join(modules)} failed: {result.failure}"
        if "RMW implementation identifier" in result.failure:
            failures[last] += "; install the middleware that RMW_IMPLEMENTATION names, or unset it"
    return versions, failures


def _import_failure(package: str, error: str, missing: str | None) -> str:
    if missing is None:
        return f"{package} is installed but cannot be imported: {error}"
    name = missing.partition(".")[0]
    needed_by = "" if name == package else f", which {package} needs,"
    return f"{name}{needed_by} is not installed: {install_command(name)}"


def _names(versions: dict[str, str]) -> list[str]:
    return [f"{name} {version}".strip() for name, version in versions.items()]


def _distribution(failed: bool) -> str:
    name = os.environ.get("ROS_DISTRO")
    if name:
        return f"ROS 2 {name}"
    return "no ROS 2 is sourced" if failed else "ROS 2 from Python packages"
