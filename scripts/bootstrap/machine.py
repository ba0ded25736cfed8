"""This machine: its Python, ROS 2 or none, and missing system tools."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bootstrap.paths import SetupError

OLDEST = (3, 10)
NEWEST_OF_WHEELS = (3, 13)
"""The newest Python that the registry has ROS wheels for."""


@dataclass(frozen=True)
class Machine:
    """ros: the sourced ROS distribution, or "" if rclpy comes from wheels."""

    ros: str

    @property
    def tag(self) -> str:
        """Python ABI and processor, on which compiled files depend."""
        return f"{sys.implementation.cache_tag}-{platform.machine()}"


def detect() -> Machine:
    """This machine, with ROS or with wheels. Raises SetupError if neither is possible."""
    if sys.version_info[:2] < OLDEST:
        raise SetupError(
            f"expected Python {_dotted(OLDEST)} or newer, got {platform.python_version()} "
            f"({sys.executable}); use another one: make ... PYTHON=python3.12"
        )
    if os.environ.get("AMENT_PREFIX_PATH"):
        _require_rclpy()
        _require_vision_msgs()
        return Machine(os.environ.get("ROS_DISTRO") or "unknown")
    _require_wheels()
    return Machine("")


def system_python_with_ros() -> str | None:
    """The system's Python if ROS is sourced for it but not for this Python, otherwise None."""
    system = "/usr/bin/python3"
    if not os.environ.get("AMENT_PREFIX_PATH") or has_rclpy() or not os.path.exists(system):
        return None
    return None if os.path.samefile(system, sys.executable) else system


def has_rclpy() -> bool:
    """True if rclpy is importable and compiled for this Python."""
    spec = importlib.util.find_spec("rclpy")
    if spec is None or not spec.submodule_search_locations:
        return False
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    folder = Path(next(iter(spec.submodule_search_locations)))
    return any(file.name.endswith(tuple(suffixes)) for file in folder.glob("_rclpy*"))


def _require_rclpy() -> None:
    if not has_rclpy():
        raise SetupError(
            f"ROS is sourced (AMENT_PREFIX_PATH is set), but {sys.executable} cannot import its rclpy; "
            "use the Python that your ROS was built for, as in `make ... PYTHON=/usr/bin/python3`, "
            "or a shell without ROS to use the wheels"
        )


def _require_vision_msgs() -> None:
    if importlib.util.find_spec("vision_msgs") is None:
        distro = os.environ.get("ROS_DISTRO", "")
        raise SetupError(
            "ROS is sourced, but its vision_msgs is not installed:\n"
            f"    sudo apt install ros-{distro or '$ROS_DISTRO'}-vision-msgs"
        )


def _require_wheels() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"ROS 2 is not sourced, and there are no ROS wheels for {platform.system()} {platform.machine()} "
            "(only for Linux x86_64); install ROS 2 Jazzy or newer and source it first:\n"
            "    source /opt/ros/jazzy/setup.bash"
        )
    if platform.libc_ver()[0] != "glibc":
        raise SetupError(
            "ROS 2 is not sourced, and the ROS wheels need glibc (Debian, Ubuntu, Fedora, ...), "
            "which this system lacks; source ROS 2, or use another system"
        )
    if sys.version_info[:2] > NEWEST_OF_WHEELS:
        raise SetupError(
            f"ROS 2 is not sourced, and the ROS wheels are for Python {_dotted(OLDEST)} to "
            f"{_dotted(NEWEST_OF_WHEELS)}, got {platform.python_version()}; "
            f"use another Python (make ... PYTHON=python{_dotted(NEWEST_OF_WHEELS)}) or source ROS 2"
        )


def require_tools(*, compiler: bool) -> None:
    """Raises SetupError with one line that installs all missing tools."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing.append((f"{python}-venv", "the venv and ensurepip modules of Python"))
    if compiler:
        missing += _missing_for_build(python)
    if missing:
        packages = " ".join(dict.fromkeys(package for package, _ in missing))
        what = ", ".join(dict.fromkeys(name for _, name in missing))
        raise SetupError(f"missing on this system: {what}. Install:\n    sudo apt install {packages}")


def _missing_for_build(python: str) -> list[tuple[str, str]]:
    missing = []
    if not shutil.which("cmake"):
        missing.append(("cmake", "cmake"))
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        missing.append(("gcc", "a C compiler"))
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        missing.append(("g++", "a C++ compiler"))
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        missing.append((f"{python}-dev", f"the headers of Python ({header})"))
    return missing


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
