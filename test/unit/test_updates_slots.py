"""The slots: what serves after success, failure, kill -9, with a full disk, and with a read-only one."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from slot_cases import check_complete, fetch, kill_once, new_client
from update_cases import Operator, make_bundle

from edge_vision.bundles.store import load_bundle
from edge_vision.errors import BundleError, UpdateError
from edge_vision.updates.fetch import check_compatible, open_bundle, try_bundle
from edge_vision.updates.release import Release, add_model
from edge_vision.updates.slots import MAX_TRIES, SlotStore, bundle_path, staging_path

KILLS = 20


def release(number: int, floor: int = 0) -> Release:
    return Release("yard", f"{number}.0.0", "stable", number, floor, "0.0.0", "", ("bundle.yaml",))


def digest_of(number: int) -> str:
    return f"{number:064x}"


def download(store: SlotStore, number: int) -> str:
    folder = staging_path(store.folder, digest_of(number))
    folder.mkdir(parents=True)
    (folder / "bundle.yaml").write_text(f"bundle {number}")
    return digest_of(number)


def install(store: SlotStore, number: int, floor: int = 0) -> None:
    store.install(download(store, number), release(number, floor))


def serving(store: SlotStore) -> int | None:
    """The number of the release that a start would serve; None for the factory model."""
    slot = store.begin()
    return slot.release if slot else None


def proven(store: SlotStore, number: int) -> None:
    install(store, number)
    store.promote()
    store.begin()
    store.confirm()


@pytest.fixture
def store(tmp_path: Path) -> SlotStore:
    return SlotStore(tmp_path / "slots")


def again(store: SlotStore) -> SlotStore:
    """The store as the next process finds it."""
    store.close()
    return SlotStore(store.folder)


def test_without_an_update_the_factory_model_serves(store: SlotStore) -> None:
    assert serving(store) is None
    assert not list(store.folder.iterdir())


def test_a_downloaded_bundle_serves_only_when_promoted(store: SlotStore) -> None:
    install(store, 1)
    assert serving(again(store)) is None


def test_a_promoted_bundle_serves_and_is_kept_when_confirmed(store: SlotStore) -> None:
    install(store, 1)
    store.promote("nanodet")
    store = again(store)
    assert serving(store) == 1
    store.confirm()
    for _ in range(5):
        store = again(store)
        assert serving(store) == 1
    assert store.state.factory == "nanodet"


def test_three_starts_without_confirmation_bar_the_bundle(store: SlotStore) -> None:
    proven(store, 1)
    install(store, 2)
    store.promote()
    for _ in range(MAX_TRIES):
        store = again(store)
        assert serving(store) == 2
    store = again(store)
    assert serving(store) == 1
    assert store.state.barred == {digest_of(2): "3 starts with it were not confirmed"}
    with pytest.raises(UpdateError, match="barred on this robot: 3 starts"):
        store.install(digest_of(2), release(2))


def test_the_first_update_falls_back_to_the_factory_model(store: SlotStore) -> None:
    install(store, 1)
    store.promote()
    store.begin()
    assert store.roll_back("blind") is None
    assert serving(again(store)) is None


def test_a_roll_back_goes_to_the_other_slot(store: SlotStore) -> None:
    proven(store, 1)
    proven(store, 2)
    back = store.roll_back("by the operator")
    assert back and back.release == 1
    assert serving(again(store)) == 1
    with pytest.raises(UpdateError, match="by the operator"):
        store.install(download(store, 2), release(2))


def test_a_roll_back_does_not_serve_a_candidate(store: SlotStore) -> None:
    proven(store, 1)
    install(store, 2)
    assert store.roll_back("by the operator") is None


def test_the_security_floor_limits_a_roll_back(store: SlotStore) -> None:
    proven(store, 1)
    install(store, 2, floor=2)
    store.promote()
    store.begin()
    assert store.roll_back("blind") is None


def test_only_bundles_in_slots_are_kept(store: SlotStore) -> None:
    for number in range(1, 5):
        proven(store, number)
    assert {path.name for path in (store.folder / "bundles").iterdir()} == {digest_of(3), digest_of(4)}
    assert not list((store.folder / "staging").iterdir())


def test_two_updaters_at_once_are_refused(store: SlotStore) -> None:
    with pytest.raises(UpdateError, match="another that is running") as caught:
        SlotStore(store.folder)
    assert caught.value.reason == "busy"


def test_a_missing_bundle_does_not_serve(store: SlotStore) -> None:
    proven(store, 1)
    proven(store, 2)
    shutil.rmtree(store.folder / "bundles" / digest_of(2))
    assert serving(again(store)) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"serving": "c"}', "null", '{"serving": "a", "slots": {}}'])
def test_a_damaged_state_serves_the_factory_model_and_is_reported(store: SlotStore, text: str) -> None:
    proven(store, 1)
    (store.folder / "state.json").write_text(text)
    store = again(store)
    assert serving(store) is None
    assert "the factory model serves" in store.note
    proven(store, 2)
    assert (serving(store), store.note) == (2, "")


def test_a_folder_that_cannot_be_created_serves_the_factory_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SlotStore(tmp_path / "file" / "slots")
    assert serving(store) is None
    assert "nothing can be updated" in store.note


def test_a_roll_back_that_cannot_be_written_still_serves_another(store: SlotStore, monkeypatch) -> None:
    proven(store, 1)
    install(store, 2)
    store.promote()
    store.begin()
    with monkeypatch.context() as patch:
        break_call(patch, 0, OSError(errno.EROFS, "Read-only file system"))
        back = store.roll_back("blind")
        assert back and back.release == 1
        assert "Read-only file system" in store.note
    assert serving(again(store)) == 2, "its tries are counted"


def test_a_rejected_candidate_is_barred(store: SlotStore) -> None:
    proven(store, 1)
    install(store, 2)
    store.reject("labels differently")
    assert (store.state.candidate, serving(again(store))) == (None, 1)
    with pytest.raises(UpdateError, match="labels differently"):
        store.install(digest_of(2), release(2))


# Faults at every step.
@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    """In memory, where fsync is fast: these tests fail the calls themselves."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


class PowerCut(BaseException):
    """The process ends here."""


SYSTEM_CALLS = ("fsync", "replace", "rename", "mkdir", "fchmod")


def scenario(store: SlotStore) -> None:
    install(store, 2)
    store.promote()
    store.begin()
    store.confirm()
    install(store, 3)
    store.promote()
    store.begin()
    store.roll_back("blind")


def break_call(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> list[int]:
    """From the n-th of the system calls on, each fails. Returns a list with their count."""
    calls = [0]

    def breaking(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] > at:
                raise error
            return real(*args, **kwargs)

        return call

    for name in SYSTEM_CALLS:
        monkeypatch.setattr(os, name, breaking(getattr(os, name)))
    return calls


@pytest.mark.parametrize(
    "error",
    [
        PowerCut(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
    ids=["power cut", "full", "read-only"],
)
def test_a_fault_at_every_step_leaves_a_complete_bundle_that_serves(error) -> None:
    with fast_folder() as folder:
        check_every_step(folder, error)


def check_every_step(folder: Path, error: BaseException) -> None:
    steps = 0
    store = SlotStore(folder / "proven")
    proven(store, 1)
    store.close()
    for at in range(1000):
        shutil.copytree(folder / "proven", folder / str(at))
        store = SlotStore(folder / str(at))
        with pytest.MonkeyPatch.context() as patch:
            calls = break_call(patch, at, error)
            try:
                scenario(store)
                finished = True
            except (PowerCut, UpdateError, OSError):
                finished = False
            if isinstance(error, OSError) and not finished:
                # The process goes on, and still serves something that is there.
                slot = store.begin()
                assert slot is None or (slot.proven and store.bundle_path(slot).is_dir())
        steps = max(steps, calls[0])
        store = again(store)
        assert store.note == ""
        slot = store.begin()
        assert slot is not None and store.bundle_path(slot).joinpath("bundle.yaml").read_text() == (
            f"bundle {slot.release}"
        )
        proven(store, 9)
        assert serving(again(store)) == 9
        if finished:
            break
    assert finished and steps > 30


class SlotsMachine(RuleBasedStateMachine):
    """Any order of events: the store agrees with a model of it that has no disk."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.store = SlotStore(self.stack.enter_context(fast_folder()) / "slots")
        self.number = 0

    def teardown(self) -> None:
        self.store.close()
        self.stack.close()

    @rule()
    def install(self) -> None:
        self.number += 1
        install(self.store, self.number)

    @rule()
    @precondition(lambda self: self.store.state.candidate)
    def promote(self) -> None:
        candidate = self.store.state.candidate
        self.store.promote()
        assert self.store.state.current == candidate

    @rule()
    def begin(self) -> None:
        self.store.begin()

    @rule()
    def confirm(self) -> None:
        self.store.confirm()

    @rule()
    @precondition(lambda self: self.store.state.current)
    def roll_back(self) -> None:
        self.store.roll_back("by chance")

    @rule()
    def restart(self) -> None:
        before = self.store.state
        self.store = again(self.store)
        assert self.store.state == before

    @invariant()
    def what_serves_is_there_and_allowed(self) -> None:
        state = self.store.state
        assert state.tries <= MAX_TRIES
        for slot in state.slots.values():
            assert self.store.bundle_path(slot).is_dir()
            assert slot.digest not in state.barred
        assert not state.serving or state.current is not None


SlotsMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestSlots = SlotsMachine.TestCase


# Whole updates.
@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "operator")


def test_killed_at_random_instants_of_updates(operator: Operator, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    for kill in range(KILLS):
        operator.publish(f"{kill + 1}.0.0")
        try:
            kill_once(operator, tmp_path / "robot", seed + kill)
        except BaseException as error:
            error.args = (f"seed {seed}, kill {kill}: {error}",)
            raise
    store = SlotStore(tmp_path / "robot" / "slots")
    operator.publish(f"{KILLS + 1}.0.0")  # The last one may be barred by now.
    assert fetch(new_client(operator, tmp_path / "robot"), store) in ("staged", "downloaded", "serving")
    for slot in store.state.slots.values():
        check_complete(bundle_path(store.folder, slot))


def test_an_update_is_fetched_once(operator: Operator, tmp_path: Path) -> None:
    operator.publish("1.0.0")
    store, tried = SlotStore(tmp_path / "slots"), []
    client = new_client(operator, tmp_path)
    assert fetch(client, store, lambda *given: tried.append(given)) == "staged"
    assert fetch(client, store, lambda *given: tried.append(given)) == "downloaded"
    store.promote()
    assert fetch(client, store, lambda *given: tried.append(given)) == "serving"
    assert [bundle.version for bundle, _ in tried] == ["1.0.0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_software": "99.0.0"}, r"expected edge_vision 99\.0\.0 or later"),
        ({"required_backend": "npu9000"}, "expected the backend npu9000, got "),
    ],
)
def test_a_bundle_for_another_robot_is_not_downloaded(
    operator: Operator, tmp_path: Path, options, message
) -> None:
    operator.publish("1.0.0", **options)
    store = SlotStore(tmp_path / "slots")
    with pytest.raises(UpdateError, match=message) as caught:
        fetch(new_client(operator, tmp_path), store)
    assert caught.value.reason == "incompatible"
    assert not list(store.folder.iterdir())


def test_a_bundle_that_does_not_load_is_not_installed(operator: Operator, tmp_path: Path) -> None:
    """Its graph is no ONNX file; the real trial in a child process."""
    operator.publish("1.0.0", required_backend="onnxruntime")
    store = SlotStore(tmp_path / "slots")
    with pytest.raises(UpdateError) as caught:
        fetch(new_client(operator, tmp_path), store, try_bundle)
    assert caught.value.reason == "trial_failed"
    assert store.state.slots == {}


def test_a_bundle_that_differs_from_its_release_is_refused(operator: Operator) -> None:
    published = operator.publish("1.0.0")
    folder = operator.base / "bundle1"
    check_compatible(published)
    assert open_bundle(folder, published).version == "1.0.0"
    with pytest.raises(UpdateError, match=r"expected yard 2\.0\.0"):
        open_bundle(folder, release(2))
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(UpdateError, match="the file is damaged"):
        open_bundle(folder, published)


_ON_A_SMALL_DISK = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_updates_slots import download, proven, release, serving, SlotStore
from edge_vision.errors import UpdateError
folder = Path(sys.argv[1])
store = SlotStore(folder / "slots")
proven(store, 1)
digest = download(store, 2)
with (folder / "full").open("wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
try:
    store.install(digest, release(2))
    print("installed")
except UpdateError as error:
    print("refused", error.reason)
print("serves", serving(store))
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(_ON_A_SMALL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    here = Path(__file__).parent
    mount = f"mount -t tmpfs -o size=256k none {disk}"
    command = f"{mount} && exec {sys.executable} {script} {disk} {here} {here.parent} {here.parents[1]}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("mounting a small disk is not permitted here")
    assert done.stdout.splitlines() == ["refused store", "serves 1"], done.stdout + done.stderr


@pytest.mark.parametrize("links", [True, False], ids=["one file system", "another"])
def test_a_release_without_a_model_is_completed_with_that_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr("edge_vision.updates.release.os.link", refuse)
    folder = tmp_path / "staging"
    folder.mkdir()
    (folder / "parameters.yaml").write_text("{}")
    add_model(make_bundle(tmp_path / "first", "1.0.0").folder, folder)
    second = make_bundle(tmp_path / "second", "2.0.0")
    add_model(second.folder, folder)  # After a crash, another model serves.
    assert str(load_bundle(str(folder))) == str(second)
    load_bundle(str(folder)).verify(second.manifest.graphs[0])
    assert (folder / "model.onnx").samefile(second.folder / "model.onnx") == links
    assert (folder / "parameters.yaml").read_text() == "{}"
    load_bundle(str(tmp_path / "first")).verify(load_bundle(str(tmp_path / "first")).manifest.graphs[0])
    (second.folder / "labels.txt").unlink()
    with pytest.raises(BundleError, match=r"labels\.txt"):
        add_model(second.folder, folder)
