"""Reads and sets parameters of running pipelines for the live page, from any thread."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python

from edge_vision.core.redaction import redact_values
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.parameters import PARAMETER_TYPES

TIMEOUT_S = 5.0
MAX_WAITING = 32
SPECS = {
    spec.name: spec for spec in (specs.SOURCE, specs.GATE, specs.CASCADE, specs.DETECTOR, specs.DIAGNOSTICS)
}


class RemoteParameters:
    """`read` and `write` wait in the caller's thread; `advance` serves them in the thread of the node.

    running: the nodes of a camera that report; empty if there is no such camera.
    """

    def __init__(self, running: Callable[[str], list[str]]) -> None:
        self._running = running
        # Bounded in `_call`: `advance`, which alone takes, must not wait to put one back.
        self._waiting: queue.SimpleQueue[tuple[type, str, Any, float, Future[Any]]] = queue.SimpleQueue()
        self._clients: dict[str, Any] = {}

    def read(self, camera: str) -> list[dict[str, Any]]:
        """The parameters of all nodes: node, name, value, description, read_only. Raises ValueError."""
        names = [name for name in SPECS if name in self._running(camera)]
        if not names:
            raise ValueError(f"expected a running pipeline, got '{camera:.100}': no node reports there")
        return [one for name in names for one in self._read(camera, name)]

    def _read(self, camera: str, node: str) -> list[dict[str, Any]]:
        params = SPECS[node].params
        request = GetParameters.Request(names=[param.name for param in params])
        response = self._call(GetParameters, f"{camera.rstrip('/')}/{node}/get_parameters", request)
        found = []
        for param, value in zip(params, response.values, strict=False):
            given = parameter_value_to_python(value)
            shown = redact_values(given)
            limits = f" {param.constraints}" if param.constraints else ""
            unit = f" [{param.unit}]" if param.unit else ""
            found.append(
                {
                    "node": node,
                    "name": param.name,
                    "value": shown,
                    "description": f"{param.description}{unit}{limits}",
                    # A value with a secret cannot be edited: the page does not know it.
                    "read_only": param.applies != "live" or shown != given,
                }
            )
        return found

    def write(self, camera: str, node: str, name: str, value: Any) -> None:
        """Set one live parameter. Raises ValueError with what was expected."""
        if node not in SPECS or node not in self._running(camera):
            raise ValueError(f"expected a running node, got '{node:.100}' of '{camera:.100}'")
        params = {param.name: param for param in SPECS[node].params}
        if name not in params or params[name].applies != "live":
            raise ValueError(f"expected a parameter of {node} that takes effect at once, got '{name:.100}'")
        param = params[name]
        given = Parameter(name, PARAMETER_TYPES[param.type_name], param.check(value))
        request = SetParametersAtomically.Request(parameters=[given.to_parameter_msg()])
        where = f"{camera.rstrip('/')}/{node}/set_parameters_atomically"
        result = self._call(SetParametersAtomically, where, request).result
        if not result.successful:
            raise ValueError(f"{node} refused {name}: {result.reason}")

    def _call(self, kind: type, service: str, request: Any) -> Any:
        answer: Future[Any] = Future()
        try:
            if self._waiting.qsize() >= MAX_WAITING:
                raise queue.Full
            self._waiting.put((kind, service, request, time.monotonic() + TIMEOUT_S, answer))
            return answer.result(TIMEOUT_S + 1.0)
        except (queue.Full, FutureTimeout) as error:
            raise ValueError(f"no answer of {service} within {TIMEOUT_S:.0f} s: try again") from error

    def advance(self, node: Any) -> None:
        """Send the requests whose services are there. In the thread of the node."""
        for _ in range(self._waiting.qsize()):
            kind, service, request, until_s, answer = self._waiting.get_nowait()
            if service not in self._clients:
                self._clients[service] = node.create_client(kind, service)
            client = self._clients[service]
            if client.service_is_ready():
                sent = client.call_async(request)
                sent.add_done_callback(lambda done, answer=answer: _pass_on(done, answer))
            elif time.monotonic() < until_s:
                self._waiting.put((kind, service, request, until_s, answer))
            else:
                answer.set_exception(FutureTimeout())


def _pass_on(done: Any, answer: Future[Any]) -> None:
    if done.exception() is not None:
        answer.set_exception(done.exception())
    else:
        answer.set_result(done.result())
