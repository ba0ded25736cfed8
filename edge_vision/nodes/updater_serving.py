"""What the detector serves: the model and the parameters of a slot, on probation until they are committed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python

from edge_vision.bundles.manifest import MANIFEST_FILE
from edge_vision.bundles.store import bundle_folder
from edge_vision.core.running_clock import running_s
from edge_vision.errors import BundleError, EdgeVisionError, UpdateError
from edge_vision.nodes.base_node import BaseNode
from edge_vision.nodes.interface.live_parameters import NodeValues, parse_live_parameters
from edge_vision.nodes.updater_parameters import ReleaseParameters
from edge_vision.updates.history import UpdateHistory
from edge_vision.updates.probation import Baseline, Probation, Rates, ServingFigures, Verdict
from edge_vision.updates.release import PARAMETERS_FILE
from edge_vision.updates.slots import Slot, SlotStore

BEGIN_TICK_S = 0.1
"""Until the detector has answered: after a power cut, the model of the slot serves soon."""


class ServedSlot:
    """The slot that serves, between `SlotStore` and the running nodes. The executor calls it.

    log: takes event, text, release, evidence and level. report: takes what failed without a change.
    """

    def __init__(
        self,
        node: BaseNode,
        store: SlotStore,
        history: UpdateHistory,
        log: Callable[..., None],
        report: Callable[[UpdateError], None],
    ) -> None:
        self._node, self._store, self._history = node, store, history
        self._log, self._report = log, report
        self.detector = DetectorModelClient(node)
        self._parameters = ReleaseParameters(node, store.folder, self._on_refused)
        self.probation: Probation | None = None
        self._baseline = Baseline()
        self.begun = False
        self._controls = False
        self._pid, self._gate_pid = "", ""
        self._timer = node.create_timer(
            BEGIN_TICK_S, lambda: self.detector.read(self._begin), clock=node.steady_clock
        )

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        self.detector.close()
        self._parameters.close()

    @property
    def pending(self) -> list[str]:
        """The nodes whose parameters of the release are not set yet."""
        return self._parameters.pending

    @property
    def rates(self) -> Rates:
        """Of the model that serves, before a change."""
        return self._baseline.rates()

    @property
    def model_folder(self) -> Path:
        """The bundle that serves. Raises UpdateError before the detector has answered, BundleError."""
        if slot := self._store.state.current:
            return self._store.bundle_path(slot)
        if not self.begun:
            raise UpdateError("no_detector", "expected a running detector in this namespace, got none")
        return bundle_folder(self.detector.model)

    # Changes.
    def _begin(self, model: str) -> None:
        """After the start: load the model of the slot. model: what the detector has."""
        if self.begun:
            return
        self.begun = True
        self._timer.cancel()
        store = self._store
        before, failed = store.state.serving, store.state.current
        slot = store.begin()
        if failed and store.state.serving != before:
            text = f"serving {slot or 'the factory model'}: {_last_barred(store)}"
            self._log("fell_back", text, failed.release, level="warning")
        if slot:
            self._serve(slot, None if slot.proven else self._history.before())
        else:
            self._set(store.state.factory if self._is_ours(model) else "", None)

    def promote(self) -> Slot:
        """Let the candidate serve on probation. Raises UpdateError."""
        store, rates = self._store, self._baseline.rates()
        if store.state.candidate is None:
            raise UpdateError("no_candidate", "expected a downloaded bundle, got none; call ~/check first")
        if self.probation:
            raise UpdateError("busy", "expected no model on probation, got one; promote when it has ended")
        if not self.begun:
            raise UpdateError("no_detector", "expected a running detector in this namespace, got none")
        self._history.set_before(rates)
        store.promote("" if self._is_ours(self.detector.model) else self.detector.model)
        slot = store.begin()
        assert slot is not None
        self._log("promoted", f"{slot} serves on probation", slot.release)
        self._serve(slot, rates)
        return slot

    def roll_back(self, reason: str, evidence: Mapping[str, Any]) -> Slot | None:
        """Return to the model before, None for the factory model. Raises UpdateError."""
        store, bad = self._store, self._store.state.current
        self.probation = None
        slot = store.roll_back(reason)
        self._baseline = Baseline()
        text = f"rolled back {bad} to {slot or 'the factory model'}: {reason}"
        self._log("rolled_back", text, bad.release if bad else 0, evidence, "warning")
        self._set(self._path(slot), slot)
        return slot

    def advance(self) -> None:
        """Continue with parameters, control and verdict. Call it once a second. Raises UpdateError."""
        self._parameters.advance()
        if (probation := self.probation) is None:
            return
        if not self._node.count_publishers("detector/status"):
            probation.pause(running_s())
        if verdict := probation.verdict(running_s()):
            if verdict.commit and (missing := self.pending):
                reason = f"expected {', '.join(missing)} to run for their parameters, got none"
                verdict = Verdict(False, reason, verdict.evidence)
            self._end_probation(verdict)
        elif probation.needs_control != self._controls:
            self._controls = probation.needs_control
            slot = self._before if self._controls else self._store.state.current
            self.detector.write(self._path(slot), self._on_refused)

    @property
    def _before(self) -> Slot | None:
        """What a rollback would return to."""
        return self._store.state.without_current("", bar=False).current

    def _path(self, slot: Slot | None) -> str:
        return str(self._store.bundle_path(slot)) if slot else self._store.state.factory

    def _is_ours(self, model: str) -> bool:
        return model.startswith(str(self._store.folder))

    def _serve(self, slot: Slot, before: Rates | None) -> None:
        """Set the detector's model. before: the rates to compare with; None without probation."""
        path = self._path(slot)
        if before is not None:
            control = manifest_sha256(self._path(self._before))
            self._controls = False
            self.probation = Probation(manifest_sha256(path), control, slot.digest, before, running_s())
        self._set(path, slot)

    def _set(self, model: str, slot: Slot | None) -> None:
        """Set a model, "" for none, and the parameters of a slot, None for those of before."""
        try:
            self._parameters.want(parameters_in(self._store.bundle_path(slot)) if slot else {})
        except EdgeVisionError as error:  # After a change of the software.
            self._report(UpdateError("invalid_bundle", str(error)))
        if model:
            self.detector.write(model, self._on_refused)

    def _on_refused(self, reason: str) -> None:
        if self.probation:
            self._end_probation(Verdict(False, reason, {}))
        else:
            self._report(UpdateError("refused", reason))

    def _end_probation(self, verdict: Verdict) -> None:
        slot = self._store.state.current
        if verdict.commit and slot:
            self._store.confirm()
            self.probation = None
            self._log("committed", f"{slot}: {verdict.reason}", slot.release, verdict.evidence)
        else:
            self.roll_back(verdict.reason, verdict.evidence)

    # Reports of the other nodes.
    def on_detector(self, figures: ServingFigures) -> None:
        """A status of the detector."""
        if self._pid and figures.pid != self._pid:
            # It has restarted, with the model of its parameter file.
            self.begun, self.probation = False, None
            self._timer.reset()
        self._pid = figures.pid
        (self.probation or self._baseline).add(figures, running_s())

    def on_gate(self, values: Mapping[str, str]) -> None:
        """A status of the gate."""
        pid, self._gate_pid = self._gate_pid, values.get("pid", "")
        if pid not in ("", self._gate_pid):
            self._parameters.set_again()
        if self.probation:
            self.probation.add_gate(values)


class DetectorModelClient:
    """Reads and sets the parameter `model` of the detector in the same namespace, and reads its `backend`."""

    def __init__(self, node: BaseNode) -> None:
        self._node, self.model, self.backend = node, "", "auto"
        self._get = node.create_client(GetParameters, "detector/get_parameters")
        self._set = node.create_client(SetParametersAtomically, "detector/set_parameters_atomically")
        self._request: Any = None

    def close(self) -> None:
        for client in (self._get, self._set):
            self._node.destroy_client(client)

    def read(self, on_model: Callable[[str], None]) -> None:
        """Call back with the present model once the detector answers; repeat until then."""
        if self._get.service_is_ready() and (self._request is None or self._request.done()):
            self._request = self._get.call_async(GetParameters.Request(names=["model", "backend"]))
            self._request.add_done_callback(lambda done: self._on_read(done.result(), on_model))

    def _on_read(self, response: GetParameters.Response | None, on_model: Callable[[str], None]) -> None:
        values = [parameter_value_to_python(value) for value in response.values] if response else []
        if len(values) == 2 and all(isinstance(value, str) for value in values):
            self.model, self.backend = values
            on_model(self.model)

    def write(self, model: str, on_refused: Callable[[str], None]) -> None:
        """Request a model; on_refused is called with the reason."""
        parameter = Parameter("model", value=model).to_parameter_msg()
        future = self._set.call_async(SetParametersAtomically.Request(parameters=[parameter]))
        future.add_done_callback(lambda done: self._on_written(done.result(), model, on_refused))

    def _on_written(
        self,
        response: SetParametersAtomically.Response | None,
        model: str,
        on_refused: Callable[[str], None],
    ) -> None:
        if response is not None and response.result.successful:
            self.model = model
        elif response is not None:
            on_refused(f"the detector refused it: {response.result.reason}")


def manifest_sha256(model: str) -> str:
    """The sha256 of a bundle's manifest, as in the detector's status; "" if there is none."""
    try:
        return hashlib.sha256((bundle_folder(model) / MANIFEST_FILE).read_bytes()).hexdigest()
    except (OSError, BundleError):
        return ""


def parameters_in(folder: Path) -> NodeValues:
    """The parameters of a release. Raises BundleError."""
    file = folder / PARAMETERS_FILE
    try:
        return parse_live_parameters(file.read_text("utf-8"), file.name) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: expected a parameter file, got: {error}") from None


def _last_barred(store: SlotStore) -> str:
    reasons = list(store.state.barred.values())
    return reasons[-1] if reasons else "its bundle is missing"
