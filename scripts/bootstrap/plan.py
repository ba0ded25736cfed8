"""The steps of each stage, in order. A step runs again only if its key differs from that of its stamp."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bootstrap import interfaces, wheels
from bootstrap.locks import Pin, choose, read_lock
from bootstrap.machine import Machine, require_tools
from bootstrap.paths import REPO, REQUIREMENTS, VENV, SetupError, cache_dir, clean_env
from bootstrap.progress import Step, run
from bootstrap.stamps import Stamps, key_of

STAMPS = VENV / ".edge_vision"
PYTHON = VENV / "bin" / "python"
LOG = STAMPS / "setup.log"
OLD_VENV = ".venv.removing-"

SYSTEM_FIRST = {
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "psutil": "psutil",
    "pyyaml": "yaml",
    "pytest": "pytest",
    "pluggy": "pluggy",
    "iniconfig": "iniconfig",
}
"""With ROS sourced, the system's packages are used: ROS's compiled modules and test plug-ins match them."""


PYTORCH_CPU = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Extra:
    """Packages that only some stages install, or a backend needs. index: URL of an additional registry."""

    title: str
    stages: tuple[str, ...]
    backend: str = ""
    index: str = ""


EXTRAS = {
    "openvino": Extra("OpenVINO", ("test", "bench", "optimize", "train"), "openvino"),
    "litert": Extra("LiteRT", ("test", "bench"), "litert"),
    "tensorrt": Extra("TensorRT for RTX", ("test",), "tensorrt_rtx"),
    "test": Extra("test tools", ("test",)),
    "optimize": Extra("report and scores of the optimizer", ("test", "optimize", "train")),
    "bench": Extra("PyTorch", ("bench", "train"), index=PYTORCH_CPU),
    "top": Extra("terminal view", ("test", "top")),
    "metrics": Extra("metrics for Prometheus", ("test",)),
    "bag": Extra("ROS bags as a source", ("test", "bag")),
    "record": Extra("flight recorder", ("test", "bag")),
    "update": Extra("model updates", ("test",)),
    "web": Extra("pages in the browser", ("test", "web")),
    "evaluate": Extra("plots", ("evaluate",)),
    "docs": Extra("documentation", ("docs",)),
}
"""Lock file -> when it is installed."""
STAGES = {
    "demo": "`make demo`",
    "clips": "`make soak`, and the benchmarks of the pipeline without other packages (180 MB more)",
    "test": "`make test` and `make check`",
    "bench": "`make bench-backends` (200 MB more)",
    "train": "`make bench-train`, `edge-vision optimize train` (200 MB more)",
    "evaluate": "`make evaluate-gate` (200 MB of downloads)",
    "optimize": "`make optimize-demo`",
    "top": "`make top`",
    "bag": "`make demo` with a bag",
    "web": "`make web`",
    "docs": "`make docs`",
}
"""Stage -> the commands that need it. Each includes what the pipeline needs to run."""
DEMO_STAGES = ("demo", "top", "bag", "web", "docs")
"""Stages that need one video and the default detector only."""

Work = Callable[[Step], list[Path] | None]


@dataclass(frozen=True)
class Task:
    """One step, which runs again if its key changes.

    `work` returns the files that it created outside .venv, or None to run again next time.
    """

    name: str
    title: str
    key: str
    work: Work


def tasks_for(stage: str, backend: str, machine: Machine) -> list[Task]:
    """The steps of a stage, in order. backend: also install the packages of this backend."""
    tasks = [Task("venv", f"virtual environment for {_kind(machine)}", _venv_key(machine), _venv(machine))]
    tasks.append(_packages("runtime", "runtime", machine))
    if not machine.ros:
        tasks.append(_packages("ros", "ROS 2 from wheels", machine))
        tasks.append(_interfaces(machine))
    for lock, extra in EXTRAS.items():
        if stage in extra.stages or backend == extra.backend:
            tasks.append(_packages(lock, extra.title, machine, extra.index))
    tasks.append(Task("path", "edge_vision in the environment", key_of(str(REPO)), _link_package))
    if stage in DEMO_STAGES and backend != "litert":
        tasks.append(_videos("demo-video", "video", "bikes"))
        tasks.append(_bundles("bundles", "model bundle", ("nanodet",)))
        return tasks
    tasks.append(_videos("video", "videos"))
    if stage == "evaluate":
        tasks.append(_videos("clips", "clips of the evaluation", "--evaluate"))
    tasks.append(_bundles("more-bundles", "model bundles", ()))
    return tasks


def carry_out(tasks: list[Task], machine: Machine) -> None:
    """Run the steps that are not done. Raises SetupError; steps done so far remain done."""
    stamps = Stamps(STAMPS)
    started = time.monotonic()
    if not _missing(tasks, stamps):
        print(f"set-up: nothing to do ({_kind(machine)}, {VENV})")
        return
    with _one_at_a_time():
        missing = _missing(tasks, stamps)
        require_tools(compiler=_needs_compiler(missing, machine))
        for number, task in enumerate(missing, start=1):
            with Step(f"[{number}/{len(missing)}] {task.title}") as step:
                stamps.drop(task.name)
                files = task.work(step)
                if files is not None:
                    stamps.write(task.name, task.key, files)
    print(f"set-up: done in {time.monotonic() - started:.0f} s ({_kind(machine)}, {VENV})")


def _missing(tasks: list[Task], stamps: Stamps) -> list[Task]:
    if not stamps.is_done(tasks[0].name, tasks[0].key) or not PYTHON.exists():
        return tasks
    return [task for task in tasks if not stamps.is_done(task.name, task.key)]


def _needs_compiler(missing: list[Task], machine: Machine) -> bool:
    keys = [task.key for task in missing if task.name == "interfaces"]
    return bool(keys) and not interfaces.archive_of(keys[0], machine.tag).exists()


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two set-ups with one cache would write the same files. The kernel releases the lock at exit."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "setup.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another set-up to end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _kind(machine: Machine) -> str:
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return f"ROS 2 {machine.ros}, {version}" if machine.ros else f"ROS 2 from wheels, {version}"


def _venv_key(machine: Machine) -> str:
    """A virtual environment contains absolute paths, so it belongs to one folder and one Python."""
    return key_of(str(VENV), machine.ros, machine.tag, sys.version, os.path.realpath(sys.executable))


def _venv(machine: Machine) -> Callable[[Step], list[Path]]:
    def work(step: Step) -> list[Path]:
        for old in REPO.glob(OLD_VENV + "*"):
            shutil.rmtree(old)
        if VENV.exists():
            _remove_old_venv(step)
        STAMPS.mkdir(parents=True)
        options = ["--system-site-packages"] if machine.ros else []
        run(
            [sys.executable, "-m", "venv", *options, VENV],
            env=clean_env(),
            read=lambda _: None,
            step=step,
            log=LOG,
        )
        return []

    return work


def _remove_old_venv(step: Step) -> None:
    """Remove .venv. Raises SetupError if this set-up did not create it: a link, or without the stamps."""
    if VENV.is_symlink() or not STAMPS.is_dir():
        raise SetupError(
            f"{VENV} exists, but was not created by this set-up; move it away and run again:\n"
            f"    mv {VENV} {VENV}.old"
        )
    step.show("removing the one of another Python, ROS or folder")
    # Renamed first: an interrupted removal must not leave a .venv that looks complete.
    old = REPO / f"{OLD_VENV}{os.getpid()}"
    os.rename(VENV, old)
    shutil.rmtree(old)


def _packages(lock: str, title: str, machine: Machine, index: str = "") -> Task:
    path = REQUIREMENTS / f"{lock}.lock"

    def work(step: Step) -> list[Path]:
        pins = read_lock(path)
        if machine.ros:
            pins = _without_system_packages(pins)
        # Remains if the installation is interrupted.
        unfinished = STAMPS / f"{lock}.unfinished"
        again = unfinished.exists()
        unfinished.touch()
        wheels.install(PYTHON, pins, step, LOG, again=again, index=index)
        unfinished.unlink()
        return []

    return Task(
        lock, f"packages: {title}", key_of(path, *([str(sorted(SYSTEM_FIRST))] if machine.ros else [])), work
    )


def _without_system_packages(pins: tuple[Pin, ...]) -> tuple[Pin, ...]:
    """The pins without the packages that the sourced ROS or the system provides to the environment."""
    code = (
        "import importlib.util as u, json, sys\n"
        "def provided(name):\n"
        "    spec = u.find_spec(name)\n"
        "    return spec is not None and not (spec.origin or '').startswith(sys.prefix)\n"
        "print(json.dumps([name for name in sys.argv[1:] if provided(name)]))"
    )
    argv: list[str | Path] = [PYTHON, "-c", code, *SYSTEM_FIRST.values()]
    found = json.loads(
        subprocess.run(argv, env=clean_env(), check=True, capture_output=True, text=True).stdout
    )
    return choose(pins, lambda pin: SYSTEM_FIRST.get(pin.name) not in found)


def _interfaces(machine: Machine) -> Task:
    locks = [REQUIREMENTS / f"{name}.lock" for name in ("ros", "build")]
    key = key_of(machine.tag, interfaces.SOURCE, *locks)

    def work(step: Step) -> list[Path]:
        archive = interfaces.archive_of(key, machine.tag)
        if archive.exists() and interfaces.unpack(archive, VENV):
            step.show("from the cache")
            return []
        pins = {pin.text: pin for lock in locks for pin in read_lock(lock)}
        interfaces.build(archive, tuple(pins.values()), step, LOG)
        if not interfaces.unpack(archive, VENV):
            raise SetupError(f"{archive}: expected the newly built messages, got a damaged file")
        step.show("built")
        return []

    return Task("interfaces", f"messages: {', '.join(interfaces.PACKAGES)}", key, work)


def _link_package(step: Step) -> list[Path]:
    site = next(VENV.glob("lib/python*/site-packages"))
    (site / "edge_vision_repository.pth").write_text(f"{REPO}\n")
    step.show(str(REPO))
    return []


def _videos(task: str, title: str, *options: str) -> Task:
    """Download the videos that fetch_data.py selects with these options."""
    scripts = REPO / "scripts"
    key = key_of(scripts / "fetch_data.py", scripts / "bootstrap" / "clips.py", str(cache_dir()))
    return Task(task, title, key, lambda step: _fetch_videos(options, step))


def _fetch_videos(options: tuple[str, ...], step: Step) -> list[Path] | None:
    left_out: list[str] = []

    def read(line: str) -> str | None:
        if "left out" in line:
            left_out.append(line.strip())
        return line.strip() or None

    run(
        [PYTHON, REPO / "scripts" / "fetch_data.py", *options], env=clean_env(), read=read, step=step, log=LOG
    )
    files = sorted(file for file in (cache_dir() / "video").iterdir() if not file.name.startswith("."))
    step.show("; ".join([", ".join(file.name for file in files), *left_out]))
    # With apt, a later run may succeed.
    return None if left_out and shutil.which("apt-get") else files


def _bundles_key(names: tuple[str, ...]) -> str:
    parts = (
        "bundles/*.py",
        "offline/*.py",
        "optimize/quantization/*.py",
        "model_zoo/*.py",
        "model_zoo/data/*",
    )
    sources = [file for part in parts for file in (REPO / "edge_vision").glob(part)]
    return key_of(*names, *sorted(sources), str(cache_dir()))


def _bundles(task: str, title: str, names: tuple[str, ...]) -> Task:
    """Build these bundles, () for all known ones."""
    return Task(task, title, _bundles_key(names), lambda step: _make_bundles(names, step))


def _make_bundles(names: tuple[str, ...], step: Step) -> list[Path]:
    argv: list[str | Path] = [PYTHON, "-m", "edge_vision", "models", "fetch", *names]
    run(argv, env=clean_env(), read=lambda line: line.strip() or None, step=step, log=LOG, cwd=REPO)
    manifests = sorted((cache_dir() / "bundles").glob("*/bundle.yaml"))
    manifests = [manifest for manifest in manifests if not names or manifest.parent.name in names]
    step.show(", ".join(manifest.parent.name for manifest in manifests))
    return sorted(file for manifest in manifests for file in manifest.parent.iterdir() if file.is_file())
