"""Where the files of config/ are."""

from __future__ import annotations

import os
from pathlib import Path


def config_file(name: str) -> Path | None:
    """A file of config/: of the checkout, or of the installed package."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    places = [Path(__file__).resolve().parents[2] / "config"]
    places += [Path(prefix) / "share" / "edge_vision" / "config" for prefix in prefixes if prefix]
    return next((place / name for place in places if (place / name).is_file()), None)
