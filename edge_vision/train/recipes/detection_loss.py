"""Loss of a detector's outputs against those of its teacher: scores by quality focal loss, boxes where the
teacher has an object. A pruned network also imitates the teacher's feature maps: these tell more of an image
than its few objects.

Sources: Li et al., "Generalized Focal Loss" (2020); Romero et al., "FitNets" (2015); for the scale of each
channel Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from edge_vision.bundles.store import Bundle
from edge_vision.optimize.quantization.decoding_tail import tail_inputs
from edge_vision.train.networks.cutting import CLASS_ROLES, ClassColumns, class_columns
from edge_vision.train.networks.pruning import block_outputs
from edge_vision.train.recipes.distillation import noise_ratio

if TYPE_CHECKING:
    from edge_vision.train.recipes.training_run import TrainingRun

_OBJECT = 0.1
"""The teacher's score from which a box counts, by its score."""
_BOX_WEIGHT = 1.0
_NOISE_WEIGHT = 5.0
_FEATURE_WEIGHT = 20.0
_LEAST_VARIANCE = 1e-4
"""Of a channel, as a share of its map's: a channel that hardly varies counts no more than that."""

Outputs = Mapping[str, torch.Tensor]


def loss_near_teacher(
    run: TrainingRun, features: bool = False
) -> Callable[[Outputs, Outputs], torch.Tensor] | None:
    """The loss of a detector that is its teacher with fewer channels: that of students, and the noise of what
    the decoding tail reads, which also tells where there is no object; without the latter where labels
    correct the targets. features: and the noise of feature maps. None for other models.

    From now on the run compares these tensors and the outputs of the graph."""
    if run.source.manifest.head.type not in CLASS_ROLES:
        return None
    of_objects = detector_loss(run.source)
    run.outputs = list(run.source.manifest.head.outputs.values())
    if run.correction:
        return of_objects
    tail = tail_inputs(run.folded)
    maps = block_outputs(run.folded) if features else []
    run.outputs = list(dict.fromkeys([*run.outputs, *tail, *maps]))

    def loss(found: Outputs, expected: Outputs) -> torch.Tensor:
        noise = noise_ratio(*({name: one[name] for name in tail} for one in (found, expected)))
        total = of_objects(found, expected) + _NOISE_WEIGHT * noise
        of_maps = [channel_noise(found[name], expected[name]) for name in maps]
        return total + _FEATURE_WEIGHT * torch.stack(of_maps).mean() if maps else total

    return loss


def channel_noise(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Mean over the channels of (batch, channels, height, width): mean square error by variance."""
    error, axes = (found - expected).square(), (0, 2, 3)
    least = (_LEAST_VARIANCE * expected.var(correction=0)).clamp(min=1e-9)
    return (error.mean(axes) / expected.var(axes, correction=0).clamp(min=least)).mean()


def detector_loss(bundle: Bundle) -> Callable[[Outputs, Outputs], torch.Tensor]:
    """The loss of a student of this bundle. Raises OptimizeError for heads that cannot be cut."""
    boxes = bundle.manifest.head.outputs.get("boxes", "")
    return detection_loss(class_columns(bundle), boxes, has_logits(bundle))


def has_logits(bundle: Bundle) -> bool:
    """Whether its graph has logits of the classes, instead of scores."""
    default = {"ssd": "sigmoid"}.get(bundle.manifest.head.type, "none")
    return bundle.manifest.head.options.get("score_activation", default) == "sigmoid"


def detection_loss(
    columns: ClassColumns, boxes: str, logits: bool
) -> Callable[[Outputs, Outputs], torch.Tensor]:
    """boxes: output with box codes; "" if the columns behind the classes are distributions of distances.
    logits: of the classes, instead of scores."""

    def loss(found: Outputs, expected: Outputs) -> torch.Tensor:
        classes = slice(columns.first, columns.first + columns.classes)
        ours, theirs = (one[columns.output][..., classes] for one in (found, expected))
        ours, theirs = (torch.sigmoid(one) if logits else one for one in (ours, theirs))
        ours, theirs = ours.clamp(1e-6, 1 - 1e-6), theirs.clamp(0, 1)
        focus = (ours - theirs).detach().square()
        scores = (focus * F.binary_cross_entropy(ours, theirs, reduction="none")).sum()
        weight = theirs.amax(-1)
        weight = weight * (weight >= _OBJECT)
        return (scores + _BOX_WEIGHT * (weight * _box_loss(found, expected)).sum()) / (weight.sum() + 1.0)

    def _box_loss(found: Outputs, expected: Outputs) -> torch.Tensor:
        """(batch, n)."""
        if boxes:
            return F.smooth_l1_loss(found[boxes], expected[boxes], reduction="none", beta=0.5).sum(-1)
        ours, theirs = (
            torch.log_softmax(one[columns.output][..., -columns.rest :].unflatten(-1, (4, -1)), -1)
            for one in (found, expected)
        )
        steps = torch.arange(ours.shape[-1], dtype=ours.dtype)
        distance = ((ours.exp() - theirs.exp()) @ steps).abs().sum(-1)
        return F.kl_div(ours, theirs, reduction="none", log_target=True).sum((-1, -2)) + distance

    return loss
