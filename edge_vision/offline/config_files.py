"""Locates the files of config/."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def config_file(name: str) -> Path | None:
    """A file of config/, in the checkout or the installed package; None if there is none."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    folders = [Path(__file__).resolve().parents[2] / "config"]
    folders += [Path(prefix) / "share" / "edge_vision" / "config" for prefix in prefixes if prefix]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
