"""Where a device is: ssh://[user@]host[:port][/path/to/python]."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from edge_vision.optimize.errors import OptimizeError

LOCAL = "local"
"""The device that is this machine."""
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[\w.][\w.+-]*)@)?(?P<host>\w[\w.-]*|\[[\da-fA-F:.]+(?:%[\w.-]+)?\])"
    r"(?::(?P<port>\d{1,5}))?(?P<python>/[^\x00-\x1f\x7f]*)?",
    re.ASCII,
)
"""Neither a user nor a host begins with "-": ssh would read it as an option."""
_OPTIONS = (
    "-T",
    "-oBatchMode=yes",
    "-oConnectTimeout=15",
    "-oClearAllForwardings=yes",
    "-oRemoteCommand=none",
)
"""Everything else is as the user's ssh configuration states. Nothing is asked: a password is an error."""


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """A device over SSH. host: a name, an address or a host of the ssh configuration. user, port: "" = as the
    configuration states. python: command of the Python that has the runtimes."""

    text: str
    host: str
    user: str = ""
    port: str = ""
    python: str = "python3"

    @staticmethod
    def parse(text: str) -> DeviceAddress:
        """Raises OptimizeError."""
        match = _ADDRESS.fullmatch(text)
        if match is None or not 0 < int(match["port"] or 22) < 65536 or (match["python"] or "").endswith("/"):
            raise OptimizeError(
                f"device: expected {LOCAL} or ssh://HOST, with :PORT (1 to 65535) and /PATH/TO/PYTHON "
                f"if needed, got {text!r}"
            )
        host = match["host"].strip("[]")
        return DeviceAddress(
            text, host, match["user"] or "", match["port"] or "", match["python"] or "python3"
        )

    @property
    def name(self) -> str:
        """A name for tables and folders, such as `robot` or `pi@robot-2222-opt-venv-bin-python`."""
        return device_name(self.text)

    def ssh_command(self, ssh: str, *remote: str) -> list[str]:
        """The command line that runs `remote` on the device. ssh: the program. The remote shell receives
        each word quoted."""
        user = [f"-l{self.user}"] if self.user else []
        port = [f"-p{self.port}"] if self.port else []
        return [ssh, *_OPTIONS, *user, *port, "--", self.host, shlex.join(remote)]


def device_name(device: str) -> str:
    """The name of a device as given with `--device`."""
    return re.sub(r"[^\w.@]+", "-", device.removeprefix("ssh://"), flags=re.ASCII).strip("-")[:80]


def check_devices(devices: tuple[str, ...]) -> None:
    """Raise OptimizeError for an invalid address, or for two devices with one name."""
    names: dict[str, str] = {}
    for device in devices:
        if device != LOCAL:
            DeviceAddress.parse(device)
        other = names.setdefault(device_name(device), device)
        if other != device or devices.count(device) > 1:
            raise OptimizeError(f"devices: expected each once, got {other} and {device}")
