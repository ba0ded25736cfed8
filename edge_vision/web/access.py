"""Who may use a server: which address and port, hosts, origins, token. Imports neither ROS nor aiohttp."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edge_vision.core.printable import printable_error

MIN_TOKEN_CHARS = 16
_TOKEN = re.compile(rf"[A-Za-z0-9_.~-]{{{MIN_TOKEN_CHARS},256}}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]{1,253})(?::\d{1,5})?")
SAFE_METHODS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Access:
    """The address that a server listens on, and its rules.

    token: "" = none is needed, on a loopback address only. host_names: names in addition to this machine's by
    which browsers may address the server. Raises ValueError.
    """

    address: str
    port: int
    token: str = ""
    host_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token and not _TOKEN.fullmatch(self.token):
            raise ValueError(
                f"expected a token of {MIN_TOKEN_CHARS} to 256 letters, digits and _ . ~ -, got "
                f"{len(self.token)} characters: leave it out, and one is generated"
            )
        if not self.token and not is_loopback(self.address):
            raise ValueError(f"expected a token, as other machines can reach {self.address}: see new_token")

    @property
    def url(self) -> str:
        """What to open in a browser; with the token, which the server exchanges for a cookie."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.address, self.address)
        query = f"?token={self.token}" if self.token else ""
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{query}"

    def refusal(self, method: str, headers: Mapping[str, str]) -> str:
        """Why a request is refused, whoever sends it; "" if it is not.

        A browser sends requests for other pages, too: the host's name guards against DNS rebinding, the
        origin against pages of other sites that post here or open a WebSocket.
        """
        host = headers.get("Host", "")
        found = _HOST.fullmatch(host)
        if found is None or not self._is_ours(found[1].lower()):
            return f"expected this machine's name or address as Host, got '{host:.100}': see --host-name"
        origin = headers.get("Origin")
        if origin is not None and _authority(origin) != host.lower():
            return f"expected a request of this server's own page, got one of '{origin:.100}'"
        cross_site = headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        is_link = method in SAFE_METHODS and headers.get("Sec-Fetch-Mode") == "navigate"
        if cross_site and not is_link:
            return "expected a request of this server's own page, got one of another site"
        return ""

    def knows(self, token: str) -> bool:
        """Whether this is the token, or none is needed."""
        given = token.encode("utf-8", "surrogateescape")
        return not self.token or hmac.compare_digest(given, self.token.encode())

    @property
    def cookie(self) -> str:
        """The name of the cookie: browsers send cookies to all ports of a host."""
        return f"edge_vision_{self.port}"

    def _is_ours(self, host: str) -> bool:
        # Rebinding needs a name: an address is that of the server.
        if is_address(host.strip("[]")):
            return not is_loopback(self.address) or is_loopback(host.strip("[]"))
        if host == "localhost" or host in self.host_names:
            return True
        own = socket.gethostname().lower()
        return not is_loopback(self.address) and host in (own, f"{own}.local", socket.getfqdn().lower())


def is_address(host: str) -> bool:
    """Whether this is an IP address, not a name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def new_token() -> str:
    """A random token of 128 bits."""
    return secrets.token_urlsafe(16)


def _authority(origin: str) -> str:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc.lower() if parts.scheme in ("http", "https") else ""


def add_access_options(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the options that `access_of` reads. port: the default."""
    parser.add_argument("--port", type=port_number, default=port, help="default: %(default)s")
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, only this machine); another one needs a token, "
        "which is generated and printed",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"use the token in this file; at least {MIN_TOKEN_CHARS} letters and digits",
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which browsers address this machine, as behind a reverse proxy; repeatable",
    )


def access_of(options: argparse.Namespace, needs_token: bool = False) -> Access:
    """The rules that the options ask for. needs_token: on a loopback address, too. Raises ValueError."""
    token, file = "", options.token_file
    if file is not None:
        try:
            token = file.read_text("utf-8", "replace").strip()
        except OSError as error:
            raise ValueError(
                f"--token-file: expected a file that can be read, got {file}: {error.strerror}"
            ) from None
        if not token:
            raise ValueError(f"--token-file: expected a token in {file}, got an empty file")
    elif needs_token or not is_loopback(options.address):
        token = new_token()
    return Access(options.address, options.port, token, tuple(name.lower() for name in options.host_name))


def port_number(text: str) -> int:
    """The type of an argument that is a TCP port."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got '{text}'")
    return int(text)


def listen_error(address: str, port: int, error: Exception) -> str:
    """The message about a port that a server cannot open."""
    reason = printable_error(getattr(error, "strerror", None) or error)
    where = f"cannot listen on {address}:{port}: {reason}"
    if getattr(error, "errno", None) == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"expected an address of this machine, {where}. Choose another --address"
    return f"expected a free port, {where}. Choose another --port, or end the program that uses it"
