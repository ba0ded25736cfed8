"""Sets the parameters of a release on the running nodes, and the values before when it is taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python

from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.live_parameters import NodeValues
from edge_vision.nodes.interface.parameters import PARAMETER_TYPES
from edge_vision.updates.durable import write_durably

MAX_AGE = 10
"""Calls of `advance` until a request is repeated: the node may have ended."""
SPECS = {spec.name: spec for spec in specs.NODES}


class ReleaseParameters:
    """Of the nodes in the updater's namespace. The values before are on disk before anything is set."""

    def __init__(self, node: BaseNode, folder: Path, on_refused: Callable[[str], None]) -> None:
        self._node, self._on_refused = node, on_refused
        self._file = folder / "parameters_before.json"
        self._before = self._read()
        self._wanted: NodeValues = {}
        self._pending: set[str] = set()
        self._clients: dict[str, tuple[Any, Any]] = {}
        self._request: Any = None
        self._age = 0

    @property
    def pending(self) -> list[str]:
        """The nodes whose values are not set yet."""
        return sorted(self._pending)

    def close(self) -> None:
        for clients in self._clients.values():
            for client in clients:
                self._node.destroy_client(client)
        self._clients = {}

    def want(self, values: NodeValues) -> None:
        """Set these values; parameters of an earlier release that are not among them get the value before."""
        self._wanted = values
        self.set_again()

    def set_again(self) -> None:
        """A node may have restarted, with the values of its parameter file."""
        self._pending = {*self._wanted, *self._before}
        self._request = None

    def advance(self) -> None:
        """Continue with a node that runs. Call it once a second."""
        self._age += 1
        if self._request is not None and not self._request.done() and self._age < MAX_AGE:
            return
        self._age = 0
        for name in self.pending:
            get, set_atomically = self._clients_of(name)
            if get.service_is_ready() and set_atomically.service_is_ready():
                self._advance(name, get, set_atomically)
                return

    def _advance(self, name: str, get: Any, set_atomically: Any) -> None:
        wanted, before = self._wanted.get(name, {}), self._before.get(name, {})
        if unknown := sorted(wanted.keys() - before.keys()):
            request = self._request = get.call_async(GetParameters.Request(names=unknown))
            request.add_done_callback(lambda done: self._on_read(done, name, unknown))
            return
        values = [
            Parameter(key, PARAMETER_TYPES[SPECS[name].param(key).type_name], value).to_parameter_msg()
            for key, value in {**before, **wanted}.items()
        ]
        request = set_atomically.call_async(SetParametersAtomically.Request(parameters=values))
        self._request = request
        request.add_done_callback(lambda done: self._on_set(done, name))

    def _on_read(self, done: Any, name: str, names: list[str]) -> None:
        response = done.result()
        if done is not self._request or response is None or len(response.values) != len(names):
            return
        read = dict(zip(names, map(parameter_value_to_python, response.values), strict=True))
        try:
            self._keep({**self._before, name: {**self._before.get(name, {}), **read}})
        except (OSError, TypeError) as error:
            self._refuse(name, f"the values before cannot be kept: {error}")

    def _on_set(self, done: Any, name: str) -> None:
        response = done.result()
        if done is not self._request or response is None:
            return
        if not response.result.successful:
            self._refuse(name, response.result.reason)
            return
        self._pending.discard(name)
        still = {key: self._before[name][key] for key in self._wanted.get(name, {})}
        others = {key: values for key, values in self._before.items() if key != name}
        try:
            self._keep({**others, **({name: still} if still else {})})
        except OSError:  # They are set once more at the next start.
            return

    def _refuse(self, name: str, reason: str) -> None:
        self._pending.discard(name)
        self._on_refused(f"{name} refused its parameters: {reason}")

    def _keep(self, before: dict[str, dict[str, Any]]) -> None:
        if before != self._before:
            write_durably(self._file, json.dumps(before).encode())
            self._before = before

    def _read(self) -> dict[str, dict[str, Any]]:
        """The values that were kept. What is invalid is left out: the node keeps what it has."""
        try:
            found = json.loads(self._file.read_bytes())
            return {
                name: {key: SPECS[name].param(key).check(value) for key, value in values.items()}
                for name, values in found.items()
            }
        except (OSError, ValueError, KeyError, AttributeError, TypeError, StopIteration):
            return {}

    def _clients_of(self, name: str) -> tuple[Any, Any]:
        if name not in self._clients:
            self._clients[name] = (
                self._node.create_client(GetParameters, f"{name}/get_parameters"),
                self._node.create_client(SetParametersAtomically, f"{name}/set_parameters_atomically"),
            )
        return self._clients[name]
