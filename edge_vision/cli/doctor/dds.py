"""Checks of DDS: middleware, domain, discovery, the profile for large images and its shared memory."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_vision.cli.doctor.check import ERROR, INSTALLATION, OK, UNKNOWN, WARN, Check
from edge_vision.diagnostics.sensors import Tree, Unavailable
from edge_vision.nodes.observers.system_view import discovery_range
from edge_vision.offline.config_files import config_file

DEFAULT_RMW = "rmw_fastrtps_cpp"
# Jazzy's Fast DDS reads the first, newer ones the second.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
HIGHEST_DOMAIN = 232
# The ports of other domains overlap the ephemeral ports of Linux: docs.ros.org, The ROS_DOMAIN_ID.
SAFE_DOMAINS = (*range(102), *range(215, 233))
NODES = 5
LARGEST_PROFILE_BYTES = 1 << 20


def checks(environment: Mapping[str, str] | None = None, root: str | Path = "/") -> Iterator[Check]:
    """Checks of environment variables, and of the kernel's settings below root."""
    environment = os.environ if environment is None else environment
    yield domain(environment)
    yield _discovery(environment)
    yield _profile(environment)
    segment_bytes = _segment_bytes(environment)
    yield _shared_memory(segment_bytes, bool(_profiles(environment)), Path(root) / "dev" / "shm")
    yield _socket_buffers(Tree(root))


def domain(environment: Mapping[str, str]) -> Check:
    """The check of ROS_DOMAIN_ID."""
    text = environment.get("ROS_DOMAIN_ID", "") or "0"
    if not text.isdigit() or int(text) > HIGHEST_DOMAIN:
        wrong = f"ROS_DOMAIN_ID is '{text}': expected a whole number from 0 to {HIGHEST_DOMAIN}"
        return Check(INSTALLATION, "domain", ERROR, wrong, {"domain_id": text})
    values = {"domain_id": int(text)}
    if int(text) not in SAFE_DOMAINS:
        risk = f"ROS_DOMAIN_ID {text} uses ports that Linux may assign to other programs: use 0 to 101"
        return Check(INSTALLATION, "domain", WARN, risk, values)
    where = "ROS_DOMAIN_ID" if environment.get("ROS_DOMAIN_ID") else "the default"
    return Check(INSTALLATION, "domain", OK, f"{text} ({where})", values)


def _discovery(environment: Mapping[str, str]) -> Check:
    reach, peers = discovery_range(environment), environment.get("ROS_STATIC_PEERS", "")
    rmw = environment.get("RMW_IMPLEMENTATION", "") or DEFAULT_RMW
    server = environment.get("ROS_DISCOVERY_SERVER", "")
    values = {"range": reach, "static_peers": peers, "discovery_server": server, "rmw": rmw}
    text = f"{reach}, {rmw}"
    text += f", static peers {peers}" if peers else ""
    text += f", discovery server {server}" if server else ""
    if reach not in RANGES:
        wrong = (
            f"ROS_AUTOMATIC_DISCOVERY_RANGE is '{reach}', which ROS treats as LOCALHOST: expected one of "
            f"{', '.join(RANGES)}"
        )
        return Check(INSTALLATION, "discovery", ERROR, wrong, values)
    if environment.get("ROS_LOCALHOST_ONLY") == "1" and (
        environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or peers
    ):
        text += (
            "; ROS_LOCALHOST_ONLY=1 overrides ROS_AUTOMATIC_DISCOVERY_RANGE and ROS_STATIC_PEERS, and is "
            "deprecated: unset it"
        )
        return Check(INSTALLATION, "discovery", WARN, text, values)
    if reach == "OFF" and not server:
        text += ": processes do not find each other, not even static peers; set it to LOCALHOST or SUBNET"
        return Check(INSTALLATION, "discovery", WARN, text, values)
    return Check(INSTALLATION, "discovery", OK, text, values)


def _profiles(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in PROFILE_VARIABLES if environment.get(name)}


def _profile(environment: Mapping[str, str]) -> Check:
    set_here = _profiles(environment)
    values = dict(set_here)
    if not set_here:
        text = (
            "none. Only large images between processes need one: config/fastdds.xml, which the launch file "
            "sets for the nodes, and which the SENDER of the images needs too"
        )
        return Check(INSTALLATION, "dds profile", OK, text, values)
    for name, path in set_here.items():
        trouble = _trouble(path)
        if trouble:
            return Check(INSTALLATION, "dds profile", ERROR, f"{name} is {path}: {trouble}", values)
    if not (environment.get("RMW_IMPLEMENTATION", "") or DEFAULT_RMW).startswith("rmw_fastrtps"):
        text = f"{next(iter(set_here))} is set, but {environment['RMW_IMPLEMENTATION']} does not read it"
        return Check(INSTALLATION, "dds profile", WARN, text, values)
    if len(set_here) < len(PROFILE_VARIABLES) or len(set(set_here.values())) > 1:
        text = (
            f"set {' and '.join(PROFILE_VARIABLES)} to one file: Jazzy reads the first, newer ones the second"
        )
        return Check(INSTALLATION, "dds profile", WARN, text, values)
    return Check(INSTALLATION, "dds profile", OK, next(iter(set_here.values())), values)


def _trouble(path: str) -> str:
    """Why a profile cannot be used, "" if it can. Fast DDS itself only prints an error."""
    try:
        _parsed(Path(path))
    except OSError as error:
        return f"{error.strerror}; nodes use Fast DDS's defaults"
    except (ET.ParseError, ValueError) as error:
        return f"not XML ({error}); nodes use Fast DDS's defaults"
    return ""


def _parsed(path: Path) -> ET.Element:
    with path.open("rb") as file:
        text = file.read(LARGEST_PROFILE_BYTES + 1)
    if len(text) > LARGEST_PROFILE_BYTES:
        raise ValueError(f"more than {LARGEST_PROFILE_BYTES} bytes")
    return ET.fromstring(text)


def _segment_bytes(environment: Mapping[str, str]) -> int | None:
    """Shared memory per process of the profile that is set, or of the shipped one."""
    path = next(iter(_profiles(environment).values()), None) or config_file("fastdds.xml")
    if path is None:
        return None
    try:
        sizes = [
            element.text or ""
            for element in _parsed(Path(path)).iter()
            if element.tag.endswith("segment_size")
        ]
        return sum(int(size) for size in sizes) or None
    except (OSError, ValueError, ET.ParseError):
        return None


def _shared_memory(segment_bytes: int | None, in_use: bool, folder: Path) -> Check:
    try:
        status = os.statvfs(folder)
    except OSError as error:
        text = f"{folder}: {error.strerror}. Without it images are sent over UDP"
        return Check(INSTALLATION, "shared memory", WARN if in_use else OK, text)
    total_mb, free_mb = status.f_blocks * status.f_frsize / 1e6, status.f_bavail * status.f_frsize / 1e6
    values = {"total_mb": round(total_mb, 1), "free_mb": round(free_mb, 1)}
    text = f"{folder}: {free_mb:.0f} of {total_mb:.0f} MB free"
    if segment_bytes is None:
        return Check(INSTALLATION, "shared memory", OK, text, values)
    wanted_mb = NODES * segment_bytes / 1e6
    values["profile_mb_per_process"] = round(segment_bytes / 1e6, 1)
    text += f"; the profile takes {segment_bytes / 1e6:.0f} MB per process"
    if free_mb >= wanted_mb:
        return Check(INSTALLATION, "shared memory", OK, text, values)
    text += f", too much for {NODES} processes: in a container, docker run --shm-size=512m"
    return Check(INSTALLATION, "shared memory", WARN if in_use else OK, text, values)


def _socket_buffers(tree: Tree) -> Check:
    most = tree.number("proc/sys/net/core/rmem_max")
    if isinstance(most, Unavailable):
        return Check(INSTALLATION, "socket buffers", UNKNOWN, str(most))
    values = {"rmem_max_bytes": int(most)}
    text = f"net.core.rmem_max {most:.0f} bytes"
    if most < 4 << 20:
        text += ". Raw images from another machine need 4194304: sudo sysctl -w net.core.rmem_max=4194304"
    return Check(INSTALLATION, "socket buffers", OK, text, values)
