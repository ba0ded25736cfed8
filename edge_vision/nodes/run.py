"""Runs the nodes of one or several cameras in one process: command line, executor, signals, shutdown."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from edge_vision.backends import known_backends
from edge_vision.core.command_line import with_examples
from edge_vision.core.missing_package import missing_package
from edge_vision.core.printable import printable_error, printable_output
from edge_vision.gate.frame_gate import DEFAULT_PRESET, PRESETS
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.specs import PIPELINE, Param
from edge_vision.nodes.parameter_files import startup_error, unmatched_sections
from edge_vision.nodes.transport.intra_process import IntraProcess, TopicConflict
from edge_vision.nodes.transport.shared_memory import remove_abandoned_segments

# Short enough to notice a signal; an idle process wakes four times a second.
SPIN_S = 0.25
SHUTDOWN_LIMIT_S = 1.8
OUT_OF_TIME = "shutdown took longer than"
_CAMERA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_CAMERAS = PIPELINE.param("cameras")


class CameraSetup(NamedTuple):
    """One camera. name: "" if the process serves only one. node_args: for the constructors of its nodes."""

    name: str
    node_args: dict[str, Any]


@printable_output()
def main(
    kinds: Sequence[type[BaseNode]],
    program: str,
    args: list[str] | None = None,
    components: Mapping[str, Callable[[], type[BaseNode]]] = {},
) -> int:
    """Run these nodes until SIGINT or SIGTERM, and those whose parameter of the process is true. Returns the
    exit status."""
    argv = list(sys.argv if args is None else [program, *args])
    stop = _stop_on_signals()
    # OpenCV's thread pool costs more than it saves on small images, and takes cores from the model.
    cv2.setNumThreads(1)
    remove_abandoned_segments()
    try:
        overrides, names = _parse(kinds, program, remove_ros_args(argv)[1:])
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        cameras = camera_setups(names)
        wanted = (load for name, load in components.items() if process_param(PIPELINE.param(name))[0])
        kinds = (*kinds, *(load() for load in wanted))
    except (RuntimeError, ValueError, ModuleNotFoundError) as error:  # Of a parameter file, a remapping.
        missing = missing_package(error) if isinstance(error, ModuleNotFoundError) else ""
        text = missing or startup_error(str(error))
        print(f"{program}: {printable_error(text)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    try:
        run(kinds, overrides, stop, argv, cameras)
    except TopicConflict as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    return 0


def _parse(kinds: Sequence[type[BaseNode]], program: str, argv: list[str]) -> tuple[Any, str | None]:
    """The parameters on the command line by node, and its cameras, None = not given."""
    names = {kind.spec.name for kind in kinds}
    summary = kinds[0].spec.summary if len(kinds) == 1 else _PIPELINE
    parser = argparse.ArgumentParser(
        prog=program, **with_examples(summary, _EXAMPLES.format(program=program))
    )
    parser.add_argument(
        "--cameras", help="run all nodes once for each of these cameras, as in front,rear, with one detector"
    )
    if "source" in names:
        parser.add_argument(
            "--source",
            help="video, bag, /dev/video0, rtsp:// or http:// URL (default: none); {camera} stands for the "
            "name of each camera",
        )
        parser.add_argument("--loop", action="store_true", default=None, help="start a file again at its end")
    if "detector" in names:
        parser.add_argument("--model", help="detector bundle, a name or a folder")
        parser.add_argument("--backend", help=f"auto, {', '.join(known_backends())}")
    if "gate" in names:
        parser.add_argument(
            "--preset",
            choices=("", *PRESETS),
            metavar="PRESET",
            help=f"{', '.join(PRESETS)} (default: {DEFAULT_PRESET})",
        )
    given = vars(parser.parse_args(argv))
    wanted = {
        "source": {"uri": given.get("source"), "loop": given.get("loop")},
        "detector": {"model": given.get("model"), "backend": given.get("backend")},
        "gate": {"preset": given.get("preset")},
    }
    # The launch file passes empty strings for arguments that are not given.
    overrides = {
        node: {k: v for k, v in values.items() if v not in (None, "")} for node, values in wanted.items()
    }
    return overrides, given["cameras"]


_PIPELINE = "The whole pipeline in one process: source, gate, cascade, detector, diagnostics."
_EXAMPLES = """examples:
  {program} --ros-args --params-file config/pipeline.yaml
  {program} --ros-args -r __ns:=/front -r image_raw:=/camera/image_raw
  {program} --cameras front,rear        in the namespaces /front and /rear

All settings are ROS parameters: --ros-args -p name:=value, or a --params-file.
exit codes: 0 stopped in order, 2 wrong arguments, 130 and 143 stopped by a signal before the nodes were up"""


def run(
    kinds: Sequence[type[BaseNode]],
    overrides: dict[str, dict[str, Any]],
    stop: threading.Event,
    ros_args: Sequence[str] = (),
    cameras: Sequence[CameraSetup] = (CameraSetup("", {}),),
) -> None:
    """Create the nodes of each camera, bring them up from the last stage to the first, spin, and shut them
    down in order."""
    nodes: list[BaseNode] = []
    executor = make_executor()
    try:
        for node in create_nodes(kinds, overrides, cameras):
            nodes.append(node)
            executor.add_node(node)
        warn_of_unmatched_sections(nodes, ros_args)
        bring_up(nodes, stop)
        spin(executor, nodes[0], stop)
    finally:
        end(nodes)
        executor.shutdown(0)


def create_nodes(
    kinds: Sequence[type[BaseNode]], overrides: dict[str, dict[str, Any]], cameras: Sequence[CameraSetup]
) -> Iterator[BaseNode]:
    """The nodes of all cameras. In a source's uri, {camera} stands for the camera's name."""
    of_process: dict[type, Any] = {}
    for camera in cameras:
        hub = IntraProcess(of_process)
        for kind in kinds:
            given = dict(overrides.get(kind.spec.name, {}))
            if isinstance(given.get("uri"), str) and camera.name:
                given["uri"] = given["uri"].replace("{camera}", camera.name)
            yield kind(hub, given, **camera.node_args)


def warn_of_unmatched_sections(nodes: Sequence[BaseNode], ros_args: Sequence[str]) -> None:
    """Log the sections and parameters of the given parameter files that reach no node."""
    known = {node.get_fully_qualified_name(): node.params.values() for node in nodes}
    for warning in unmatched_sections(ros_args, known):
        nodes[0].structured_log.log("warning", warning, "parameters")


def make_executor() -> Any:
    """The events executor, which takes a fifth of the CPU of the standard one, if it exists."""
    try:
        from rclpy.experimental import EventsExecutor

        return EventsExecutor()
    except ImportError:
        return SingleThreadedExecutor()


def bring_up(nodes: Sequence[BaseNode], stop: threading.Event) -> None:
    """Configure all nodes, then activate receivers before senders."""
    wanted = [node for node in reversed(nodes) if node.params["autostart"]]
    for node in wanted:
        if not stop.is_set():
            node.trigger_configure()
    for node in sorted(wanted, key=lambda node: node.spec.name == "source"):
        if not stop.is_set() and node.state == "inactive":
            node.bring_up()


def spin(executor: Any, node: BaseNode, stop: threading.Event) -> None:
    """Run callbacks until the stop. An exception in a callback is logged, and does not end the process."""
    while not stop.is_set():
        try:
            executor.spin_once(timeout_sec=SPIN_S)
        except ExternalShutdownException:
            return
        except Exception as error:  # For example, an invalid life-cycle request.
            node.log_throttled("error", f"a callback failed: {error}. Please report this")


def end(nodes: Sequence[BaseNode]) -> None:
    """Stop the nodes from the first stage to the last, each with a last status."""
    for node in nodes:
        node.stop()
    for node in nodes:
        # Before the models are freed: the status names them.
        if rclpy.ok():
            node.publish_status()
    for node in nodes:
        node.free()
        node.destroy_node()


def _stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set. Further signals are ignored: a terminal and `ros2 launch` both
    send one. A watchdog limits the time of the shutdown."""
    stop = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)  # Also while Python exits, when it runs no handlers.
        stop.set()
        # A hanging driver or a long model load must not delay the exit beyond two seconds.
        watchdog = threading.Timer(SHUTDOWN_LIMIT_S, _leave)
        watchdog.daemon = True
        watchdog.start()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def _leave() -> None:
    print(f"{OUT_OF_TIME} {SHUTDOWN_LIMIT_S} s: unfinished work is abandoned", file=sys.stderr, flush=True)
    os._exit(0)


def camera_setups(option: str | None) -> list[CameraSetup]:
    """The cameras of the command line option, or of the parameter without one. Needs rclpy.init. Raises
    ValueError if a name is invalid."""
    given, base = process_param(_CAMERAS)
    names = checked_names(option.split(",") if option else given)
    # For a node, __ns of its own precedes that of the process.
    own = {name: {"cli_args": ["--ros-args", "-r", f"__ns:={base}/{name}"]} for name in names}
    return [CameraSetup(name, args) for name, args in (own or {"": {}}).items()]


def process_param(param: Param) -> tuple[Any, str]:
    """A parameter of the process, and its namespace. Needs rclpy.init. Raises ValueError."""
    node = Node(
        PIPELINE.name,
        start_parameter_services=False,
        enable_rosout=False,
        automatically_declare_parameters_from_overrides=True,
    )
    try:
        given = node.get_parameter_or(param.name).value
        return param.default if given is None else param.check(given), node.get_namespace().rstrip("/")
    finally:
        node.destroy_node()


def checked_names(names: Sequence[str]) -> list[str]:
    """The names of cameras, stripped. Raises ValueError unless they are different names of namespaces."""
    stripped = [name.strip() for name in names]
    for i, name in enumerate(stripped):
        problem = "twice" if name in stripped[:i] else "" if _CAMERA_NAME.fullmatch(name) else "as a name"
        if problem:
            raise ValueError(
                "cameras: expected different names of letters, digits and underscores, no digit first, as in "
                f"front,rear; got '{name:.80}' {problem}"
            )
    return stripped
