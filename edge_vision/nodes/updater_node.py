"""The updater node: brings signed model updates to the detector, and takes them back if they do harm.

Checks run in a child process. Everything else runs in the executor, once a second.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import Trigger

from edge_vision.bundles.store import cache_dir
from edge_vision.core.running_clock import running_s
from edge_vision.errors import EdgeVisionError, UpdateError
from edge_vision.nodes import run
from edge_vision.nodes.base_node import OK, WARN, BaseNode
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.status_messages import MAX_STATUS_CHARS, status_chars, status_values
from edge_vision.nodes.transport.qos import STATUS
from edge_vision.nodes.updater_serving import ServedSlot, manifest_sha256, parameters_in
from edge_vision.updates.fetch_process import FetchOrder, FetchProcess, FetchResult
from edge_vision.updates.history import HistoryEntry, UpdateHistory
from edge_vision.updates.probation import JUDGED_FRAMES, ServingFigures, Verdict
from edge_vision.updates.release import Release, add_model, parse_release, role_of, target_of
from edge_vision.updates.robot_report import ReportSender, check_share, new_report, resolve_robot_id
from edge_vision.updates.slots import Slot, SlotStore, staging_path

if TYPE_CHECKING:
    from edge_vision.nodes.updater_shadow import ShadowComparison

TICK_S = 1.0


class UpdaterNode(BaseNode):
    """Without `repository_url` it uses no network and writes nothing; the model of a slot still serves."""

    spec = specs.UPDATER

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._store: SlotStore | None = None
        self._fetching: FetchProcess | None = None
        self._result: FetchResult | None = None
        self._served: ServedSlot | None = None
        self._shadow: ShadowComparison | None = None
        self._compared = ""
        self._opened: list[Any] = []
        self._next_check_s, self._wait_share = 0.0, 1.0
        self._trouble = ""
        self._reports: ReportSender | None = None
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
        if store := self._store:
            self._served = ServedSlot(self, store, self._history, self._log, self._report)
        self._opened = [
            self.create_subscription(DiagnosticArray, "detector/status", self._on_detector, STATUS),
            self.create_subscription(DiagnosticArray, "gate/status", self._on_gate, STATUS),
        ]
        self._next_check_s, self._wait_share = running_s(), check_share(self._robot)
        self._timer = self.create_timer(TICK_S, self._tick, clock=self.steady_clock)

    def deactivate(self) -> None:
        if self._opened:
            self.destroy_timer(self._timer)
        for subscription in self._opened:
            self.destroy_subscription(subscription)
        self._opened = []
        if self._served:
            self._served.close()
            self._served = None
        self._end_shadow()
        if self._fetching:
            self._fetching.stop()
            self._fetching = None

    def cleanup(self) -> None:
        if self._store:
            self._store.close()
            self._store = None

    # Once a second.
    def _tick(self) -> None:
        store, served = self._store, self._served
        if store is None or served is None:
            return
        try:
            served.advance()
            if self._fetching and (result := self._fetching.result):
                self._fetching, self._result = None, result
                self._finish_check(store, served, result)
            elif self._check_due(served):
                self._start_check(store)
            self._advance(store, served)
        except UpdateError as error:
            self._report(error)

    def _check_due(self, served: ServedSlot) -> bool:
        wanted = self.params["repository_url"] and self.params["auto"] != "off"
        busy = self._fetching or served.probation
        return bool(wanted and not busy and running_s() >= self._next_check_s)

    def _start_check(self, store: SlotStore) -> None:
        self._next_check_s = running_s() + self._wait_share * self.params["check_interval_s"]
        self._wait_share = 1.0
        params = self.params
        source = (params["repository_url"], params["group"], params["channel"], params["bootstrap_root"])
        self._fetching = FetchProcess(FetchOrder(*source, str(store.folder), os.getpid(), self._robot))

    def _finish_check(self, store: SlotStore, served: ServedSlot, result: FetchResult) -> None:
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
        if result.outcome == "staged" and served.probation is None:
            self._end_shadow()
            self._complete(served, release, staging_path(store.folder, result.digest))
            store.install(result.digest, release)
            self._log("downloaded", f"downloaded {release}", release.release)

    def _complete(self, served: ServedSlot, release: Release, staging: Path) -> None:
        """Check the parameters, which the child cannot; give a release without a model the present one."""
        try:
            parameters_in(staging)
            if not release.has_model:
                add_model(served.model_folder, staging)
        except EdgeVisionError as error:
            if isinstance(error, UpdateError):
                raise
            self._send_report(HistoryEntry("refused", release.release, str(error)))
            raise UpdateError("invalid_bundle", str(error)) from None

    # Without a request: first compare, then promote.
    def _advance(self, store: SlotStore, served: ServedSlot) -> None:
        candidate, auto = store.state.candidate, self.params["auto"]
        wanted = candidate and served.begun and served.probation is None and auto in ("shadow", "promote")
        if not candidate or not wanted:
            self._end_shadow()
        elif self._compared == candidate.digest:
            if auto == "promote" and served.rates.frames >= JUDGED_FRAMES:
                self._promote(served)
        elif self._shadow is None:
            path = str(store.bundle_path(candidate))
            if manifest_sha256(path) == manifest_sha256(served.detector.model):
                self._judge(store, candidate, Verdict(True, "the same model, with other parameters", {}))
                return
            self._log("compares", f"{candidate} is compared with the model that serves", candidate.release)
            # Imported here, as only a comparison needs the image messages.
            from edge_vision.nodes.updater_shadow import ShadowComparison

            self._shadow = ShadowComparison(self, path, served.detector.backend)
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

    def _promote(self, served: ServedSlot) -> Slot:
        self._end_shadow()
        return served.promote()

    # Reports of the other nodes.
    def _on_detector(self, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            if self._served and status_chars(status) <= MAX_STATUS_CHARS:
                self._served.on_detector(ServingFigures.read(status_values(status)))

    def _on_gate(self, message: DiagnosticArray) -> None:
        for status in message.status[:1]:
            if self._served and status_chars(status) <= MAX_STATUS_CHARS:
                self._served.on_gate(status_values(status))

    # Services.
    def _answer(
        self, response: Trigger.Response, act: Callable[[SlotStore, ServedSlot], str]
    ) -> Trigger.Response:
        try:
            if self._store is None or self._served is None:
                raise UpdateError("config", "expected an active updater with a repository_url, got none")
            response.success, response.message = True, act(self._store, self._served)
        except UpdateError as error:
            response.success, response.message = False, str(error)
        return response

    def _answer_check(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def check(store: SlotStore, served: ServedSlot) -> str:
            if not self.params["repository_url"]:
                raise UpdateError("config", "expected a repository_url, got none")
            if served.probation:
                raise UpdateError("busy", "expected no model on probation, got one; check when it has ended")
            if self._fetching:
                return "a check is running; ~/status shows its progress"
            self._start_check(store)
            return "checking; ~/status shows the result"

        return self._answer(response, check)

    def _answer_promote(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, lambda _, served: f"{self._promote(served)} serves on probation")

    def _answer_rollback(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def roll_back(store: SlotStore, served: ServedSlot) -> str:
            slot = served.roll_back("requested by ~/rollback", {})
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
        if self._served and self._served.probation:
            return OK, f"{store.state.current} serves on probation"
        if self._shadow:
            return OK, f"{store.state.candidate} is compared with the model that serves"
        return OK, f"{store.state.current or 'the factory model'} serves"

    def status_values(self) -> dict[str, Any]:
        if self._store is None:
            return {"serving": None, "candidate": None}
        state = self._store.state
        done, total = self._fetching.progress if self._fetching else (0, 0)
        probation = self._served.probation if self._served else None
        return {
            "serving": str(state.current or "factory"),
            "candidate": str(state.candidate or ""),
            "probation": probation is not None,
            "probation.frames": probation.frames if probation else 0,
            "shadow": self._shadow is not None,
            "shadow.frames": self._shadow.test.trials if self._shadow else 0,
            "shadow.misses": self._shadow.test.misses if self._shadow else 0,
            "parameters.pending": ", ".join(self._served.pending) if self._served else "",
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


def main(args: list[str] | None = None) -> int:
    return run.main([UpdaterNode], "updater_node", args)
