"""Executors: this machine's processes and a Ray cluster give the same results, and report what is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from model_cases import DETECTOR, bundle_or_skip
from optimize_cases import image_folder, tiny_bundle, tiny_graph
from ray_cases import RayNode, free_address, python_path

from edge_vision.bundles.store import bundles_dir
from edge_vision.core.child_process import child_environment
from edge_vision.errors import EdgeVisionError, UsageError
from edge_vision.evaluate.command import main as evaluate_main
from edge_vision.evaluate.results import results_sha256
from edge_vision.offline import ray_cluster
from edge_vision.offline.executor import Executor, Job, JobContext
from edge_vision.offline.executor_arguments import is_local
from edge_vision.offline.process_pool import ProcessPool
from edge_vision.offline.ray_cluster import RETRIES, RayCluster
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.command import main as optimize_main
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.make_variant import VariantGraph, VariantTask
from edge_vision.optimize.report.report_file import read_report
from edge_vision.optimize.trials.cluster import ClusterTrials
from edge_vision.optimize.trials.executor import LocalExecutor, Trial
from edge_vision.optimize.trials.files import input_files, made_files, state_of
from edge_vision.optimize.trials.measure import MeasureTask
from edge_vision.optimize.trials.worker import WorkerSetup

HERE = Path(__file__).parent
needs_ray = pytest.mark.skipif(not ray_cluster.is_installed(), reason="Ray is not installed: pip install ray")


# Jobs: functions of a module that the other processes can import.
def squared(value: int, context: JobContext) -> int:
    context.report(value)
    return value * value


def refused(value: int, context: JobContext) -> int:
    raise EdgeVisionError(f"{value} is refused")


def contents(file: str, context: JobContext) -> tuple[str, str]:
    path = Path(context.path(file))
    return path.name, path.read_text()


def killed_until(marker: str, context: JobContext) -> str:
    """Dies, as with its machine, until the marker has a line per attempt that is to fail."""
    name, lives = marker.rsplit(":", 1)
    with open(name, "a") as file:
        file.write("x")
    if os.path.getsize(name) <= int(lives):
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def waits_for(marker: str, context: JobContext) -> int:
    """Leaves a file for each attempt, and waits until the marker exists."""
    Path(f"{marker}.{uuid.uuid4()}").touch()
    while not os.path.exists(marker):
        time.sleep(0.05)
    return 1


def run(executor: Executor, *jobs: Job) -> tuple[dict[str, Any], list[Any]]:
    results: dict[str, Any] = {}
    reports: list[Any] = []
    assert executor.run(jobs, results.__setitem__, reports.extend)
    return results, reports


def new_cache(folder: Path) -> dict[str, str]:
    """An environment with an empty cache in this folder, except for the bundles."""
    (folder / "bundles").symlink_to(bundles_dir())
    return {"EDGE_VISION_CACHE": str(folder)}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of one node with two processors and a cache of its own."""
    import ray

    address = free_address()
    env = {**python_path(HERE), **new_cache(tmp_path_factory.mktemp("node"))}
    node = RayNode(address, 2, is_head=True, env=env)

    try:
        yield address
    finally:
        ray.shutdown()
        node.lose()


@pytest.fixture(params=["processes", pytest.param("ray", marks=needs_ray)])
def executor(request: pytest.FixtureRequest) -> Executor:
    return ProcessPool(2) if request.param == "processes" else RayCluster(request.getfixturevalue("head"))


def test_each_job_has_its_result(executor: Executor) -> None:
    results, _ = run(executor, *(Job(f"job{n}", squared, n) for n in range(7)))
    assert results == {f"job{n}": n * n for n in range(7)}
    assert executor.slots(1) == 1 and executor.slots(9) == 2


def test_jobs_report_progress(executor: Executor, tmp_path: Path) -> None:
    """The last job is there so that the reports of the first ones arrive before the end."""
    marker = tmp_path / "end"
    reports: list[int] = []

    def on_progress(new: Any) -> None:
        reports.extend(new)
        if len(reports) == 3:
            marker.touch()

    jobs = [*(Job(f"job{n}", squared, n) for n in range(3)), Job("last", waits_for, str(marker))]
    assert executor.run(jobs, lambda name, result: None, on_progress)
    assert sorted(reports) == [0, 1, 2]


def test_the_error_of_a_job_ends_the_run(executor: Executor) -> None:
    with pytest.raises(EdgeVisionError, match="3 is refused"):
        run(executor, Job("x", refused, 3))


def test_a_job_reads_its_files(executor: Executor, tmp_path: Path) -> None:
    file = tmp_path / "clip.txt"
    file.write_text("frames")
    results, _ = run(executor, Job("x", contents, str(file), (str(file),)))
    assert results == {"x": ("clip.txt", "frames")}


# Trials.
def variant_trial(folder: Path) -> Trial[VariantGraph]:
    if not (folder / "source").exists():
        (folder / "trials").mkdir(parents=True)
        tiny_bundle(folder / "source", tiny_graph(folder / "tiny.onnx"))
        image_folder(folder / "calibration", 8)
    recipe = Int8Recipe("u8", "s8", True, False, "")
    task = VariantTask(
        "source", "variants/made", "int8", Size(64, 64), recipe, "calibration", "ranges/r.json"
    )
    return Trial("variant", "variant-made", task, VariantGraph)


def test_a_trial_elsewhere_leaves_the_same_files(executor: Executor, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    trial = variant_trial(here)
    (here / "variants").mkdir()
    local = LocalExecutor().run(trial, here, 120)
    cluster = ClusterTrials(executor).run(variant_trial(there), there, 120)
    assert local.status == "done", local
    assert replace(cluster, wall_s=0.0) == replace(local, wall_s=0.0)
    for name in ("variants/made/model.onnx", "variants/made/bundle.yaml"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    ranges = [json.loads((folder / "ranges/r.json").read_text()) for folder in (here, there)]
    assert ranges[0] == ranges[1]


def test_the_files_of_a_trial_are_those_that_its_task_names(tmp_path: Path) -> None:
    for name in ("source/model.onnx", "variants/a/model.onnx", "variants/b/model.onnx", "images/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("variants/a.check/exact.npz", "variants/a.check/tensors.npz", "labels.json", "report.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    candidate, parent = (
        WorkerSetup(folder, "onnxruntime", "auto", 1, "images") for folder in ("variants/a", "source")
    )
    task = MeasureTask(
        candidate,
        parent,
        "detect",
        1.0,
        "predictions/a.npz",
        "predictions/b.npz",
        "variants/a.check/exact.npz",
    )
    found = input_files(Trial("measure", "a", replace(task, labels="labels.json"), VariantGraph), tmp_path)
    assert found == [
        "images/0.png",
        "labels.json",
        "source/model.onnx",
        "variants/a.check/exact.npz",
        "variants/a.check/tensors.npz",
        "variants/a/model.onnx",
    ]


def test_new_and_changed_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    for name in ("same", "changed", "trials/x.answer"):
        (tmp_path / name).write_text("1")
    before = state_of(tmp_path)
    (tmp_path / "changed").write_text("22")
    for name in ("new", "trials/y.answer", "trials/y.log"):
        (tmp_path / name).write_text("3")
    assert made_files(tmp_path, before) == ["changed", "new", "trials/y.log"]


def study(tmp_path: Path, name: str, *executor: str) -> dict[str, Any]:
    """What a study of a tiny model finds, without times."""
    for clip, seed in (("a", 1), ("b", 2)):
        if not (tmp_path / clip).exists():
            image_folder(tmp_path / clip, 10, seed)
    if not (tmp_path / "bundle").exists():
        tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = ["--calibration", str(tmp_path / "a"), "--frames", str(tmp_path / "b")]
    quick = ["--measure-s", "0.1", "--images", "8", "--threads", "1", "--backends", "onnxruntime"]
    space = ["--precisions", "fp32", "fp16", "int8", "--sizes", "native", "32", "--exhaustive"]
    out = tmp_path / name
    bundle = str(tmp_path / "bundle")
    assert optimize_main(["run", bundle, *clips, *quick, *space, "--out", str(out), *executor]) in (0, 3)
    return {
        one.id: (one.graph, one.parent, one.measured.agreement, one.measured.saturation_db)
        for one in read_report(out).results
    }


@needs_ray
def test_a_study_on_a_cluster_finds_the_same(head: str, tmp_path: Path) -> None:
    local = study(tmp_path, "local")
    assert len(local) >= 6 and study(tmp_path, "ray", "--executor", "ray", "--address", head) == local


# Evaluations.
def moving_clip(path: Path, seed: int) -> Path:
    """Forty frames with a moving square."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    background = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)
    for at in range(40):
        image = background.copy()
        image[30:70, 2 * at : 2 * at + 40] = 200
        writer.write(image)
    writer.release()
    return path


@needs_ray
def test_an_evaluation_on_a_cluster_has_the_same_hash(head: str, tmp_path: Path) -> None:
    bundle_or_skip(DETECTOR)
    (tmp_path / "cache").mkdir()
    env = {**child_environment(), **new_cache(tmp_path / "cache")}
    clips = [moving_clip(tmp_path / f"clip{seed}.avi", seed) for seed in range(3)]
    videos = [argument for clip in clips for argument in ("--video", str(clip))]
    hashes = {}
    for name, arguments in (("local", []), ("ray", ["--executor", "ray", "--address", head])):
        command = [sys.executable, "-m", "edge_vision", "evaluate", "gate", *videos, *arguments]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name)], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / name / "report.json").read_text())
        hashes[name] = report["results_sha256"]
        assert results_sha256(report["conditions"]) == hashes[name]
    assert hashes["ray"] == hashes["local"]


def test_the_hash_is_of_results_alone() -> None:
    one = {"clip": {"frame_f1": 0.5, "detector_cpu_s": 0.1, "methods": {"gate": {"gate_ms_p50": 1.0}}}}
    two = {"clip": {"frame_f1": 0.5, "detector_cpu_s": 0.2, "methods": {"gate": {"gate_ms_p50": 2.0}}}}
    assert results_sha256(one) == results_sha256(two)
    two["clip"]["frame_f1"] = 0.5000001
    assert results_sha256(one) != results_sha256(two)


# What is missing, and what is lost.
def test_ray_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "is_installed", lambda: False)
    with pytest.raises(EdgeVisionError, match=r"package ray is not installed: .*pip install ray"):
        RayCluster()


def test_an_address_without_ray_is_refused() -> None:
    assert is_local("local", None) and not is_local("ray", None)
    with pytest.raises(UsageError, match="expected --executor ray"):
        is_local("local", "host:6379")


@pytest.mark.parametrize("address", ["host", "host:x", ":6379", "host:0", "host:99999", "ray://host"])
@pytest.mark.parametrize("main", [evaluate_main, optimize_main])
def test_an_address_that_is_none_is_a_wrong_argument(
    main: Any, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["gate"] if main is evaluate_main else ["run", "x", "--frames", "a", "--out", "b"]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--executor", "ray", "--address", address])
    assert f"expected HOST:PORT or auto, got '{address}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "needle"),
    [
        (["--executor", "ray"], 1, "package ray is not installed"),
        (["--address", "host:6379"], 2, "--address host:6379: expected --executor ray with it"),
    ],
)
def test_an_executor_that_cannot_run_leaves_no_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    needle: str,
) -> None:
    monkeypatch.setattr(ray_cluster, "is_installed", lambda: False)
    bundle_or_skip(DETECTOR)
    out, video = tmp_path / "out", moving_clip(tmp_path / "clip.avi", 1)
    assert evaluate_main(["gate", "--video", str(video), *arguments, "--out", str(out)]) == status
    assert needle in capsys.readouterr().err and not out.exists()
    clips = [str(image_folder(tmp_path / name, 10, seed)) for seed, name in enumerate("ab")]
    run = ["run", "x", "--calibration", clips[0], "--frames", clips[1]]
    assert optimize_main([*run, *arguments, "--out", str(out)]) == status
    assert needle in capsys.readouterr().err and not out.exists()


@needs_ray
def test_a_job_that_fits_no_node_is_an_error_in_seconds(head: str) -> None:
    begin_s = time.monotonic()
    with pytest.raises(EdgeVisionError, match="big: expected a node with 99 processors, got 2"):
        run(RayCluster(head), Job("big", squared, 1, cpus=99))
    assert time.monotonic() - begin_s < 60  # Ray itself waits for ever.


@needs_ray
def test_a_job_whose_process_dies_runs_again(
    head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, _ = run(RayCluster(head), Job("x", killed_until, f"{tmp_path / 'one'}:2"))
    assert results == {"x": "survived"} and (tmp_path / "one").read_text() == "xxx"
    assert f"x: lost (WorkerCrashedError), runs again: 2/{RETRIES}" in capsys.readouterr().err


@needs_ray
def test_a_job_that_always_dies_is_an_error(head: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeVisionError, match=f"x: its process or node was lost {RETRIES + 1} times"):
        run(RayCluster(head), Job("x", killed_until, f"{tmp_path / 'one'}:99"))


@needs_ray
def test_the_jobs_of_a_lost_node_run_again(head: str, tmp_path: Path) -> None:
    node = RayNode(head, 1, env=python_path(HERE))
    jobs = [Job(f"job{n}", waits_for, str(tmp_path / "end")) for n in range(3)]

    def on_progress(reports: Any) -> None:
        """When all three run, one of them on the new node, it is lost; when the third runs again, all end."""
        started = len(list(tmp_path.iterdir()))
        if started == 3 and node.processes():
            node.lose()
            (tmp_path / "end").touch()

    results: dict[str, int] = {}
    cluster = RayCluster(head)
    assert cluster.slots(9) == 3
    assert cluster.run(jobs, results.__setitem__, on_progress)
    assert results == {"job0": 1, "job1": 1, "job2": 1}
    assert len(list(tmp_path.iterdir())) == 5, "three first attempts, the end, and the job of the lost node"


@needs_ray
def test_a_file_that_a_node_lacks_is_sent_to_it(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is another one in a process with another working folder, as on a machine without the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.txt").write_text(f"frames {tmp_path}")
    file = "/proc/self/cwd/clip.txt"
    results, _ = run(RayCluster(head), Job("x", contents, file, (file,)))
    assert results == {"x": ("clip.txt", f"frames {tmp_path}")}


@needs_ray
def test_another_version_on_a_node_is_named(head: str, tmp_path: Path) -> None:
    info = tmp_path / "numpy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 0.1\n")
    node = RayNode(head, 1, env=python_path(tmp_path, HERE))
    try:
        with pytest.raises(EdgeVisionError, match=r": expected numpy \d.*, got 0\.1"):
            RayCluster(head)
    finally:
        node.lose()


@needs_ray
def test_no_cluster_at_the_address_is_an_error(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edge_vision",
        "optimize",
        "run",
        "x",
        "--frames",
        str(image_folder(tmp_path / "a", 10, 1)),
        "--calibration",
        str(image_folder(tmp_path / "b", 10, 2)),
    ]
    done = subprocess.run(
        [*command, "--executor", "ray", "--address", free_address(), "--out", str(tmp_path / "out")],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "expected a Ray cluster that this machine is a node of" in done.stderr
    assert not (tmp_path / "out").exists()
