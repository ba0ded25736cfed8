"""Rollouts in stages: which robots install a release, what they report, and what that decides."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slot_cases import fetch, new_client
from update_cases import GROUP, PROVENANCE, Operator, make_bundle

from edge_vision.errors import BundleError, UpdateError
from edge_vision.updates.command import main
from edge_vision.updates.release import Release, parse_release
from edge_vision.updates.robot_report import (
    MAX_REPORT_BYTES,
    ReportSender,
    RobotReport,
    RolloutSummary,
    check_share,
    new_report,
    parse_report,
    read_reports,
    resolve_robot_id,
)
from edge_vision.updates.slots import SlotStore


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "operator")


def release(percent: int, number: int = 1) -> Release:
    return Release("yard", "1.0.0", "stable", number, 0, "0.0.0", "", ("bundle.yaml",), percent)


def report(number: int, outcome: str = "committed", **changes: object) -> RobotReport:
    values = {"group": GROUP, "channel": "stable", "serving": "yard 1.0.0 (release 1)", "release": 1}
    return new_report(f"robot{number}", "/front", "why", outcome=outcome, **{**values, **changes})


def write(folder: Path, *reports: RobotReport) -> None:
    sender = ReportSender(str(folder))
    for one in reports:
        sender.send(one)
        wait_for(lambda: not sender._busy)
    assert sender.problem == ""


def wait_for(happened: Callable[[], object]) -> None:
    until_s = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.01)


# Stages.
@pytest.mark.parametrize("percent", [0, 1, 10, 100])
def test_a_stage_includes_its_share_of_the_robots(percent: int) -> None:
    share = sum(release(percent).includes(f"robot{number}") for number in range(10_000)) / 100
    assert abs(share - percent) < 1.0 and (percent not in (0, 100) or share == percent)


def test_robots_stay_in_a_stage_and_the_next_release_begins_with_others() -> None:
    robots = [f"robot{number}" for number in range(2000)]
    first, next_one = ({one for one in robots if release(10, n).includes(one)} for n in (1, 2))
    assert first <= {one for one in robots if release(11).includes(one)}
    assert len(first & next_one) < len(first) / 2


def test_a_robot_outside_the_stage_waits_and_one_inside_installs(operator: Operator, tmp_path: Path) -> None:
    published = operator.publish("1.0.0", percent=10)
    names = [f"robot{number}" for number in range(100)]
    inside = next(one for one in names if published.includes(one))
    outside = next(one for one in names if not published.includes(one))
    store, client = SlotStore(tmp_path / "slots"), new_client(operator, tmp_path)
    assert fetch(client, store, robot=outside) == "waiting"
    assert store.state.slots == {} and not (tmp_path / "slots" / "staging").exists()
    assert fetch(client, store, robot=inside) == "staged"
    operator.repository.stage(GROUP, "stable", 0)
    client = new_client(operator, tmp_path)
    assert fetch(client, store, robot=inside) == "waiting"
    store.withdraw()
    assert store.state.candidate is None and store.state.barred == {}
    operator.repository.stage(GROUP, "stable", 100, min_soak_h=0)
    assert fetch(new_client(operator, tmp_path), store, robot=outside) == "staged"
    store.promote()
    operator.repository.stage(GROUP, "stable", 0)
    assert fetch(new_client(operator, tmp_path), store, robot=outside) == "serving"


def test_a_stage_soaks_before_it_is_raised(operator: Operator) -> None:
    operator.publish("1.0.0", percent=1, min_soak_h=48)
    operator.wait(hours=47)
    with pytest.raises(UpdateError, match=r"expected 48 h at 1 %, until .*--min-soak 0") as caught:
        operator.repository.stage(GROUP, "stable", 10)
    assert caught.value.reason == "soak"
    operator.wait(hours=1)
    raised = operator.repository.stage(GROUP, "stable", 10)
    assert (raised.percent, raised.min_soak_h) == (10, 48)
    assert operator.repository.release(GROUP, "stable") == raised
    assert operator.repository.stage(GROUP, "stable", 0).percent == 0
    with pytest.raises(UpdateError, match="expected a release of fleet/a, channel beta, got none"):
        operator.repository.stage(GROUP, "beta", 10)


def test_metadata_without_a_stage_is_for_all_and_a_wrong_stage_is_refused() -> None:
    custom = release(100).custom
    for key in ("percent", "since", "min_soak_h"):
        del custom[key]
    assert parse_release(custom).percent == 100
    for percent in (-1, 101, 1.5, True, "1"):
        with pytest.raises(BundleError, match="percent: expected 0 to 100"):
            parse_release({**custom, "percent": percent})


# Reports.
def test_reports_arrive_in_a_folder_and_are_counted(tmp_path: Path) -> None:
    write(tmp_path, report(1), report(2, "rolled_back"), report(3, "promoted"), report(4, release=2))
    found = read_reports(tmp_path)
    summary = found.of(GROUP, "stable", 1)
    assert (summary.good, summary.bad, summary.outcomes["promoted"]) == (1, 1, 1)
    assert summary.reasons == {"why": 1} and found.invalid == {}
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "robot1.front.json"


def test_a_newer_report_replaces_that_of_before(tmp_path: Path) -> None:
    write(tmp_path, report(1, "promoted"))
    sender = ReportSender(str(tmp_path))
    for outcome in ("committed", "downloaded", "rolled_back"):
        sender.send(report(1, outcome))
    wait_for(lambda: read_reports(tmp_path).valid[0].outcome == "rolled_back")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["robot1.front.json"]


def _names_a_file_outside(folder: Path) -> None:
    (folder / "x.json").write_text(json.dumps({**_valid(), "robot": "../../etc/passwd"}))


def _valid() -> dict[str, object]:
    return {name: getattr(report(1), name) for name in RobotReport.__dataclass_fields__}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda f: (f / "x.json").write_text(json.dumps(_valid())), "expected the name robot1.front.json"),
        (_names_a_file_outside, "robot: expected the id of a robot"),
        (lambda f: (f / "x.json").write_text("{" * 10_000), "Expecting"),
        (lambda f: (f / "x.json").write_text("[" * 10_000), "recursion"),
        (lambda f: (f / "x.json").write_bytes(b"\xff\xfe\x00"), "codec"),
        (lambda f: (f / "x.json").write_text("x" * (MAX_REPORT_BYTES + 1)), "expected at most"),
        (lambda f: (f / "x.json").write_text("[]"), "expected a mapping"),
        (lambda f: (f / "x.json").symlink_to("/etc/passwd"), "symbolic links"),
        (lambda f: os.mkfifo(f / "x.json"), "expected a plain file"),
        (lambda f: (f / "x.json").mkdir(), "plain file"),
        (lambda f: (f / "x.json").write_text(json.dumps({**_valid(), "outcome": "great"})), "an outcome"),
        (lambda f: (f / "x.json").write_text(json.dumps({**_valid(), "more": 1})), "unknown key"),
        (lambda f: (f / "x.json").write_text(json.dumps({**_valid(), "text": "x" * 501})), "a text"),
    ],
)
def test_what_is_no_report_is_ignored_and_named(tmp_path: Path, make: Callable, why: str) -> None:
    write(tmp_path, report(1))
    make(tmp_path)
    found = read_reports(tmp_path)
    assert len(found.valid) == 1 and why in found.invalid["x.json"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_refused(data: bytes) -> None:
    with pytest.raises((ValueError, RecursionError, BundleError)):
        parse_report(data)


@pytest.mark.parametrize(
    ("good", "bad", "limit", "halts"),
    [
        (0, 0, 5, False),
        (0, 1, 5, True),
        (9, 1, 5, True),
        (99, 1, 5, False),
        (5, 5, 100, False),
        (9, 1, 0, True),
    ],
)
def test_rollbacks_above_the_share_halt(good: int, bad: int, limit: float, halts: bool) -> None:
    summary = RolloutSummary.over([*map(report, range(good)), *[report(0, "rejected")] * bad, report(0, "")])
    assert summary.exceeds(limit) == halts
    assert summary.exceeds(limit, at_least=bad) == halts and not summary.exceeds(limit, at_least=bad + 1)


def test_robots_that_start_together_check_at_different_times() -> None:
    shares = [check_share(f"robot{number}") for number in range(1000)]
    assert shares == [check_share(f"robot{number}") for number in range(1000)]
    counts = [sum(tenth <= 10 * share < tenth + 1 for share in shares) for tenth in range(10)]
    assert sum(counts) == 1000 and min(counts) > 60 and max(counts) < 150


class PutServer(http.server.ThreadingHTTPServer):
    """Keeps what is PUT; answers with `status`, 0 for never."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PutHandler)
        self.received: dict[str, bytes] = {}
        self.status = 201
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class PutHandler(http.server.BaseHTTPRequestHandler):
    server: PutServer

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.status:
            self.server.released.wait(60.0)
            return
        self.server.received[self.path] = data
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "http://login.example/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[PutServer]:
    server = PutServer()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_reports_are_put_to_a_server(server: PutServer) -> None:
    sender = ReportSender(f"http://127.0.0.1:{server.server_port}/reports/")
    sender.send(report(1))
    wait_for(lambda: server.received)
    (path,) = server.received
    assert path == "/reports/robot1.front.json"
    assert replace(parse_report(server.received[path]), at="") == replace(report(1), at="")


@pytest.mark.parametrize("status", [500, 302, 0])
def test_a_server_that_refuses_redirects_or_hangs_is_named_and_ends(server: PutServer, status: int) -> None:
    server.status = status
    sender = ReportSender(f"http://127.0.0.1:{server.server_port}", deadline_s=0.3)
    sender.send(report(1))
    wait_for(lambda: sender.problem)
    assert "expected to write the report" in sender.problem
    server.status = 201
    wait_for(lambda: not sender._busy)
    sender.send(report(1))
    wait_for(lambda: sender.problem == "")


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    sender = ReportSender("http://user:secret@127.0.0.1:1")
    sender.send(report(1))
    wait_for(lambda: sender.problem)
    assert "secret" not in sender.problem


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sender = ReportSender(str(tmp_path / "file"))
    sender.send(report(1))
    wait_for(lambda: "expected to write the report" in sender.problem)


@pytest.mark.parametrize("target", ["ftp://x", "reports", "file:///tmp"])
def test_an_invalid_target_is_refused(target: str) -> None:
    with pytest.raises(UpdateError, match="report_to: expected a folder"):
        ReportSender(target)


def test_the_id_of_a_robot_is_valid_and_stays() -> None:
    assert resolve_robot_id("yard-7") == "yard-7"
    assert resolve_robot_id("") == resolve_robot_id("")
    for wrong in ("../x", "a b", "x" * 65, "a\n"):
        with pytest.raises(UpdateError, match="robot_id: expected"):
            resolve_robot_id(wrong)


# The commands.
def test_the_commands_of_a_rollout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    operator = Operator(tmp_path)
    bundle = make_bundle(tmp_path / "mine")
    (bundle.folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    repository, keys, reports = str(operator.folder), ["--keys", str(operator.keys)], tmp_path / "reports"
    group = ["--group", GROUP]
    assert main(["publish", repository, str(bundle.folder), *group, "--stage", "1", *keys]) == 0
    raise_it = ["stage", repository, GROUP, "10", *keys]
    assert main(raise_it) == 1
    assert "expected 24 h at 1 %" in capsys.readouterr().err
    given = ["--reports", str(reports)]
    write(reports, report(1, "promoted"))
    assert main([*raise_it, *given, "--min-soak", "0"]) == 1
    assert "expected a robot that committed it" in capsys.readouterr().err
    write(reports, report(1))
    halt = ["halt", repository, GROUP, *given, *keys]
    assert main(halt) == 0 and "not changed, 1 committed" in capsys.readouterr().out
    assert main([*raise_it, *given, "--min-soak", "0"]) == 0
    assert "10 % of fleet/a may install it" in capsys.readouterr().out
    write(reports, report(2, "rolled_back"))
    assert main(["stage", repository, GROUP, "100", *given, *keys]) == 1
    assert "expected fewer rollbacks, got 1 committed, 1 rolled_back" in capsys.readouterr().err
    assert main(halt) == 0 and "not changed, 1 committed, 1 rolled_back" in capsys.readouterr().out
    for number in (3, 4):
        write(reports, report(number, "rolled_back"))
    assert main(halt) == 0 and "halted, 1 committed, 3 rolled_back" in capsys.readouterr().out
    assert operator.repository.release(GROUP, "stable").percent == 0
    (reports / "x.json").write_text("\x1b[31m")
    assert main(["reports", str(reports)]) == 0
    shown = capsys.readouterr().out
    assert "fleet/a stable, release 1: 1 committed, 3 rolled_back\n    3 x why\n" in shown
    assert "4 reports, 1 ignored" in shown and "\x1b" not in shown
