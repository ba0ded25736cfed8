"""The arithmetic of the benchmarks; their measurements need real runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needed_modules import NEEDED

from edge_vision.core.detections import Detections
from edge_vision.evaluate.reference.detector import Reference

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import accuracy as accuracy_bench  # noqa: E402
import backends as backends_bench  # noqa: E402
import tracking as tracking_bench  # noqa: E402
from parts import common, process_stats  # noqa: E402


def test_rows_compare_with_their_target() -> None:
    assert common.at_most("hop", 0.05, 0.1, "ms").passed is True
    assert common.at_most("hop", 0.2, 0.1, "ms").passed is False
    assert common.at_least("arrived", 0.95, 0.95, "").passed is True
    assert common.at_least("arrived", None, 0.95, "").passed is None


def test_the_table_shows_verdicts_and_what_is_missing() -> None:
    rows = [
        common.at_most("fast", 0.05, 0.1, "ms"),
        common.at_most("slow", 0.2, 0.1, "ms", "on purpose"),
        common.at_most("unknown", None, 0.1, "ms"),
        common.Row("plain", 3.0, "s"),
    ]
    lines = common.table(rows).splitlines()
    assert "pass" in lines[1] and "FAIL" in lines[2] and lines[2].endswith("on purpose")
    assert "not measured" in lines[3] and "?" in lines[3]
    assert "pass" not in lines[4] and "FAIL" not in lines[4]
    assert len({line.index("ms") for line in lines[1:4]}) == 1


def test_spread() -> None:
    assert common.spread([1.0, 2.0, 3.0]) == {"p50": 2.0, "p95": pytest.approx(2.9), "n": 3}
    assert common.spread([]) == {"n": 0}


def test_the_ratio_is_that_of_the_pairs() -> None:
    # A slow moment that hits a pair alike does not move it.
    assert common.median_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == 2.0


def test_interleaved_runs_take_turns_in_going_first() -> None:
    order: list[str] = []
    first, second = common.interleaved_ms(lambda: order.append("a"), lambda: order.append("b"), 4)
    assert "".join(order) in ("abbaabba", "baabbaab")
    assert len(first) == len(second) == 4 and min(first + second) >= 0


def test_a_slope_is_not_moved_by_a_jump() -> None:
    at_s = [float(n) for n in range(100)]
    steady = [200.0 + n * 0.5 for n in range(100)]
    assert process_stats.slope_per_min(at_s, steady) == pytest.approx(30.0)
    jumped = [value + (500.0 if n in (40, 41, 99) else 0.0) for n, value in enumerate(steady)]
    assert process_stats.slope_per_min(at_s, jumped) == pytest.approx(30.0, abs=1.0)
    assert process_stats.slope_per_min(at_s, [7.0] * 100) == 0.0
    assert process_stats.slope_per_min([0.0, 1.0], [1.0, 2.0]) is None


def test_medians_of_bins() -> None:
    middles, medians = process_stats.binned_medians(
        [10.0, 11.0, 14.9, 15.1, 26.0], [1.0, 3.0, 2.0, 8.0, 5.0], 5.0
    )
    assert middles == [12.5, 17.5, 27.5] and medians == [2.0, 8.0, 5.0]
    assert process_stats.binned_medians([], [], 5.0) == ([], [])


def test_a_process_read_from_proc() -> None:
    command = [sys.executable, "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"up\n"
        before = process_stats.read_process(child.pid)
        assert before.rss_kb > 1000 and before.threads == 1 and before.fds >= 3
        assert child.stdin
        child.stdin.write(b"\n")
    with pytest.raises(OSError):
        process_stats.read_process(child.pid)
    mine = process_stats.read_process(os.getpid())
    sum(n * n for n in range(3_000_000))
    with open(__file__) as _:
        later = process_stats.read_process(os.getpid())
    assert later.cpu_s > mine.cpu_s and later.fds == mine.fds + 1


OPTIONAL = {module for modules in NEEDED.values() for module in modules}
COMMANDS = {file.name for file in BENCH.glob("*.py")}


def test_each_file_at_the_top_is_a_command_of_make_and_in_the_table() -> None:
    makefile, readme = (
        (BENCH.parent / "Makefile").read_text("utf-8"),
        (BENCH / "README.md").read_text("utf-8"),
    )
    recipe = r"^([a-z-]+):(?!=).*\n(?:\t.*\n)*?\t\$\(VENV_PYTHON\) bench/(\w+\.py)"
    recipes = re.findall(recipe, makefile, re.MULTILINE)
    rows = re.findall(r"^\| `make ([a-z-]+)` \| \[`(\w+\.py)`\]\(\2\) \|", readme, re.MULTILINE)
    assert {script for _, script in recipes} == COMMANDS
    assert sorted(rows) == sorted(recipes)


@pytest.mark.parametrize("script", sorted(COMMANDS))
def test_help_shows_what_a_command_measures(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--help"], capture_output=True, text=True, timeout=60
    )
    missing = re.search(r"No module named '(\w+)", done.stderr)
    if missing and missing[1] in OPTIONAL:
        pytest.skip(f"{script} needs {missing[1]}: run `make setup-test`")
    assert done.returncode == 0 and "--out" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("script", "figure"),
    [
        ("pipeline.py", "overhead_ratio"),
        ("gate.py", "panning"),
        ("backends.py", "wrapper"),
        ("soak.py", "load_factor"),
        ("diagnostics.py", "false_alarms"),
        ("cameras.py", "unaccounted"),
        ("ray_hosts.py", "speed_up"),
    ],
)
def test_help_shows_examples(script: str, figure: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "examples:" in done.stdout and figure in done.stdout


@pytest.mark.parametrize(
    "script", ["pipeline.py", "gate.py", "backends.py", "soak.py", "diagnostics.py", "cameras.py"]
)
def test_a_missing_video_names_the_remedy(tmp_path: Path, script: str) -> None:
    command = [sys.executable, str(BENCH / script), "--video", str(tmp_path / "none.avi")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "make setup" in done.stderr


def test_agreement_of_boxes_counts_both_sides() -> None:
    box, other = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    one = [[[box], [0.9], [1]]]
    two = [[[box, other], [0.9, 0.8], [1, 1]]]
    assert backends_bench.agreement(one, one) == 1.0
    assert backends_bench.agreement(one, two) == pytest.approx(2 / 3)
    assert backends_bench.agreement([[[box], [0.9], [2]]], one) == 0.0
    assert backends_bench.agreement(None, one) is None


def test_agreement_of_classes_is_the_share_of_frames() -> None:
    assert backends_bench.agreement([1, 2, 3, 4], [1, 2, 3, 5]) == 0.75


def test_the_best_cell_and_the_worst_wrapper_are_compared_with_their_targets() -> None:
    base = {"model": "yolo_nano", "backend": "a", "precision": "fp32", "threads": 1, "p50_ms": 1.0, "n": 9}
    rows = [
        {**base, "ratio_to_eager": 2.0, "wrapper_ratio": 1.2},
        {**base, "ratio_to_eager": 4.0, "wrapper_ratio": 1.0},
        {**base, "ratio_to_eager": 1.0, "wrapper_ratio": None},
    ]
    best, wrapper = backends_bench.target_rows(rows)
    assert (best.value, best.passed) == (4.0, True)
    assert (wrapper.value, wrapper.passed) == (1.2, False)


def test_tracks_and_held_boxes_are_compared_on_the_same_frames() -> None:
    """An object moves by a third of its width per frame, in front of a static camera."""
    left = 20.0 + 14.0 * np.arange(24)
    boxes = [np.array([[x, 100, x + 40, 140]], np.float32) for x in left]
    found = [Detections(box, np.array([0.9], np.float32), np.zeros(1, np.int32)) for box in boxes]
    stamps_ns = (1 + np.arange(24)) * 200_000_000
    reference = Reference(stamps_ns, found, [Detections.empty()] * 24, [{}] * 24, 0.0, (640, 480))
    (row,) = tracking_bench.rows_of(reference, [np.eye(3)] * 24, [2])
    assert row["n"] == 2 and row["tracks"] == row["tracks_still"]
    # The two phases infer 12 and 13 of 24 frames (the first one always), and held boxes match on no other.
    assert row["held"] == pytest.approx((12 + 13) / 48)
    assert row["tracks"] > 0.85
    assert row["id_switches"] == 0


def test_the_better_precision_of_each_runtime_has_the_target_of_the_noise_ceiling() -> None:
    pytest.importorskip("onnxruntime")
    import foreign

    figures = {"time_ratio": 0.5}
    candidates = {
        "onnxruntime-fp32": {"agreement": 1.0, **figures},
        "onnxruntime-int8": {"agreement": 0.45, **figures},
        "onnxruntime-mixed": {"agreement": 0.89, **figures},
        "openvino-int8": {"agreement": 0.8, **figures},
        "openvino-mixed": {"reason": "does not load"},
    }
    rows = foreign.rows_of("graph", {"noise_ceiling": 0.9, "candidates": candidates})
    assert [row.passed for row in rows] == [None, True, False, None]
    assert rows[0].value == pytest.approx(0.5) and rows[3].note == "does not load"
    (row,) = foreign.rows_of("graph", {"reason": "no detection"})
    assert row.value is None and row.note == "no detection"


def test_the_table_of_accuracy_has_a_line_per_cell() -> None:
    scores = {
        "ap": 0.4,
        "ap50": 0.7,
        "recall": 0.6,
        "precision_at_threshold": None,
        "cpu_ms": 12.3,
        "rss_mb": 99.0,
    }
    cell = {"bundle": "a", "size": "3x4", "precision": "int8", "backend": "openvino"}
    lines = accuracy_bench.shown([{**cell, **scores, "classes": {"car": scores}}]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| `a` | 3x4 | int8 | openvino | 1 | 0.400 | 0.700 | 0.600 | - | - | - | 12.3 | 99 |"


def test_the_headline_has_targets_only_at_the_recall_of_the_stock_detector() -> None:
    import headline

    stock = {**dict.fromkeys(headline.CHAIN, 5.0), **dict.fromkeys(headline.SHOWN, 1.0)}
    stock |= {"chain": 20.0, "process": 25.0, "superseded": 0.0}
    fast = stock | {"chain": 3.0, "process": 10.0}
    lossy = fast | {"recall_300ms": 0.9}
    rows = headline.rows({"stock": stock, "gate_student": fast, "economy_student": lossy})
    assert [row.passed for row in rows] == [None, None, True, True, None, None]
    assert rows[2].value == pytest.approx(2.5) and rows[5].value == pytest.approx(20 / 3)
    (*_, last) = headline.rows({"stock": stock, "gate_student": fast}, {"stock": 24.0, "gate_student": 3.0})
    assert last.passed is True and last.value == pytest.approx(8.0)
    busy = {"stock": stock | {"superseded": 0.2}, "gate_student": fast}
    assert {row.passed for row in headline.rows(busy)} == {None}


def test_the_headline_compares_the_classes_of_the_student() -> None:
    import headline

    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([2, 0, 5], np.int32))
    kept = headline.mapping({0: 0, 2: 1})(found)
    assert kept.class_ids.tolist() == [1, 0] and kept.xyxy_px.tolist() == boxes[:2].tolist()


def test_the_parameters_of_a_headline_row_are_those_of_its_model() -> None:
    import headline

    stock = headline.CONFIGURATIONS["stock"].all_parameters("a", "openvino")
    assert stock["detector"]["backend"] == "onnxruntime" and stock["detector"]["precision"] == "fp32"
    assert stock["gate"] == {"enabled": False}
    guarded = headline.CONFIGURATIONS["economy_cascade_student_guard"].all_parameters("b", "openvino")
    assert guarded["detector"] == {"model": "b", "backend": "openvino", "threads": 1}
    assert guarded["gate"] == {"preset": "economy"} and "cascade" in guarded


def test_stages_and_the_halt_keep_a_bad_release_from_a_fleet() -> None:
    pytest.importorskip("tuf")
    from parts.fleet.rollouts import ALL_AT_ONCE, HOUR_S, STAGES, rollout

    staged, at_once = (rollout(2000, 3, 0.5, stages, 4.0) for stages in (STAGES, ALL_AT_ONCE))
    good = rollout(2000, 3, 0.0, STAGES, 4.0)
    assert staged.halted_s and at_once.halted_s and good.halted_s is None
    assert 0 < staged.bad <= len(staged.times_s) <= 40 < len(at_once.times_s) < 2000
    assert len(good.times_s) == 2000 and good.bad == 0 and good.times_s[-1] < 62 * HOUR_S


def test_the_least_number_of_misses_is_that_of_the_audit() -> None:
    pytest.importorskip("tuf")
    from parts.fleet.audits import least_missed

    from edge_vision.core.confidence_intervals import anytime_exceeds

    least = least_missed(60, 0.2)
    for n, missed in enumerate(least.tolist(), 1):
        assert missed > n or anytime_exceeds(missed, n, 0.2)
        assert not anytime_exceeds(missed - 1, n, 0.2)
