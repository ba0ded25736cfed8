"""Checks of the running system, derived from the SystemView that `nodes/observers/system_probe.py` fills."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edge_vision.cli.doctor.check import ERROR, OK, RUNNING, UNKNOWN, WARN, Check
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.nodes.observers.system_view import Pipeline, SystemView

_LEVELS = (OK, WARN, ERROR, ERROR)
"""By the level of a status: 0 OK, 1 warning, 2 error, 3 stale."""
_MAX_NAMES = 8


def checks(view: SystemView, namespace: str | None = None) -> Iterator[Check]:
    """All checks. namespace: only those of this pipeline; None = of all."""
    pipelines = [one for one in view.pipelines if namespace in (None, one.namespace)]
    yield _graph(view, pipelines, namespace)
    for pipeline in pipelines:
        yield from _pipeline(pipeline, view.duration_s)
    if view.other_statuses:
        yield _other_statuses(view.other_statuses)


def not_observed(reason: str) -> Check:
    """The only check if the running system cannot be observed."""
    return Check(RUNNING, "graph", UNKNOWN, f"could not be checked: {reason}")


def _graph(view: SystemView, pipelines: Sequence[Pipeline], namespace: str | None) -> Check:
    values = {
        "domain_id": view.domain_id,
        "discovery_range": view.discovery_range,
        "rmw": view.rmw,
        "seconds": view.duration_s,
        "namespaces": [one.namespace for one in pipelines],
        "nodes": [f"{one.namespace.rstrip('/')}/{name}" for one in pipelines for name in one.nodes],
        "other_nodes": list(view.other_nodes),
        "image_topics": list(view.image_topics),
    }
    if pipelines:
        nodes = ", ".join(f"{', '.join(one.nodes)} in {one.namespace}" for one in pipelines)
        return Check(RUNNING, "graph", OK, f"{view.scope}: {nodes}; {_other_nodes(view)}", values)
    text = f"no edge_vision node runs in {view.scope}"
    if namespace and view.pipelines:
        namespaces = ", ".join(one.namespace for one in view.pipelines)
        text = f"no edge_vision node runs in the namespace {namespace}, but in {namespaces}; {view.scope}"
    remedy = (
        "start it: ros2 launch edge_vision pipeline.launch.py. If it is running, on this machine or another, "
        "ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE must be the same here as there"
    )
    return Check(RUNNING, "graph", ERROR, f"{text}; {_other_nodes(view)}: {remedy}", values)


def _other_nodes(view: SystemView) -> str:
    if not view.other_nodes:
        return "no other node either" if not view.pipelines else "no other node"
    topics = _first(view.image_topics) if view.image_topics else "none"
    return f"other nodes: {_first(view.other_nodes)}; image topics: {topics}"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _pipeline(pipeline: Pipeline, duration_s: float) -> Iterator[Check]:
    for name in pipeline.duplicates:
        text = f"two nodes are named {pipeline.namespace.rstrip('/')}/{name}: give each pipeline a namespace"
        yield Check(RUNNING, pipeline.full_name(name), ERROR, text)
    if not pipeline.diagnostics:
        yield _no_diagnostics(pipeline)
    for name, status in _statuses(pipeline).items():
        if status is not None:
            yield _check(pipeline.full_name(name), status)
        elif name != "output":
            text = f"no report within {duration_s:.0f} s: its process may hang; restart it"
            yield Check(RUNNING, pipeline.full_name(name), ERROR, text)
    for text in pipeline.unmatched:
        yield Check(RUNNING, pipeline.full_name("detections"), WARN, text)


def _statuses(pipeline: Pipeline) -> Mapping[str, StatusEntry | None]:
    """The status of each part: on /diagnostics if it is there, otherwise the node's own report."""
    reports = {name: pipeline.reports.get(name) for name in pipeline.nodes if name != "diagnostics"}
    if pipeline.diagnostics:
        return {**reports, **pipeline.diagnostics}
    return {**reports, "output": pipeline.output}


def _no_diagnostics(pipeline: Pipeline) -> Check:
    report = pipeline.reports.get("diagnostics")
    name = pipeline.full_name("diagnostics")
    if report and report.level:
        return _check(name, report)
    arguments = "" if pipeline.namespace == "/" else f" --ros-args -r __ns:={pipeline.namespace}"
    if "diagnostics" in pipeline.nodes:
        text = "the diagnostics node is running, but nothing arrives on /diagnostics: is the topic remapped?"
    else:
        text = f"no diagnostics node runs: ros2 run edge_vision diagnostics_node{arguments}"
    return Check(RUNNING, name, WARN, f"{text}. The checks below use the nodes' own reports")


def _check(name: str, status: StatusEntry) -> Check:
    level = _LEVELS[status.level] if 0 <= status.level < len(_LEVELS) else ERROR
    return Check(RUNNING, name, level, status.message, dict(status.values))


def _other_statuses(statuses: Sequence[StatusEntry]) -> Check:
    """The statuses of other nodes, which are listed but do not affect the exit code."""
    bad = [f"{one.name} ({one.level_name}: {one.message})" for one in statuses if one.level]
    text = f"{len(statuses)} statuses of other nodes on /diagnostics"
    text += f", not OK: {_first(bad)}" if bad else ", all OK"
    values = {one.name: {"level": one.level_name, "text": one.message} for one in statuses}
    return Check(RUNNING, "others", OK, text, values)
