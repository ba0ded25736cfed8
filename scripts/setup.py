#!/usr/bin/env python3
"""Sets up .venv, videos and models for `make demo`, `make test` and the like. See bootstrap/__init__.py."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

if sys.version_info < (3, 10):
    sys.exit(f"expected Python 3.10 or newer, got {sys.version.split()[0]}; make ... PYTHON=python3.12")

from bootstrap import machine, plan
from bootstrap.paths import SetupError, cache_dir, clean_env

STAGES = "\n".join(f"  {stage:<9} {commands}" for stage, commands in plan.STAGES.items())
EPILOG = f"""\
stages, with the commands that need them:
{STAGES}

examples:
  python3 scripts/setup.py demo --backend openvino
  python3 scripts/setup.py test

Only missing steps run. Downloads are stored in {cache_dir()} ($EDGE_VISION_CACHE changes that); once they are
there, no network is used.
exit codes: 0 done, 1 failed, 2 wrong arguments, 130 stopped by Ctrl-C
"""


def main() -> int:
    arguments = _arguments()
    try:
        _restart_with_ros_python()
        detected = machine.detect()
        plan.carry_out(plan.tasks_for(arguments.stage, arguments.backend, detected), detected)
    except (SetupError, OSError, subprocess.CalledProcessError) as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: stopped; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Set up .venv, with ROS 2 from the sourced installation or from wheels.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=plan.STAGES)
    parser.add_argument("--backend", default="auto", help="also install this backend")
    return parser.parse_args()


def _restart_with_ros_python() -> None:
    """Restart outside of a virtual environment, with the Python that the sourced ROS was built for."""
    python = machine.system_python_with_ros()
    if python is None and sys.prefix != sys.base_prefix:
        python = getattr(sys, "_base_executable", None)
    if python is None or os.environ.get("EDGE_VISION_SETUP_PYTHON") == python:
        return
    env = {**clean_env(), "EDGE_VISION_SETUP_PYTHON": python}
    os.execve(python, [python, *sys.argv], env)


if __name__ == "__main__":
    sys.exit(main())
