"""The decision of the optimizer: front, bounds, ladder, and a reason for every rejection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from optimize_cases import failed_result, result

from edge_vision.bundles.ladder import read_ladder
from edge_vision.optimize import output
from edge_vision.optimize.agreement import Agreement, classifier_agreement, coarse
from edge_vision.optimize.candidates.pareto import Decision, decide, time_agreement_front
from edge_vision.optimize.report.terminal import explanation, table
from edge_vision.optimize.results import CandidateResult, summary_line
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.trials.measure import median_band, saturation_db


def settings(**values: float) -> Settings:
    return Settings("model", ("clip",), **values)  # type: ignore[arg-type]


def decided(*results: CandidateResult, **bounds: float) -> tuple[dict[str, CandidateResult], Decision]:
    """Results by id, and the decision."""
    found, decision = decide(results, settings(**bounds))
    return {one.id: one for one in found}, decision


def test_the_fastest_within_the_bounds_is_chosen() -> None:
    found, decision = decided(result("base", 1.0), result("int8", 0.5, 0.995), result("small", 0.3, 0.8))
    assert decision.chosen == "int8" and decision.runner_up == "base"
    assert [one.status for one in found.values()] == ["rejected", "chosen", "rejected"]
    assert "agreement 0.800 is below 0.990" in found["small"].reason
    assert "int8 is preferred" in found["base"].reason


def test_of_two_equally_fast_the_one_with_higher_agreement_is_chosen() -> None:
    assert decided(result("a", 0.500, 0.991), result("b", 0.505, 0.999))[1].chosen == "b"


@pytest.mark.parametrize(
    ("bounds", "name"),
    [({"budget_ms": 10.0}, "p95"), ({"max_rss_mb": 100.0}, "peak memory")],
    ids=["time", "memory"],
)
def test_bounds_that_no_candidate_satisfies_have_a_nearest(bounds: dict, name: str) -> None:
    found, decision = decided(result("base", 1.0), result("int8", 0.5, 0.995, rss_mb=110.0), **bounds)
    assert decision.chosen is None and decision.runner_up is None and decision.ladder == ()
    assert decision.nearest == "int8"
    assert name in decision.misses[0]
    assert all(one.status == "rejected" and name in one.reason for one in found.values())


def test_fewer_classes_than_the_model_are_shown(tmp_path: Path) -> None:
    """In each line about the candidate, and in the ladder that a governor follows."""
    base, person = result("base", 1.0), replace(result("student", 0.3), classes=("person",))
    many = replace(person, classes=("person", "car", "bus", "cat", "dog"))
    assert summary_line(person).endswith("; only person")
    assert table((base, many)).endswith("; only person, car, bus and 2 more")
    assert "detects only person" in explanation(person) and "only" not in explanation(base)
    assert output._figures(person)["classes"] == ["person"] and "classes" not in output._figures(base)
    entry = {"bundle": "b", "backend": "onnxruntime", "precision": "int8", "threads": 1, "relative": 0.3}
    (tmp_path / "b").mkdir()
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump([{**entry, "classes": ["person"]}]))
    assert len(read_ladder(tmp_path / "ladder.yaml")) == 1


@pytest.mark.parametrize(
    ("metric", "total", "bound", "note"),
    [
        ("f1", 58, 0.01, "one changed object of 58 costs up to 0.017"),
        ("f1", 100, 0.01, ""),
        ("top1", 50, 0.01, "one changed image of 50 costs up to 0.020"),
        ("top1", 100, 0.01, ""),
    ],
)
def test_data_too_coarse_for_the_bound_is_named(metric: Any, total: int, bound: float, note: str) -> None:
    found = coarse(Agreement(metric, 1.0, 0.0, 0, 0, total), bound)
    assert found.startswith(note) and bool(found) == bool(note)


def test_a_candidate_slower_than_its_parent_is_rejected() -> None:
    found, decision = decided(result("base", 1.0), result("naive", 1.4, 0.995, file_bytes=5_000_000))
    assert decision.chosen == "base" and "naive" not in decision.front
    assert found["naive"].reason.startswith("slower than its parent base: 1.40 of its time")


def test_a_candidate_within_the_noise_of_its_parent_is_not_slower() -> None:
    halved = result("fp16", 1.01, ratio_band=(0.97, 1.05), file_bytes=9_000_000)
    found, decision = decided(result("base", 1.0), halved)
    # As fast and as accurate: it is on the front for its size.
    assert "fp16" in decision.front and "slower" not in found["fp16"].reason


def test_saturation_of_more_than_one_db_is_rejected_whatever_the_speed() -> None:
    found, decision = decided(
        result("base", 1.0),
        result("int8", 0.4, 1.0, saturation_db=1.2),
        result("ok", 0.5, 1.0, saturation_db=0.9),
    )
    assert decision.chosen == "ok"
    assert found["int8"].reason.startswith("saturates: 1.2 dB worse than exact arithmetic")


def test_bf16_that_runs_as_fp32_is_rejected() -> None:
    found, decision = decided(result("base", 1.0), result("bf16", 0.5, precision="bf16", runs_in="fp32"))
    assert decision.chosen == "base"
    assert found["bf16"].reason == "bf16 was requested, fp32 runs"


def test_a_dominated_candidate_names_the_dominating_one() -> None:
    found, decision = decided(result("base", 1.0), result("int8", 0.5, file_bytes=5_000_000, rss_mb=100.0))
    assert decision.front == ("int8",)
    assert found["base"].reason == "dominated by int8" and "0.50 against 1.00" in found["base"].detail


def test_a_failed_candidate_keeps_its_reason_and_is_never_chosen() -> None:
    failed = failed_result("x", "timeout: exceeded the time limit of 5 s")
    found, decision = decided(failed, result("base", 1.0))
    assert decision.chosen == "base" and found["x"] == failed
    assert decided(failed)[1].nearest is None


def test_the_ladder_steps_down_from_the_chosen_candidate() -> None:
    _, decision = decided(
        result("base", 1.0),
        result("int8", 0.5, 0.995),
        result("same", 0.48, 0.98),  # Not clearly faster.
        result("light", 0.42, 0.7, rss_mb=90.0),  # On the front for its memory only.
        result("small", 0.4, 0.9),
        result("smaller", 0.3, 0.8),
        result("tiny", 0.2, 0.3),  # Loses too much.
    )
    assert decision.ladder == ("int8", "small", "smaller") and "light" in decision.front


def test_rungs_of_fewer_classes_come_last_and_replace_none() -> None:
    student = replace(result("student", 0.3, 0.998), classes=("person",))
    found, decision = decided(
        result("base", 1.0),
        result("int8", 0.5, 0.98),
        result("small", 0.4, 0.9),
        student,
        max_accuracy_loss=0,
    )
    assert decision.ladder == ("base", "int8", "small", "student")
    assert "dominated" not in found["int8"].reason


def test_only_those_as_fast_as_the_fastest_are_said_to_be() -> None:
    found, decision = decided(
        result("a", 1.0, 0.991), result("b", 1.02, 0.995), result("c", 1.04, 1.0, rss_mb=80.0)
    )
    assert decision.chosen == "b" and found["a"].reason.startswith("as fast as b within 3%")
    assert found["c"].reason == "on the front, but b is preferred"


def test_the_front_of_time_and_agreement_never_descends() -> None:
    results = [
        result(name, *point)
        for name, point in {"a": (0.5, 0.9), "b": (0.4, 0.95), "c": (0.3, 0.7), "d": (1.0, 1.0)}.items()
    ]
    front = time_agreement_front([*results, replace(results[3], id="slower", relative=1.2)])
    assert [one.id for one in front] == ["c", "b", "d"]


def test_a_repeated_decision_is_the_same() -> None:
    found, decision = decided(result("base", 1.0), result("int8", 0.5, 0.995), result("slow", 1.5))
    assert decided(*found.values()) == (found, decision)


def test_the_median_is_within_its_band_in_95_percent() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        low, high = median_band(rng.exponential(1.0, 20).tolist())
        covered += low <= np.log(2.0) <= high
    assert covered / 400 > 0.92
    assert median_band([5.0]) == (5.0, 5.0)


def _vpmaddubsw(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """u8 by s8 as on processors without VNNI: pairs of products are added in 16 bits, with saturation."""
    products = a.astype(np.int32)[:, None, :] * w.astype(np.int32)[None]
    pairs = np.clip(products[..., ::2] + products[..., 1::2], -32768, 32767)
    return pairs.sum(axis=2)


@pytest.mark.parametrize(("bits", "refused"), [(8, True), (7, False)])
def test_saturating_arithmetic_is_detected_and_seven_bits_avoid_it(bits: int, refused: bool) -> None:
    rng = np.random.default_rng(0)
    exact_a, exact_w = rng.random((32, 64)), rng.normal(0, 0.1, (16, 64))
    top = 127 if bits == 8 else 63
    a = np.rint(exact_a * 255).astype(np.uint8)
    w = np.rint(exact_w / np.abs(exact_w).max() * top).astype(np.int8)
    scale = np.abs(exact_w).max() / top / 255
    fp32 = exact_a @ exact_w.T
    exact = (a.astype(np.int64) @ w.T.astype(np.int64)) * scale
    loss_db = saturation_db({"y": fp32}, {"y": exact}, {"y": _vpmaddubsw(a, w) * scale})
    _, decision = decided(result("base", 1.0), result("int8", 0.4, saturation_db=loss_db))
    assert (decision.chosen == "base") is refused
    assert (loss_db > 1.0) is refused


def test_agreement_on_confident_images_is_separate() -> None:
    reference = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.1, 0.7, 0.2], [0.41, 0.4, 0.19]])
    found = np.array([[0.4, 0.35, 0.25], [0.33, 0.34, 0.33], [0.6, 0.2, 0.2], [0.41, 0.4, 0.19]])
    agreed = classifier_agreement(found, reference)
    assert (agreed.value, agreed.lost, agreed.total) == (0.5, 2, 4)
    assert (agreed.confident_value, agreed.confident_images) == (0.5, 2)
    unsure = classifier_agreement(found[1::2], reference[1::2])
    assert unsure.confident_value is None and unsure.confident_images == 0 and unsure.value == 0.5
