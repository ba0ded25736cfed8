"""Shared by all tests: a cache and a ROS domain per process, and collection without ROS installed."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import needed_modules
import pytest
import run_cache

import edge_vision  # noqa: F401  Turns the telemetry of runtimes off before a test imports one.

if TYPE_CHECKING:
    from ros_cases import Robot

sys.path.insert(0, str(Path(__file__).parent / "unit"))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# A background job of a shell script ignores SIGINT, and so would all processes that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Set by `make demo`, `make test` and `make bench-pipeline`.
MAKE_DOMAINS = (87, 88, 89)


def pytest_configure(config: pytest.Config) -> None:
    run_cache.set_up(config)
    # For ROS without the fixture `domain`: workers of pytest-xdist must not communicate.
    domain = _free_domain()
    config.add_cleanup(domain.close)
    os.environ["ROS_DOMAIN_ID"] = _domain_id(domain)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that changed the user's models or clips."""
    if run_cache.changed_by_run(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for file in run_cache.changed_by_run(config):
        terminalreporter.write_line(f"ERROR the tests changed a file of the user's cache: {file}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exclude all modules and tests from garbage collections: with them, that of the fixture `domain` takes
    0.2 s for each test."""
    gc.collect()
    gc.freeze()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if needed_modules.missing(module_path):
        return needed_modules.Unavailable.from_parent(parent, path=module_path)
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    from parallel_runs import workers

    return workers()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from parallel_runs import FileScheduling

    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS domain that no other test on this machine uses, reserved by a file lock.

    Reference cycles keep participants of earlier tests alive until garbage collection, and with them the few
    ports on which a domain discovers participants.
    """
    gc.collect()
    with _free_domain() as file:
        monkeypatch.setenv("ROS_DOMAIN_ID", _domain_id(file))
        yield int(_domain_id(file))


@pytest.fixture
def robot(domain: int) -> Iterator[Robot]:
    from ros_cases import Robot

    robot = Robot(domain)
    yield robot
    robot.close()


def _domain_id(lock: TextIO) -> str:
    return Path(lock.name).name.rpartition("_")[2]


def _free_domain() -> TextIO:
    """Lock an unused domain. Above 101 its ports overlap Linux's ephemeral ones; users choose low numbers."""
    numbers = [number for number in range(20, 100) if number not in MAKE_DOMAINS]
    random.shuffle(numbers)
    for number in numbers:
        file = (Path(tempfile.gettempdir()) / f"edge_vision_test_domain_{number}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        if _is_unused(number):
            return file
        file.close()
    raise RuntimeError("no free ROS domain from 20 to 99: end other test runs that hang")


def _is_unused(domain: int) -> bool:
    """False if a participant of this domain, without our lock, has bound its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", 7400 + 250 * domain + 10))
        except OSError:
            return False
    return True
