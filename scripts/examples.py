#!/usr/bin/env python3
"""Runs every example in examples/, each as its reader would: `make examples`.

An example is good when it ends by itself with code 0. Arguments and what has to run beside it stand in
its text: a line `# run: ARGUMENTS` gives the arguments.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
LIMIT_S = 120
_RUN = re.compile(r"^# run:(.*)$", re.MULTILINE)


def main() -> int:
    examples = sorted((REPO / "examples").glob("*.py"))
    failed = [example.name for example in examples if not passes(example)]
    print(
        f"{len(examples) - len(failed)} of {len(examples)} examples passed"
        + "".join(f", {n} failed" for n in failed)
    )
    return 1 if failed or not examples else 0


def passes(example: Path) -> bool:
    match = _RUN.search(example.read_text())
    arguments = match[1].split() if match else []
    print(f"-- {example.name} {' '.join(arguments)}", flush=True)
    started = time.monotonic()
    try:
        done = subprocess.run([sys.executable, example, *arguments], cwd=REPO, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        print(f"   expected it to end within {LIMIT_S} s, stopped it")
        return False
    print(f"   code {done.returncode}, {time.monotonic() - started:.1f} s")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
