"""Processes that are killed or stopped."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from chaos_run import NODES, ChaosRun, Executable, street_clip

STAGES = ("diagnostics_node", "detector_node", "cascade_node", "gate_node", "source_node")
STOP_S = 10.0
SHORT_STOP_S = 4.0
WATCHDOG_MS = 3000.0
"""Less than a stop, and far more than an inference takes on a loaded machine."""


def kill(run: ChaosRun) -> None:
    """Each node as a process of its own, then the whole pipeline, killed by SIGKILL and started again."""
    chain = Chain(run)
    if run.short:  # Instead of `stop`, whose start takes longer.
        _stop_one(run, chain.processes["gate_node"], "gate", SHORT_STOP_S)
    for name in ("detector_node",) if run.short else STAGES:
        _kill_one(run, chain, name)
    chain.end()
    if not run.short:
        _kill_whole(run)
        _kill_during_start(run)


def stop(run: ChaosRun) -> None:
    """The same, stopped by SIGSTOP for ten seconds and continued."""
    chain = Chain(run)
    for name in STAGES:
        _stop_one(run, chain.processes[name], name.removesuffix("_node"), STOP_S)
    chain.end()
    flooded = ("--ros-args", "-p", "source:playback_rate:=0.0", "-p", "gate:enabled:=false")
    whole = run.launch("pipeline", "--source", street_clip(), "--loop", *flooded)
    run.flow("the whole pipeline")
    _stop_one(run, whole, "", STOP_S)
    run.end(whole)


class Chain:
    """The five nodes as processes, playing a clip."""

    def __init__(self, run: ChaosRun) -> None:
        self._run, self.processes = run, {}
        clip = street_clip()
        self._arguments = {
            "source_node": ("--source", clip, "--loop"),
            "detector_node": ("--ros-args", "-p", f"watchdog_ms:={WATCHDOG_MS}"),
        }
        for name in STAGES:
            self.start(name)
        self.works("five processes")

    def start(self, name: str) -> None:
        self.processes[name] = self._run.launch(name, *self._arguments.get(name, ()))

    def works(self, when: str) -> None:
        """Wait for detections, and for diagnostics that receive the reports of all stages."""
        self._run.flow(when)
        watched, stages = self._run.received, {*NODES[:-1]}
        self._run.wait(f"{when}: diagnostics", "reports of all stages", lambda: watched.watched == stages)
        self._run.no_fault(when)

    def end(self) -> None:
        self._run.end(*self.processes.values())


def _kill_one(run: ChaosRun, chain: Chain, name: str) -> None:
    killed, node = chain.processes[name], name.removesuffix("_node")
    segments, when = shared_memory_of(killed), f"{node} is killed"
    killed.kill()
    if node == "diagnostics":
        run.flow(when)
    else:
        ended = rf"^node_silent: {node} .* process {killed.process.pid} has ended"
        run.output(when, "its name, and that its process has ended", ended)
    dead = [
        other for other, one in chain.processes.items() if other != name and one.process.poll() is not None
    ]
    run.check(f"{when}: the others", "running", f"ended: {dead}" if dead else "running")
    run.check(f"{when}: children", "[]", str(killed.members()))
    chain.start(name)
    run.received.watched.clear()
    chain.works(f"{node} is started again")
    left = [segment for segment in segments if segment.exists()]
    run.check(f"{node} is started again: shared memory of the killed process", "[]", str(left))


def _kill_whole(run: ChaosRun) -> None:
    for round_ in ("first", "second"):
        whole = run.launch("pipeline", "--source", street_clip(), "--loop")
        run.flow(f"the whole pipeline, {round_} start")
        whole.kill()
        run.check(f"the whole pipeline is killed, {round_} time: children", "[]", str(whole.members()))


def _kill_during_start(run: ChaosRun) -> None:
    """While the first load of the model runs in a child process: an empty cache makes it a first load."""
    with tempfile.TemporaryDirectory(dir=run.folder) as empty:
        shutil.copytree(os.environ["EDGE_VISION_CACHE"] + "/bundles", f"{empty}/bundles", symlinks=True)
        starting = run.launch("pipeline", "--source", street_clip(), "--loop", EDGE_VISION_CACHE=empty)
        run.wait("the model is tried in a child process", "a child", lambda: len(starting.members()) > 1)
        starting.kill()
        run.wait("its parent is killed: the child", "ended", lambda: not starting.members())
        left = [path.name for path in Path(empty).glob(".writing-*")]
        run.check("its parent is killed: temporary files", "[]", str(left))


def shared_memory_of(process: Executable) -> list[Path]:
    """The shared memory segments of Fast DDS that a process owns: it has their lock files open."""
    files = {os.path.realpath(file) for file in Path(f"/proc/{process.process.pid}/fd").iterdir()}
    locks = [file for file in files if file.startswith("/dev/shm/fastrtps_") and file.endswith("_el")]
    return [Path(file.removesuffix("_el")) for file in locks if "port" not in file]


def _stop_one(run: ChaosRun, process: Executable, node: str, seconds: float) -> None:
    """Stop a process this long, and until it is named. node: "" for all nodes in one process."""
    when = f"{node or 'the whole pipeline'} is stopped"
    process.process.send_signal(signal.SIGSTOP)
    until_s = time.monotonic() + seconds
    try:
        if node not in ("", "diagnostics"):
            stopped = rf"^node_silent: {node} .* process {process.process.pid} is stopped by a signal"
            run.output(when, "its name, and that a signal has stopped it", stopped)
        run.robot.turns(until_s - time.monotonic())
    finally:
        process.process.send_signal(signal.SIGCONT)
    when = f"{node or 'the whole pipeline'} continues"
    run.flow(when)
    run.no_fault(when)
    run.reports(when)
    values = run.received.values["detector"]
    blamed = [values[f"backend.{key}"] for key in ("failed", "fallback_reason") if values[f"backend.{key}"]]
    blamed += [text for name, text in run.received.log if name == "detector" and "hang" in text]
    run.check(f"{when}: backends that are blamed for it", "[]", str(blamed))
