#!/usr/bin/env python3
"""Evaluates clips on one and two hosts of a Ray cluster: `make bench-ray`. Writes out/bench/ray_hosts.json.

The hosts are network namespaces of this machine, connected by a virtual cable, each with a file system for
/dev/shm and a cache of its own, and pinned to one core. Needs root, `ip`, two cores, and Ray.

speed_up    wall time of an evaluation on one host / on two, from the start of the command to its end, without
            the start of the cluster; medians of alternating runs.
identical   1 if all runs, the local one included, have the same results_sha256.
lost        1 if they also have it after the second host is killed in the middle of a run.
frame_ms    CPU time per frame, of the run in local processes: every-frame reference, gates and baselines.
scan_ms     per frame, on the machine of the command alone: reading the times of all frames before the start.
refused_s   until a job that needs more processors than any node has is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
from parts.benchmark import finish, make_parser
from parts.common import REPO, Row, at_least, at_most, script_environment

sys.path[:0] = [str(REPO / "test" / "unit")]

from ray_cases import RayNode, python_path  # noqa: E402

from edge_vision.bundles.store import bundles_dir  # noqa: E402
from edge_vision.evaluate.reference.clips import clip_condition  # noqa: E402
from edge_vision.offline.provenance import machine, versions  # noqa: E402
from edge_vision.offline.ray_cluster import is_installed  # noqa: E402

HOSTS = (("ev-host-a", "10.86.0.1", 0), ("ev-host-b", "10.86.0.2", 1))
"""Namespace, address, core."""
ADDRESS = f"{HOSTS[0][1]}:6379"
SPEED_UP = 1.7
_EXAMPLES = """examples:
  python bench/ray_hosts.py                       about ten minutes
  python bench/ray_hosts.py --rounds 1 --clips 6
  python bench/ray_hosts.py --strict              exit status 1 where a target is missed"""
_REFUSED = """
import sys
from edge_vision.errors import EdgeVisionError
from edge_vision.offline.executor import Job
from edge_vision.offline.ray_cluster import RayCluster
cluster = RayCluster(sys.argv[1])
try:
    cluster.run([Job("big", print, 0, cpus=3)], print)
except EdgeVisionError as error:
    print(error)
"""


def main() -> int:
    parser = make_parser("ray_hosts", __doc__, _EXAMPLES)
    parser.add_argument("--clips", type=int, default=12, help="parts of the video")
    parser.add_argument("--frames", type=int, default=60, help="of each")
    parser.add_argument("--rounds", type=int, default=3, help="runs on one host and on two")
    options = parser.parse_args()
    _check()
    result: dict[str, Any] = {"machine": machine(), "versions": versions()}
    with tempfile.TemporaryDirectory(prefix="ev-ray-") as name, _network():
        folder = Path(name)
        clips = _clips(options.video, folder, options.clips, options.frames)
        result |= {"clips": len(clips), "frames": options.frames}
        begin_s = time.process_time()
        for clip in clips:
            clip_condition(clip)
        result["scan_ms"] = (time.process_time() - begin_s) * 1e3 / (len(clips) * options.frames)
        result |= _measured(clips, folder, options.rounds)
    return finish(options, result, _rows(result))


def _check() -> None:
    if not is_installed():
        raise SystemExit("expected Ray, which is not installed: pip install 'ray>=2.60'")
    if os.geteuid() != 0 or not shutil.which("ip") or (os.cpu_count() or 1) < 2:
        raise SystemExit("expected root, the program `ip` (package iproute2) and two cores")


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """The namespaces, with a cable between them."""
    (a, a_address, _), (b, b_address, _) = HOSTS
    try:
        _ip("netns", "add", a)
        _ip("netns", "add", b)
        _ip("link", "add", "ev-a", "netns", a, "type", "veth", "peer", "name", "ev-b", "netns", b)
        for space, device, address in ((a, "ev-a", a_address), (b, "ev-b", b_address)):
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", device)
            for one in ("lo", device):
                _ip("-n", space, "link", "set", one, "up")
        yield
    finally:
        for space in (a, b):
            subprocess.run(["ip", "netns", "del", space], check=False, stderr=subprocess.DEVNULL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _clips(video: Path, folder: Path, count: int, frames: int) -> list[Path]:
    """Consecutive parts of a video, as files."""
    if not video.is_file():
        raise SystemExit(f"expected a video at {video}: run `make setup`, which fetches one, or give --video")
    capture = cv2.VideoCapture(str(video))
    clips = []
    for number in range(count):
        clips.append(folder / f"part{number}.avi")
        writer = None
        for _ in range(frames):
            read, image = capture.read()
            if not read:
                raise SystemExit(f"{video}: expected {count * frames} frames, got fewer; try --clips")
            if writer is None:
                size = (image.shape[1], image.shape[0])
                writer = cv2.VideoWriter(str(clips[-1]), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
            writer.write(image)
        assert writer is not None
        writer.release()
    return clips


def _host(number: int) -> list[str]:
    """The beginning of a command on a host."""
    space, _, core = HOSTS[number]
    own = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    return ["ip", "netns", "exec", space, "unshare", "-m", "taskset", "-c", str(core), "sh", "-c", own, "sh"]


def _cache(folder: Path) -> dict[str, str]:
    """The environment with a new cache that has the bundles only: every inference is computed."""
    folder.mkdir()
    (folder / "bundles").symlink_to(bundles_dir())
    return {"EDGE_VISION_CACHE": str(folder)}


class _Hosts:
    """The cluster, of one host or two. It is started for each run, with empty caches."""

    def __init__(self, count: int, folder: Path) -> None:
        # The evaluation itself runs on the first host.
        self.env = _cache(folder / "cache0")
        self.nodes = [
            RayNode(
                ADDRESS,
                1,
                is_head=number == 0,
                prefix=_host(number),
                env={**python_path(REPO), **(self.env if number == 0 else _cache(folder / f"cache{number}"))},
            )
            for number in range(count)
        ]

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.lose()


def _evaluation(clips: Sequence[Path], out: Path, *executor: str) -> list[str]:
    videos = [argument for clip in clips for argument in ("--video", str(clip))]
    command = [sys.executable, "-m", "edge_vision", "evaluate", "gate", *videos, "--out", str(out)]
    return [*_host(0), *command, *executor]


def _environment(own: dict[str, str]) -> dict[str, str]:
    return {**script_environment(), **python_path(REPO), **own}


def _run(
    clips: Sequence[Path], folder: Path, hosts: int, lose_after_s: float | None = None
) -> dict[str, Any]:
    """An evaluation; 0 hosts: in local processes of the first. lose_after_s: kill the second host then."""
    folder.mkdir()
    cluster = _Hosts(hosts, folder) if hosts else None
    env = _environment(cluster.env if cluster else _cache(folder / "cache0"))
    executor = ["--executor", "ray", "--address", ADDRESS] if cluster else ["--jobs", "1"]
    try:
        begin_s = time.monotonic()
        command = _evaluation(clips, folder / "out", *executor)
        child = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if cluster and lose_after_s is not None:
            time.sleep(lose_after_s)
            cluster.nodes.pop().lose()
        text, _ = child.communicate()
        took_s = time.monotonic() - begin_s
    finally:
        if cluster:
            cluster.close()
    if child.returncode:
        raise SystemExit(f"the evaluation failed with status {child.returncode}:\n{text}")
    report = json.loads((folder / "out" / "report.json").read_text())
    again = [line for line in text.splitlines() if "runs again" in line]
    print(f"{folder.name}: {took_s:.1f} s, {report['results_sha256']:.12}", *again, sep="\n  ", flush=True)
    return {"took_s": took_s, "results_sha256": report["results_sha256"], "runs_again": again}


def _refused(folder: Path) -> dict[str, Any]:
    """A job for three processors, on two hosts with one each."""
    folder.mkdir()
    cluster = _Hosts(2, folder)
    try:
        begin_s = time.monotonic()
        command = [*_host(0), sys.executable, "-c", _REFUSED, ADDRESS]
        done = subprocess.run(command, env=_environment(cluster.env), capture_output=True, text=True)
        return {"took_s": time.monotonic() - begin_s, "text": done.stdout.strip() or done.stderr}
    finally:
        cluster.close()


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _measured(clips: Sequence[Path], folder: Path, rounds: int) -> dict[str, Any]:
    before_s = _children_cpu_s()
    result: dict[str, Any] = {"local": _run(clips, folder / "local", 0), "one": [], "two": []}
    result["local"]["cpu_s"] = _children_cpu_s() - before_s
    for number in range(rounds):
        for hosts, name in ((1, "one"), (2, "two")) if number % 2 == 0 else ((2, "two"), (1, "one")):
            result[name].append(_run(clips, folder / f"{name}{number}", hosts))
    half_s = statistics.median(one["took_s"] for one in result["two"]) / 2
    result["lost"] = _run(clips, folder / "lost", 2, half_s)
    result["refused"] = _refused(folder / "refused")
    print(result["refused"]["text"])
    return result


def _rows(result: dict[str, Any]) -> list[Row]:
    one_s, two_s = (statistics.median(run["took_s"] for run in result[name]) for name in ("one", "two"))
    hashes = {run["results_sha256"] for run in (result["local"], *result["one"], *result["two"])}
    lost = result["lost"]["results_sha256"] in hashes and bool(result["lost"]["runs_again"])
    refused, local_s, cpu_s = result["refused"], result["local"]["took_s"], result["local"]["cpu_s"]
    took_s = refused["took_s"] if "expected a node with 3 processors" in refused["text"] else None
    return [
        Row("frame_ms", cpu_s * 1e3 / (result["clips"] * result["frames"]), "ms"),
        Row("scan_ms", result["scan_ms"], "ms"),
        Row("local_s", local_s, "s", note="local processes of the first host"),
        Row("one_s", one_s, "s"),
        Row("two_s", two_s, "s"),
        at_least("speed_up", one_s / two_s, SPEED_UP, "x"),
        at_least("identical", float(len(hashes) == 1), 1, ""),
        at_least("lost", float(lost), 1, "", "; ".join(result["lost"]["runs_again"])),
        at_most("refused_s", took_s, 30, "s"),
    ]


if __name__ == "__main__":
    sys.exit(main())
