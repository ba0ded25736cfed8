"""Runs a command with only the loopback interface, and records its network requests.

    unshare --map-root-user --net --mount python quarantine.py RECORD READY SECONDS COMMAND...

A proxy (`https_proxy` and the like) and a name server, both on the loopback interface, write each request to
RECORD.
SECONDS after a line of the command's output contains READY, the command gets a SIGINT.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
LOOPBACK = "127.0.0.1"


def main() -> int:
    record, ready, seconds, *command = sys.argv[1:]
    with Path(record).open("a", buffering=1) as file:
        set_loopback_up()
        name_server(lambda line: print(line, file=file))
        address = proxy(lambda line: print(line, file=file))
        names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        return run_for(float(seconds), ready, command, {**os.environ, **dict.fromkeys(names, address)})


def set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def proxy(record: Callable[[str], None]) -> str:
    """Record the first line of each connection, and close it. Returns the proxy's address."""
    listener = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                record("proxy: " + connection.recv(4096).decode("latin-1").partition("\r\n")[0])

    threading.Thread(target=serve, daemon=True).start()
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}"


def name_server(record: Callable[[str], None]) -> None:
    """Record each name query without an answer."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((LOOPBACK, 53))
    with tempfile.NamedTemporaryFile("w") as file:
        print(f"nameserver {LOOPBACK}", file=file, flush=True)
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)

    def serve() -> None:
        while True:
            record(f"name: {server.recv(4096)[12:].partition(bytes(1))[0]!r}")

    threading.Thread(target=serve, daemon=True).start()


def run_for(seconds: float, ready: str, command: list[str], environment: dict[str, str]) -> int:
    """Run the command, print its output, and return its exit status."""
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    timer = threading.Timer(seconds, child.send_signal, [signal.SIGINT])
    timer.daemon = True
    assert child.stdout
    for line in child.stdout:
        print(line, end="", flush=True)
        if ready in line and not timer.is_alive():
            timer.start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
