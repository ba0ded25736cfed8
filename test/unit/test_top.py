"""The terminal view without ROS: the statuses that are kept, and the text that is drawn."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rich.console import Console

from edge_vision.cli.top.board import MAX_PARTS, SILENT_S, Board
from edge_vision.cli.top.drawing import pipeline_lines, pipeline_row
from edge_vision.cli.top.screen import Screen, advice, once_lines
from edge_vision.cli.top.terminal import Keyboard, named_keys
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.nodes.interface.status_messages import MAX_STATUS_CHARS, status_message
from edge_vision.nodes.observers.diagnostics_listener import DiagnosticsListener

REPO = Path(__file__).resolve().parents[2]
LEDGER = {
    "received": 90,
    "in_flight": 1,
    "inferred": 30,
    "gated": 50,
    "rejected": 4,
    "superseded": 3,
    "failed": 2,
}
DETECTOR = {
    "rate_in_hz": "4.000",
    "rate_out_hz": "3.900",
    **{f"process_ms.p{p}": f"2{p}.25" for p in (50, 95, 99)},
    **{f"age_ms.p{p}": f"{p}.5" for p in (50, 95, 99)},
    **{f"ledger.{fate}": str(n) for fate, n in LEDGER.items()},
    "ledger.gated.still": "41",
    "ledger.gated.tracked": "9",
    "ledger.failed.transport": "2",
    "ledger.balanced": "True",
    "model": "ssd 1.0.0",
    "model_sha256": "8629debcdd52adfb",
    "backend.requested.backend": "openvino",
    "backend.requested.device": "gpu",
    "backend.requested.precision": "auto",
    "backend.actual.backend": "onnxruntime 1.32.0",
    "backend.actual.device": "cpu",
    "backend.actual.precision": "fp32",
    "backend.actual.provider": "CPUExecutionProvider",
    "backend.fallback_reason": "no GPU here",
}
GATE = {
    "rate_in_hz": "10.000",
    "rate_out_hz": "nan",
    "gate.camera": "standing",
    "last_reason": "still",
    "blind_ms": "812.3",
    "audit.miss_rate": "0.024",
    "audit.miss_rate_low": "0.008",
    "audit.miss_rate_high": "0.061",
    "audit.audited": "125",
    "audit.missed": "3",
    "audit.open": "False",
}
PROCESS = {"pid": "77", "cpu_percent": "25.1", "rss_mb": "190.2", "threads": "21", "fds": "31"}
SYSTEM = {
    "cpu.percent": "61.2",
    "cpu.0.percent": "70.0",
    "cpu.1.percent": "52.0",
    "memory.used_mb": "2100.0",
    "memory.total_mb": "8000.0",
    "swap.percent": "unavailable: no swap",
    "temperature_c.max": "66.5",
    "power_w": "5.120",
    "throttling": "no",
    "gpu.0.percent": "33.0",
    "gpu.0.memory_used_mb": "410.0",
}


def statuses(namespace: str = "/", cause: str = "none", **more: StatusEntry) -> list[StatusEntry]:
    """A short report of a pipeline."""

    def one(part: str, level: int, message: str, values: dict[str, str]) -> StatusEntry:
        return StatusEntry(f"{namespace}/{part}".lstrip("/"), namespace, level, message, values)

    text = "nothing is in the way" if cause == "none" else f"{cause}: as it is: do that"
    return [
        one("source", 0, "playing", {"rate_out_hz": "10.0"}),
        one("gate", 0, "running", GATE),
        one("cascade", 0, "running", {"model": "off", "process_ms.p50": "unavailable"}),
        one("detector", 1, "fallback: no GPU here", DETECTOR),
        one("process 77", 0, "running", PROCESS),
        one("system", 0, "within limits", SYSTEM),
        one("output", 0 if cause == "none" else 1, text, {"cause": cause, "since_s": "12.4"}),
    ]


def drawn(lines: list, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False)
    for line in lines:
        console.print(line)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


class Quiet:
    """A ROS graph without publishers."""

    domain = 5
    publishers: list[str] = []


def board_with(*messages: list[StatusEntry], now_s: float = 100.0) -> Board:
    board = Board()
    for message in messages:
        board.update(message, now_s)
    return board


def test_a_pipeline_in_full_on_a_narrow_terminal() -> None:
    (pipeline,) = board_with(statuses()).pipelines
    lines = drawn(list(pipeline_lines(pipeline, 100.0)))
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80 and len(lines) <= 22
    for needle in (
        "OK nothing is in the way",
        "gate 10.0 n/a",  # nan is no rate
        "detector 4.0 3.9 250.2 295.2 299.2 WARN fallback: no GPU here",
        "age 50.5 95.5 99.5",
        "received 90 = inferred 30 + gated 50 + rejected 4 + superseded 3 + failed 2 + in flight 1",
        "gated: still 41, tracked 9; failed: transport 2",
        "camera standing, last still, 812 ms since a frame passed",
        "2.4% (95 %: 0.8% to 6.1%), 3 of 125 audited frames",
        "ssd 1.0.0 sha256 8629debcdd52",
        "onnxruntime 1.32.0 cpu fp32 (CPUExecutionProvider), requested openvino gpu auto",
        "fallback no GPU here",
        "process 77 CPU 25 % RSS 190 MB 21 threads 31 files",
        "CPU 61 % (70 52) memory 2100 of 8000 MB swap n/a",
        "temperature 66 C power 5.1 W per frame n/a throttling no GPU 33 % 410 MB",
        "WARN detector: fallback: no GPU here",
    ):
        assert needle in text, f"'{needle}' is not in\n" + "\n".join(lines)


def test_a_cause_comes_first_with_its_remedy() -> None:
    (pipeline,) = board_with(statuses(cause="no_publisher")).pipelines
    assert (
        drawn(list(pipeline_lines(pipeline, 100.0)))[0] == "WARN  no_publisher: as it is: do that (for 12 s)"
    )


def test_a_silent_pipeline_is_stale() -> None:
    (pipeline,) = board_with(statuses()).pipelines
    first = drawn(list(pipeline_lines(pipeline, 100.0 + SILENT_S + 1)))[0]
    assert first.startswith("STALE  no report for 4 s")


def test_figures_before_the_first_frame_are_not_zero() -> None:
    nothing = StatusEntry("gate", "/", 1, "inactive", {"rate_in_hz": "nan"})
    (pipeline,) = board_with([nothing]).pipelines
    lines = drawn(list(pipeline_lines(pipeline, 100.0)))
    title = next(line for line in lines if line.startswith("stage"))
    text = "\n".join(line for line in lines if line != title)
    assert "0" not in text and "n/a" in text


def test_a_full_report_replaces_the_last_one_and_output_alone_does_not() -> None:
    board = board_with(statuses())
    cause = statuses(cause="gate_closed")[-1]
    board.update([cause], 101.0)
    (pipeline,) = board.pipelines
    assert len(pipeline.parts) == 7 and pipeline.part("output").text("cause") == "gate_closed"
    restarted = [one for one in statuses() if not one.name.startswith("process")]
    restarted.append(StatusEntry("process 78", "/", 0, "running", {**PROCESS, "pid": "78"}))
    board.update(restarted, 102.0)
    assert [one.name for one in board.pipelines[0].processes] == ["process 78"]


def test_the_parts_of_a_pipeline_are_bounded() -> None:
    board = board_with(statuses())
    for pid in range(MAX_PARTS + 10):
        board.update([StatusEntry(f"process {1000 + pid}", "/", 0, "running", PROCESS)], 101.0)
    board.update([statuses(cause="gate_closed")[-1]], 102.0)
    (pipeline,) = board.pipelines
    assert len(pipeline.parts) == MAX_PARTS and pipeline.part("output").text("cause") == "gate_closed"


def test_a_status_beyond_any_size_is_left_out() -> None:
    found: list[StatusEntry] = []
    pairs = [KeyValue(key="a", value="b" * MAX_STATUS_CHARS)]
    message = DiagnosticArray(status=[status_message("gate", "/", 0, "", {}), DiagnosticStatus(values=pairs)])
    DiagnosticsListener(found.extend)._on_diagnostics(message)
    assert [one.name for one in found] == ["gate"]


def test_statuses_of_other_nodes_are_only_counted() -> None:
    others = [
        StatusEntry("usb_cam: driver", "none"),
        StatusEntry("cpu", ""),
        StatusEntry("front/gate", "/rear"),
    ]
    board = board_with(others)
    assert board.pipelines == [] and board.other_statuses == 3


def test_text_from_the_network_does_not_control_the_terminal() -> None:
    bad = "\x1b[2J\x1b]0;title\x07\r\nnext"
    values = {"last_reason": bad, "gate.camera": bad}
    (pipeline,) = board_with([StatusEntry(f"{bad}/gate", f"/{bad}", 1, bad, values)]).pipelines
    text = "\n".join(drawn(list(pipeline_lines(pipeline, 100.0)), width=200))
    text += pipeline_row(pipeline, 100.0, True).plain
    assert not set(text) & set("\x1b\x07\r") and text.count(r"\u001b[2J") > 2


def test_ten_pipelines_in_a_list_and_one_in_full() -> None:
    names = [f"/robot/camera_{n}" for n in range(10)]
    board = board_with(*(statuses(name, "all_rejected" if name.endswith("3") else "none") for name in names))
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    screen = Screen(board, "", Quiet(), console)

    def lines() -> list[str]:
        return drawn([screen.picture(100.0)])

    assert len(lines()) == 24 and max(map(len, lines())) <= 80
    assert [line[2:].split()[0] for line in lines()[1:11]] == names
    assert [line[0] for line in lines()[1:11]] == [">", *" " * 9]
    assert "WARN all_rejected" in lines()[4]
    for _ in range(3):
        screen.press("right")
    assert lines()[4][0] == ">" and any("all_rejected: as it is" in line for line in lines()[11:])
    assert "more lines below" in lines()[-1]
    before = lines()[12]
    screen.press("down")
    assert lines()[11] == before
    for _ in range(100):
        screen.press("down")
    assert "WARN detector" in lines()[-2]
    screen.press("left")
    assert lines()[3][0] == ">" and lines()[11].startswith("OK")


def test_once_shows_all_pipelines_or_the_one_in_a_namespace() -> None:
    board = board_with(statuses("/front"), statuses("/rear"))
    text = "\n".join(drawn(once_lines(board, "", 100.0)))
    assert "pipeline /front" in text and "pipeline /rear" in text
    text = "\n".join(drawn(once_lines(board, "/rear", 100.0)))
    assert "pipeline /front" not in text and "pipeline /rear" in text
    assert once_lines(board, "/side", 100.0) == []


@pytest.mark.parametrize(
    ("board", "namespace", "publishers", "needle"),
    [
        (Board(), "", [], "/diagnostics has no publisher on ROS domain 5"),
        (
            Board(),
            "",
            ["/front/diagnostics"],
            "/front/diagnostics publishes /diagnostics, but nothing was received",
        ),
        (
            board_with([StatusEntry("cpu", "pc")]),
            "",
            ["/pc"],
            "is published by /pc, but not by edge_vision",
        ),
        (board_with(statuses("/rear")), "/front", [], "no pipeline in /front, but in /rear"),
    ],
)
def test_advice_if_nothing_is_received(
    board: Board, namespace: str, publishers: list[str], needle: str
) -> None:
    lines = advice(board, namespace, 6.0, 5, publishers)
    assert needle in lines[0]
    assert any(word in " ".join(lines) for word in ("ros2 ", "--namespace"))


def test_the_live_picture_shows_the_advice() -> None:
    console = Console(file=io.StringIO(), width=80, height=24)
    screen = Screen(Board(), "", Quiet(), console)
    assert "waiting for /diagnostics" in "\n".join(drawn([screen.picture(screen._since_s + 1)]))
    text = " ".join(" ".join(drawn([screen.picture(screen._since_s + 9)])).split())
    assert "/diagnostics has no publisher" in text and "make demo" in text


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("q", ["q"]),
        ("Q", ["q"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1bOC\x1b[D", ["right", "left"]),
        ("\t\x1b[Zjk", ["right", "left", "down", "up"]),
        ("\x1b[5~x\x1b", ["x", "escape"]),
        ("\x1b[1;5Aq", ["up", "q"]),
        ("\x1b[", []),
    ],
)
def test_keys_of_terminal_input(sent: str, keys: list[str]) -> None:
    assert list(named_keys(sent)) == keys


def test_the_keyboard_restores_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        before = termios.tcgetattr(theirs)
        with pytest.raises(ZeroDivisionError), Keyboard() as keyboard:
            assert termios.tcgetattr(theirs) != before
            assert keyboard.pressed() == []
            os.write(ours, b"q\x1b[A")
            pressed: list[str] = []
            while len(pressed) < 2:
                pressed += keyboard.pressed()
            assert pressed == ["q", "up"]
            raise ZeroDivisionError
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_without_a_terminal_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("q"))
    with Keyboard() as keyboard:
        assert keyboard.pressed() == []


def run_top(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_vision", "top", *arguments],
        cwd=REPO,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_shows_examples_and_keys() -> None:
    done = run_top("--help")
    assert done.returncode == 0 and "examples:" in done.stdout and "q quit" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        ([], "--once prints one picture"),
        (["--wait", "0", "--once"], "expected seconds above 0, got 0"),
        (["--svg", "a.svg"], "--svg needs --once"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_arguments(arguments: list[str], needle: str) -> None:
    done = run_top(*arguments)
    assert done.returncode == 2 and needle in done.stderr and "Traceback" not in done.stderr


def test_a_publisher_that_has_ended_is_not_named() -> None:
    """The middleware keeps its endpoint for a while, without the node's name."""
    ended = SimpleNamespace(node_name="_NODE_NAME_UNKNOWN_", node_namespace="_NODE_NAMESPACE_UNKNOWN_")
    running = SimpleNamespace(node_name="diagnostics", node_namespace="/front")
    listener = DiagnosticsListener(lambda statuses: None)
    listener.node = SimpleNamespace(get_publishers_info_by_topic=lambda topic: [ended, running])
    listener._subscription = SimpleNamespace(topic_name="/diagnostics")
    assert listener.publishers == ["/front/diagnostics"]
