"""The governor holds a budget, gives things up in the promised order, and climbs back; on a simulated CPU."""

from __future__ import annotations

import pytest
from governor_cases import PROMISE, Plant, cpu_budget

from edge_vision.gate.governor import CLIMB_S, MAX_CLIMB_S, SWAP_LIMIT_S
from edge_vision.gate.inference_limiter import InferenceLimit, InferenceLimiter
from edge_vision.gate.load_cap import Budget, HeatReadings, LoadCap, LoadLimits

SETTLE_S = 60.0


def cost_of(fps_hz: float) -> float:
    """Per inference: 40 % of all cores if every frame is inferred."""
    return 0.4 / fps_hz


def needed_percent(**plant) -> float:
    return Plant(**plant).run(60.0, None)


# Holding a budget.
@pytest.mark.parametrize("fps_hz", [5.0, 10.0, 30.0])
@pytest.mark.parametrize("share", [0.9, 0.75, 0.5, 0.3])
@pytest.mark.parametrize("base", [0.0, 0.05])
def test_a_budget_is_held_within_ten_percent(fps_hz: float, share: float, base: float) -> None:
    values = {"fps_hz": fps_hz, "cost": cost_of(fps_hz), "base": base}
    budget = cpu_budget(share * needed_percent(**values))
    plant = Plant(**values)
    plant.run(SETTLE_S, budget)
    for _ in range(4):
        assert plant.run(30.0, budget) == pytest.approx(budget.percent, rel=0.1)


def test_noise_of_half_the_cost_changes_the_mean_but_little_and_takes_no_steps() -> None:
    budget = cpu_budget(0.5 * needed_percent(noise=0.5))
    plant = Plant(noise=0.5)
    plant.run(SETTLE_S, budget)
    steps = len(plant.steps)
    assert plant.run(300.0, budget) == pytest.approx(budget.percent, rel=0.05)
    assert len(plant.steps) == steps


def test_a_budget_that_is_not_exceeded_changes_nothing() -> None:
    plant = Plant()
    plant.run(300.0, cpu_budget(needed_percent() * 1.05))
    assert plant.steps == [] and plant.governor.level == "full" and plant.governor.trouble == ""
    assert plant.limiter.counts.withheld == 0


def test_every_frame_passes_or_is_skipped() -> None:
    plant = Plant()
    plant.run(60.0, cpu_budget(10.0))
    counts = plant.limiter.counts
    assert counts.frames == 600 and 0 < counts.overdue <= counts.withheld < counts.frames
    assert 0 <= counts.optional < counts.passed < 600 - counts.withheld + 1


# The order.
def test_fidelity_is_given_up_before_the_delay() -> None:
    plant = Plant()
    budget = cpu_budget(29.0)
    plant.run(SETTLE_S, budget)
    assert plant.governor.level == "stretched" and plant.governor.trouble == ""
    assert plant.limiter.counts.overdue == 0
    assert [step.event for step in plant.steps] == ["down"]
    assert "min_fidelity 0.97 is not kept" in plant.steps[0].text
    assert "is above the budget of 29.0 % (cpu_budget_percent 29)" in plant.steps[0].text


def test_the_delay_is_given_up_last_and_one_sentence_says_so_with_figures() -> None:
    plant = Plant()
    plant.run(SETTLE_S, cpu_budget(15.0))
    assert plant.governor.level == "limited" and plant.events == ["down", "down"]
    trouble = plant.governor.trouble
    # 5 % are the base, 40 % ten inferences per second: 15 % are 2.5 of the 5 that 100 ms need at 10 Hz, which
    # is one each 400 ms, the first 100 of which are before the object.
    assert trouble.startswith("cpu_budget_percent 15: max_delay_ms 100 is not kept: at most 2.")
    assert "it needs 5.0, so an object may wait 2" in trouble and "raise the limit" in trouble


def test_where_no_frame_is_optional_that_step_is_left_out() -> None:
    plant = Plant(fps_hz=5.0, cost=cost_of(5.0))
    plant.run(SETTLE_S, cpu_budget(15.0))
    assert plant.events == ["down"] and plant.governor.level == "limited"


def test_a_budget_below_what_max_blind_ms_needs_is_named() -> None:
    plant = Plant()
    load = plant.run(120.0, cpu_budget(2.0))
    assert load > 2.0 and plant.events == ["down", "down", "unreachable"]
    assert "only one frame in max_blind_ms 2000 is inferred" in plant.governor.trouble
    plant.run(SETTLE_S, cpu_budget(15.0))
    assert "max_delay_ms 100 is not kept" in plant.governor.trouble


def test_the_ladder_comes_between() -> None:
    plant = Plant(rungs=(1.0, 0.6, 0.35))
    budget = cpu_budget(15.0)
    plant.run(2 * SETTLE_S, budget)
    assert plant.events == ["down", "rung", "rung"] and plant.governor.rung == 2
    assert plant.governor.level == "stretched" and plant.governor.trouble == ""
    assert plant.limiter.counts.overdue == 0
    assert plant.run(60.0, budget) == pytest.approx(15.0, rel=0.1)
    assert "loading rung 1 of the ladder, 0.60 of the time per inference" in plant.steps[1].text


def test_below_the_ladder_the_delay_is_given_up() -> None:
    plant = Plant(rungs=(1.0, 0.6))
    budget = cpu_budget(12.0)
    plant.run(2 * SETTLE_S, budget)
    assert plant.events == ["down", "rung", "down"] and plant.governor.level == "limited"
    assert plant.run(60.0, budget) == pytest.approx(12.0, rel=0.1)


# Back again.
def test_it_climbs_back_step_by_step() -> None:
    plant = Plant(rungs=(1.0, 0.6))
    plant.run(2 * SETTLE_S, cpu_budget(12.0))
    plant.steps.clear()
    plant.run(4 * SETTLE_S, cpu_budget(60.0))
    assert plant.events == ["up", "up", "rung"] and plant.governor.rung == 0
    assert plant.governor.level == "full" and plant.governor.trouble == ""


def test_it_climbs_no_further_than_the_budget_reaches() -> None:
    """Rung 1 with all that max_delay_ms needs costs 17 %, and rung 0 25 %."""
    plant = Plant(rungs=(1.0, 0.6, 0.35))
    plant.run(2 * SETTLE_S, cpu_budget(13.0))
    assert plant.governor.rung == 2
    plant.steps.clear()
    budget = cpu_budget(21.0)
    plant.run(600.0, budget)
    assert plant.governor.rung == 1 and plant.events.count("rung") == 1
    assert plant.run(60.0, budget) == pytest.approx(21.0, rel=0.1)


def test_a_still_scene_costs_nothing_so_all_is_full() -> None:
    plant = Plant(rungs=(1.0, 0.6))
    plant.run(2 * SETTLE_S, cpu_budget(12.0))
    plant.busy = False
    plant.run(4 * SETTLE_S, cpu_budget(12.0))
    assert plant.governor.level == "full" and plant.governor.rung == 0


def test_without_a_budget_everything_returns_at_once() -> None:
    plant = Plant(rungs=(1.0, 0.6))
    plant.run(2 * SETTLE_S, cpu_budget(12.0))
    plant.run(1.0, None)
    assert plant.governor.limit is None and plant.governor.rung == 0 and plant.governor.trouble == ""
    assert plant.steps[-1].text.startswith("no limit of the load applies any more")
    steps = len(plant.steps)
    plant.run(60.0, None)
    assert len(plant.steps) == steps


def test_scenes_that_alternate_do_not_load_a_model_each_time() -> None:
    """The wait before the next climb doubles when the last one did not last."""
    plant, budget = Plant(rungs=(1.0, 0.6)), cpu_budget(12.0)
    climbs = []
    for _ in range(6):
        plant.busy = True
        plant.run(60.0, budget)
        plant.busy = False
        before = plant.events.count("rung")
        plant.run(CLIMB_S + 60.0, budget)
        climbs.append(plant.events.count("rung") - before)
    assert climbs == [1, 0, 0, 0, 0, 0] and plant.governor.rung == 1
    plant.run(MAX_CLIMB_S, budget)
    assert plant.governor.rung == 0


# Failures.
def test_a_model_that_does_not_load_ends_the_ladder_above_it() -> None:
    plant, budget = Plant(rungs=(1.0, 0.6, 0.35), broken_rungs=(2,)), cpu_budget(12.0)
    plant.run(2 * SETTLE_S + SWAP_LIMIT_S, budget)
    assert plant.events == ["down", "rung", "rung", "rung", "down"]
    assert plant.steps[3].text == "rung 2 of the ladder cannot be used: not loaded within 30 s"
    assert plant.governor.rung == 1 and plant.run(60.0, budget) == pytest.approx(12.0, rel=0.1)


def test_a_refused_model_is_named_at_once() -> None:
    plant = Plant(rungs=(1.0, 0.6), broken_rungs=(1,))
    while "rung" not in plant.events:
        plant.run(1.0, cpu_budget(12.0))
    step = plant.governor.swap_failed("model: there is no bundle")
    assert step and step.text == "rung 1 of the ladder cannot be used: model: there is no bundle"
    assert plant.governor.rung == 0 and plant.governor.swap_failed("again") is None


def test_reports_that_come_late_or_together_are_averaged() -> None:
    plant = Plant()
    governor, budget = plant.governor, cpu_budget(20.0)
    counts = InferenceLimiter().counts
    for now_s, cpu_s in ((0.0, 0.0), (0.0, 0.0), (60.0, 6.0), (60.0, 6.0), (200.0, 20.0)):
        assert governor.update(now_s, cpu_s, counts, PROMISE, budget) is None
    assert governor.load and governor.load.cpu_percent == pytest.approx(10.0)


# The limiter.
@pytest.mark.parametrize("fps_hz", [5.0, 10.0, 29.97])
@pytest.mark.parametrize("share", [0.13, 0.5, 0.77, 0.97])
def test_the_mean_rate_is_exact_at_any_frame_rate(fps_hz: float, share: float) -> None:
    limiter = InferenceLimiter()
    limiter.limit = InferenceLimit(share * fps_hz, keep_delay=False)
    passed = sum(limiter.admits("interval", round(n * 1e9 / fps_hz), 1.0) for n in range(1, 2001))
    assert passed == pytest.approx(2000 * share, abs=3)


@pytest.mark.parametrize("reason", ["refresh", "first", "cut", "audit", "model_swap", "clock_jump"])
@pytest.mark.parametrize("keep_delay", [False, True])
def test_what_bounds_the_blindness_is_never_withheld(reason: str, keep_delay: bool) -> None:
    limiter = InferenceLimiter()
    limiter.limit = InferenceLimit(0.001, keep_delay)
    assert all(limiter.admits(reason, n * 10**8, 0.0) for n in range(1, 101))
    assert not limiter.admits("urgent", 10**10 + 1, 0.0)
    assert limiter.admits("interval", 10**10 + 2, 0.5) is keep_delay


def test_frames_that_the_delay_needs_come_before_optional_ones() -> None:
    limiter = InferenceLimiter()
    limiter.limit = InferenceLimit(6.0, keep_delay=False)
    for n in range(1, 1001):
        limiter.admits("urgent" if n % 2 else "interval", n * 10**8, 0.5)
    # Of 5 needed and 5 optional frames per second, 6 pass.
    assert limiter.counts.overdue <= 2 and limiter.counts.optional == pytest.approx(100, abs=5)


# Power, temperature, throttling.
HEAT = LoadLimits(max_temperature_c=80.0, max_power_w=10.0)
COOL = HeatReadings(5.0, 50.0)


def test_the_smaller_budget_counts() -> None:
    limits = LoadLimits(cpu_budget_percent=30.0, max_temperature_c=80.0)
    cap = LoadCap()
    assert cap.budget(limits) == Budget(30.0, "cpu_budget_percent 30")
    cap.observe(limits, HeatReadings(temperature_c=91.0), 40.0)
    assert cap.budget(limits) == Budget(30.0, "cpu_budget_percent 30")
    cap.observe(limits, HeatReadings(temperature_c=91.0), 30.0)
    assert cap.budget(limits) == Budget(pytest.approx(27.0), "max_temperature_c 80, at 91 C")


@pytest.mark.parametrize(
    ("readings", "cause"),
    [
        (HeatReadings(5.0, 83.4), "max_temperature_c 80, at 83 C"),
        (HeatReadings(12.26, 50.0), "max_power_w 10, at 12.3 W"),
        (HeatReadings(5.0, 50.0, "frequency capped"), "throttling: frequency capped"),
    ],
)
def test_each_sensor_lowers_the_load_and_lets_it_rise_again(readings: HeatReadings, cause: str) -> None:
    cap, load = LoadCap(), 40.0
    for _ in range(5):
        cap.observe(HEAT, readings, load)
        budget = cap.budget(HEAT)
        assert budget and budget.percent == pytest.approx(load * 0.9) and budget.cause == cause
        load = budget.percent
    steps = 0
    while budget := cap.budget(HEAT):
        load, steps = min(40.0, budget.percent), steps + 1
        cap.observe(HEAT, COOL, load)
    assert load == 40.0 and 5 <= steps <= 12


def test_between_limit_and_margin_the_load_stays() -> None:
    cap = LoadCap()
    cap.observe(HEAT, HeatReadings(5.0, 85.0), 40.0)
    before = cap.budget(HEAT)
    for _ in range(20):
        cap.observe(HEAT, HeatReadings(9.8, 79.0), 36.0)
    assert cap.budget(HEAT) == before


def test_a_missing_sensor_limits_nothing() -> None:
    cap = LoadCap()
    for _ in range(20):
        cap.observe(HEAT, HeatReadings(), 40.0)
    assert cap.budget(HEAT) is None
    cap.observe(HEAT, HeatReadings(5.0, 85.0), 40.0)
    cap.observe(HEAT, HeatReadings(), 36.0)
    cap.observe(HEAT, HeatReadings(), 20.0)
    assert cap.budget(HEAT) is None


def test_without_any_limit_the_cap_is_forgotten() -> None:
    cap = LoadCap()
    cap.observe(HEAT, HeatReadings(5.0, 85.0), 40.0)
    assert cap.budget(LoadLimits()) is None and cap.budget(HEAT) is None


def test_a_machine_is_held_at_its_temperature_limit() -> None:
    """Heat flows: 0.6 C per percent of load, with a time constant of 40 s. Unlimited, 39 % give 73 C."""
    plant, cap = Plant(), LoadCap()
    limits, temperature_c, hottest = LoadLimits(max_temperature_c=68.0), 50.0, []
    for second in range(1200):
        load = plant.run(1.0, cap.budget(limits))
        temperature_c += (50.0 + 0.6 * load - temperature_c) / 40.0
        if second % 5 == 4:
            measured = plant.governor.load
            cap.observe(
                limits, HeatReadings(temperature_c=temperature_c), measured.cpu_percent if measured else load
            )
        hottest.append(temperature_c)
    assert max(hottest[:200]) < 73.0
    assert 62.0 < sum(hottest[600:]) / 600 < 68.5 and max(hottest[600:]) < 69.5
