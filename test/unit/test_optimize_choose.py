"""The decision of the optimizer: front, budgets, ladder, and a reason for every reject."""

from __future__ import annotations

import numpy as np
import pytest
from optimize_cases import row

from edge_vision.optimize.agreement import of_scores
from edge_vision.optimize.measure import median_band, saturation_db
from edge_vision.optimize.pareto import decide
from edge_vision.optimize.settings import Settings


def settings(**values: float) -> Settings:
    return Settings("model", ("clip",), **values)  # type: ignore[arg-type]


def reasons(rows: list) -> dict[str, str]:
    return {one["id"]: one["reason"] for one in rows}


def test_the_fastest_that_holds_the_bounds_is_chosen() -> None:
    rows = [row("base", 1.0), row("int8", 0.5, 0.995), row("small", 0.3, 0.8)]
    decision = decide(rows, settings())
    assert decision.chosen == "int8"
    assert [one["status"] for one in rows] == ["rejected", "chosen", "rejected"]
    assert "agreement 0.800, asked for 0.990 or more" in reasons(rows)["small"]
    assert "int8 is preferred" in reasons(rows)["base"]


def test_of_two_alike_the_one_that_agrees_more_is_chosen() -> None:
    rows = [row("a", 0.500, 0.991), row("b", 0.505, 0.999)]
    assert decide(rows, settings()).chosen == "b"


@pytest.mark.parametrize(
    ("values", "word"),
    [({"budget_ms": 10.0}, "p95"), ({"max_rss_mb": 100.0}, "peak memory")],
    ids=["time", "memory"],
)
def test_a_budget_that_nobody_meets_has_a_nearest(values: dict, word: str) -> None:
    rows = [row("base", 1.0), row("int8", 0.5, 0.995, rss_mb=110.0)]
    decision = decide(rows, settings(**values))
    assert decision.chosen is None and decision.ladder == ()
    assert decision.nearest == "int8"
    assert word in decision.misses[0]
    assert all(one["status"] == "rejected" and word in one["reason"] for one in rows)


def test_one_that_is_slower_than_its_parent_is_rejected_as_such() -> None:
    rows = [row("base", 1.0), row("naive", 1.4, 0.995, bytes=5_000_000)]
    decision = decide(rows, settings())
    assert decision.chosen == "base" and "naive" not in decision.front
    assert reasons(rows)["naive"].startswith("slower than its parent base: 1.40 times its time")


def test_within_the_noise_of_its_parent_nobody_is_called_slower() -> None:
    rows = [row("base", 1.0), row("fp16", 1.01, ratio_band=[0.97, 1.05], bytes=9_000_000)]
    decision = decide(rows, settings())
    # As fast, as accurate: it is on the front for its size, and not called slow.
    assert "fp16" in decision.front and "slower" not in reasons(rows)["fp16"]


def test_saturation_of_more_than_one_db_is_refused_whatever_the_speed() -> None:
    rows = [
        row("base", 1.0),
        row("int8", 0.4, 1.0, saturation_db=1.2),
        row("ok", 0.5, 1.0, saturation_db=0.9),
    ]
    assert decide(rows, settings()).chosen == "ok"
    assert reasons(rows)["int8"].startswith("saturates: 1.2 dB worse than exact arithmetic")


def test_bf16_that_runs_as_fp32_is_no_bf16() -> None:
    rows = [row("base", 1.0), row("bf16", 0.5, precision="bf16", effective_precision="fp32")]
    assert decide(rows, settings()).chosen == "base"
    assert reasons(rows)["bf16"] == "asked for bf16, runs fp32"


def test_one_that_is_beaten_everywhere_says_by_whom() -> None:
    rows = [row("base", 1.0), row("int8", 0.5, bytes=5_000_000, rss_mb=100.0)]
    decision = decide(rows, settings())
    assert decision.front == ("int8",)
    assert "beaten by int8" in reasons(rows)["base"] and "0.50 against 1.00" in reasons(rows)["base"]


def test_a_failed_row_keeps_its_reason_and_is_never_chosen() -> None:
    failed = {"id": "x", "status": "failed", "reason": "timeout: took longer than 5 s and was ended"}
    rows = [failed, row("base", 1.0)]
    assert decide(rows, settings()).chosen == "base"
    assert failed["reason"].startswith("timeout")
    assert decide([failed], settings()).nearest is None


def test_the_ladder_steps_down_from_the_chosen_one() -> None:
    rows = [
        row("base", 1.0),
        row("int8", 0.5, 0.995),
        row("same", 0.48, 0.98),  # Not clearly faster.
        row("light", 0.42, 0.7, rss_mb=90.0),  # On the front for its memory, but small is faster and better.
        row("small", 0.4, 0.9),
        row("smaller", 0.3, 0.8),
        row("tiny", 0.2, 0.3),  # Loses too much.
    ]
    decision = decide(rows, settings())
    assert decision.ladder == ("int8", "small", "smaller") and "light" in decision.front


def test_deciding_again_comes_to_the_same() -> None:
    rows = [row("base", 1.0), row("int8", 0.5, 0.995), row("slow", 1.5)]
    first = decide(rows, settings())
    told = reasons(rows)
    assert decide(rows, settings()) == first and reasons(rows) == told


def test_the_band_of_the_median_holds_it_at_95_percent() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        low, high = median_band(rng.exponential(1.0, 20).tolist())
        held += low <= np.log(2.0) <= high
    assert held / 400 > 0.92
    assert median_band([5.0]) == (5.0, 5.0)


def _vpmaddubsw(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """u8 by s8 as processors without VNNI do it: pairs of products are added in 16 bits, with saturation."""
    products = a.astype(np.int32)[:, None, :] * w.astype(np.int32)[None]
    pairs = np.clip(products[..., ::2] + products[..., 1::2], -32768, 32767)
    return pairs.sum(axis=2)


@pytest.mark.parametrize(("bits", "refused"), [(8, True), (7, False)])
def test_arithmetic_that_saturates_is_seen_and_seven_bits_keep_it_within(bits: int, refused: bool) -> None:
    rng = np.random.default_rng(0)
    exact_a, exact_w = rng.random((32, 64)), rng.normal(0, 0.1, (16, 64))
    top = 127 if bits == 8 else 63
    a = np.rint(exact_a * 255).astype(np.uint8)
    w = np.rint(exact_w / np.abs(exact_w).max() * top).astype(np.int8)
    scale = np.abs(exact_w).max() / top / 255
    fp32 = exact_a @ exact_w.T
    exact = (a.astype(np.int64) @ w.T.astype(np.int64)) * scale
    loss_db = saturation_db({"y": fp32}, {"y": exact}, {"y": _vpmaddubsw(a, w) * scale})
    rows = [row("base", 1.0), row("int8", 0.4, saturation_db=loss_db)]
    assert (decide(rows, settings()).chosen == "base") is refused
    assert (loss_db > 1.0) is refused


def test_pictures_of_which_the_model_is_sure_are_counted_apart() -> None:
    reference = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.1, 0.7, 0.2], [0.41, 0.4, 0.19]])
    found = np.array([[0.4, 0.35, 0.25], [0.33, 0.34, 0.33], [0.6, 0.2, 0.2], [0.41, 0.4, 0.19]])
    agreed = of_scores(found, reference)
    assert (agreed.value, agreed.lost, agreed.of) == (0.5, 2, 4)
    assert (agreed.sure, agreed.sure_of) == (0.5, 2)
    unsure = of_scores(found[1::2], reference[1::2])
    assert unsure.sure is None and unsure.sure_of == 0 and unsure.value == 0.5
