"""The recorder in the real pipeline's process: a kill in the middle of a recording, and the next start."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from model_cases import clip_or_skip
from record_cases import read_independently, read_with_rosbags
from ros_cases import wait_until

from edge_vision.core.missing_package import install_command


def arguments(folder: Path) -> list[str]:
    video = clip_or_skip("vtest.avi")
    rules = "recorder:rules:=['class:person']"
    given = ["-p", "record:=true", "-p", f"recorder:folder:={folder}", "-p", rules]
    return ["--source", str(video), "--loop", "--backend", "onnxruntime", "--ros-args", *given]


def test_a_killed_pipeline_leaves_a_recording_that_the_next_one_completes(launch, tmp_path) -> None:
    first = launch("pipeline", *arguments(tmp_path))
    (part,) = wait_until(lambda: list(tmp_path.glob("*.mcap.part")), "a recording of a person")
    wait_until(lambda: part.stat().st_size > 200_000, "some images on the disk")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(60)
    second = launch("pipeline", *arguments(tmp_path))
    path = part.with_suffix("")
    wait_until(path.exists, "the recovery")
    wait_until(lambda: "was cut short" in second.output, "its log line")
    found = read_independently(path)
    assert len(found) == len(read_with_rosbags(path))
    topics = {topic for topic, *_ in found}
    assert {"/image_raw/compressed", "/detections", "/tracks/annotations", "/gate_events"} <= topics
    wait_until(lambda: len(list(tmp_path.glob("*.part"))) == 1, "a recording of its own")
    assert second.end(signal.SIGTERM) == 0
    assert not list(tmp_path.glob("*.part")) and len(list(tmp_path.glob("*.mcap"))) == 2, second.output


def test_without_its_package_the_pipeline_says_what_to_install(tmp_path) -> None:
    code = (
        "import sys; sys.modules['mcap'] = None; from edge_vision.nodes.cli import pipeline; "
        "sys.exit(pipeline(['--ros-args', '-p', 'record:=true']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"package mcap is not installed: {install_command('mcap')}" in done.stderr
