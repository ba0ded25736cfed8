"""Whether the results in a folder are of the same options: what took hours is not replaced by mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_vision.optimize.errors import OptimizeError

FLAGS = {"recipe": "recipe", "model": "MODEL", "videos": "--video", "hours": "--budget-hours"}
_FLAGS = FLAGS | {
    "reviews": "digest of the reviews",
    "model_sha256": "digest of the model",
    "clips": "digests of the clips",
}
"""Fields of a request whose options have other names."""


def as_stored(request: Any) -> dict[str, Any]:
    """A request, a dataclass, as JSON has it."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(request)))
    return content


def read_stored(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty without a complete one."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def stored_options(file: Path) -> dict[str, Any]:
    """The content of a JSON file with the options of results; empty without the file. Raises OptimizeError if
    it is damaged."""
    content = read_stored(file)
    if not content and file.exists():
        raise damaged(file, "the options of the results")
    return content


def damaged(file: Path, expected: str) -> OptimizeError:
    """The error for a damaged file without which results cannot be continued."""
    return OptimizeError(
        f"{file}: expected {expected}, got a damaged file: restore it, pass another --out, or --restart to "
        f"delete these results"
    )


def check_same(folder: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise OptimizeError, with the options that differ, unless both requests are the same."""
    names = [name for name in {**given, **stored} if given.get(name) != stored.get(name)]
    if names:
        differing = "; ".join(
            f"{_FLAGS.get(name, '--' + name.replace('_', '-'))} was {_shown(stored.get(name))}, got "
            f"{_shown(given.get(name))}"
            for name in names
        )
        raise OptimizeError(
            f"{folder}: expected the options of the results in it, got others: {differing}. Pass the same "
            f"options to continue, another --out, or --restart to delete these results"
        )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
