#!/usr/bin/env python3
"""Makes .venv ready for `make demo` and `make test`. See bootstrap/__init__.py for the parts."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

if sys.version_info < (3, 10):
    sys.exit(f"expected Python 3.10 or newer, got {sys.version.split()[0]}; make ... PYTHON=python3.12")

from bootstrap import machine, plan
from bootstrap.places import SetupError, cache_dir, clean_env

EXAMPLES = f"""\
examples:
  python3 scripts/setup.py demo                       what `make demo` needs
  python3 scripts/setup.py demo --backend openvino    with the OpenVINO backend
  python3 scripts/setup.py test                       what `make test` and `make check` need
  python3 scripts/setup.py bench                      what `make bench-backends` needs (200 MB more)
  python3 scripts/setup.py evaluate                   what `make evaluate-gate` needs (200 MB of downloads)
  python3 scripts/setup.py optimize                   what `make optimize-demo` needs
  python3 scripts/setup.py top                        what `make top` needs

Run it again at any time: it does what is missing and says so when that is nothing. Downloads are kept in
{cache_dir()} ($EDGE_VISION_CACHE changes that); with them there, no network is used.
exit codes: 0 done, 1 cannot go on, 2 wrong arguments, 130 stopped by Ctrl-C
"""


def main() -> int:
    arguments = _arguments()
    try:
        _use_the_right_python()
        here = machine.look()
        plan.carry_out(plan.tasks_for(arguments.stage, arguments.backend, here), here)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make .venv, with ROS 2 from the sourced installation or from wheels.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=["demo", "test", "bench", "evaluate", "optimize", "top"])
    parser.add_argument("--backend", default="auto", help="a backend that is wanted besides ONNX Runtime")
    return parser.parse_args()


def _use_the_right_python() -> None:
    """Start again outside a virtual environment, and with the Python that the sourced ROS was built for."""
    python = machine.system_python_with_ros()
    if python is None and sys.prefix != sys.base_prefix:
        python = getattr(sys, "_base_executable", None)
    if python is None or os.environ.get("EDGE_VISION_SETUP_PYTHON") == python:
        return
    env = {**clean_env(), "EDGE_VISION_SETUP_PYTHON": python}
    os.execve(python, [python, *sys.argv], env)


if __name__ == "__main__":
    sys.exit(main())
