"""`edge-vision backends`: which backends can run here, and engines built in advance."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edge_vision.backends import BackendRequest, available_backends, backends_with, make_backend
from edge_vision.backends.base import Backend
from edge_vision.backends.loading import graph_for
from edge_vision.backends.registry import imported_plugins
from edge_vision.backends.runtimes.cuda_driver import NO_GPU, CudaDevice, GpuIdentity, unavailable_reason
from edge_vision.backends.runtimes.tensorrt import TensorRtBackend, gpu_index
from edge_vision.backends.selection.auto_select import measure_now
from edge_vision.backends.selection.fallback import usable_backends
from edge_vision.backends.trial.parent import try_graph
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.command_line import complete_help, run_command, with_examples
from edge_vision.core.printable import printable_output
from edge_vision.errors import BackendError
from edge_vision.offline.trials import build_engine

_EXAMPLES = """\
examples:
  edge-vision backends list                                    what can run here, and why not
  edge-vision backends list | grep -v cannot                   what can run here
  edge-vision backends measure nanodet                         for `backend: auto`, in advance
  edge-vision backends measure ./my_bundle --threads 1
  edge-vision backends build nanodet                           the engine, before the robot starts
  edge-vision backends build ./my_bundle --rebuild             after an engine was refused
  edge-vision backends build ./my_bundle --backend openvino --device npu

Engines are kept in $EDGE_VISION_CACHE/engines, by default ~/.cache/edge_vision/engines.
exit codes: 0 success, 1 failure, 2 wrong arguments, 130 stopped by Ctrl-C
"""
PROGRESS_S = 2.0
_Result = TypeVar("_Result")


@printable_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return run_command(_parser().parse_args(argv), "error", "stopped; no incomplete engine was kept")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-vision backends",
        **with_examples("Lists and measures the backends, and builds engines in advance.", _EXAMPLES),
    )
    commands = parser.add_subparsers(required=True, metavar="{list,measure,build}")
    commands.add_parser("list", help="every backend, and why one cannot run here").set_defaults(run=_list)
    measure = commands.add_parser("measure", help="choose for `backend: auto` in advance")
    measure.add_argument("bundle", metavar="PATH_OR_NAME", help="a bundle's folder, or a name in the store")
    for name in ("device", "precision"):
        measure.add_argument(f"--{name}", default="auto", help="as for the node (default: auto)")
    measure.add_argument("--threads", type=int, default=0, help="as for the node (default: 0)")
    measure.set_defaults(run=_measure)
    build = commands.add_parser("build", help="build the engine of a graph and keep it")
    build.add_argument("bundle", metavar="PATH_OR_NAME", help="a bundle's folder, or a name in the store")
    build.add_argument(
        "--backend", default="tensorrt", help=f"default: %(default)s; one of {', '.join(_builders())}"
    )
    build.add_argument("--precision", default="auto", help="auto (default), fp32, fp16, bf16 or int8")
    build.add_argument(
        "--device", default="auto", help="as for the node: auto (default), gpu, gpu:1, npu, ..."
    )
    build.add_argument("--cache", type=Path, metavar="FOLDER", help="another folder for the engine")
    build.add_argument("--rebuild", action="store_true", help="build it even if one is kept or was refused")
    build.set_defaults(run=_build)
    return complete_help(parser, commands)


def _list(_arguments: argparse.Namespace) -> int:
    for name, reason in available_backends().items():
        print(f"{name}: {'can run here' if reason is None else f'cannot run here: {reason}'}")
    for plugin in imported_plugins():
        print(plugin)
    return 0


def _measure(arguments: argparse.Namespace) -> int:
    bundle = load_bundle(arguments.bundle)
    request = BackendRequest(arguments.device, arguments.precision, arguments.threads)
    names = usable_backends(bundle)
    if not names:
        raise BackendError(
            f"expected an installed runtime that reads {bundle.name}, got none: `edge-vision backends list` "
            "shows what installs one"
        )
    selection = measure_now(bundle, names, request)
    failed = selection.names[0] in selection.refused
    print(f"auto selects {'none' if failed else selection.names[0]}: {selection.reason}")
    return int(failed)


def _build(arguments: argparse.Namespace) -> int:
    options = {"rebuild": arguments.rebuild, **({"cache_dir": arguments.cache} if arguments.cache else {})}
    request = BackendRequest(arguments.device, arguments.precision, options=options)
    backend = make_backend(arguments.backend)
    bundle = load_bundle(arguments.bundle)
    path, _ = graph_for(bundle, backend, request)
    if not backend.builds_engines:
        raise BackendError(
            f"expected a backend that builds engines ({', '.join(_builders())}), got {backend.name}"
        )
    if isinstance(backend, TensorRtBackend):
        return _build_engine(backend, bundle, path, request)
    return _load_and_keep(backend, bundle, path, replace(request, options={**options, "cache": True}))


def _builders() -> tuple[str, ...]:
    return backends_with(lambda backend: backend.builds_engines)


def _load_and_keep(backend: Backend, bundle: Bundle, path: Path, request: BackendRequest) -> int:
    """Load the graph with the option `cache`, which keeps the compiled graph."""
    print(f"{bundle}: {backend.name} for {request.device}", flush=True)
    _with_progress(lambda: try_graph(backend, path, request))
    session = _with_progress(lambda: backend.load(path, request))
    print(f"ready on {session.actual.provider}, {session.actual.precision}")
    return _print_notes(session.actual.notes)


def _build_engine(backend: TensorRtBackend, bundle: Bundle, path: Path, request: BackendRequest) -> int:
    gpu = _gpu(gpu_index(request.device))
    print(f"{bundle}: engine of {backend.name} for GPU {gpu.name}, driver {gpu.driver}", flush=True)
    kept = _with_progress(lambda: build_engine(backend, path, request, (gpu.name, gpu.driver)))
    print(f"{'built' if kept['built'] else 'already kept, verified'}: {kept['bytes'] / 1e6:.1f} MB")
    return _print_notes((kept["note"],) if kept["note"] else ())


def _print_notes(notes: Sequence[str]) -> int:
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    return 1 if notes else 0


def _gpu(index: int) -> GpuIdentity:
    """The GPU, or NO_GPU with a warning: some builders need none."""
    reason = unavailable_reason()
    if reason:
        print(f"warning: {reason}; an engine that is built here is for no GPU", file=sys.stderr)
        return NO_GPU
    device = CudaDevice(index)
    try:
        return device.identity
    finally:
        device.close()


def _with_progress(work: Callable[[], _Result]) -> _Result:
    """The result of `work`. Prints every two seconds that it continues."""
    done = threading.Event()
    started_s = time.monotonic()

    def report() -> None:
        while not done.wait(PROGRESS_S):
            print(f"building, {time.monotonic() - started_s:.0f} s", flush=True)

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    try:
        return work()
    finally:
        done.set()
        reporter.join()
