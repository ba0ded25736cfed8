"""Builds the packages in interfaces/ with the ROS wheels, for machines without ROS.

The build runs in a temporary folder of the cache with its own environment, so that neither the source tree
nor .venv contains an incomplete build. The result is stored as one archive per Python and input hash, which
other clones unpack.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bootstrap.locks import Pin
from bootstrap.paths import REPO, SetupError, cache_dir, clean_env
from bootstrap.progress import Step, run
from bootstrap.wheels import install

SOURCE = REPO / "interfaces"
PACKAGES = ("vision_msgs", "tf2_msgs")
FOLDERS = ("include", "lib", "share")

_NINJA = re.compile(r"^\[(\d+)/(\d+)\]")
_BUILDER_NUMPY = re.compile(r"/opt/python/[^;\"]*/numpy/_core/include")
_BUILDER_PYTHON = re.compile(r"/opt/python/[^;\"]*/include/python[0-9.]+")


def archive_of(key: str, tag: str) -> Path:
    """The path of the built packages in the cache."""
    return cache_dir() / "interfaces" / f"messages-{tag}-{key[:16]}.tar.gz"


def unpack(archive: Path, venv: Path) -> bool:
    """Unpack the built packages into an environment. A damaged archive is deleted: False."""
    try:
        with tarfile.open(archive) as file:
            members = file.getmembers()
            for member in members:
                # The cache may have been copied from elsewhere; a link could point outside the environment.
                outside = ".." in Path(member.name).parts or member.name.split("/")[0] not in FOLDERS
                if outside or not (member.isfile() or member.isdir()):
                    raise tarfile.TarError(f"unexpected member {member.name}")
            file.extractall(venv, members)
        return True
    except (tarfile.TarError, EOFError, OSError):
        archive.unlink(missing_ok=True)
        return False


def build(archive: Path, pins: Sequence[Pin], step: Step, log: Path) -> None:
    """Build the packages and store them as `archive`. Raises SetupError."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    for interrupted in archive.parent.glob(".building-*"):
        shutil.rmtree(interrupted, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=archive.parent) as folder:
        work = Path(folder)
        step.show("build environment")
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True, env=clean_env())
        install(work / "venv" / "bin" / "python", pins, step, log)
        replace_python_paths(work / "venv")
        for package in PACKAGES:
            _compile(package, work, step, log)
        _pack(work / "stage", work / archive.name)
        os.replace(work / archive.name, archive)


def replace_python_paths(venv: Path) -> None:
    """Replace the build machine's Python paths in the CMake files of the wheels by those of this Python."""
    numpy = next(venv.glob("lib/python*/site-packages/numpy/_core/include"), None)
    if numpy is None:
        raise SetupError(f"{venv}: expected numpy 2 with its headers, got none")
    for file in (venv / "share").rglob("*.cmake"):
        text = file.read_text()
        if "/opt/python/" in text:
            text = _BUILDER_NUMPY.sub(str(numpy), text)
            file.write_text(_BUILDER_PYTHON.sub(sysconfig.get_path("include"), text))


def _compile(package: str, work: Path, step: Step, log: Path) -> None:
    venv, build_folder = work / "venv", work / "build" / package
    env = clean_env()
    env.pop("PYTHONPATH", None)
    env.pop("NINJA_STATUS", None)
    env.update(
        PATH=f"{venv / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}",
        CMAKE_PREFIX_PATH=str(venv),
        AMENT_PREFIX_PATH=str(venv),
    )
    configure = ["cmake", "-S", str(SOURCE / package), "-B", str(build_folder), "-G", "Ninja"]
    configure += ["-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"]
    configure += [
        f"-DCMAKE_INSTALL_PREFIX={work / 'stage'}",
        f"-DPython3_EXECUTABLE={venv / 'bin' / 'python'}",
    ]
    step.show(f"configuring {package}")
    run(configure, env=env, read=lambda _: None, step=step, log=log)
    ninja = [str(venv / "bin" / "ninja"), "-C", str(build_folder), "install"]
    run(ninja, env=env, read=_ninja_progress, step=step, log=log)


def _ninja_progress(line: str) -> str | None:
    match = _NINJA.match(line)
    return f"compiling {match[1]}/{match[2]}" if match else None


def _pack(stage: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:gz") as file:
        for folder in FOLDERS:
            file.add(stage / folder, arcname=folder)
