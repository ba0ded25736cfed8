"""Packages: downloaded once into the cache, installed from there. pip verifies the sha256 of every file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bootstrap.locks import Pin, as_text
from bootstrap.paths import SetupError, cache_dir, clean_env
from bootstrap.progress import ReadLine, Step, run

BUILD_TOOLS = ("setuptools", "wheel", "packaging")
"""Installed first: one ROS package is a source distribution, and its build must not download anything."""


def install(
    python: Path, pins: Sequence[Pin], step: Step, log: Path, *, again: bool = False, index: str = ""
) -> None:
    """Install pinned packages into the environment of `python`. Raises SetupError.

    index: URL of an additional registry. again: reinstall every package, because an interrupted installation
    may have left one incomplete, which pip takes for installed.
    """
    first = [pin for pin in pins if pin.name in BUILD_TOOLS]
    rest = [pin for pin in pins if pin.name not in BUILD_TOOLS]
    for group in (first, rest):
        if group:
            _install_group(python, group, step, log, again, index)


def _install_group(python: Path, pins: Sequence[Pin], step: Step, log: Path, again: bool, index: str) -> None:
    """Install from the cache; if packages are missing there, download them first."""
    (cache_dir() / "wheels").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edge-vision-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(as_text(pins))
        try:
            _from_cache(python, requirements, len(pins), step, log, again)
        except SetupError:
            _fetch(python, requirements, len(pins), step, log, index)
            _from_cache(python, requirements, len(pins), step, log, again)


def _fetch(python: Path, requirements: Path, count: int, step: Step, log: Path, index: str) -> None:
    """Uses the user's pip configuration (mirrors, certificates); the hashes decide what is accepted."""
    argv = [python, "-m", "pip", "download", *_flags(requirements), "--progress-bar", "off"]
    argv += ["--retries", "2", "--dest", cache_dir() / "wheels"]
    argv += ["--extra-index-url", index] if index else []
    step.show("searching for missing packages")
    try:
        run(argv, env=_pip_env(), read=_counter("downloading", count), step=step, log=log)
    except SetupError as error:
        raise SetupError(
            f"packages could not be downloaded: {error}\n"
            "Check the network. Without one, copy the cache folder of a machine that is set up: "
            f"{cache_dir()}"
        ) from None


def _from_cache(python: Path, requirements: Path, count: int, step: Step, log: Path, again: bool) -> None:
    """Uses neither the network nor the user's pip configuration."""
    argv = [python, "-m", "pip", "--isolated", "install", *_flags(requirements), "--no-index"]
    argv += ["--find-links", cache_dir() / "wheels", "--no-warn-script-location"]
    argv += ["--ignore-installed"] if again else []
    run(argv, env=_pip_env(), read=_counter("installing", count), step=step, log=log)


def _flags(requirements: Path) -> list[str | os.PathLike[str]]:
    # The lock includes all dependencies. Build isolation would download build tools without a hash.
    flags: list[str | os.PathLike[str]] = ["--require-hashes", "--no-deps", "--no-build-isolation"]
    return [*flags, "--disable-pip-version-check", "--no-input", "-r", requirements]


def _pip_env() -> dict[str, str]:
    """Without PYTHONPATH: packages of a sourced ROS must not count as installed in the environment."""
    env = clean_env()
    for name in ("PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV"):
        env.pop(name, None)
    return env


def _counter(verb: str, count: int) -> ReadLine:
    seen = 0

    def read(line: str) -> str | None:
        nonlocal seen
        words = line.split()
        if line.startswith(("Collecting ", "Processing ")):
            seen += 1
            return f"{verb} {min(seen, count)}/{count} {re.split('[=-]', Path(words[1]).name)[0]}"
        if line.startswith("Installing collected"):
            return "installing, writing files"
        if line.startswith("Successfully installed"):
            return f"installed {len(words) - 2}"
        return None

    return read
