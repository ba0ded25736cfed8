"""An SSH server on 127.0.0.1 with its own configuration, keys and known hosts, as another machine."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

HOST = "robot"
"""The server's name in the ssh configuration."""
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv EDGE_VISION_CACHE={folder}/cache
"""
_CLIENT = """\
Host {host}
    HostName 127.0.0.1
    Port {port}
Host *
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""


@dataclass(frozen=True)
class Loopback:
    """A running server. bin: folder whose `ssh` reads the configuration of the test. cache: of the agent."""

    folder: Path
    port: int
    server: subprocess.Popen[bytes]

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def cache(self) -> Path:
        return self.folder / "cache" / "device"

    def connections(self) -> list[psutil.Process]:
        """The server's own processes, one or two for each connection."""
        found = []
        for one in psutil.Process(self.server.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "sshd" in one.name():
                    found.append(one)
        return found

    def agents(self) -> list[psutil.Process]:
        """What connections started, whether or not the connection is still there."""
        own = {"EDGE_VISION_CACHE": str(self.folder / "cache")}
        return [
            one
            for one in psutil.process_iter(["environ"])
            if own.items() <= (one.info["environ"] or {}).items()
        ]

    def runs(self, module: str) -> bool:
        """Whether a process of the agents runs a module."""
        for one in self.agents():
            with suppress(psutil.Error):
                if module in " ".join(one.cmdline()):
                    return True
        return False

    def wait_for_no_process(self, limit_s: float = 30.0) -> None:
        """Raises AssertionError."""
        until_s = time.monotonic() + limit_s
        while (left := [*self.connections(), *self.agents()]) and time.monotonic() < until_s:
            time.sleep(0.1)
        assert not left, left


@contextmanager
def loopback(folder: Path, *prefix: str) -> Iterator[Loopback]:
    """A server that runs until the end of the context. prefix: command in front of it, such as taskset."""
    server = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    client, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
    if server is None or client is None or keygen is None:
        pytest.skip("needs sshd and ssh: apt install openssh-server openssh-client")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "bin").mkdir(parents=True)
    for key in ("host_key", "user_key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    values = {"folder": folder, "port": port, "host": HOST, "user": getpass.getuser()}
    (folder / "server").write_text(_SERVER.format(**values))
    (folder / "client").write_text(_CLIENT.format(**values))
    wrapper = folder / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {client} -F {folder}/client "$@"\n')
    wrapper.chmod(0o755)
    log = folder / "server.log"
    with log.open("wb") as file:
        running = subprocess.Popen([*prefix, server, "-D", "-e", "-f", folder / "server"], stderr=file)
    try:
        _wait_until_it_listens(running, port, log)
        yield Loopback(folder, port, running)
    finally:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(running.pid).children(recursive=True):
                process.kill()
        running.kill()
        running.wait()


def _wait_until_it_listens(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {log.read_text().strip()[-300:]}")
