#!/usr/bin/env python3
"""Runs every example as a reader would, with a pipeline that plays a real clip.

Exit status 1 if one fails.

python examples/check.py                 all of them
python examples/check.py subscriber.py   one of them
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_vision.bundles.store import cache_dir

HERE = Path(__file__).resolve().parent
LIMIT_S = 60.0
END_S = 10.0
CLIPS = ("vtest.avi", "bikes.mp4")
NODE = ("-m", "edge_vision.nodes.cli")


@dataclass(frozen=True)
class Case:
    """How to run an example. {clip} and {out} in its arguments are replaced.

    expected: pattern of a line that it must print. runs_on: it runs until SIGINT, which must end it with
    status 0. needs_pipeline: the same, beside a pipeline. beside: Python commands that run meanwhile.
    """

    expected: str
    arguments: tuple[str, ...] = ()
    needs_pipeline: bool = False
    runs_on: bool = False
    beside: tuple[tuple[str, ...], ...] = ()


CASES = {
    "fixed_camera.py": Case(r"camera: focal length \d+ px, 1\.00 m above the ground", runs_on=True),
    "nav2_obstacles.py": Case(
        r"class \d+ at x=\d+\.\d\d y=-?\d+\.\d\d m",
        needs_pipeline=True,
        beside=(
            (
                str(HERE / "fixed_camera.py"),
                "--width=768",
                "--height=576",
                "--above-ground-m=5",
                "--tilt-deg=20",
            ),
            (
                *NODE,
                "localizer_node",
                "--ros-args",
                "-p",
                "method:=ground",
                "-p",
                "target_frame:=base_footprint",
            ),
        ),
    ),
    "subscriber.py": Case(r"[a-z]+ #\d+ 0\.\d\d at x=\d+ y=\d+", needs_pipeline=True),
    "gate_picture.py": Case(
        r".*: interval, [1-9]\d* regions; so far .+", ("{clip}", "{out}/gate.png", "--frame", "30")
    ),
    "cascade_picture.py": Case(
        r".*: [1-9]\d* crops for \d+ regions, side \d+ px, .+", ("{clip}", "{out}/looks.png", "--frame", "30")
    ),
    "accuracy_picture.py": Case(
        r".*: frame \d+, [1-9]\d* labels, \d+ found, \d+ false", ("{out}/labels.png", "--clip", "{clip}")
    ),
    "extending/backend.py": Case(r"opencv .+ agrees with onnxruntime within .+"),
    "extending/head.py": Case(r"class 1 at \[10\.0, 20\.0, 50\.0, 60\.0\]"),
    "extending/cause.py": Case(r"lens_covered: .+: uncover the lens"),
    "extending/metric.py": Case(r"longest burst: [1-9]\d* frames", ("{clip}", "{out}/metric")),
    "detect_image.py": Case(r".*: [1-9]\d* objects, by .+", ("{clip}", "{out}/found.png", "--frame", "100")),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE")
    wanted = parser.parse_args().examples or sorted(
        path.relative_to(HERE).as_posix() for path in HERE.rglob("*.py") if path != Path(__file__).resolve()
    )
    clip = next(
        (cache_dir() / "video" / name for name in CLIPS if (cache_dir() / "video" / name).exists()), None
    )
    if clip is None:
        print(
            f"expected one of {', '.join(CLIPS)} in {cache_dir() / 'video'}: run `make setup`",
            file=sys.stderr,
        )
        return 1
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    failures = {name: failure(name, clip) for name in wanted}
    for name, text in failures.items():
        print(f"{'FAILED' if text else 'ok    '} {name}{': ' + text if text else ''}")
    return 1 if any(failures.values()) else 0


def failure(name: str, clip: Path) -> str:
    """Why an example fails; "" if it does not."""
    if name not in CASES:
        return f"expected an entry in CASES of {Path(__file__).name}, got none: add what it must print"
    case = CASES[name]
    with tempfile.TemporaryDirectory() as out:
        arguments = [part.format(clip=clip, out=out) for part in case.arguments]
        command = [sys.executable, str(HERE / name), *arguments]
        if not case.needs_pipeline:
            return _failure_of(command, case)
        # In a loop: discovery may take longer than the clip.
        others = [(*NODE, "pipeline", "--source", str(clip), "--loop"), *case.beside]
        with ExitStack() as stack:
            for other in others:
                stack.enter_context(_running([sys.executable, *other]))
            return _failure_of(command, case)


def _failure_of(command: list[str], case: Case) -> str:
    lines: list[str] = []
    with _running(command, stdout=subprocess.PIPE) as process, _limit(process):
        found = _read_until(process, re.compile(case.expected), lines)
        if case.needs_pipeline or case.runs_on:
            process.send_signal(signal.SIGINT)
        for line in process.stdout or ():
            lines.append(line)
    if not found:
        got = "".join(lines[-5:]).strip() or "nothing"
        return f"expected a line like '{case.expected}' within {LIMIT_S:.0f} s, got: {got}"
    return "" if process.returncode == 0 else f"expected exit status 0, got {process.returncode}"


def _read_until(process: subprocess.Popen[str], pattern: re.Pattern[str], lines: list[str]) -> bool:
    for line in process.stdout or ():
        lines.append(line)
        if pattern.fullmatch(line.strip()):
            print(f"       {line.strip()}")
            return True
    return False


@contextmanager
def _limit(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kill the process after LIMIT_S, which closes its output and ends the reader."""
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.start()
    try:
        yield
        process.wait(LIMIT_S)
    finally:
        timer.cancel()


@contextmanager
def _running(command: list[str], stdout: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that has ended when the context exits."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=stdout, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
