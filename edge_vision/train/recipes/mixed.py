"""Which layers of a graph stay in fp32, so that it takes at most a share of the fp32 model's time.

The most sensitive layers, as in the optimizer's mixed precision; how many is decided by the measured time of
whole graphs.
"""

from __future__ import annotations

from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.layer_quantizer import LayerQuantizer
from edge_vision.optimize.quantization.sensitivity import bisect, ranked
from edge_vision.train.recipes.run_folder import stored_choice
from edge_vision.train.recipes.training_run import Log, TrainingRun

_MARGIN = 0.98
"""Of the share of the time, as the result's time is measured again."""


def fp32_layers(run: TrainingRun, quantizer: LayerQuantizer, log: Log) -> tuple[str, ...]:
    """The names of the layers. Stored, as a continued run must train the same graph. Raises OptimizeError if
    int8 alone takes longer than `mixed` of the request."""
    found: tuple[str, ...] = stored_choice(
        run.folder, "fp32_layers.json", tuple[str, ...], lambda: _fp32_layers(run, quantizer, log)
    )
    return found


def _fp32_layers(run: TrainingRun, quantizer: LayerQuantizer, log: Log) -> tuple[str, ...]:
    share = run.request.mixed
    found_layers = ranked(quantizer, run.validation, lambda text: run.show(f"sensitivity: {text}"))
    names = [layer.name for layer in found_layers]

    def time_with(count: int) -> float:
        run.show(f"time with {count} layers in fp32")
        return run.time_ratios(quantizer.without(names[:count]), run.folded)[run.request.runtime]

    count, times = bisect(len(names), _MARGIN * share, time_with)
    if times[count] > _MARGIN * share:
        count -= 1
    if count < 1:
        raise OptimizeError(
            f"--mixed: expected a share of fp32's time that int8 with one layer in fp32 satisfies, with "
            f"{1 - _MARGIN:.0%} to spare, got {share:g}; int8 alone takes {times[0]:.2f} of it"
        )
    found = tuple(names[:count])
    log(f"{count} of {len(names)} layers stay in fp32: {', '.join(found)}")
    return found
