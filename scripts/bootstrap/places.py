"""Where things are: the repository, its environment, the cache, and the error that ends a set-up."""

from __future__ import annotations

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
VENV = REPO / ".venv"
REQUIREMENTS = REPO / "requirements"


class SetupError(Exception):
    """A set-up that cannot go on. The message says what was expected, what came, and what to do."""


def cache_dir() -> Path:
    """$EDGE_VISION_CACHE, else edge_vision below $XDG_CACHE_HOME or ~/.cache; the store of bundles agrees."""
    own = os.environ.get("EDGE_VISION_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "edge_vision"


def clean_env() -> dict[str, str]:
    """This process's environment without what would mislead another Python.

    The ROS wheels start Python a second time and mark that in the environment. A child that inherits the
    mark but not the library path cannot load rclpy, and a path into another .venv loads the wrong one.
    """
    env = dict(os.environ)
    env.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None)
    env.pop("PYTHONHOME", None)
    libraries = [part for part in env.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    if libraries:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(part for part in libraries if "/.venv/" not in part)
    return env
