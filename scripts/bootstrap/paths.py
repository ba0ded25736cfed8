"""Paths of the repository, its environment and the cache, and the error that ends a set-up."""

from __future__ import annotations

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
VENV = REPO / ".venv"
REQUIREMENTS = REPO / "requirements"


class SetupError(Exception):
    """The set-up cannot continue. The message has what was expected, what was found, and what to do."""


def cache_dir() -> Path:
    """$EDGE_VISION_CACHE, or edge_vision below $XDG_CACHE_HOME or ~/.cache, as in `bundles/store.py`."""
    own = os.environ.get("EDGE_VISION_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "edge_vision"


def clean_env() -> dict[str, str]:
    """The environment for a child process with another Python.

    The ROS wheels restart Python and set a marker variable. A child that inherits the marker without the
    library path cannot load rclpy; a library path into another .venv loads the wrong one.
    """
    env = dict(os.environ)
    env.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    env.pop("PYTHONHOME", None)
    libraries = [part for part in env.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    if libraries:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(part for part in libraries if "/.venv/" not in part)
    return env
