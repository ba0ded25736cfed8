"""The robot's client, against a real HTTP server on the loopback interface: attacks, accidents, clocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from update_attacks import ATTACKS, Attack, Thief
from update_cases import GROUP, PROVENANCE, World

from edge_vision.bundles.store import load_bundle
from edge_vision.errors import UpdateError
from edge_vision.updates.fetch_process import FetchOrder, FetchProcess
from edge_vision.updates.transport import Transport


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_attack_is_refused_with_its_reason(world: World, attack: Attack) -> None:
    attack.prepare(world)
    with pytest.raises(UpdateError) as caught:
        world.update()
    assert caught.value.reason == attack.reason, caught.value


def test_a_release_arrives_complete_and_opens(world: World) -> None:
    release = world.operator.publish("1.2.3")
    folder = world.update()
    bundle = load_bundle(str(folder))
    assert (bundle.version, bundle.labels) == ("1.2.3", ("person", "bicycle"))
    bundle.verify(bundle.manifest.graphs[0])
    assert {path.name for path in folder.iterdir()} == set(release.files)
    assert json.loads((folder / "provenance.json").read_text()) == PROVENANCE


def test_a_second_check_downloads_only_the_timestamp(world: World) -> None:
    world.operator.publish("1.0.0")
    world.update()
    world.server.requests.clear()
    world.update()
    assert [path for path, _ in world.server.requests] == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_a_robot_two_root_rotations_behind_follows(world: World) -> None:
    world.operator.publish("1.0.0")
    world.update()
    for label in ("root1", "root2"):
        world.operator.repository.rotate(world.operator.key_id(label))
    world.operator.repository.rotate(world.operator.key_id("online"))
    world.operator.publish("2.0.0")
    assert load_bundle(str(world.update())).version == "2.0.0"


def test_a_new_online_key_recovers_from_a_fast_forward(world: World) -> None:
    """A thief has signed a timestamp with a huge version, which no later one would reach."""
    world.operator.publish("1.0.0")
    thief = Thief(world.operator)
    timestamp = thief.load("timestamp")
    timestamp.signed.version = 10**6
    thief.sign("timestamp", timestamp)
    world.update()
    timestamp.signed.version = 5
    thief.sign("timestamp", timestamp)
    with pytest.raises(UpdateError) as caught:
        world.update()
    assert caught.value.reason == "rollback"
    world.operator.repository.rotate(world.operator.key_id("online"))
    world.operator.publish("2.0.0")
    timestamp = thief.load("timestamp")
    assert timestamp.signed.version < 100
    assert load_bundle(str(world.update())).version == "2.0.0"


def test_a_usb_stick_is_a_repository(world: World) -> None:
    world.operator.publish("1.0.0")
    world.url = world.operator.folder.as_uri()
    assert load_bundle(str(world.update())).version == "1.0.0"
    assert world.server.requests == []


def test_a_broken_download_is_resumed_where_it_ended(world: World) -> None:
    world.operator.publish("1.0.0")
    world.server.faults["model.onnx"] = lambda handler, data: handler.send_bytes(
        data[:100_000], length=len(data)
    )
    with pytest.raises(UpdateError, match="expected 300000 bytes, got 100000"):
        world.update()
    world.server.faults.clear()
    world.server.requests.clear()
    world.update()
    assert [sent for path, sent in world.server.requests if "model.onnx" in path] == ["bytes=100000-"]


def test_a_server_without_ranges_sends_the_file_again(world: World) -> None:
    test_a_broken_download_is_resumed_where_it_ended(world)
    world.operator.publish("2.0.0")
    for send in (
        lambda h, data: h.send_bytes(data[:999], length=len(data)),
        lambda h, data: h.send_bytes(data),
    ):
        world.server.faults["model.onnx"] = send
        try:
            folder = world.update()
        except UpdateError as error:
            assert error.reason == "truncated"
    assert load_bundle(str(folder)).version == "2.0.0"


def test_a_damaged_part_is_downloaded_again(world: World) -> None:
    world.operator.publish("1.0.0")
    offer = world.client().check()
    part = world.robot / "staging" / offer.digest / "model.onnx.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"not the beginning of this graph")
    assert load_bundle(str(world.update())).version == "1.0.0"


def test_files_of_another_bundle_are_not_downloaded_again(world: World) -> None:
    world.operator.publish("1.0.0")
    before = world.update()
    world.operator.publish("2.0.0")
    client = world.client()
    world.server.requests.clear()
    folder = world.robot / "second"
    client.download(client.check(), folder, [before])
    fetched = {
        path.rpartition(".")[0].rpartition(".")[2] for path, _ in world.server.requests if "targets/" in path
    }
    assert fetched == {"bundle", "model"}
    assert load_bundle(str(folder)).version == "2.0.0"


def test_progress_reaches_the_total(world: World) -> None:
    world.operator.publish("1.0.0")
    client, seen = world.client(), []
    offer = client.check()
    client.download(offer, world.robot / "staging", progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (offer.size_bytes, offer.size_bytes)
    assert len(seen) > len(offer.files)


def test_the_rate_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.operator.publish("1.0.0")
    slept: list[float] = []
    monkeypatch.setattr("edge_vision.updates.transport.time.sleep", slept.append)
    world.limits = replace(world.limits, max_bytes_per_s=1000.0)
    _, blocks = Transport(world.limits).open(next(_graph_urls(world)), 0, 60.0)
    size = sum(map(len, blocks))
    assert slept[-1] > 0.9 * (size / 1000.0) - 60.0


def _graph_urls(world: World) -> Iterator[str]:
    for path in (world.operator.folder / "targets").rglob("*.onnx"):
        yield f"{world.url}/{path.relative_to(world.operator.folder).as_posix()}"


@pytest.mark.parametrize("days", [-56 * 365, -10, -2])
def test_a_clock_that_is_behind_does_not_stop_updates_and_is_reported(world: World, days: int) -> None:
    world.operator.publish("1.0.0")
    world.clock_shift_s = days * 86400.0
    client = world.client()
    assert client.check().release.version == "1.0.0"
    assert client.clock_note.startswith("the clock is ") and client.clock_note.endswith(" behind")
    world.clock_shift_s = 0.0
    client.check()
    assert client.clock_note == ""


def test_a_clock_in_2100_leaves_no_trace(world: World) -> None:
    world.operator.publish("1.0.0")
    world.clock_shift_s = 74 * 365 * 86400.0
    with pytest.raises(UpdateError, match="nothing is updated, the present model serves"):
        world.client().check()
    world.clock_shift_s = 0.0
    assert world.client().check().release.version == "1.0.0"


def test_the_floor_outlives_the_process_and_the_cache(world: World) -> None:
    """Ten days later, with the clock ten days behind and the cache lost, the old state has expired."""
    world.operator.publish("1.0.0")
    world.update()
    timestamp = world.operator.folder / "metadata" / "timestamp.json"
    old = timestamp.read_bytes()
    world.operator.wait(days=10)
    world.operator.repository.renew()
    world.update()
    timestamp.write_bytes(old)
    for file in (world.robot / "trust").glob("*/*.json"):
        if file.name != "floor.json":
            file.unlink()
    world.clock_shift_s = -10 * 86400.0
    with pytest.raises(UpdateError) as caught:
        world.update()
    assert caught.value.reason == "expired"


_PARENT = """
import sys, time
from edge_vision.updates.fetch_process import FetchOrder, FetchProcess
import os
fetching = FetchProcess(FetchOrder(*sys.argv[1:], parent=os.getpid()))
print(fetching._child.pid, flush=True)
time.sleep(600)
"""


def test_a_check_ends_with_its_updater(world: World, tmp_path: Path) -> None:
    """Otherwise the next updater would download into the same files."""
    world.operator.publish("1.0.0")
    world.server.faults["timestamp"] = lambda handler, data: handler.server.stopped.wait()
    order = (world.url, GROUP, "stable", str(world.operator.root), str(tmp_path / "slots"))
    updater = subprocess.Popen([sys.executable, "-c", _PARENT, *order], stdout=subprocess.PIPE, text=True)
    assert updater.stdout is not None
    child = psutil.Process(int(updater.stdout.readline()))
    wait_for(lambda: any("timestamp" in path for path, _ in world.server.requests))
    updater.kill()
    updater.wait()
    updater.stdout.close()
    child.wait(12)  # By itself it would end after 20 s of silence.


def wait_for(happened: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_the_child_reports_its_result_and_its_failure(world: World, tmp_path: Path) -> None:
    order = FetchOrder(
        world.url, GROUP, "stable", str(world.operator.root), str(tmp_path / "slots"), os.getpid()
    )
    for publish, reason in ((False, "no_release"), (True, "trial_failed")):
        if publish:
            world.operator.publish("1.0.0")
        fetching = FetchProcess(order)
        wait_for(lambda fetching=fetching: fetching.result is not None)
        assert (fetching.result.outcome, fetching.result.reason) == ("failed", reason)
    assert fetching.progress[0] == fetching.progress[1] > 0
    fetching = FetchProcess(replace(order, bootstrap="/no/such/root.json"))
    wait_for(lambda: fetching.result is not None)
    assert "bootstrap_root: expected a root file" in fetching.result.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "ftp://x"}, "expected http, https or file"),
        ({"group": "Fleet A"}, "group: expected names"),
        ({"channel": "a/b"}, "channel: expected a name"),
        ({"bootstrap": b"<html>"}, "bootstrap root: expected TUF metadata"),
    ],
)
def test_invalid_settings_are_refused_with_the_remedy(world: World, changes, message: str) -> None:
    for name, value in changes.items():
        setattr(world, name, value)
    with pytest.raises(UpdateError, match=message):
        world.client().check()


def test_a_read_only_folder_is_reported(world: World) -> None:
    world.operator.publish("1.0.0")
    world.robot.mkdir()
    (world.robot / "trust").write_text("a file where the folder should be")
    with pytest.raises(UpdateError, match="cannot be written"):
        world.client().check()


def test_every_group_and_channel_has_its_own_release(world: World) -> None:
    world.operator.repository.add_key("fleet/b")
    for number, (group, channel) in enumerate([(GROUP, "stable"), (GROUP, "beta"), ("fleet/b", "stable")], 1):
        world.operator.publish(f"{number}.0.0", group, channel)
    for number, (group, channel) in enumerate([(GROUP, "stable"), (GROUP, "beta"), ("fleet/b", "stable")], 1):
        world.group, world.channel = group, channel
        assert load_bundle(str(world.update())).version == f"{number}.0.0"
