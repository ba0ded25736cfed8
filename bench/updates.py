#!/usr/bin/env python3
"""Attacks a robot's updates and kills them: `make bench-updates`. Writes out/bench/updates.json.

Attacks: each against a real HTTP server on the loopback interface, with the reason of the refusal.
Kills: a process that updates, promotes, confirms and rolls back at random is ended by kill -9 at a random
instant; then the state on disk must be the last reported one or the next, with complete bundles.
A/A runs: the comparison of a model with itself, on recorded frames whose copies are compressed. Kills of a
system: pipeline and updater in processes of their own, with a clip as camera.

refused            attacks that ended with the expected reason.
client_private_mb  memory of the child process that checks and downloads, without pages shared with others.
wrong_states       kills after which the state on disk was not as it must be.
restart_p95_ms     until the next process knows what to serve, without the start of the interpreter.
false_rejections   A/A runs in which shadow rejected the equal model.
system_wrong       kills of the system after which the wrong model served, or a bundle was not complete.
unequal_ledgers    reports of the running systems whose frame counts did not add up.
serving_p95_ms     from the start of the system's processes until its pipeline is active, with a model.
first_p95_ms       the same, to the first detections in a process that ran before: with DDS discovery.
slot_p95_ms        the same, to the model of the slot.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from parts.benchmark import finish, make_parser
from parts.common import REPO, Row, at_least, at_most, spread

sys.path[:0] = [str(REPO / "test" / "unit")]

from parts.updates.agreement import aa_runs  # noqa: E402
from slot_cases import kill_once  # noqa: E402
from update_attacks import ATTACKS, Attack  # noqa: E402
from update_cases import GROUP, Operator, World  # noqa: E402

from edge_vision.errors import UpdateError  # noqa: E402
from edge_vision.offline.provenance import machine, versions  # noqa: E402
from edge_vision.updates.fetch_process import FetchOrder, FetchProcess  # noqa: E402
from edge_vision.updates.slots import SlotStore  # noqa: E402

RESTART_MS = 3000.0
FALSE_SHARE = 0.05
CLIENT_MB = 30.0
_EXAMPLES = """examples:
  python bench/updates.py                 about ten minutes
  python bench/updates.py --system 0      two minutes, without ROS
  python bench/updates.py --kills 0 --aa 0 --system 200
  python bench/updates.py --seed 7        the same kills again, as far as time allows
  python bench/updates.py --strict        exit status 1 where a target is missed"""


def main() -> int:
    parser = make_parser("updates", __doc__, _EXAMPLES)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--aa", type=int, default=100, help="A/A runs")
    parser.add_argument(
        "--system", type=int, default=40, help="kills of a whole system, 10 s each; needs ROS"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "seed": options.seed}
    result["attacks"] = [attacked(attack) for attack in ATTACKS]
    result["client_private_mb"] = client_memory()
    if options.kills:
        result["kills"] = killed(options.kills, options.seed)
    if options.aa:
        result["aa"] = aa_runs(options.aa, options.seed)
    if options.system:
        from parts.updates.kills import kill_system

        with tempfile.TemporaryDirectory() as folder:
            result["system"] = kill_system(options.system, options.seed, Path(folder))
    return finish(options, result, _rows(result))


def attacked(attack: Attack) -> dict[str, Any]:
    """One attack, and what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            attack.prepare(world)
            begin_s = time.monotonic()
            world.update()
            got, text = "accepted", ""
        except UpdateError as error:
            got, text = error.reason, str(error)
        finally:
            world.close()
    took_s = time.monotonic() - begin_s
    verdict = "refused" if got == attack.reason else "WRONG"
    print(f"{attack.name:<36} {verdict:<8} {got:<16} {took_s:6.2f} s", flush=True)
    return {"name": attack.name, "expected": attack.reason, "got": got, "text": text, "took_s": took_s}


def client_memory() -> float:
    """The most private memory of the child process that checks and downloads, in MB; it ends afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        world, store = World(Path(folder)), Path(folder) / "slots"
        world.operator.publish("1.0.0")
        order = FetchOrder(
            world.url, GROUP, "stable", str(world.operator.root), str(store), os.getpid(), "robot"
        )
        child, most = FetchProcess(order), 0.0
        while (result := child.result) is None:
            for usage in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    most = max(most, usage.memory_full_info().uss / 1e6)
            time.sleep(0.005)
        world.close()
    assert result.digest, result
    print(
        f"a check and a download ({result.outcome}, {result.reason}): {most:.1f} MB of private memory",
        flush=True,
    )
    return most


def killed(kills: int, seed: int) -> dict[str, Any]:
    """Kill the same robot this often."""
    serving: collections.Counter[str] = collections.Counter()
    wrong, restarts_ms = [], []
    with tempfile.TemporaryDirectory() as folder:
        operator, robot = Operator(Path(folder) / "operator"), Path(folder) / "robot"
        for kill in range(kills):
            operator.publish(f"{kill + 1}.0.0")
            try:
                changes, _ = kill_once(operator, robot, seed + kill)
            except AssertionError as error:
                wrong.append(f"kill {kill}: {error}")
                continue
            begin_s = time.monotonic()
            store = SlotStore(robot / "slots")
            slot = store.begin()
            restarts_ms.append((time.monotonic() - begin_s) * 1e3)
            serving["factory" if slot is None else "proven" if slot.proven else "on trial"] += 1
            store.close()
    print(f"{kills} kills, {changes} changes of state; served next: {dict(serving)}", flush=True)
    return {"n": kills, "wrong": wrong, "served_next": dict(serving), "restart_ms": spread(restarts_ms)}


def _rows(result: dict[str, Any]) -> list[Row]:
    attacks = result["attacks"]
    refused = sum(attack["got"] == attack["expected"] for attack in attacks)
    rows = [
        at_least("refused", refused, len(attacks), f"of {len(attacks)} attacks"),
        at_most("client_private_mb", result["client_private_mb"], CLIENT_MB, "MB"),
    ]
    if kills := result.get("kills"):
        rows += [
            _wrong("wrong_states", kills),
            at_most("restart_p95_ms", kills["restart_ms"].get("p95"), RESTART_MS, "ms"),
        ]
    if aa := result.get("aa"):
        rows.append(
            at_most("false_rejections", aa["rejected"], FALSE_SHARE * aa["runs"], f"of {aa['runs']} A/A runs")
        )
    if system := result.get("system"):
        rows += [
            _wrong("system_wrong", system),
            at_most("unequal_ledgers", system["unequal_ledgers"], 0, f"of {system['reports']} reports"),
            at_most("serving_p95_ms", system["serving_ms"].get("p95"), RESTART_MS, "ms"),
            at_most("first_p95_ms", system["first_detections_ms"].get("p95"), RESTART_MS, "ms"),
            Row("slot_p95_ms", system["slot_serves_ms"].get("p95"), "ms"),
        ]
    return rows


def _wrong(name: str, kills: dict[str, Any]) -> Row:
    return at_most(name, len(kills["wrong"]), 0, f"of {kills['n']} kills", "; ".join(kills["wrong"][:3]))


if __name__ == "__main__":
    sys.exit(main())
