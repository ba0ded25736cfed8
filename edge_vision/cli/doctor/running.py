"""What runs, as seen from outside: from plain facts to checks. `nodes/system_probe.py` gathers the facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_vision.cli.doctor.check import ERROR, OK, RUNNING, UNKNOWN, WARN, Check
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.diagnostics.system_view import Pipeline, SystemView

_LEVELS = (OK, WARN, ERROR, ERROR)
"""Of a status: 0 OK, 1 warning, 2 error, 3 stale."""
_AT_MOST = 8


def checks(seen: SystemView, namespace: str | None = None) -> Iterator[Check]:
    """The check list. namespace: only of this pipeline; None = of all."""
    wanted = [one for one in seen.pipelines if namespace in (None, one.namespace)]
    yield _graph(seen, wanted, namespace)
    for pipeline in wanted:
        yield from _pipeline(pipeline, seen.seconds)
    if seen.foreign:
        yield _foreign(seen.foreign)


def unseen(reason: str) -> Check:
    """The one check where nothing could be looked at."""
    return Check(RUNNING, "graph", UNKNOWN, f"could not look: {reason}")


def _graph(seen: SystemView, wanted: Sequence[Pipeline], namespace: str | None) -> Check:
    values = {
        "domain_id": seen.domain_id,
        "discovery_range": seen.discovery_range,
        "rmw": seen.rmw,
        "seconds": seen.seconds,
        "namespaces": [one.namespace for one in wanted],
        "nodes": [f"{one.namespace.rstrip('/')}/{name}" for one in wanted for name in one.nodes],
        "other_nodes": list(seen.others),
        "image_topics": list(seen.images),
    }
    if wanted:
        names = ", ".join(f"{', '.join(one.nodes)} in {one.namespace}" for one in wanted)
        return Check(RUNNING, "graph", OK, f"{seen.place}: {names}; {_others(seen)}", values)
    text = f"no edge_vision node runs in {seen.place}"
    if namespace and seen.pipelines:
        there = ", ".join(one.namespace for one in seen.pipelines)
        text = f"no edge_vision node runs in the namespace {namespace}, but in {there}; {seen.place}"
    remedy = (
        "start it: ros2 launch edge_vision pipeline.launch.py. If it does run, on this machine or another: "
        "ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE must be the same here as there"
    )
    return Check(RUNNING, "graph", ERROR, f"{text}; {_others(seen)}: {remedy}", values)


def _others(seen: SystemView) -> str:
    if not seen.others:
        return "no other node either" if not seen.pipelines else "no other node"
    nodes = f"other nodes: {_some(seen.others)}"
    return f"{nodes}; image topics: {_some(seen.images) if seen.images else 'none'}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _AT_MOST} more" if len(names) > _AT_MOST else ""
    return ", ".join(names[:_AT_MOST]) + more


def _pipeline(pipeline: Pipeline, seconds: float) -> Iterator[Check]:
    for name in pipeline.twice:
        text = f"two nodes are called {pipeline.namespace.rstrip('/')}/{name}: give each pipeline a namespace"
        yield Check(RUNNING, pipeline.title(name), ERROR, text)
    own = {name: pipeline.reports.get(name) for name in pipeline.nodes if name != "diagnostics"}
    if pipeline.told:
        # Reports of nodes that are not watched, and what /diagnostics says of those that are.
        statuses: dict[str, StatusEntry | None] = {**own, **pipeline.told}
    else:
        yield _no_diagnostics(pipeline)
        statuses = {**own, "output": pipeline.cause}
    for name, status in statuses.items():
        if status is not None:
            yield _check(pipeline.title(name), status)
        elif name != "output":
            text = f"no report within {seconds:.0f} s: does its process hang?"
            yield Check(RUNNING, pipeline.title(name), ERROR, text)
    for listener in pipeline.unfit:
        yield Check(RUNNING, pipeline.title("detections"), WARN, listener)


def _no_diagnostics(pipeline: Pipeline) -> Check:
    own = pipeline.reports.get("diagnostics")
    name = pipeline.title("diagnostics")
    if own and own.level:
        return _check(name, own)
    where = "" if pipeline.namespace == "/" else f" --ros-args -r __ns:={pipeline.namespace}"
    if "diagnostics" in pipeline.nodes:
        text = "the diagnostics node is there, and nothing of it came on /diagnostics: is the topic remapped?"
    else:
        text = f"no diagnostics node runs: ros2 run edge_vision diagnostics_node{where}"
    return Check(RUNNING, name, WARN, f"{text}. What follows the doctor has seen itself")


def _check(name: str, status: StatusEntry) -> Check:
    level = _LEVELS[status.level] if 0 <= status.level < len(_LEVELS) else ERROR
    return Check(RUNNING, name, level, status.message, dict(status.values))


def _foreign(statuses: Sequence[StatusEntry]) -> Check:
    """What others say of themselves is told, and is no judgement on ours."""
    bad = [f"{one.name} ({one.level_name}: {one.message})" for one in statuses if one.level]
    text = f"{len(statuses)} statuses of other nodes on /diagnostics"
    text += f", not OK: {_some(bad)}" if bad else ", all OK"
    values = {one.name: {"level": one.level_name, "text": one.message} for one in statuses}
    return Check(RUNNING, "others", OK, text, values)
