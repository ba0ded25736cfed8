"""The training loop: the student imitates the targets: the teacher's outputs, which labels may have
corrected.

The loss is the noise-to-signal ratio of each output, and the divergence of the class distributions. The best
state on images that are not trained on is kept: that of a step, or the moving average of the weights, which
follows the noise of small batches less (Polyak and Juditsky, "Acceleration of Stochastic Approximation by
Averaging", 1992). A checkpoint after each evaluation makes a run resumable.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from edge_vision.optimize.errors import OptimizeError
from edge_vision.train.data.teacher import TeacherSamples
from edge_vision.train.uninterrupted import uninterrupted

WARM_UP_STEPS = 20
EVALUATION_STEPS = 25
_AVERAGED_STEPS = 30
"""About so many steps are in the average of the weights; fewer at the beginning."""
_LEAST_GAIN = 0.01
"""Of the score: what is gained less by training is chance, and training may have forgotten other scenes."""
_DAMAGED = (
    *(AttributeError, EOFError, KeyError, IndexError, OSError, RuntimeError, TypeError, ValueError),
    pickle.UnpicklingError,
)
"""What torch.load and what reads its result raise for a file that is not a checkpoint."""


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Learning rate of each group of parameters."""

    parameters: Sequence[torch.nn.Parameter]
    rate: float


@dataclass(slots=True)
class Progress:
    """step: next one. curve: (step, loss, score) at each evaluation. best_score: of best, the parameters; of
    the untrained ones what others must exceed.
    average: of the parameters over the last steps. cpu_s: of this process while training. loss: of the last
    step. stopped: why it ended before the last step, "" = it did not."""

    step: int
    curve: list[tuple[int, float, float]]
    best_score: float
    best: list[torch.Tensor]
    average: list[torch.Tensor]
    cpu_s: float = 0.0
    loss: float = math.nan
    stopped: str = ""

    @property
    def best_step(self) -> int:
        """The step of best; 0 = untrained."""
        return next((step for step, _, score in self.curve if score == self.best_score), 0)


class Distillation:
    """Trains a student in place."""

    def __init__(
        self,
        student: torch.nn.Module,
        groups: Sequence[ParameterGroup],
        samples: TeacherSamples,
        score: Callable[[], float],
        checkpoint: Path,
        class_logits: str = "",
        loss: Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], torch.Tensor] | None = None,
        averages: bool = True,
    ) -> None:
        """score: of the student as it is now; higher is better.

        class_logits: the output whose softmax is compared as well; "" = none. loss: of found and expected
        outputs, instead of the noise-to-signal ratio. averages: False = only states of steps count."""
        self._averages = averages
        self._given_loss = loss
        self._student, self._samples, self._score, self._file = student, samples, score, checkpoint
        self._groups, self._class_logits = groups, class_logits
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        self._optimizer = torch.optim.Adam(
            [{"params": list(group.parameters), "lr": group.rate} for group in groups], betas=(0.9, 0.99)
        )

    def run(self, steps: int, batch: int, seed: int, show: Callable[[int, float, float], None]) -> Progress:
        """Train, or continue from the checkpoint. At the end the student has its best state.

        show: receives the step, the loss and the seconds left. On KeyboardInterrupt the state is stored; an
        evaluation that it ended is repeated. Raises OptimizeError for a damaged checkpoint.
        """
        state = self._restored() or self._untrained()
        started, cpu, first = time.monotonic(), time.process_time() - state.cpu_s, state.step
        try:
            self._evaluate_if_due(state, steps)
            while state.step < steps and not state.stopped:
                loss = self._gradients(state.step, steps, batch, seed)
                if not math.isfinite(loss):
                    state.stopped = (
                        f"the loss was {loss} in step {state.step + 1}: the best state before is kept"
                    )
                    break
                with uninterrupted():
                    self._optimizer.step()
                    state.step, state.cpu_s, state.loss = state.step + 1, time.process_time() - cpu, loss
                    self._add_to(state.average, 1 / min(state.step + 1, _AVERAGED_STEPS))
                left = (time.monotonic() - started) / (state.step - first) * (steps - state.step)
                show(state.step, loss, left)
                self._evaluate_if_due(state, steps)
        except KeyboardInterrupt:
            self._store(state)
            raise
        self._load(state.best)
        return state

    def _untrained(self) -> Progress:
        return Progress(0, [], self._score() + _LEAST_GAIN, self._values(), self._values())

    def _evaluate_if_due(self, state: Progress, steps: int) -> None:
        """Evaluate each so many steps and at the end; also where an interrupted run did not finish that."""
        due = state.step and (state.step % EVALUATION_STEPS == 0 or state.step == steps)
        if due and not (state.curve and state.curve[-1][0] == state.step):
            self._evaluate(state)

    def _evaluate(self, state: Progress) -> None:
        now, scores = self._values(), {}
        try:
            for values in (now, state.average)[: 1 + self._averages]:
                self._load(values)
                scores[self._score()] = values
        finally:
            self._load(now)
        best = max(scores)
        state.curve.append((state.step, state.loss, best))
        if best > state.best_score:
            state.best_score, state.best = best, [one.clone() for one in scores[best]]
        self._store(state)

    def _add_to(self, average: list[torch.Tensor], weight: float) -> None:
        with torch.no_grad():
            for one, parameter in zip(average, self._parameters, strict=True):
                one.lerp_(parameter, weight)

    def _gradients(self, step: int, steps: int, batch: int, seed: int) -> float:
        """Compute the gradients and the rates of a step; the loss."""
        inputs, targets = self._samples.batch(batch_numbers(len(self._samples.inputs), step, batch, seed))
        share = min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, settings in zip(self._optimizer.param_groups, self._groups, strict=True):
            group["lr"] = share * settings.rate
        loss = self._loss(self._student(torch.as_tensor(inputs)), targets)
        self._optimizer.zero_grad()
        loss.backward()
        return float(loss.detach())

    def _loss(self, found: Mapping[str, torch.Tensor], targets: Mapping[str, np.ndarray]) -> torch.Tensor:
        expected = {name: torch.as_tensor(values) for name, values in targets.items()}
        if self._given_loss:
            return self._given_loss(found, expected)
        loss = noise_ratio(found, expected)
        if self._class_logits:
            ours, theirs = (torch.log_softmax(v[self._class_logits], -1) for v in (found, expected))
            loss = loss + 0.05 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return loss

    def _values(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self._parameters]

    def _load(self, values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)

    def _store(self, state: Progress) -> None:
        """Atomically: after a kill the file is the last complete one."""
        now = (state.step, state.curve, state.best_score, state.best, state.average, state.cpu_s, state.loss)
        content = {"progress": now, "now": self._values(), "optimizer": self._optimizer.state_dict()}
        # torch.save into a file raises RuntimeError where the disk is full.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        unfinished = self._file.with_suffix(".unfinished")
        unfinished.write_bytes(buffer.getvalue())
        os.replace(unfinished, self._file)

    def _restored(self) -> Progress | None:
        if not self._file.exists():
            return None
        try:
            content: dict[str, Any] = torch.load(
                self._file, weights_only=True, map_location=torch.get_default_device()
            )
            state = Progress(*content["progress"])
            for values in (content["now"], state.best, state.average):
                self._check_shapes(values)
            self._optimizer.load_state_dict(content["optimizer"])
        except _DAMAGED as error:
            raise OptimizeError(
                f"{self._file}: expected a checkpoint of this training, got a damaged or other file "
                f"({type(error).__name__}): restore it, or delete it to train again from the first step"
            ) from None
        self._load(content["now"])
        return state

    def _check_shapes(self, values: Sequence[torch.Tensor]) -> None:
        if [one.shape for one in values] != [one.shape for one in self._parameters]:
            raise ValueError("parameters of another network")


def noise_ratio(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean noise-to-signal ratio of the outputs."""
    noise = [
        (found[name] - target).square().sum() / target.square().sum().clamp(min=1e-9)
        for name, target in expected.items()
    ]
    return torch.stack(noise).mean()


def batch_numbers(count: int, step: int, batch: int, seed: int) -> list[int]:
    """The samples of a step: each sample once in a random order, then again in another."""
    at = range(step * batch, (step + 1) * batch)
    rounds = range(at[0] // count, at[-1] // count + 1)
    orders = {one: np.random.default_rng((seed, one)).permutation(count) for one in rounds}
    return [int(orders[i // count][i % count]) for i in at]
