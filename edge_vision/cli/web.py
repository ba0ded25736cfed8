"""`edge-vision web`: shows all running pipelines in the browser, live."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_vision.cli.top.board import Board, PipelineStatus, of_pipelines
from edge_vision.core.command_line import with_examples
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.missing_package import missing_package
from edge_vision.core.printable import printable_error, printable_output
from edge_vision.diagnostics.causes.frames import has_stamps_of_file
from edge_vision.web.access import Access, access_of, add_access_options
from edge_vision.web.hub import Hub
from edge_vision.web.status_view import status_view

if TYPE_CHECKING:
    from edge_vision.nodes.observers.remote_parameters import RemoteParameters
    from edge_vision.nodes.observers.web_listener import WebListener

PORT = 8600
NICENESS = 5
STATUS_PERIOD_S = 1.0
NODE_NAME = ("--ros-args", "-r", "__node:=edge_vision_web")
_EXAMPLES = """examples:
  edge-vision web                                 http://127.0.0.1:8600/
  edge-vision web --address 0.0.0.0               for a phone: prints an address with a token
  edge-vision web --allow-control                 parameters can be set in the page
  edge-vision web --rate 5 --max-width 640        less traffic

exit codes: 0 stopped by SIGINT or SIGTERM, 1 the port cannot be opened or a package is missing, 2 wrong
arguments"""


class WebState:
    """The last statuses of all pipelines, as the page needs them. Any thread."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._board = Board()
        self._sent_s = -STATUS_PERIOD_S

    def update(self, statuses: Sequence[StatusEntry]) -> None:
        """Take one message of /diagnostics."""
        ours = of_pipelines(statuses, self.cameras)
        with self._lock:
            self._board.update(ours, time.monotonic())

    def update_updater(self, namespace: str, status: StatusEntry) -> None:
        """Not shown."""

    @property
    def cameras(self) -> list[str]:
        """The namespaces of the pipelines that have reported."""
        with self._lock:
            return [one.namespace for one in self._board.pipelines]

    def running(self, camera: str) -> list[str]:
        """The nodes of a camera that report."""
        return list(self._pipeline(camera).parts)

    def image_topic(self, camera: str) -> str:
        """The topic that the pipeline's first stage subscribes to; its source's if that is unknown."""
        parts = self._pipeline(camera).parts
        first = next((parts[name] for name in ("gate", "cascade", "detector") if name in parts), None)
        return (first.text("image_topic") if first else "") or f"{camera.rstrip('/')}/image_raw"

    def ages_count(self, camera: str) -> bool:
        """False with the stamps of a file, or of a simulated clock."""
        pipeline = self._pipeline(camera)
        simulated = pipeline.part("detector").text("use_sim_time") == "True"
        return not simulated and not has_stamps_of_file(pipeline.part("source").values)

    def send(self) -> None:
        """Send all statuses to the browsers, once a second."""
        now_s = time.monotonic()
        if now_s - self._sent_s < STATUS_PERIOD_S:
            return
        self._sent_s = now_s
        with self._lock:
            pipelines = self._board.pipelines
        for one in pipelines:
            status = status_view(one.parts, now_s - one.received_s)
            self._hub.send_text("status", one.namespace, status=status)

    def _pipeline(self, camera: str) -> PipelineStatus:
        with self._lock:
            found = {one.namespace: one for one in self._board.pipelines}
        return found.get(camera, PipelineStatus(camera))


# Its link is for the user, with the token.
@printable_output(stdout=False)
def main(args: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code."""
    options, ros_args = _parse(list(sys.argv[1:] if args is None else args))
    try:
        from edge_vision.nodes.observers.remote_parameters import RemoteParameters
        from edge_vision.nodes.observers.web_listener import WebListener
        from edge_vision.web.live import live_app
        from edge_vision.web.server import ListenError
    except ModuleNotFoundError as error:
        print(f"web: {missing_package(error)}", file=sys.stderr)
        return 1
    hub = Hub()
    state = WebState(hub)
    parameters = RemoteParameters(state.running)
    try:
        access = access_of(options, options.allow_control)
        app = live_app(access, hub, parameters, options.allow_control)
    except ValueError as error:
        print(f"web: {printable_error(error)}", file=sys.stderr)
        return 2
    arguments = ["web", *NODE_NAME, *ros_args]
    listener = WebListener(state, hub, options.rate, options.max_width, arguments)
    try:
        return asyncio.run(_serve(app, access, RosThread(listener, state, parameters)))
    except ListenError as error:
        print(f"web: {printable_error(error)}", file=sys.stderr)
        return 1


class RosThread:
    """Runs the listener, in a thread of its own. error: why it ended by itself."""

    def __init__(self, listener: WebListener, state: WebState, parameters: RemoteParameters) -> None:
        self._listener, self._state, self._parameters = listener, state, parameters
        self._stop = threading.Event()
        self.error = ""

    def run(self) -> None:
        """Until `stop`."""
        try:
            with self._listener as listener:
                while not self._stop.is_set():
                    self._turn(listener)
        except RuntimeError as error:  # A malformed remapping.
            self.error = printable_error(error)

    def _turn(self, listener: WebListener) -> None:
        try:
            listener.turn()
            self._parameters.advance(listener.node)
            self._state.send()
        except Exception as error:  # Of one message: the next one may be fine.
            print(f"web: a callback failed: {printable_error(error)}. Please report this", file=sys.stderr)
            self._stop.wait(1.0)

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()


async def _serve(app: Any, access: Access, ros: RosThread) -> int:
    from edge_vision.web.server import listening

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with listening(app):
        print(f"web: {access.url}", flush=True)
        # The pipeline first: on a busy machine pictures are late, not detections. Later threads inherit it.
        os.nice(NICENESS)
        running = asyncio.ensure_future(asyncio.to_thread(ros.run))
        running.add_done_callback(lambda _: stop.set())
        await stop.wait()
        ros.stop()
        await running
    if ros.error:
        print(f"web: {ros.error}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the arguments from `--ros-args` on."""
    at = argv.index("--ros-args") if "--ros-args" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="edge-vision web",
        **with_examples(
            "Show all running pipelines in the browser: pictures with boxes, what became of each frame and "
            "why, figures, parameters.",
            _EXAMPLES,
        ),
    )
    add_access_options(parser, PORT)
    parser.add_argument(
        "--allow-control", action="store_true", help="let the page set parameters; needs the token"
    )
    parser.add_argument(
        "--rate",
        type=_between(1, 60),
        default=10,
        metavar="HZ",
        help="pictures per second and camera (default: %(default)s)",
    )
    parser.add_argument(
        "--max-width",
        type=_between(64, 4096),
        default=960,
        metavar="PX",
        help="width of the pictures; wider ones are scaled down (default: %(default)s)",
    )
    return parser.parse_args(argv[:at]), argv[at:]


def _between(low: int, high: int) -> Any:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low} to {high}, got '{text}'")
        return int(text)

    return parse
