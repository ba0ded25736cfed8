"""What this machine is: its Python, ROS 2 or none, and the system tools that are missing."""

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

from bootstrap.places import SetupError

OLDEST = (3, 10)
NEWEST_OF_WHEELS = (3, 13)
"""The ROS wheels on the registry end here."""


@dataclass(frozen=True)
class Machine:
    """ros: the sourced ROS distribution, or "" where rclpy comes from wheels."""

    ros: str

    @property
    def tag(self) -> str:
        """Names what a compiled file depends on."""
        return f"{sys.implementation.cache_tag}-{platform.machine()}"


def look() -> Machine:
    """Find out which of the two kinds this machine is. Raises SetupError when it is neither."""
    if sys.version_info[:2] < OLDEST:
        raise SetupError(
            f"expected Python {_dotted(OLDEST)} or newer, got {platform.python_version()} "
            f"({sys.executable}); name another one: make ... PYTHON=python3.12"
        )
    if os.environ.get("AMENT_PREFIX_PATH"):
        _require_rclpy()
        _require_vision_msgs()
        return Machine(os.environ.get("ROS_DISTRO") or "unknown")
    _require_wheels()
    return Machine("")


def system_python_with_ros() -> str | None:
    """The system's Python if ROS is sourced for it and not for the one that runs; None else."""
    system = "/usr/bin/python3"
    if not os.environ.get("AMENT_PREFIX_PATH") or has_rclpy() or not os.path.exists(system):
        return None
    return None if os.path.samefile(system, sys.executable) else system


def has_rclpy() -> bool:
    """True when rclpy is importable and compiled for the Python that runs."""
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
            "name the Python that your ROS was built for, as in `make ... PYTHON=/usr/bin/python3`, "
            "or start from a shell without ROS, and the wheels are used"
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
            f"no ROS 2 is sourced, and for {platform.system()} {platform.machine()} there are no ROS wheels "
            "(only for Linux x86_64); install ROS 2 Jazzy or newer and source it first:\n"
            "    source /opt/ros/jazzy/setup.bash"
        )
    if platform.libc_ver()[0] != "glibc":
        raise SetupError(
            "no ROS 2 is sourced, and the ROS wheels need glibc (Debian, Ubuntu, Fedora, ...), "
            "which this system lacks; source ROS 2 first, or use another system"
        )
    if sys.version_info[:2] > NEWEST_OF_WHEELS:
        raise SetupError(
            f"no ROS 2 is sourced, and the ROS wheels are for Python {_dotted(OLDEST)} to "
            f"{_dotted(NEWEST_OF_WHEELS)}, got {platform.python_version()}; "
            f"name another Python (make ... PYTHON=python{_dotted(NEWEST_OF_WHEELS)}) or source ROS 2"
        )


def require_tools(*, compiler: bool) -> None:
    """Raises SetupError with the one line that installs all that is missing."""
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
