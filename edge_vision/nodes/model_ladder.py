"""Selects the detector's model from a ladder, through the detector's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python

from edge_vision.bundles.ladder import Rung, run_parameters
from edge_vision.bundles.store import bundle_folder
from edge_vision.errors import BundleError
from edge_vision.nodes.base_node import BaseNode

CLEARLY_FASTER = 0.95
_NAMES = tuple(run_parameters("", "", "", 0))


class ModelLadder:
    """The ladder of one detector, which may be in another process. The executor calls it.

    The first rung is the model that the detector was given. on_refused: called with the reason.
    """

    def __init__(self, node: BaseNode, rungs: Sequence[Rung], on_refused: Callable[[str], None]) -> None:
        self._node, self._on_refused = node, on_refused
        self._rungs = rungs
        self._choices: list[dict[str, Any]] = []
        self._get = node.create_client(GetParameters, "detector/get_parameters")
        self._set = node.create_client(SetParametersAtomically, "detector/set_parameters_atomically")
        self._request: Any = None

    def close(self) -> None:
        """Stop using the detector's services."""
        for client in (self._get, self._set):
            self._node.destroy_client(client)

    def relative_times(self) -> tuple[float, ...]:
        """Of the models to choose from, slowest first; empty until the detector has said which it has."""
        if (
            not self._choices
            and self._get.service_is_ready()
            and (self._request is None or self._request.done())
        ):
            self._request = self._get.call_async(GetParameters.Request(names=list(_NAMES)))
            self._request.add_done_callback(lambda done: self._start(done.result()))
        return tuple(choice["relative"] for choice in self._choices)

    def _start(self, given: GetParameters.Response | None) -> None:
        """Begin the ladder at the detector's model. One that it does not have is taken for the baseline."""
        values = [parameter_value_to_python(value) for value in given.values] if given else []
        if len(values) != len(_NAMES) or self._choices:
            return
        present = dict(zip(_NAMES, values, strict=True))
        rungs, at = self._rungs, self._position(str(present["model"]))
        relative = 1.0 if at is None else rungs[at].relative
        below = [rung for rung in rungs if rung.relative < relative * CLEARLY_FASTER]
        self._choices = [
            {"relative": relative, "parameters": present},
            *({"relative": rung.relative, "parameters": rung.parameters} for rung in below),
        ]

    def _position(self, model: str) -> int | None:
        try:
            folder = bundle_folder(model).resolve()
        except BundleError:  # On another machine.
            return None
        folders = [bundle_folder(rung.model).resolve() for rung in self._rungs]
        return folders.index(folder) if folder in folders else None

    def select(self, rung: int) -> None:
        """Request a model. It is loaded in the background; `vision_info` reports when it runs."""
        values = self._choices[rung]["parameters"]
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        future = self._set.call_async(SetParametersAtomically.Request(parameters=parameters))
        future.add_done_callback(lambda done: self._on_set(done.result()))

    def _on_set(self, response: SetParametersAtomically.Response | None) -> None:
        if response is not None and not response.result.successful:
            self._on_refused(response.result.reason)
