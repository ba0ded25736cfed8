"""The doctor's checks of machines, settings and observed systems; its exit codes and its text."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from sysfs_cases import plant, write

from edge_vision.cli.doctor import dds, machine
from edge_vision.cli.doctor.check import ERROR, INSTALLATION, OK, UNKNOWN, WARN, Check, document, exit_code
from edge_vision.cli.doctor.probe import run_probe
from edge_vision.cli.doctor.running import checks
from edge_vision.cli.doctor.text import lines
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.printable import printable_lines
from edge_vision.nodes.observers.system_view import Pipeline, SystemView

REPO = Path(__file__).resolve().parents[2]
PROFILE = str(REPO / "config" / "fastdds.xml")


def named(found, name: str) -> Check:
    (check,) = [one for one in found if one.name == name]
    return check


# Exit codes and text.
@pytest.mark.parametrize(
    "levels,code",
    [
        ([], 0),
        ([OK, OK], 0),
        ([OK, WARN], 1),
        ([WARN, ERROR, UNKNOWN], 2),
        ([WARN, UNKNOWN], 3),
        ([OK, UNKNOWN], 3),
    ],
)
def test_exit_codes(levels, code) -> None:
    checked = [Check(INSTALLATION, str(n), level, "as it is") for n, level in enumerate(levels)]
    assert exit_code(checked) == code
    assert document(checked)["exit_code"] == code
    assert sum(document(checked)["counts"].values()) == len(levels)
    assert list(lines(checked))[-1].endswith(f"exit code {code}")


def test_a_check_is_one_line_for_grep_and_wrapped_on_a_terminal(monkeypatch) -> None:
    long = Check(INSTALLATION, "thing", WARN, "word " * 60)
    assert sum("word" in line for line in lines([long])) == 1
    monkeypatch.setenv("COLUMNS", "80")
    wrapped = list(lines([long], terminal=True))
    assert sum("word" in line for line in wrapped) > 3
    assert any("\033[33mWARN" in line for line in wrapped)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any("\033" in line for line in lines([long], terminal=True))


def test_neither_text_nor_json_shows_secrets_or_control_characters() -> None:
    bad = "rtsp://user:secret@camera/1 \x1b[31m\x9b2J\u202e"
    found = [Check(INSTALLATION, bad, OK, bad, {"uri": bad, "lines": [bad]})]
    text = "\n".join(lines(found))
    document_text = printable_lines(json.dumps(document(found), ensure_ascii=False, indent=1))
    for shown in (text, document_text):
        assert "secret" not in shown and not set(shown) & set("\x1b\x9b\u202e") and r"\u001b[31m" in shown
    assert json.loads(document_text)["checks"][0]["values"]["lines"] == [bad.replace("user:secret", "***")]


def test_the_json_is_as_documented() -> None:
    text = (REPO / "docs" / "doctor.md").read_text("utf-8").partition("## Doctor")[2]
    shown = document([Check(INSTALLATION, "thing", OK, "as it is")])
    keys = {*(key for key in shown if key != "checks"), *(f"checks[].{key}" for key in shown["checks"][0])}
    assert set(re.findall(r"^\| `([\w.\[\]]+)` \|", text, flags=re.MULTILINE)) == keys
    assert re.findall(r"^\| (\d) \|", text, flags=re.MULTILINE) == ["0", "1", "2", "3"]


# The machine.
CPUINFO = {
    "x86": "processor\t: 0\nmodel name\t: Intel Core Ultra\nflags\t\t: fpu sse4_2 avx avx2 fma avx_vnni",
    "old x86": "processor\t: 0\nmodel name\t: Intel(R) Atom(TM)\nflags\t\t: fpu sse4_2",
    "orin": "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp i8mm bf16\nModel\t: Jetson Orin Nano",
    "pi 4": "processor\t: 0\nFeatures\t: fp asimd crc32\n\nModel\t\t: Raspberry Pi 4 Model B",
}


@pytest.mark.parametrize(
    "cpu,architecture,level,needles",
    [
        ("x86", "x86_64", OK, ["Ultra", "AVX2", "VNNI"]),
        ("old x86", "x86_64", WARN, ["SSE4.2", "Without AVX2"]),
        ("orin", "aarch64", OK, ["Jetson Orin Nano", "NEON", "dotprod", "I8MM"]),
        ("pi 4", "aarch64", OK, ["Raspberry Pi 4", "NEON", "Without dotprod int8"]),
    ],
)
def test_processors_and_their_instruction_sets(tmp_path, cpu, architecture, level, needles) -> None:
    write(tmp_path, "proc/cpuinfo", CPUINFO[cpu])
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        write(tmp_path, f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list", siblings)
    check = named(machine.checks(tmp_path, architecture), "cpu")
    assert check.level == level
    assert all(needle in check.text for needle in needles), check.text
    assert check.values["cores_physical"] == 2 and check.values["cores_logical"] == 4


def test_a_machine_without_proc_is_unknown(tmp_path) -> None:
    found = list(machine.checks(tmp_path, "x86_64"))
    assert named(found, "cpu").level == UNKNOWN and "cpuinfo" in named(found, "cpu").text
    assert named(found, "memory").level == UNKNOWN


def memory(tmp_path, available_kib: int, limit: str = "max") -> Check:
    write(tmp_path, "proc/meminfo", f"MemTotal: 4000000 kB\nMemAvailable: {available_kib} kB")
    write(tmp_path, "sys/fs/cgroup/memory.max", limit)
    return named(machine.checks(tmp_path, "x86_64"), "memory")


def test_memory_of_the_machine_and_of_the_container(tmp_path) -> None:
    assert memory(tmp_path, 3_000_000).level == OK
    assert memory(tmp_path, 300_000).level == WARN
    tight = memory(tmp_path, 3_000_000, "268435456")
    assert tight.level == WARN and "268 MB for this container" in tight.text
    assert memory(tmp_path, 3_000_000, "9223372036854771712").level == OK


def test_sensors_of_a_board_and_of_a_machine_without(tmp_path) -> None:
    board = list(machine.checks(plant(tmp_path / "a", "jetson_orin_nano"), "aarch64"))
    assert "VDD_IN 5.12 W" in named(board, "sensor power").text
    assert named(board, "sensor temperature").values["temperature_c.max"] > 20
    assert "0.percent" in named(board, "sensor gpu").text
    bare = list(machine.checks(plant(tmp_path / "b", "no_sensors"), "x86_64"))
    for name in ("sensor power", "sensor temperature", "sensor gpu", "throttling"):
        assert named(bare, name).level == OK and named(bare, name).text.startswith("unavailable: no ")


def test_a_throttled_machine_is_a_warning(tmp_path) -> None:
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "0x5")
    check = named(machine.checks(tmp_path, "aarch64"), "throttling")
    assert check.level == WARN and "under-voltage" in check.text


# DDS.
def settings(name: str, **given: str) -> Check:
    return named(dds.checks(given), name)


@pytest.mark.parametrize(
    "given,level,needle",
    [
        ({}, OK, "0 (the default)"),
        ({"ROS_DOMAIN_ID": "42"}, OK, "42 (ROS_DOMAIN_ID)"),
        ({"ROS_DOMAIN_ID": "150"}, WARN, "use 0 to 101"),
        ({"ROS_DOMAIN_ID": "300"}, ERROR, "0 to 232"),
        ({"ROS_DOMAIN_ID": "-1"}, ERROR, "0 to 232"),
        ({"ROS_DOMAIN_ID": "home"}, ERROR, "'home'"),
    ],
)
def test_domains(given, level, needle) -> None:
    check = settings("domain", **given)
    assert check.level == level and needle in check.text


@pytest.mark.parametrize(
    "given,level,needle",
    [
        ({}, OK, "SUBNET, rmw_fastrtps_cpp"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_STATIC_PEERS": "10.0.0.2"}, OK, "10.0.0.2"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, WARN, "do not find each other"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "ROS_DISCOVERY_SERVER": "a:1"}, OK, "discovery server a:1"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "HOME"}, ERROR, "treats as LOCALHOST"),
        ({"ROS_LOCALHOST_ONLY": "1"}, OK, "LOCALHOST"),
        ({"ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, WARN, "overrides"),
        ({"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, OK, "rmw_zenoh_cpp"),
    ],
)
def test_discovery(given, level, needle) -> None:
    check = settings("discovery", **given)
    assert check.level == level and needle in check.text


def both(path: str) -> dict[str, str]:
    return dict.fromkeys(dds.PROFILE_VARIABLES, path)


def test_profiles(tmp_path) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text("<dds>")
    assert settings("dds profile").level == OK
    assert settings("dds profile", **both(PROFILE)).text == PROFILE
    assert settings("dds profile", **both("/no/such.xml")).level == ERROR
    assert "not XML" in settings("dds profile", **both(str(broken))).text
    assert settings("dds profile", FASTDDS_DEFAULT_PROFILES_FILE=PROFILE).level == WARN
    ignored = settings("dds profile", RMW_IMPLEMENTATION="rmw_cyclonedds_cpp", **both(PROFILE))
    assert ignored.level == WARN and "does not read it" in ignored.text


def test_shared_memory_against_the_profile(tmp_path) -> None:
    (tmp_path / "dev" / "shm").mkdir(parents=True)
    free_mb = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / 1e6
    shipped = named(dds.checks({}, tmp_path), "shared memory")
    assert shipped.values["profile_mb_per_process"] == 33.6 and shipped.level == OK
    greedy = tmp_path / "greedy.xml"
    greedy.write_text(f"<dds><segment_size>{int(free_mb * 1e6)}</segment_size></dds>")
    short = named(dds.checks(both(str(greedy)), tmp_path), "shared memory")
    assert short.level == WARN and "--shm-size" in short.text
    gone = named(dds.checks(both(PROFILE), tmp_path / "nowhere"), "shared memory")
    assert gone.level == WARN and "No such file" in gone.text


def test_socket_buffers(tmp_path) -> None:
    write(tmp_path, "proc/sys/net/core/rmem_max", "212992")
    small = named(dds.checks({}, tmp_path), "socket buffers")
    assert small.level == OK and "sysctl -w net.core.rmem_max=4194304" in small.text
    write(tmp_path, "proc/sys/net/core/rmem_max", "8388608")
    assert "sysctl" not in named(dds.checks({}, tmp_path), "socket buffers").text


# The running system.
def view(*pipelines: Pipeline, **more) -> SystemView:
    return SystemView(5, "LOCALHOST", "rmw_fastrtps_cpp", 5.0, pipelines, **more)


def status(name: str, level: int = 0, text: str = "running", **values: str) -> StatusEntry:
    return StatusEntry(name, "/", level, text, values)


HEALTHY = Pipeline(
    "/",
    nodes=("gate", "detector", "diagnostics"),
    reports={"gate": status("gate"), "detector": status("detector"), "diagnostics": status("diagnostics")},
    diagnostics={
        "gate": status("gate"),
        "detector": status("detector"),
        "output": status("output", cause="none"),
    },
)


def test_checks_repeat_the_statuses_on_diagnostics() -> None:
    found = list(checks(view(HEALTHY)))
    assert [one.name for one in found] == ["graph", "gate", "detector", "output"]
    assert exit_code(found) == 0 and named(found, "output").values == {"cause": "none"}


@pytest.mark.parametrize("level,expected", [(0, OK), (1, WARN), (2, ERROR), (3, ERROR), (9, ERROR)])
def test_levels_of_statuses(level, expected) -> None:
    pipeline = Pipeline("/", ("gate",), diagnostics={"gate": status("gate", level, "as reported")})
    assert named(checks(view(pipeline)), "gate").level == expected


def test_an_unwatched_node_is_checked_by_its_own_report() -> None:
    pipeline = Pipeline(
        "/",
        ("gate", "cascade", "diagnostics"),
        reports={"cascade": status("cascade", 1, "inactive: nothing is processed")},
        diagnostics={"gate": status("gate")},
    )
    assert named(checks(view(pipeline)), "cascade").level == WARN


def test_without_a_diagnostics_node_the_doctor_finds_the_cause() -> None:
    cause = status("output", 1, "no_publisher: gate subscribes to /image_raw", cause="no_publisher")
    pipeline = Pipeline("/front", ("gate", "cascade"), reports={"gate": status("gate")}, output=cause)
    found = list(checks(view(pipeline)))
    missing = named(found, "front/diagnostics")
    assert missing.level == WARN and "ros2 run edge_vision diagnostics_node" in missing.text
    assert "__ns:=/front" in missing.text
    assert named(found, "front/output").text == cause.message
    silent = named(found, "front/cascade")
    assert silent.level == ERROR and "its process may hang" in silent.text


def test_an_inactive_diagnostics_node_is_checked_by_its_own_report() -> None:
    own = status("diagnostics", 1, "inactive: nothing is processed")
    pipeline = Pipeline("/", ("gate", "diagnostics"), reports={"gate": status("gate"), "diagnostics": own})
    assert named(checks(view(pipeline)), "diagnostics").text == own.message


def test_no_pipeline_is_an_error() -> None:
    (alone,) = checks(view())
    assert alone.level == ERROR and "domain 5, discovery range LOCALHOST" in alone.text
    assert "no other node either" in alone.text and "ros2 launch" in alone.text
    (among,) = checks(view(other_nodes=("/usb_cam",), image_topics=("/image_raw",)))
    assert "other nodes: /usb_cam; image topics: /image_raw" in among.text
    (elsewhere,) = checks(view(HEALTHY), "/front")
    assert elsewhere.level == ERROR and "in the namespace /front, but in /" in elsewhere.text


def test_duplicates_unmatched_subscriptions_and_statuses_of_others() -> None:
    DUPLICATE = Pipeline(
        "/",
        ("gate",),
        duplicates=("gate",),
        diagnostics=HEALTHY.diagnostics,
        unmatched=("/robot receives nothing",),
    )
    others = (status("usb_cam", 2, "unplugged"), status("imu"))
    found = list(checks(view(DUPLICATE, other_statuses=others)))
    assert [one.level for one in found if one.name == "gate"] == [ERROR, OK]
    assert named(found, "detections").level == WARN
    # A fault of another node is listed, but does not affect the exit code.
    assert named(found, "others").level == OK and "usb_cam (ERROR: unplugged)" in named(found, "others").text


# Probes.
def test_an_import_that_ends_the_process_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "fragile.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run_probe("modules", "json", "fragile", "csv")
    assert result.failure == "its process was killed by SIGABRT"
    assert [one["module"] for one in result.findings] == ["json", "json", "fragile"]


def test_a_hanging_probe_times_out(tmp_path, monkeypatch) -> None:
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run_probe("modules", "endless", timeout_s=6.0)
    assert result.failure == "no answer within 6 s" and result.findings[-1]["module"] == "endless"


def test_the_missing_dependency_of_a_package_is_reported(tmp_path, monkeypatch) -> None:
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run_probe("modules", "needy")
    assert result.failure == "" and result.findings[-1]["missing"] == "no_such_package"
