"""Which backend `auto` selects from timings, with real runtimes on a real model."""

from __future__ import annotations

import resource
import shutil

import pytest
from fake_backend import Fault, FaultySession
from model_cases import SSD, bundle_or_skip

from edge_vision.backends import BackendRequest, available_backends, load_on, open_session
from edge_vision.backends.selection import auto_select, timing_cache
from edge_vision.backends.selection.auto_select import check_agreement, choose
from edge_vision.backends.selection.backend_timing import (
    MAX_ATTEMPTS,
    BackendTiming,
    TimeRatio,
    Timings,
    measure,
)
from edge_vision.backends.selection.fallback import usable_backends
from edge_vision.bundles import load_bundle
from edge_vision.cli.backends import main
from edge_vision.errors import BackendError

REQUEST = BackendRequest(threads=1)
DAMAGED = (
    '{"rows": [{"backend": "onnxruntime", "rounds_ms": %s, "sqnr_db": 100.0, "failure": ""},'
    ' {"backend": "openvino", "rounds_ms": %s, "sqnr_db": 90.0, "failure": ""}], "busy": "", "attempts": 1}'
)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """The detector, and an empty cache."""
    folder = tmp_path / "bundles" / SSD
    shutil.copytree(bundle_or_skip(SSD).folder, folder)
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    return load_bundle(SSD)


@pytest.fixture
def two():
    """The reference, and another runtime that is installed."""
    other = next(
        (n for n, why in available_backends().items() if why is None and n in ("openvino", "litert")), None
    )
    if other != "openvino":
        pytest.skip("openvino is not installed: nothing to choose between; pip install openvino")
    return ("onnxruntime", "openvino")


STEADY = (1.0, 1.01, 0.99, 1.0, 1.0, 1.02, 0.98, 1.0)


def timing(backend, p50_ms, sqnr_db, failure="", varies=STEADY):
    return BackendTiming(backend, () if failure else tuple(p50_ms * one for one in varies), sqnr_db, failure)


def timings(*rows, **options):
    return Timings(tuple(timing(*row) for row in rows), **options)


FASTER = timings(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, 90.0))
BUSY = Timings(FASTER.rows, "the machine was busy, load average 9.0 on 2 cores")


@pytest.fixture
def measurements(monkeypatch):
    """What measurements return, the next one first and the last one again; and how many there were."""
    planned, done = [FASTER], []

    def measured(*args):
        done.append(args)
        return planned.pop(0) if len(planned) > 1 else planned[0]

    monkeypatch.setattr(auto_select, "measure_in_child", measured)
    return planned, done


def start_again(monkeypatch):
    monkeypatch.setattr(auto_select, "_MEASURED_HERE", set())


@pytest.mark.parametrize(
    "measured,order",
    [
        ([("a", 10.0, 100.0), ("b", 7.0, 80.0)], "ba"),
        ([("a", 10.0, 100.0), ("b", 9.7, 80.0)], "ab"),
        ([("a", 10.0, 100.0), ("b", 1.0, 2.0)], "ab"),
        ([("a", 10.0, 100.0), ("b", 9.0, 80.0), ("c", 5.0, 80.0)], "cab"),
        ([("b", 1.0, 80.0), ("a", 0.0, 0.0, "no device")], "ba"),
        ([("a", 0.0, 0.0, "no device"), ("b", 0.0, 0.0, "gone")], "ab"),
    ],
    ids=["faster", "within 5 %", "disagrees", "three", "one failed", "all failed"],
)
def test_the_fastest_that_agrees_comes_first(measured, order):
    found = timings(*measured)
    assert "".join(row.backend for row in found.ranked()) == order
    assert str(found).startswith(order[0])


def test_a_difference_within_the_spread_keeps_the_order():
    """The medians differ by 10 %, but so do the rounds of each."""
    noisy = (0.8, 1.3, 0.9, 1.2, 1.0, 0.7, 1.4, 1.0)
    a, b = timing("a", 10.0, 100.0), timing("b", 9.0, 80.0, varies=noisy)
    assert TimeRatio.of(b, a).value < 0.95 and TimeRatio.of(b, a).spread > 0.1
    assert Timings((a, b)).ranked() == (a, b)


def test_noise_that_slows_a_round_for_all_backends_does_not_count():
    rounds = (1.0, 3.0, 1.0, 2.0, 1.0, 5.0, 1.0, 2.0)
    a, b = timing("a", 10.0, 100.0, varies=rounds), timing("b", 8.0, 80.0, varies=rounds)
    assert TimeRatio.of(b, a).spread < 0.01 and Timings((a, b)).ranked() == (b, a)


def test_the_reason_compares_the_times_with_their_spread(bundle, two, measurements):
    reason = choose(bundle, two, REQUEST).reason
    assert reason.startswith("openvino 1.0 ms (90 dB), onnxruntime 2.0 ms (100 dB), 2.00 ± 0.0")
    assert reason.endswith("times as long; measured now")


def test_a_busy_machine_makes_the_result_provisional_until_a_later_start(
    bundle, two, measurements, monkeypatch
):
    planned, done = measurements
    planned[:] = [BUSY, timings(("onnxruntime", 2.0, 100.0), ("openvino", 1.2, 90.0))]
    first = choose(bundle, two, REQUEST)
    assert first.names[0] == "openvino"
    assert "provisional, measured again at a later start: the machine was busy, load" in first.reason
    assert "measured before, provisional" in choose(bundle, two, REQUEST).reason and len(done) == 1
    start_again(monkeypatch)
    second = choose(bundle, two, REQUEST)
    assert len(done) == 2 and second.reason.endswith("measured now, 2 times in all")
    assert "openvino 1.1 ms" in second.reason, "the rounds of both"
    start_again(monkeypatch)
    assert choose(bundle, two, REQUEST).reason.endswith("measured before") and len(done) == 2


def test_a_machine_that_is_always_busy_is_measured_a_limited_number_of_times(
    bundle, two, measurements, monkeypatch
):
    measurements[0][:] = [BUSY]
    for _ in range(MAX_ATTEMPTS + 3):
        start_again(monkeypatch)
        last = choose(bundle, two, REQUEST)
    assert len(measurements[1]) == MAX_ATTEMPTS and "provisional" not in last.reason


def test_a_provisional_result_stays_where_it_cannot_be_measured_again(bundle, two, measurements, monkeypatch):
    measurements[0][:] = [BUSY]
    choose(bundle, two, REQUEST)
    start_again(monkeypatch)
    monkeypatch.undo()
    monkeypatch.setenv("EDGE_VISION_CACHE", str(bundle.folder.parent.parent))
    monkeypatch.setattr(auto_select.sys, "executable", "/bin/false")
    start_again(monkeypatch)
    found = choose(bundle, two, REQUEST)
    assert found.names == ("openvino", "onnxruntime") and "not measured again" in found.reason


def test_a_single_one_needs_no_measuring(bundle):
    assert choose(bundle, ["onnxruntime"], REQUEST).reason == "onnxruntime is the only one installed"
    assert choose(bundle, [], REQUEST).names == ()
    assert not (bundle.folder.parent.parent / "auto_select").exists()


def test_backends_are_measured_once_and_then_known(bundle, two, monkeypatch):
    first = choose(bundle, two, REQUEST)
    assert sorted(first.names) == sorted(two) and "measured now" in first.reason
    monkeypatch.setattr(auto_select, "measure_in_child", lambda *args: pytest.fail("measured again"))
    second = choose(bundle, two, REQUEST)
    assert second.names == first.names and "measured before" in second.reason
    monkeypatch.undo()


@pytest.mark.parametrize("other", ["another request", "another runtime", "another bundle", "another driver"])
def test_timings_are_not_valid_for_anything_else(bundle, two, monkeypatch, measurements, other):
    _, done = measurements
    choose(bundle, two, REQUEST)
    choose(bundle, two, REQUEST)
    assert len(done) == 1
    if other == "another runtime":
        monkeypatch.setattr(timing_cache, "runtime_versions", lambda names: {"onnxruntime": "99"})
    if other == "another driver":
        monkeypatch.setattr(timing_cache, "driver", lambda: "NVRM version: 999")
    if other == "another bundle":
        manifest = bundle.folder / "bundle.yaml"
        manifest.write_text(manifest.read_text() + "\n")
        bundle = load_bundle(SSD)
    choose(bundle, two, BackendRequest(threads=2) if other == "another request" else REQUEST)
    assert len(done) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[1]",
        '{"rows": 1}',
        '{"rows": [{"backend": "x"}]}',
        "\x00\xff",
        DAMAGED % ('["fast"]', "[1.0]"),
        DAMAGED % ("[2.0]", "[-1.0]"),
        DAMAGED % ("[2.0]", "[0.0]"),
        DAMAGED % ("[2.0]", "[NaN]"),
        DAMAGED % ("[2.0]", "[1.0, 1.0]"),
        DAMAGED % ("[]", "[]"),
        "[" * 100_000,
    ],
    ids=range(14),
)
def test_a_damaged_cache_file_is_measured_again(bundle, two, measurements, text):
    choose(bundle, two, REQUEST)
    (file,) = (bundle.folder.parent.parent / "auto_select").iterdir()
    good = file.read_text()
    file.write_text(text, "latin-1")
    assert choose(bundle, two, REQUEST).reason.endswith("measured now")
    assert file.read_text() == good, "and kept"


def test_a_cache_that_cannot_be_written_is_reported(bundle, two, measurements):
    (bundle.folder.parent.parent / "auto_select").write_text("a file where the folder should be")
    found = choose(bundle, two, REQUEST)
    assert found.names == ("openvino", "onnxruntime") and "not kept, measured again" in found.reason


def test_a_full_disk_leaves_no_file(bundle, two, measurements):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        found = choose(bundle, two, REQUEST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.names == ("openvino", "onnxruntime") and "not kept, measured again" in found.reason
    assert list((bundle.folder.parent.parent / "auto_select").iterdir()) == []


def test_an_output_that_cannot_be_compared_is_kept(bundle, two, measurements):
    planned, done = measurements
    planned[:] = [timings(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, float("-inf")))]
    assert choose(bundle, two, REQUEST).names == choose(bundle, two, REQUEST).names == two
    assert len(done) == 1


def test_a_measuring_process_that_fails_leaves_the_order(bundle, two, monkeypatch):
    monkeypatch.setattr(auto_select.sys, "executable", "/bin/false")
    found = choose(bundle, two, REQUEST)
    assert found.names == two and "not measured: the measuring process exited with status 1" in found.reason
    assert not (bundle.folder.parent.parent / "auto_select").exists(), "not kept"


def test_backends_are_measured_in_the_same_rounds_against_the_first(bundle, two):
    found = measure(two, lambda name: load_on(bundle, name, REQUEST), bundle).rows
    assert [row.backend for row in found] == list(two)
    assert all(row.p50_ms > 0 and not row.failure for row in found)
    assert len(found[0].rounds_ms) == len(found[1].rounds_ms) >= 9
    assert found[0].sqnr_db == 100.0 and found[1].sqnr_db > 60.0, "the same graph in fp32"


def test_a_backend_that_fails_or_disagrees_is_reported(bundle):
    def load(name):
        session = load_on(bundle, "onnxruntime", REQUEST)
        if name == "broken":
            return FaultySession(session, Fault(error="no such device"))
        return FaultySession(session, Fault(nan=True)) if name == "wrong" else session

    measured = measure(["good", "broken", "wrong"], load, bundle)
    found = {row.backend: row for row in measured.rows}
    assert found["broken"].failure == "no such device"
    assert found["wrong"].sqnr_db == float("-inf") and not found["wrong"].failure
    assert measured.ranked()[0].backend == "good"


def test_agreement_is_checked_against_the_reference(bundle, two, monkeypatch):
    check_agreement(bundle, "openvino", REQUEST)
    check_agreement(bundle, "onnxruntime", REQUEST)
    bad = timings(("onnxruntime", 2.0, 100.0), ("openvino", 1.0, 1.6))
    monkeypatch.setattr(auto_select, "measure_in_child", lambda *args: bad)
    with pytest.raises(BackendError, match=r"outputs of openvino differ .* 1\.6 dB, expected 15"):
        check_agreement(bundle, "openvino", BackendRequest(threads=2))


def test_auto_says_why(bundle, two):
    session, report = open_session(bundle, "auto", REQUEST)
    session.close()
    assert report.fallback_reason is None
    assert report.selection_reason.startswith(report.actual.backend)
    assert "measured now" in report.selection_reason


def test_what_failed_while_it_ran_comes_last(bundle, two):
    for name, other in (two, two[::-1]):
        session, report = open_session(bundle, name, REQUEST, failed={name: "it died"})
        session.close()
        assert report.actual.backend == other and report.fallback_reason == f"{name}: it died"
    session, report = open_session(bundle, "openvino", REQUEST, strict=True, failed={"openvino": "it died"})
    session.close()
    assert report.actual.backend == "openvino" and report.fallback_reason is None


def test_the_command_measures_what_the_node_then_knows(bundle, capsys, monkeypatch):
    usable = usable_backends(bundle)
    assert "onnxruntime" in usable
    assert main(["measure", str(bundle.folder), "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("auto selects ") and "onnxruntime " in out and "measured now" in out
    monkeypatch.setattr(auto_select, "measure_in_child", lambda *args: pytest.fail("measured again"))
    assert len(usable) == 1 or "measured before" in choose(bundle, usable, BackendRequest(threads=1)).reason
    assert main(["measure", "no_such_bundle"]) == 1
    assert "no_such_bundle" in capsys.readouterr().err
