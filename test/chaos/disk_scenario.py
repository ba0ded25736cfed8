"""A full disk below the cache, the temporary files and the logs."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from chaos_run import UNFINISHED, ChaosRun, Executable, street_clip
from lifecycle_msgs.msg import Transition

from edge_vision.bundles.store import cache_dir

LOG = "log.jsonl"
_MOUNT = (
    'mount -t tmpfs -o size=1m tmpfs "$0" && cp -a "$1" "$0/cache" && mkdir "$0/tmp" || exit 97; '
    'cat /dev/zero > "$0/filler" 2>&-; shift; exec "$@"'
)


class TmpfsProcess(Executable):
    """A process with a small file system of its own, which is full, mounted in a user namespace."""

    method = "a tmpfs of 1 MB"
    full_at_start = True

    def __init__(self, folder: Path, name: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        disk, cache = folder / "disk", folder / "disk_cache"
        disk.mkdir()
        shutil.copytree(cache_dir() / "bundles", cache / "bundles", symlinks=True)
        self.COMMAND = ("unshare", "-rm", "sh", "-c", _MOUNT, str(disk), str(cache), *Executable.COMMAND)
        places = {
            "EDGE_VISION_CACHE": disk / "cache",
            "TMPDIR": disk / "tmp",
            "ROS_LOG_DIR": disk / "ros_log",
        }
        super().__init__(
            folder, name, *arguments, env={**(env or {}), **{k: str(v) for k, v in places.items()}}
        )
        # Its own mount is visible to others there only.
        self.disk = Path(f"/proc/{self.process.pid}/root{disk}")

    def free(self) -> None:
        (self.disk / "filler").unlink()

    def fill(self) -> None:
        with (self.disk / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(4096)):
                    pass
            except OSError:
                return


class LimitedProcess(Executable):
    """Where user namespaces are not permitted: a process that may not write to any file (RLIMIT_FSIZE)."""

    method = "RLIMIT_FSIZE of 0 for the running process: no user namespace is permitted here"
    full_at_start = False

    def __init__(self, folder: Path, name: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.disk = folder / "disk"
        self.disk.mkdir()
        super().__init__(folder, name, *arguments, env=env)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def fill(self) -> None:
        self._limit(0)

    def _limit(self, size_bytes: int) -> None:
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def disk_full(run: ChaosRun) -> None:
    """The disk is full at the start, has room again, and is full again."""
    kind = TmpfsProcess if _may_mount(run.folder) else LimitedProcess
    run.summary["method"] = kind.method
    log = run.folder / "disk" / LOG
    backend = ("--backend", "onnxruntime" if run.short else "auto")
    arguments = ("--source", street_clip(), "--loop", *backend, "--ros-args", "-p", f"json_log:={log}")
    pipeline = run.launch("pipeline", *arguments, kind=kind)
    run.flow("the disk is full at the start" if kind.full_at_start else "the start")
    if kind.full_at_start:
        _reports_once(run, "the disk is full at the start")
        if not run.short:
            reason = run.received.values["detector"]["backend.selection_reason"]
            run.check("timings of the backends", "not kept, and why", reason, "not kept" in reason)
        pipeline.free()
    _log_lines(run)
    if not run.short or not kind.full_at_start:
        run.received.log.clear()
        pipeline.fill()
        run.flow("the disk is full")
        _reports_once(run, "the disk is full")
        pipeline.free()
        _log_lines(run)
        run.flow("there is room again")
    _check_log(run, pipeline.disk / LOG)
    left = [path.name for pattern in UNFINISHED for path in (pipeline.disk / "cache").rglob(pattern)]
    left += [path.name for path in (pipeline.disk / "tmp").glob("*")]
    run.check("temporary files on the disk", "[]", str(left))
    run.end(pipeline)


def _check_log(run: ChaosRun, path: Path) -> None:
    """Each line is whole, and some line counts those that were lost."""
    lines, torn = [], 0
    for line in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            torn += 1
    run.check("lines in the log that are not JSON", f"0 of {len(lines)}", f"{torn} of {len(lines)}")
    lost = sum(line["lost"] for line in lines if line["event"] == "lines_lost")
    run.check("lost lines that the log counts", "> 0", str(lost), lost > 0)


def _reports_once(run: ChaosRun, when: str) -> None:
    """Write more lines than fit into the last block of the log, and count the reports."""
    run.wait(f"{when}: report", "a line in the log", lambda: _reports(run), lambda: _log_lines(run, 1))
    _log_lines(run)
    most = max(_reports(run).values())
    run.check(f"{when}: reports of a node", "1", str(most))


def _reports(run: ChaosRun) -> Counter[str]:
    return Counter(node for node, text in run.received.log if "json_log" in text)


def _log_lines(run: ChaosRun, count: int = 10) -> None:
    """Let a node write two lines each time."""
    for _ in range(count):
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            run.robot.change_state("cascade", transition)


def _may_mount(folder: Path) -> bool:
    """Whether a user namespace of this user may mount a tmpfs."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)]
    try:
        return (
            sys.platform.startswith("linux")
            and not subprocess.run(command, stderr=subprocess.DEVNULL).returncode
        )
    except OSError:
        return False
