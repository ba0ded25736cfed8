"""`output` names nodes whose process is stopped or killed."""

from __future__ import annotations

import signal

from cause_cases import Output, status_values
from model_cases import SSD, bundle_or_skip, clip_or_skip


def test_a_stopped_and_a_killed_process_are_named(launch, robot):
    clip = clip_or_skip("vtest.avi")
    bundle_or_skip(SSD)
    output = Output(robot)
    launch("diagnostics_node")
    detector = launch("detector_node", "--backend", "onnxruntime")
    launch("cascade_node")
    gate = launch("gate_node")
    source = launch("source_node", "--source", clip, "--loop")
    robot.status("detector", lambda status, values: int(values["ledger.inferred"]) > 5)
    output.named("none")
    count = len(output.statuses)
    gate.process.send_signal(signal.SIGSTOP)

    def of_the_gate():
        return [one for one in output.statuses[count:] if "gate has not reported" in one.message]

    # On a loaded machine another node's report may be late too.
    robot.wait(of_the_gate, "the stopped gate")
    status = of_the_gate()[-1]
    assert status.level == b"\x02" and status_values(status)["cause"] == "node_silent"
    assert f"process {gate.process.pid} is stopped by a signal" in status.message
    gate.process.send_signal(signal.SIGCONT)
    inferred = int(robot.status("detector")[1]["ledger.inferred"])
    robot.status("detector", lambda status, values: int(values["ledger.inferred"]) > inferred)
    count = len(output.statuses)
    detector.kill()
    robot.wait(
        lambda: any("detector" in one.message for one in output.statuses[count:]), "the detector's end"
    )
    assert f"process {detector.process.pid} has ended" in output.statuses[-1].message
    assert source.end() == 0
