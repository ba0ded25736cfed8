"""The launch file, started as users start it: `ros2 launch`, on a real clip, in a ROS domain of its own.

Runs where launch_ros and ros2cli are installed and the package was built with colcon and sourced.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import rclpy
from ament_index_python import PackageNotFoundError, get_package_share_directory
from rclpy.context import Context
from ros_cases import Robot, wait_until
from vision_msgs.msg import Detection2DArray

from edge_vision.bundles.store import bundles_dir, cache_dir

CLIP = cache_dir() / "video" / "vtest.avi"
MODEL = bundles_dir() / "nanodet"
LAUNCH_FILE = Path(__file__).parents[2] / "launch" / "pipeline.launch.py"


def _lacking() -> str:
    """What these tests need and this machine lacks, or ""."""
    if not shutil.which("ros2"):
        return "the command ros2 is not installed: source ROS 2"
    if not (CLIP.exists() and MODEL.exists()):
        return f"{CLIP} or {MODEL} is not there: run `make setup`"
    try:
        get_package_share_directory("edge_vision")
    except PackageNotFoundError:
        return "edge_vision is not installed: colcon build, source install/setup.bash"
    return ""


pytestmark = pytest.mark.skipif(bool(_lacking()), reason=_lacking())
# Liveness, not speed: how long anything may take on a loaded machine.
TIMEOUT_S = 60.0


@contextmanager
def launched(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`ros2 launch` in a process group of its own, which is gone afterwards."""
    command = ["ros2", "launch", "edge_vision", "pipeline.launch.py", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def detections(topic: str, domain: int, count: int) -> list[Detection2DArray]:
    """The first messages of a topic that contain an object; fewer after the timeout."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("listener", context=context)
    found: list[Detection2DArray] = []
    node.create_subscription(Detection2DArray, topic, lambda m: found.append(m) if m.detections else None, 5)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    until_s = time.monotonic() + TIMEOUT_S
    while len(found) < count and time.monotonic() < until_s:
        executor.spin_once(timeout_sec=0.2)
    node.destroy_node()
    context.try_shutdown()
    return found


def interrupted(process: subprocess.Popen[str]) -> str:
    """Ctrl-C as from a terminal: to all processes at once. Returns the output; nothing may be left."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert not psutil.wait_procs(children, timeout=TIMEOUT_S)[1], "processes were left behind"
    return output


@pytest.mark.parametrize("composition", ["true", "false"])
@pytest.mark.parametrize("namespace", ["/", "robot/front"])
def test_with_a_source_alone_detections_flow(composition: str, namespace: str, domain: int) -> None:
    with launched(f"source:={CLIP}", f"composition:={composition}", f"namespace:={namespace}") as process:
        found = detections(f"/{namespace.strip('/')}/detections".replace("//", "/"), domain, 3)
        output = interrupted(process)
    assert len(found) >= 3, output
    assert {message.header.frame_id for message in found} == {"camera"}
    assert "Traceback" not in output
    assert output.count("process started") == (1 if composition == "true" else 5)


@pytest.mark.parametrize("composition", ["true", "false"])
def test_two_cameras_share_the_processes(composition: str, domain: int) -> None:
    arguments = ("cameras:=front,rear", "namespace:=robot", f"composition:={composition}")
    with launched(f"source:={CLIP}", *arguments) as process:
        found = [detections(f"/robot/{name}/detections", domain, 3) for name in ("front", "rear")]
        output = interrupted(process)
    assert all(len(one) >= 3 for one in found), output
    assert output.count("process started") == (1 if composition == "true" else 5)


def test_a_profile_of_the_user_is_kept(domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = Path(get_package_share_directory("edge_vision"))
    own = tmp_path / "own.xml"
    own.write_bytes((share / "config" / "fastdds.xml").read_bytes())
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(own))
    with launched("composition:=false", "autostart:=false") as process:
        nodes = wait_for_children(process, 4)
        environments = [child.environ() for child in nodes]
        # `ros2 launch` does not end a process that it starts in the same few ms as it is interrupted.
        wait_for_signal_handlers(nodes)
        interrupted(process)
    assert {e["FASTRTPS_DEFAULT_PROFILES_FILE"] for e in environments} == {str(own)}
    assert {e["FASTDDS_DEFAULT_PROFILES_FILE"] for e in environments} == {
        str(share / "config" / "fastdds.xml")
    }


def test_a_killed_node_is_started_again_and_rejoins(domain: int) -> None:
    with launched(f"source:={CLIP}", "composition:=false", "log_level:=INFO") as process:
        nodes = wait_for_children(process, 5)
        assert len(detections("/detections", domain, 1)) == 1
        (gate,) = (one for one in nodes if any("gate_node" in part for part in one.cmdline()))
        gate.kill()
        gate.wait(TIMEOUT_S)
        wait_for_children(process, 5)
        assert len(detections("/detections", domain, 3)) >= 3
        interrupted(process)


def test_the_updater_is_a_process_beside_the_pipeline(domain: int) -> None:
    with launched(f"source:={CLIP}", "updater:=true") as process:
        nodes = wait_for_children(process, 2)
        wait_for_signal_handlers(nodes)
        assert sum(any("updater_node" in part for part in one.cmdline()) for one in nodes) == 1
        interrupted(process)


@pytest.mark.parametrize(("composition", "processes"), [("true", 1), ("false", 6)])
def test_the_recorder_is_in_the_pipelines_process_or_beside_it(
    domain: int, composition: str, processes: int
) -> None:
    pytest.importorskip("mcap", reason="run `make setup-test`")
    with launched(f"source:={CLIP}", "record:=true", f"composition:={composition}") as process:
        nodes = wait_for_children(process, processes)
        wait_for_signal_handlers(nodes)
        robot = Robot(domain)
        robot.status("recorder", lambda _, values: values["state"] == "active")
        robot.close()
        interrupted(process)


def test_the_metrics_are_a_process_beside_the_pipeline(domain: int) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    from metrics_cases import free_port, scrape

    port = free_port()
    with launched(f"source:={CLIP}", f"metrics_port:={port}", "namespace:=front") as process:
        nodes = wait_for_children(process, 2)
        assert sum(any("edge_vision/metrics" in part for part in one.cmdline()) for one in nodes) == 1
        wait_until(lambda: scrape(port).get(("frames_total", "inferred"), 0) > 3, "metrics of the pipeline")
        assert "Traceback" not in interrupted(process)
    assert scrape(port) == {}


def test_a_port_of_the_metrics_that_is_taken_ends_only_their_process(domain: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = (f"metrics_port:={taken.getsockname()[1]}", "use_respawn:=false")
        with launched(f"source:={CLIP}", *arguments) as process:
            assert len(detections("/detections", domain, 3)) == 3
            wait_for_children(process, 1)
            output = interrupted(process)
    assert "cannot listen on 127.0.0.1" in output and "Traceback" not in output


@pytest.mark.parametrize(("arguments", "expected"), [(["use_sim_time:=true"], True), ([], False)])
def test_simulated_time_is_an_argument(arguments: list[str], expected: bool, domain: int) -> None:
    with launched(*arguments, "autostart:=false") as process:
        robot = Robot(domain)
        assert robot.get("gate", "use_sim_time") is expected
        robot.close()
        interrupted(process)


def wait_for_signal_handlers(nodes: list[psutil.Process]) -> None:
    """Wait until the programs handle SIGTERM, which Python itself does not."""
    until_s = time.monotonic() + TIMEOUT_S
    for node in nodes:
        while not int(_caught_signals(node.pid), 16) >> (signal.SIGTERM - 1) & 1:
            assert time.monotonic() < until_s, f"{node} installed no signal handler"
            time.sleep(0.05)


def _caught_signals(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]


def wait_for_children(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """The node processes. Without a source there is no source_node."""
    until_s = time.monotonic() + TIMEOUT_S
    nodes: list[psutil.Process] = []
    while len(nodes) < count and time.monotonic() < until_s:
        time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        nodes = [child for child in children if any("lib/edge_vision/" in part for part in child.cmdline())]
    assert len(nodes) == count
    return nodes


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("composition:=maybe", 'provided value "maybe" is not valid'),
        ("log_level:=loud", 'provided value "loud" is not valid'),
        ("params_file:=/not/there.yaml", "/not/there.yaml"),
        ("cameras:=front,front", "cameras: expected different names"),
    ],
)
def test_an_invalid_argument_is_reported(argument: str, message: str, domain: int) -> None:
    with launched(argument) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    assert message in output


def test_every_argument_has_a_description() -> None:
    command = ["ros2", "launch", "edge_vision", "pipeline.launch.py", "--show-args"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S).stdout
    assert output.count("(default:") == len(runpy.run_path(str(LAUNCH_FILE))["ARGUMENTS"])
    assert "no description given" not in output
