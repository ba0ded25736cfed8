"""`route: auto`: each frame is inferred where its detections will be younger, on the server or here.

As in Neurosurgeon (Y. Kang et al., ASPLOS 2017) the decision follows measured times; as in MARLIN
(K. Apicharttrisorn et al., SenSys 2019) what is slow goes on beside what is fast. Waiting for the server is
a ski-rental problem (A. Karlin et al., Algorithmica 1988): whoever waits as long as the alternative takes
loses a constant factor at most.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from edge_vision.backends.base import BackendRequest, Session
from edge_vision.backends.selection.backend_timing import MIN_SQNR_DB
from edge_vision.backends.selection.fallback import open_session
from edge_vision.backends.selection.parity import sample_image, sqnr_db
from edge_vision.bundles.store import Bundle
from edge_vision.core.concurrency.timeout import WorkTimeout, run_with_timeout
from edge_vision.core.preprocess import Preprocessor
from edge_vision.errors import BackendError

CPU_WORTH = 1.05
"""A remote inference may take this many times as long as a local one: it needs a tenth of the CPU time."""
PATIENCE = 1.25
"""An answer is awaited for this many local inferences, then the same frame is inferred here."""
WEIGHT, WORST = 0.5, 2.0
"""Of the newest remote time in the mean; it counts as at most this many local ones, so that a short outage is
soon forgotten."""
PROBE_SHARE, MIN_PROBE_S, MAX_PROBE_S = 0.2, 0.5, 30.0
"""While frames are inferred here, the server is asked, too: for this share of the time, in this range."""
LOCAL_INTERVAL_S = 10.0
"""While frames are inferred on the server, one is inferred here after this long, to measure that again."""


class Router:
    """Decides frame by frame from the times of both. Pure: times come from the caller.

    With a constant local time L no frame takes longer than (1 + PATIENCE) * L, whatever the server does.
    """

    def __init__(self, local_s: float, remote_s: float) -> None:
        self.local_s, self.remote_s = local_s, remote_s
        self._probe_at_s = self._local_at_s = -np.inf
        self._retry_s = MIN_PROBE_S

    def wait_s(self, now_s: float) -> float | None:
        """How long to wait for the server with this frame; 0: ask it and infer here at once; None: do not."""
        if self.remote_s <= CPU_WORTH * self.local_s:
            if now_s < self._local_at_s + LOCAL_INTERVAL_S:
                return PATIENCE * self.local_s
            return None
        return 0.0 if now_s >= self._probe_at_s else None

    def add_local(self, now_s: float, took_s: float) -> None:
        """A frame was inferred here."""
        self.local_s += WEIGHT * (took_s - self.local_s)
        self._local_at_s = now_s

    def add_remote(self, now_s: float, took_s: float) -> None:
        """The server has answered, perhaps too late."""
        self.remote_s += WEIGHT * (min(took_s, WORST * self.local_s) - self.remote_s)
        if took_s > CPU_WORTH * self.local_s:  # Otherwise the next frame confirms it.
            self._probe_at_s = now_s + min(max(took_s / PROBE_SHARE, MIN_PROBE_S), MAX_PROBE_S)
        self._retry_s = MIN_PROBE_S

    def add_failure(self, now_s: float) -> None:
        """The server has failed: the interval between attempts doubles."""
        self.remote_s = WORST * self.local_s
        self._probe_at_s = now_s + self._retry_s
        self._retry_s = min(2.0 * self._retry_s, MAX_PROBE_S)


class RoutedSession(Session):
    """A session on a server, and one here. `trouble`: why the server does not answer."""

    def __init__(self, remote: Session, local: Session, router: Router) -> None:
        self.inputs, self.outputs = remote.inputs, remote.outputs
        here = f"route auto: or here on {local.actual.backend} {local.actual.version}, {local.actual.device}"
        self.actual = replace(remote.actual, notes=(*remote.actual.notes, here))
        self._remote, self._local, self._router = remote, local, router
        self._asked = False
        self._by_server: deque[bool] = deque(maxlen=100)

    def _run(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # One request at a time: one that is late keeps the next frames here.
        wait_s = None if self._asked else self._router.wait_s(time.monotonic())
        if wait_s is not None:
            self._asked = True
            # The caller fills them again while a late request may still be sent.
            sent = {name: tensor.copy() for name, tensor in tensors.items()}
            with suppress(WorkTimeout, BackendError):
                outputs = run_with_timeout(wait_s, lambda: self._ask(sent), lambda _: None)
                self._by_server.append(True)
                return outputs
        began_s = time.monotonic()
        outputs = self._local.run(tensors)
        now_s = time.monotonic()
        self._router.add_local(now_s, now_s - began_s)
        self._by_server.append(False)
        return outputs

    def _ask(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        began_s = time.monotonic()
        self._remote.deadline_s = self.deadline_s
        try:
            outputs = self._remote.run(tensors)
            now_s = time.monotonic()
            self._router.add_remote(now_s, now_s - began_s)
            self.trouble = ""
            return outputs
        except BackendError as error:
            self._router.add_failure(time.monotonic())
            self.trouble = f"route auto: inference runs here only, {error}"
            raise
        finally:
            self._asked = False
            if self._closed:
                self._remote.close()

    def status_values(self) -> dict[str, Any]:
        """The share of the server, and the times that decide."""
        shown = list(self._by_server)
        return {
            "route.remote_percent": 100.0 * sum(shown) / len(shown) if shown else None,
            "route.remote_ms": 1e3 * self._router.remote_s,
            "route.local_ms": 1e3 * self._router.local_s,
        }

    def close(self) -> None:
        super().close()
        self._local.close()
        if not self._asked:  # Else `_ask` closes it.
            self._remote.close()


def routed(remote: Session, bundle: Bundle, request: BackendRequest) -> RoutedSession:
    """A session on the server with the fastest local one, which must agree.

    Raises BackendError, BundleError.
    """
    local, _ = open_session(bundle, "auto", replace(request, remote_url=""))
    spec = bundle.manifest.input
    tensors = {spec.name: Preprocessor(spec).prepare(sample_image(spec.width_px, spec.height_px))[0]}
    try:
        found, took_s = [], []
        for session in (local, remote):
            session.run(tensors)  # The first run allocates memory and selects kernels.
            began_s = time.monotonic()
            found.append({name: value.copy() for name, value in session.run(tensors).items()})
            took_s.append(time.monotonic() - began_s)
        if (db := sqnr_db(*found)) < MIN_SQNR_DB:
            raise BackendError(
                f"the outputs of the server differ from those of {local.actual.backend} here: {db:.1f} dB, "
                f"expected {MIN_SQNR_DB:.0f} or more; serve the graph of bundle {bundle.name}"
            )
    except BackendError:
        local.close()
        raise
    return RoutedSession(remote, local, Router(*took_s))
