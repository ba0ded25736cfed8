"""Trees of /proc and /sys that tests plant in a folder and then change."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parent / "data" / "sysfs"


def plant(folder: Path, name: str) -> Path:
    """Write the files of a tree, made up after the kernel's documents, below a folder; returns the folder."""
    for line in (DATA / f"{name}.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            path, _, text = line.partition(" = ")
            write(folder, path, text.replace("\\n", "\n"))
    return folder


def write(folder: Path, path: str, text: str) -> None:
    """Give one file another text."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n", "utf-8")
