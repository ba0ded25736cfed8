"""The command-line arguments that select an executor."""

from __future__ import annotations

import argparse

from edge_vision.errors import UsageError
from edge_vision.offline.ray_cluster import ADDRESS

LOCAL, RAY = "local", "ray"


def add_executor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --executor and --address."""
    parser.add_argument(
        "--executor",
        choices=(LOCAL, RAY),
        default=LOCAL,
        help="where jobs run: processes of this machine, or a Ray cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--address",
        type=_address,
        metavar="HOST:PORT",
        help=f"the head node of the Ray cluster (default: {ADDRESS}, the one that this machine is part of)",
    )


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text != ADDRESS and not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT or {ADDRESS}, got '{text}'")
    return text


def is_local(executor: str, address: str | None) -> bool:
    """Whether jobs run on this machine. Raises UsageError for an address that has no effect."""
    if executor == LOCAL and address is not None:
        raise UsageError(f"--address {address}: expected --executor ray with it, got --executor local")
    return executor == LOCAL
