"""Runs jobs on the nodes of a Ray cluster.

A node needs the same Python, packages and edge_vision as the machine that starts the jobs, which is checked
before. It finds files by their content: at the same path, as in a shared folder, or in its cache; a file that
it lacks is sent to it once. Jobs of a lost node run again on another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_vision import __version__
from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles.store import cache_dir, sha256_of
from edge_vision.core.missing_package import install_command
from edge_vision.errors import EdgeVisionError
from edge_vision.offline.executor import Executor, Job, JobContext
from edge_vision.offline.provenance import cpu_model

ADDRESS = "auto"
RETRIES = 3
"""How often a job runs again after its node or its process was lost."""
UNSCHEDULABLE_S = 30.0
"""A node that is lost may come back within this time."""
_PROBE_S = 120.0
"""For the answers of all nodes to the check; a node starts its first process in 10 s."""
_REACHABLE_S = 10.0
_PERIOD_S = 0.5
_CHECK_PERIOD_S = 5.0
_FILES = "offline"
"""Below the cache: files that were sent to this node, SHA-256/NAME."""
_PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless", "opencv-python")
"""Those that a result depends on."""
_CPU = "processor"


def is_installed() -> bool:
    """Whether Ray is. A folder of that name is not enough."""
    try:
        return bool(metadata.version("ray"))
    except metadata.PackageNotFoundError:
        return False


class RayCluster(Executor):
    """address: of the head node, host:port, or "auto" for the cluster of this machine, which is a node of it.

    jobs: at once, None for as many as the cluster has processors. same_cpu: whether all nodes must have this
    machine's model of processor, so that measured times can be compared.
    """

    def __init__(self, address: str | None = None, jobs: int | None = None, same_cpu: bool = False) -> None:
        """Connect and check all nodes. Raises EdgeVisionError."""
        if not is_installed():
            raise EdgeVisionError(f"--executor ray: package ray is not installed: {install_command('ray')}")
        # Ray reports usage to its makers unless this is set; also set it where nodes are started.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        self._jobs = jobs
        _connect(ray, address or ADDRESS)
        self._check_versions(same_cpu)

    def slots(self, n_jobs: int) -> int:
        """See Executor."""
        cpus = int(sum(node.get("CPU", 0) for node in self._nodes().values()))
        return max(1, min(n_jobs, self._jobs or cpus))

    def run(
        self,
        jobs: Sequence[Job],
        on_done: Callable[[str, Any], None],
        on_progress: Callable[[Sequence[Any]], None] = lambda reports: None,
    ) -> bool:
        """See Executor."""
        self._check_resources(jobs)
        run = _Run(self._ray, jobs, self._jobs or 2 * self.slots(len(jobs)))
        checked_s = fits_s = time.monotonic()
        try:
            while run.unfinished:
                for name, result in run.step():
                    on_done(name, result)
                on_progress(run.reports())
                now_s = time.monotonic()
                if now_s - checked_s > _CHECK_PERIOD_S:
                    checked_s = now_s
                    left = list(run.unfinished.values())
                    fits_s = fits_s if self._unschedulable(left) else now_s
                    if now_s - fits_s > UNSCHEDULABLE_S:
                        self._check_resources(left)
            return True
        except KeyboardInterrupt:
            return False
        finally:
            run.close()

    def _nodes(self) -> dict[str, Mapping[str, float]]:
        """Id of each node that is alive -> its resources."""
        return {one["NodeID"]: one["Resources"] for one in self._ray.nodes() if one["Alive"]}

    def _unschedulable(self, jobs: Collection[Job]) -> list[Job]:
        most = max((node.get("CPU", 0.0) for node in self._nodes().values()), default=0.0)
        return [job for job in jobs if job.cpus > most]

    def _check_resources(self, jobs: Collection[Job]) -> None:
        """Raises EdgeVisionError if a job would wait for ever, as Ray lets it."""
        if waiting := self._unschedulable(jobs):
            most = max(job.cpus for job in waiting)
            shown = ", ".join(f"{one.get('CPU', 0):g}" for one in self._nodes().values()) or "no node"
            raise EdgeVisionError(
                f"{waiting[0].name}: expected a node with {most} processors, got {shown}; add a node with "
                f"`ray start --address HOST:PORT --num-cpus {most}`"
            )

    def _check_versions(self, same_cpu: bool) -> None:
        """Raises EdgeVisionError if a node differs in what results depend on, or does not answer."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        probe = self._ray.remote(num_cpus=0, max_retries=0)(_versions)
        refs = {}
        for node, resources in self._nodes().items():
            if resources.get("CPU"):
                strategy = NodeAffinitySchedulingStrategy(node, soft=False)
                refs[probe.options(scheduling_strategy=strategy).remote()] = _address(resources)
        if not refs:
            raise EdgeVisionError(
                "expected a cluster with processors, got none; add a node with `ray start --address "
                "HOST:PORT`"
            )
        done, silent = self._ray.wait(list(refs), num_returns=len(refs), timeout=_PROBE_S)
        problems = [f"{refs[ref]} did not answer within {_PROBE_S:.0f} s" for ref in silent]
        ours, errors = _versions(), self._ray.exceptions
        for ref in done:
            try:
                problems += _differences(refs[ref], ours, self._ray.get(ref), same_cpu)
            except (errors.NodeDiedError, errors.TaskUnschedulableError):
                continue  # A node that was just lost.
            except errors.RayError as error:
                problems.append(f"{refs[ref]}: edge_vision cannot be imported: {_last_line(error)}")
        if problems:
            raise EdgeVisionError(f"the nodes of the cluster cannot be used: {'; '.join(problems)}")


class _Run:
    """The state of one run. unfinished: jobs without a result, by name."""

    def __init__(self, ray: Any, jobs: Sequence[Job], in_flight: int) -> None:
        self._ray, self._in_flight = ray, in_flight
        self.unfinished = {job.name: job for job in jobs}
        self._waiting = deque(jobs)
        self._running: dict[Any, Job] = {}
        self._sent: dict[str, list[Any]] = {}
        self._lost: Counter[str] = Counter()
        self._remote = ray.remote(max_retries=0)(_run)
        self._mailbox = ray.remote(num_cpus=0, max_restarts=-1)(_Mailbox).remote()
        self._mail: Any = None

    def step(self) -> list[tuple[str, Any]]:
        """Submit what there is room for, and wait for a while. Name and result of the jobs that are done."""
        while self._waiting and len(self._running) < self._in_flight:
            self._submit(self._waiting.popleft())
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=_PERIOD_S)
        results = []
        for ref in done:
            job = self._running.pop(ref)
            try:
                kind, value = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError:
                raise
            except self._ray.exceptions.RayError as error:
                self._again(job, error)
                continue
            if kind == "error":
                raise value
            if kind == "missing":
                self._send(job, value)
                continue
            self._sent.pop(job.name, None)
            del self.unfinished[job.name]
            results.append((job.name, value))
        return results

    def _submit(self, job: Job) -> None:
        hashes = {file: _sha256(file) for file in job.files}
        contents = dict(self._sent.get(job.name, []))
        task = self._remote.options(num_cpus=job.cpus, name=job.name)
        self._running[task.remote(job, hashes, contents, self._mailbox)] = job

    def _send(self, job: Job, files: Sequence[str]) -> None:
        """Run a job again with the contents of files that its node lacks."""
        sent = self._sent.setdefault(job.name, [])
        if changed := {file for file, _ in sent} & set(files):
            raise EdgeVisionError(
                f"{job.name}: {min(changed)} changed while the job was running; run it again"
            )
        sent += [(file, self._ray.put(Path(file).read_bytes())) for file in files]
        self._waiting.appendleft(job)

    def _again(self, job: Job, error: Exception) -> None:
        self._lost[job.name] += 1
        if self._lost[job.name] > RETRIES:
            raise EdgeVisionError(
                f"{job.name}: its process or node was lost {RETRIES + 1} times: {_last_line(error)}"
            ) from None
        reason = type(error).__name__
        print(f"{job.name}: lost ({reason}), runs again: {self._lost[job.name]}/{RETRIES}", file=sys.stderr)
        self._waiting.appendleft(job)

    def reports(self) -> list[Any]:
        """What the jobs have reported since the last call. The mailbox is emptied in the background."""
        found: list[Any] = []
        if self._mail is not None and self._ray.wait([self._mail], timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):  # With its node, progress is lost.
                found = self._ray.get(self._mail)
            self._mail = None
        if self._mail is None:
            self._mail = self._mailbox.take.remote()
        return found

    def close(self) -> None:
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._ray.kill(self._mailbox)


class _Mailbox:
    """Collects what jobs report."""

    def __init__(self) -> None:
        self._reports: list[Any] = []

    def put(self, report: Any) -> None:
        self._reports.append(report)

    def take(self) -> list[Any]:
        taken, self._reports = self._reports, []
        return taken


class _NodeContext(JobContext):
    def __init__(self, mailbox: Any, paths: Mapping[str, str]) -> None:
        self._mailbox, self._paths = mailbox, paths

    def report(self, progress: Any) -> None:
        self._mailbox.put.remote(progress)

    def stopped(self) -> bool:
        return False

    def path(self, file: str) -> str:
        return self._paths[file]


def _run(job: Job, hashes: Mapping[str, str], contents: Mapping[str, Any], mailbox: Any) -> tuple[str, Any]:
    """On a node: ("done", the result), ("missing", the files that it lacks) or ("error", the error)."""
    import cv2
    import ray

    cv2.setNumThreads(1)
    try:
        for file, content in contents.items():
            _keep(file, hashes[file], ray.get(content))
        paths = {file: _local_path(file, sha256) for file, sha256 in hashes.items()}
        if missing := [file for file, path in paths.items() if path is None]:
            return "missing", missing
        found = {file: path for file, path in paths.items() if path is not None}
        return "done", job.function(job.argument, _NodeContext(mailbox, found))
    except EdgeVisionError as error:
        return "error", error


def _local_path(file: str, sha256: str) -> str | None:
    """The file on this node with this content; None if it has none."""
    for path in (Path(file), _kept(file, sha256)):
        if path.is_file() and _sha256(str(path)) == sha256:
            return str(path)
    return None


def _keep(file: str, sha256: str, content: bytes) -> None:
    path = _kept(file, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)


def _kept(file: str, sha256: str) -> Path:
    # With its own name, which is in results.
    return cache_dir() / _FILES / sha256 / Path(file).name


def _sha256(file: str) -> str:
    status = os.stat(file)
    return _sha256_of_version(file, status.st_size, status.st_mtime_ns)


@cache
def _sha256_of_version(file: str, size: int, mtime_ns: int) -> str:
    return sha256_of(Path(file))


def _connect(ray: Any, address: str) -> None:
    try:
        if address != ADDRESS:
            host, _, port = address.rpartition(":")
            # Ray itself tries for more than a minute.
            socket.create_connection((host, int(port)), _REACHABLE_S).close()
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        text = " ".join(str(error).split())
        if "Version mismatch" in text:
            raise EdgeVisionError(
                f"--address {address}: expected a cluster of the same Ray and Python, got: {text:.300}"
            ) from None
        raise EdgeVisionError(
            f"--address {address}: expected a Ray cluster that this machine is a node of, got: "
            f"{_last_line(error)}; start one with `ray start --head`, and join with `ray start --address "
            f"HOST:PORT`, with --num-cpus 0 where no jobs are to run"
        ) from None


def _versions() -> dict[str, str]:
    """What results depend on, on this machine."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "edge_vision": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    code = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        code.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return {**found, "code of edge_vision": code.hexdigest()[:12], _CPU: cpu_model()}


def _differences(node: str, ours: Mapping[str, str], theirs: Mapping[str, str], same_cpu: bool) -> list[str]:
    """One text per difference."""
    names = [name for name in dict.fromkeys((*ours, *theirs)) if same_cpu or name != _CPU]
    return [
        f"{node}: expected {name} {ours.get(name, 'not installed')}, got {theirs.get(name, 'not installed')}"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def _address(resources: Mapping[str, float]) -> str:
    """The address of a node, which is the name of a resource that it alone has."""
    names = [name for name in resources if name.startswith("node:") and name != "node:__internal_head__"]
    return names[0].removeprefix("node:")


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:300] if lines else type(error).__name__
