"""Causes of last resort: what came out, or that nothing came out for no known reason."""

from __future__ import annotations

from edge_vision.core.ledger import FATES
from edge_vision.diagnostics.causes.base import COUNTED_S, ERROR, OK, WARN, CauseList, Match
from edge_vision.diagnostics.causes.frames import publishers_text
from edge_vision.diagnostics.snapshot import PipelineSnapshot

CAUSES = CauseList()
# A single failed frame is not a cause if the next one is inferred.
FAILING_S = 1.8
# Reports, a slow inference and a loaded machine may add this much to the bound on blindness.
SLACK_S = 3.0


@CAUSES.add("other_scene", WARN, "Train the model on this scene, or select its teacher as `model`.")
def _other_scene(snapshot: PipelineSnapshot) -> Match | None:
    """A model that is valid for some scenes only disagrees with its teacher, which runs instead."""
    detector = snapshot.stage("detector")
    if detector is None or detector.values.get("guard.state") != "fallback":
        return None
    return Match(
        "the model disagrees with its teacher on this scene, whose detections are published, which costs its "
        "time: train the model on this scene, or select its teacher as model"
    )


@CAUSES.add("below_threshold", OK, "Lower `score_threshold` if there are objects.", wait_s=COUNTED_S)
def _below_threshold(snapshot: PipelineSnapshot) -> Match | None:
    """Frames are inferred and no score reaches the threshold; the message states the highest one."""
    detector = snapshot.stage("detector")
    if detector is None or snapshot.increment("inferred") < 2 or detector.increments.get("detections_total"):
        return None
    highest, threshold = detector.number("top_score"), detector.number("score_threshold")
    if highest is None or threshold is None or highest >= threshold:
        return None
    return Match(
        f"the detector runs and detects nothing: the highest score is {highest:.2f}, the threshold "
        f"{threshold:.2f}: lower score_threshold if there are objects"
    )


@CAUSES.add("node_error", ERROR, "As stated in the node's message.")
def _node_error(snapshot: PipelineSnapshot) -> Match | None:
    """A node reports an error that no other rule covers, and no frame was inferred for 1.8 s."""
    failing = next((stage for stage in snapshot.stages if stage.level == ERROR), None)
    if failing is None or snapshot.no_inference_s is None or snapshot.no_inference_s < FAILING_S:
        return None
    return Match(f"{failing.name}: {failing.message}")


@CAUSES.add(
    "nothing_published",
    WARN,
    "See the status of each node, and run `python -m edge_vision doctor`.",
    wait_s=0.0,
)
def _nothing_published(snapshot: PipelineSnapshot) -> Match | None:
    """None of the above, and no frame was inferred for 3 s longer than `max_blind_ms` of gate and cascade
    together."""
    bound_s = sum(stage.number("max_blind_ms") or 0.0 for stage in snapshot.stages) / 1e3
    if snapshot.unexplained_s is None or snapshot.unexplained_s < bound_s + SLACK_S:
        return None
    counts = ", ".join(f"{snapshot.increment(fate)} {fate}" for fate in ("received", *FATES[:-1]))
    return Match(
        f"nothing was published for {snapshot.unexplained_s:.0f} s, although gate and cascade may skip "
        f"frames for {bound_s:.1f} s at most, and no known cause applies (frames of the last second: "
        f"{counts}): see the status of each node, and run `python -m edge_vision doctor`"
    )


@CAUSES.add("several_publishers", OK, "Use one topic per camera, unless only one of them sends.")
def _several_publishers(snapshot: PipelineSnapshot) -> Match | None:
    """Several nodes publish on the image topic, and nothing shows that more than one of them sends."""
    for _, images in snapshot.image_inputs:
        if len(set(images.image_publishers)) > 1:
            text = publishers_text(images)
            return Match(f"{text}: use one topic per camera, unless only one of them sends images")
    return None
