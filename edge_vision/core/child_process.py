"""Command line and environment of Python child processes.

A child imports the same installation of this package, and no module from its working folder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import site
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
"""The folder from which this package is imported."""
_PR_SET_PDEATHSIG = 1
_ROS_WHEELS_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
"""Set by the ROS wheels: a child that inherits it does not set its library path."""
_WITHOUT_SAFE_PATH = (
    "import sys; sys.path[:1] = []; import runpy; sys.argv[:] = sys.argv[1:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""For Python 3.10, which lacks -P and PYTHONSAFEPATH: removes the working folder from sys.path."""


def python_command(module: str, *arguments: str) -> list[str]:
    """As `python -m module`, without the working folder on sys.path."""
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module, *arguments]
    return [sys.executable, "-c", _WITHOUT_SAFE_PATH, module, *arguments]


def child_environment() -> dict[str, str]:
    """The environment of a child process in any working folder."""
    kept = {name: value for name, value in os.environ.items() if name != _ROS_WHEELS_MARK}
    kept.setdefault("ORT_DISABLE_TELEMETRY", "1")
    paths = [*own_path(), *_absolute(kept.pop("PYTHONPATH", ""))]
    return {**kept, "PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def end_with_parent(parent: int) -> None:
    """In a child: let the kernel kill it when its parent, with this process id, ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def describe_exit(returncode: int) -> str:
    """Description of a return code: "was killed by SIGABRT", "exited with status 3"."""
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def own_path() -> list[str]:
    """The folder of this package, unless it is a standard site folder."""
    standard = {*site.getsitepackages(), site.getusersitepackages()}
    return [] if str(_ROOT) in {os.path.realpath(entry) for entry in standard} else [str(_ROOT)]


def _absolute(pythonpath: str) -> list[str]:
    """Its entries as absolute paths. An empty one would mean the child's working folder."""
    return [os.path.abspath(entry) for entry in pythonpath.split(os.pathsep) if entry]
