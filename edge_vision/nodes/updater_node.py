"""The updater node: brings signed model updates to the detector, and takes them back if they do harm.

Checks run in a child process. Everything else runs in the executor, once a second.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python
from std_srvs.srv import Trigger

from edge_vision.bundles.manifest import MANIFEST_FILE
from edge_vision.bundles.store import cache_dir
from edge_vision.core.running_clock import running_s
from edge_vision.errors import BundleError, EdgeVisionError, UpdateError
from edge_vision.nodes import run
from edge_vision.nodes.base_node import OK, WARN, BaseNode
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.live_parameters import NodeValues, parse_live_parameters
from edge_vision.nodes.interface.status_messages import MAX_STATUS_CHARS, status_chars, status_values
from edge_vision.nodes.transport.qos import STATUS
from edge_vision.nodes.updater_parameters import ReleaseParameters
from edge_vision.nodes.updater_shadow import ShadowComparison
from edge_vision.updates.fetch_process import FetchOrder, FetchProcess, FetchResult
from edge_vision.updates.history import HistoryEntry, UpdateHistory
from edge_vision.updates.probation import JUDGED_FRAMES, Baseline, Probation, Rates, ServingFigures, Verdict
from edge_vision.updates.release import PARAMETERS_FILE, parse_release, role_of, target_of
from edge_vision.updates.robot_report import ReportSender, new_report, resolve_robot_id
from edge_vision.updates.slots import Slot, SlotStore, staging_path

TICK_S = 1.0
BEGIN_TICK_S = 0.1
"""Until the detector has answered: after a power cut, the model of the slot serves soon."""


class UpdaterNode(BaseNode):
    """Without `repository_url` it uses no network and writes nothing; the model of a slot still serves."""

    spec = specs.UPDATER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._store: SlotStore | None = None
        self._fetching: FetchProcess | None = None
        self._result: FetchResult | None = None
        self._probation: Probation | None = None
        self._shadow: ShadowComparison | None = None
        self._compared = ""
        self._baseline = Baseline()
        self._detector: DetectorModelClient | None = None
        self._opened: list[Any] = []
        self._next_check_s = 0.0
        self._trouble = ""
        self._reports: ReportSender | None = None
        self._release_parameters: ReleaseParameters | None = None
        for name, answer in (
            ("check", self._answer_check),
            ("promote", self._answer_promote),
            ("rollback", self._answer_rollback),
        ):
            self._services_made.append(self.create_service(Trigger, f"~/{name}", answer))

    # Life cycle.
    def configure(self) -> None:
        folder = cache_dir() / "updates" / (self.camera.strip("/").replace("/", ".") or "default")
        if url := self.params["repository_url"]:
            role_of(self.params["group"])
            target_of(self.params["group"], self.params["channel"])
            root = self.params["bootstrap_root"]
            if not Path(root).expanduser().is_file():
                raise UpdateError("config", f"bootstrap_root: expected the root file, got {root!r:.200}")
        self._robot = resolve_robot_id(self.params["robot_id"])
        target = self.params["report_to"]
        self._reports = ReportSender(target) if target else None
        if url or folder.is_dir():
            self._store = SlotStore(folder)
            self._history = UpdateHistory(folder)

    def activate(self) -> None:
        self._detector = DetectorModelClient(self)
        if self._store:
            self._release_parameters = ReleaseParameters(self, self._store.folder, self._on_refused)
        self._opened = [
            self.create_subscription(DiagnosticArray, "detector/status", self._on_detector, STATUS),
            self.create_subscription(DiagnosticArray, "gate/status", self._on_gate, STATUS),
        ]
        self._begun, self._pid, self._gate_pid = False, "", ""
        self._next_check_s = running_s()
        self._timer = self.create_timer(TICK_S, self._tick, clock=self.steady_clock)
        self._begin_timer = self.create_timer(BEGIN_TICK_S, self._try_to_begin, clock=self.steady_clock)

    def deactivate(self) -> None:
        if self._detector:
            self._detector.close()
            if self._release_parameters:
                self._release_parameters.close()
            self.destroy_timer(self._timer)
            self.destroy_timer(self._begin_timer)
        for subscription in self._opened:
            self.destroy_subscription(subscription)
        self._detector, self._opened, self._probation, self._release_parameters = None, [], None, None
        self._end_shadow()
        if self._fetching:
            self._fetching.stop()
            self._fetching = None

    def cleanup(self) -> None:
        if self._store:
            self._store.close()
            self._store = None

    def _try_to_begin(self) -> None:
        if self._store and self._detector:
            self._detector.read(self._begin)
        else:
            self._begin_timer.cancel()

    # Once a second.
    def _tick(self) -> None:
        store, detector = self._store, self._detector
        if store is None or detector is None:
            return
        try:
            if self._release_parameters:
                self._release_parameters.advance()
            if self._probation:
                self._check_probation(store, self._probation)
            if self._fetching and (result := self._fetching.result):
                self._fetching, self._result = None, result
                self._finish_check(store, result)
            elif self._check_due():
                self._start_check(store)
            self._advance(store, detector)
        except UpdateError as error:
            self._report(error)

    def _check_probation(self, store: SlotStore, probation: Probation) -> None:
        if not self.count_publishers("detector/status"):
            probation.pause(running_s())
        if verdict := probation.verdict(running_s()):
            if verdict.commit and self._release_parameters and (missing := self._release_parameters.pending):
                reason = f"expected {', '.join(missing)} to run for their parameters, got none"
                verdict = Verdict(False, reason, verdict.evidence)
            self._end_probation(store, verdict)

    def _check_due(self) -> bool:
        wanted = self.params["repository_url"] and self.params["auto"] != "off"
        busy = self._fetching or self._probation
        return bool(wanted and not busy and running_s() >= self._next_check_s)

    def _start_check(self, store: SlotStore) -> None:
        self._next_check_s = running_s() + self.params["check_interval_s"]
        params = self.params
        source = (params["repository_url"], params["group"], params["channel"], params["bootstrap_root"])
        self._fetching = FetchProcess(FetchOrder(*source, str(store.folder), os.getpid(), self._robot))

    def _finish_check(self, store: SlotStore, result: FetchResult) -> None:
        try:
            release = parse_release(result.release) if result.release else None
        except EdgeVisionError as error:
            raise UpdateError("invalid", str(error)) from None
        if result.outcome == "failed" or release is None:
            if release and result.reason in ("incompatible", "invalid_bundle", "trial_failed"):
                self._send_report(HistoryEntry("refused", release.release, result.text))
            raise UpdateError(result.reason, result.text)
        self._trouble = result.text
        if result.outcome != "staged":
            self._send_report(self._history.last)
        candidate = store.state.candidate
        if result.outcome == "waiting" and candidate and candidate.digest == result.digest:
            self._end_shadow()
            store.withdraw()
            self._log("withdrawn", f"withdrew {release}: it is at {release.percent} % now", release.release)
        # During a probation the other slot is the way back; the next check finds the download complete.
        if result.outcome == "staged" and self._probation is None:
            self._end_shadow()
            try:
                _parameters_in(staging_path(store.folder, result.digest))
            except EdgeVisionError as error:
                self._send_report(HistoryEntry("refused", release.release, str(error)))
                raise UpdateError("invalid_bundle", str(error)) from None
            store.install(result.digest, release)
            self._log("downloaded", f"downloaded {release}", release.release)

    # Without a request: first compare, then promote.
    def _advance(self, store: SlotStore, detector: DetectorModelClient) -> None:
        candidate, auto = store.state.candidate, self.params["auto"]
        wanted = candidate and self._begun and self._probation is None and auto in ("shadow", "promote")
        if not candidate or not wanted:
            self._end_shadow()
        elif self._compared == candidate.digest:
            if auto == "promote" and self._baseline.rates().frames >= JUDGED_FRAMES:
                self._promote(store)
        elif self._shadow is None:
            self._log("compares", f"{candidate} is compared with the model that serves", candidate.release)
            self._shadow = ShadowComparison(self, str(store.bundle_path(candidate)), detector.backend)
        elif verdict := self._shadow.verdict():
            self._end_shadow()
            self._judge(store, candidate, verdict)

    def _judge(self, store: SlotStore, candidate: Slot, verdict: Verdict) -> None:
        if verdict.commit:
            self._compared = candidate.digest
            self._log("agrees", f"{candidate}: {verdict.reason}", candidate.release, verdict.evidence)
        else:
            store.reject(verdict.reason)
            text = f"rejected {candidate}: {verdict.reason}"
            self._log("rejected", text, candidate.release, verdict.evidence, "warning")

    def _end_shadow(self) -> None:
        if self._shadow:
            self._shadow.close()
            self._shadow = None

    def _report(self, error: UpdateError) -> None:
        self._trouble = f"{error.reason}: {error}"
        self.log_throttled("warning", str(error), event="update_failed")

    # What serves.
    def _begin(self, model: str) -> None:
        """After the start: load the model of the slot. model: what the detector has."""
        store = self._store
        if store is None or self._begun:
            return
        self._begun = True
        self._begin_timer.cancel()
        before, failed = store.state.serving, store.state.current
        slot = store.begin()
        if failed and store.state.serving != before:
            text = f"serving {slot or 'the factory model'}: {_last_barred(store)}"
            self._log("fell_back", text, failed.release, level="warning")
        if slot:
            self._serve(store, slot, self._history.before() if not slot.proven else None)
        else:
            self._set_model(store.state.factory if self._is_ours(store, model) else "")

    def _promote(self, store: SlotStore) -> Slot:
        candidate = store.state.candidate
        if candidate is None:
            raise UpdateError("no_candidate", "expected a downloaded bundle, got none; call ~/check first")
        if self._probation:
            raise UpdateError("busy", "expected no model on probation, got one; promote when it has ended")
        self._end_shadow()
        if self._detector is None or not self._begun:
            raise UpdateError("no_detector", "expected a running detector in this namespace, got none")
        model = self._detector.model
        rates = self._baseline.rates()
        self._history.set_before(rates)
        store.promote("" if self._is_ours(store, model) else model)
        slot = store.begin()
        assert slot is not None
        self._log("promoted", f"{slot} serves on probation", slot.release)
        self._serve(store, slot, rates)
        return slot

    def _serve(self, store: SlotStore, slot: Slot, before: Rates | None) -> None:
        """Set the detector's model. before: the rates to compare with; None without probation."""
        folder = store.bundle_path(slot)
        if before is not None:
            sha256 = hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()
            self._probation = Probation(sha256, slot.digest, before, running_s())
        self._set_model(str(folder), slot)

    def _set_model(self, model: str, slot: Slot | None = None) -> None:
        """Set the model and the parameters of a slot, None for the factory's."""
        if self._release_parameters and self._store:
            try:
                folder = self._store.bundle_path(slot) if slot else None
                self._release_parameters.want(_parameters_in(folder) if folder else {})
            except EdgeVisionError as error:  # After a change of the software.
                self._report(UpdateError("invalid_bundle", str(error)))
        if self._detector and model:
            self._detector.write(model, self._on_refused)

    def _on_refused(self, reason: str) -> None:
        if self._store and self._probation:
            self._end_probation(self._store, Verdict(False, reason, {}))
        else:
            self._report(UpdateError("refused", reason))

    def _end_probation(self, store: SlotStore, verdict: Verdict) -> None:
        slot = store.state.current
        if verdict.commit and slot:
            store.confirm()
            self._probation = None
            self._log("committed", f"{slot}: {verdict.reason}", slot.release, verdict.evidence)
        else:
            self._roll_back(store, verdict.reason, verdict.evidence)

    def _roll_back(self, store: SlotStore, reason: str, evidence: Mapping[str, Any]) -> Slot | None:
        bad = store.state.current
        self._probation = None
        slot = store.roll_back(reason)
        self._baseline = Baseline()
        text = f"rolled back {bad} to {slot or 'the factory model'}: {reason}"
        self._log("rolled_back", text, bad.release if bad else 0, evidence, "warning")
        self._set_model(str(store.bundle_path(slot)) if slot else store.state.factory, slot)
        return slot

    def _is_ours(self, store: SlotStore, model: str) -> bool:
        return model.startswith(str(store.folder))

    # Reports of the other nodes.
    def _on_detector(self, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            if status_chars(status) <= MAX_STATUS_CHARS:
                figures = ServingFigures.read(status_values(status))
                if self._pid and figures.pid != self._pid:
                    # It has restarted, with the model of its parameter file.
                    self._begun, self._probation = False, None
                    self._begin_timer.reset()
                self._pid = figures.pid
                if self._probation:
                    self._probation.add(figures, running_s())
                else:
                    self._baseline.add(figures, running_s())

    def _on_gate(self, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            if status_chars(status) <= MAX_STATUS_CHARS:
                values = status_values(status)
                pid, self._gate_pid = self._gate_pid, values.get("pid", "")
                if self._release_parameters and pid not in ("", self._gate_pid):
                    self._release_parameters.set_again()
                if self._probation:
                    self._probation.add_gate(values)

    # Services.
    def _answer(self, response: Trigger.Response, act: Callable[[SlotStore], str]) -> Trigger.Response:
        try:
            if self._store is None or self.state != "active":
                raise UpdateError("config", "expected an active updater with a repository_url, got none")
            response.success, response.message = True, act(self._store)
        except UpdateError as error:
            response.success, response.message = False, str(error)
        return response

    def _answer_check(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def check(store: SlotStore) -> str:
            if not self.params["repository_url"]:
                raise UpdateError("config", "expected a repository_url, got none")
            if self._probation:
                raise UpdateError("busy", "expected no model on probation, got one; check when it has ended")
            if self._fetching:
                return "a check is running; ~/status shows its progress"
            self._start_check(store)
            return "checking; ~/status shows the result"

        return self._answer(response, check)

    def _answer_promote(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda store: f"{self._promote(store)} serves on probation")

    def _answer_rollback(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def roll_back(store: SlotStore) -> str:
            slot = self._roll_back(store, "requested by ~/rollback", {})
            return f"{slot or 'the factory model'} serves"

        return self._answer(response, roll_back)

    # Status.
    def _log(
        self,
        event: str,
        text: str,
        release: int,
        evidence: Mapping[str, Any] | None = None,
        level: str = "info",
    ) -> None:
        self.structured_log.event(f"update_{event}", text, level, evidence=json.dumps(evidence or {}))
        self._history.add(event, text, evidence or {}, release)
        self._send_report(self._history.last)

    def _send_report(self, last: HistoryEntry) -> None:
        if self._reports and self._store:
            self._reports.send(
                new_report(
                    self._robot,
                    self.camera,
                    last.text,
                    group=self.params["group"],
                    channel=self.params["channel"],
                    serving=str(self._store.state.current or "factory"),
                    release=last.release,
                    outcome=last.event,
                )
            )

    def health(self) -> tuple[int, str]:
        store = self._store
        if store is None:
            return OK, "idle: no repository_url"
        if trouble := self._trouble or store.note:
            return WARN, trouble
        if self._probation:
            return OK, f"{store.state.current} serves on probation"
        if self._shadow:
            return OK, f"{store.state.candidate} is compared with the model that serves"
        return OK, f"{store.state.current or 'the factory model'} serves"

    def status_values(self) -> dict[str, Any]:
        if self._store is None:
            return {"serving": None, "candidate": None}
        state = self._store.state
        done, total = self._fetching.progress if self._fetching else (0, 0)
        return {
            "serving": str(state.current or "factory"),
            "candidate": str(state.candidate or ""),
            "probation": self._probation is not None,
            "probation.frames": self._probation.frames if self._probation else 0,
            "shadow": self._shadow is not None,
            "shadow.frames": self._shadow.test.trials if self._shadow else 0,
            "shadow.misses": self._shadow.test.misses if self._shadow else 0,
            "parameters.pending": ", ".join(self._release_parameters.pending)
            if self._release_parameters
            else "",
            "tries": state.tries,
            "security_floor": state.security_floor,
            "barred": len(state.barred),
            "checking": self._fetching is not None,
            "download.bytes": done,
            "download.total_bytes": total,
            "last_check": self._result.outcome if self._result else "",
            "last_event": self._history.last.text,
            "report": self._reports.problem if self._reports else None,
        }


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


def _parameters_in(folder: Path) -> NodeValues:
    """The parameters of a release. Raises BundleError."""
    file = folder / PARAMETERS_FILE
    try:
        return parse_live_parameters(file.read_text("utf-8"), file.name) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: expected a parameter file, got: {error}") from None


def _last_barred(store: SlotStore) -> str:
    reasons = list(store.state.barred.values())
    return reasons[-1] if reasons else "its bundle is missing"


def main(args: list[str] | None = None) -> int:
    return run.main([UpdaterNode], "updater_node", args)
