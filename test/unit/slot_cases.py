"""A robot that updates in a child process and is killed at a random instant, and what must be true then."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from update_cases import Operator

from edge_vision.bundles.store import sha256_of
from edge_vision.errors import UpdateError
from edge_vision.updates.client import UpdateClient
from edge_vision.updates.fetch import fetch_update
from edge_vision.updates.slots import Slot, SlotStore

LONGEST_S = 0.2
FORK = multiprocessing.get_context("fork")


def new_client(operator: Operator, robot: Path) -> UpdateClient:
    root = operator.root.read_bytes()
    return UpdateClient(operator.folder.as_uri(), "fleet/a", "stable", root, robot / "trust")


def fetch(
    client: UpdateClient,
    store: SlotStore,
    trial: Callable[..., Any] = lambda bundle, release: None,
    robot: str = "robot",
) -> str:
    """Bring the group's release into a slot."""
    offer = client.check()
    outcome = fetch_update(client, offer, robot, store.folder, store.state, trial)
    if outcome == "staged":
        store.install(offer.digest, offer.release)
    return outcome


def run_robot(operator: Operator, robot: Path, seed: int, pipe: Connection) -> None:
    """Update, promote, confirm, roll back at random, until killed. Sends (changes, digest that serves)."""
    chance = random.Random(seed)
    store = SlotStore(robot / "slots")

    def report(slot: Slot | None) -> None:
        pipe.send((store.state.changes, slot.digest if slot else ""))

    report(store.begin())
    while True:
        try:
            step = chance.choice("fffppccbr")
            if step == "f":
                fetch(new_client(operator, robot), store)
            elif step == "p":
                store.promote("factory")
            elif step == "c":
                store.confirm()
            elif step == "r" and chance.random() < 0.3:
                store.roll_back("by chance")
            elif step == "b":
                store.begin()
        except UpdateError as error:
            assert error.reason in ("no_candidate", "no_update", "barred"), error
        report(store.state.current)


def kill_once(operator: Operator, robot: Path, seed: int) -> tuple[int, str]:
    """Start the robot and kill it. Returns the last report, after checking what is on disk."""
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=run_robot, args=(operator, robot, seed, theirs), daemon=True)
    child.start()
    theirs.close()
    last = ours.recv()
    time.sleep(random.Random(seed).uniform(0.0, LONGEST_S))
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL, "the robot's process failed before it was killed"
    while ours.poll():
        try:
            last = ours.recv()
        except EOFError:
            break
    check_store(robot / "slots", *last)
    return last


def check_store(folder: Path, changes: int, serving: str) -> None:
    """What is on disk is the state that was reported last, or the one after it, and is complete."""
    state = json.loads((folder / "state.json").read_text()) if (folder / "state.json").exists() else None
    on_disk = state["changes"] if state else 0
    assert changes <= on_disk <= changes + 1
    store = SlotStore(folder)
    try:
        assert store.note == ""
        if on_disk == changes:
            assert (store.state.current.digest if store.state.current else "") == serving
        for slot in store.state.slots.values():
            check_complete(store.bundle_path(slot))
        current = store.state.current
        assert current is None or current.digest not in store.state.barred
        assert store.state.tries <= 3
    finally:
        store.close()


def check_complete(folder: Path) -> None:
    """A bundle's folder has the contents that it is named after."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == folder.name
