"""Requests of the live page for parameters."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from edge_vision.nodes.observers import remote_parameters
from edge_vision.nodes.observers.remote_parameters import MAX_WAITING, RemoteParameters


def test_requests_that_wait_are_bounded_and_never_stop_their_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_parameters, "TIMEOUT_S", 0.5)
    parameters = RemoteParameters(lambda camera: ["gate"])
    with ThreadPoolExecutor(MAX_WAITING + 1) as pages:

        def ask() -> None:
            before = parameters._waiting.qsize()
            reads.append(pages.submit(parameters.read, "/"))
            until_s = time.monotonic() + 5.0
            while parameters._waiting.qsize() == before and time.monotonic() < until_s:
                time.sleep(0.001)

        def create_client(*_: Any) -> Any:
            ask()  # Another request arrives while the first one is being handled.
            return SimpleNamespace(service_is_ready=lambda: False)

        reads: list[Any] = []
        for _ in range(MAX_WAITING):
            ask()
        with pytest.raises(ValueError, match="no answer of /gate/get_parameters"):
            parameters.read("/")
        server = threading.Thread(
            target=parameters.advance, args=(SimpleNamespace(create_client=create_client),), daemon=True
        )
        server.start()
        server.join(10.0)
        assert not server.is_alive()
        for read in reads:
            with pytest.raises(ValueError, match="no answer of /gate/get_parameters"):
                read.result()
