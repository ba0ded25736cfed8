"""The command `edge-vision updates`: the operator's side of model updates.

python-tuf and cryptography are imported when a subcommand runs: the help works without them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vision.bundles.store import load_bundle
from edge_vision.core.command_line import complete_help, number_type, run_command, with_examples
from edge_vision.core.printable import printable, printable_output
from edge_vision.errors import UpdateError
from edge_vision.updates.release import PROVENANCE_FILE, Release
from edge_vision.updates.robot_report import HALTING_ROLLBACKS, RolloutSummary, read_reports

if TYPE_CHECKING:
    from edge_vision.updates.repository import Repository

_EXAMPLES = """\
examples:
  edge-vision updates init-repo /srv/updates --keys ~/keys
  edge-vision updates init-repo ./repo --keys /media/stick/keys
  edge-vision updates add-key /srv/updates fleet/a --keys ~/keys          a new group, or another key of it
  edge-vision updates add-key /srv/updates root --public ann.pub.pem --keys /media/stick1 --keys /media/stick2
  edge-vision updates publish /srv/updates ./my_bundle --group fleet/a --provenance who.json --keys ~/keys
  edge-vision updates publish /srv/updates nanodet --group fleet/a --channel beta --keys ~/keys
  edge-vision updates publish /srv/updates ./my_bundle --group fleet/a --stage 1 --keys ~/keys  to 1 % first
  edge-vision updates publish /srv/updates ./my_bundle --group fleet/a --parameters yard.yaml --keys ~/keys
  edge-vision updates publish /srv/updates --group fleet/a --parameters yard.yaml --keys ~/keys   no new model
  edge-vision updates stage /srv/updates fleet/a 10 --keys ~/keys         then to 10 %
  edge-vision updates stage /srv/updates fleet/a 100 --reports ./reports --keys ~/keys
  edge-vision updates halt /srv/updates fleet/a --keys ~/keys             no robot installs it any more
  edge-vision updates halt /srv/updates fleet/a --reports ./reports --keys ~/keys   if too many went back
  edge-vision updates reports ./reports                                   what the robots report
  edge-vision updates reports /srv/reports
  edge-vision updates rotate /srv/updates 1f3a --keys ~/keys              replace the key 1f3a... by a new one
  edge-vision updates rotate ./repo 77d0 --keys /media/stick1 --keys /media/stick2
  edge-vision updates revoke /srv/updates 1f3a --keys ~/keys              remove it
  edge-vision updates revoke ./repo 77d0 --keys /media/stick1 --keys /media/stick2
  edge-vision updates timestamp /srv/updates --keys ~/keys                daily, or robots stop updating
  edge-vision updates timestamp /srv/updates --role fleet/a --keys ~/keys another period for a group
  edge-vision updates show /srv/updates                                   roles, keys, expiry, releases
  edge-vision updates show ./repo

The repository is a folder of plain files: serve it with any HTTP server, or carry it on a USB stick. Keys are
PEM files in folders outside of it, encrypted if EDGE_VISION_KEY_PASSPHRASE is set.
exit codes: 0 done, 1 refused or failed, 2 wrong arguments, 130 stopped by Ctrl-C
"""
_SUBCOMMANDS = "{init-repo,add-key,publish,stage,halt,reports,rotate,revoke,timestamp,show}"


@printable_output()
def main(
    argv: Sequence[str] | None = None,
    check_parameters: Callable[[str, str], object] = lambda text, where: None,
) -> int:
    """Run the command. check_parameters: raises BundleError for an invalid parameter file, given its text and
    path. Returns the exit status."""
    options = _parser().parse_args(argv)
    options.check_parameters = check_parameters
    return run_command(options, "updates", "updates: stopped; run the same command again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-vision updates",
        **with_examples("Publishes signed model updates for groups of robots.", _EXAMPLES),
    )
    commands = parser.add_subparsers(required=True, metavar=_SUBCOMMANDS)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = commands.add_parser(name, help=text)
        one.add_argument("repository", type=Path, metavar="REPOSITORY", help="its folder")
        one.add_argument(
            "--keys",
            type=Path,
            action="append",
            default=[],
            metavar="FOLDER",
            help="private keys; repeat for several folders. New keys are created in the first",
        )
        one.set_defaults(run=run)
        return one

    command("init-repo", _init, "create a repository and its keys")
    one = command("add-key", _add_key, "add a key to a role, or create a group")
    one.add_argument("role", metavar="ROLE", help="root, targets, snapshot, timestamp, or a group: fleet/a")
    one.add_argument("--public", type=Path, metavar="FILE", help="this public key; default: create one")
    _add_publish(command("publish", _publish, "make a bundle, or parameters, the release of a group"))
    one = command("stage", _stage, "let more, or fewer, of a group's robots install its release")
    _add_rollout(one)
    one.add_argument("percent", type=_whole(0, 100), metavar="PERCENT", help="of the robots")
    one.add_argument(
        "--min-soak", type=_whole(0, 10**5), metavar="HOURS", help="until the next stage; default: as before"
    )
    _add_rollout(command("halt", _halt, "let no robot install a group's release any more"))
    one = commands.add_parser("reports", help="show what robots report about releases")
    one.add_argument("folder", type=Path, metavar="FOLDER", help="of their reports")
    one.set_defaults(run=_reports)
    for name, run, text in (
        ("rotate", _rotate, "replace a key by a new one"),
        ("revoke", _revoke, "remove a key"),
    ):
        one = command(name, run, text)
        one.add_argument("key", metavar="KEY_ID", help="its id, or the first digits")
    one = command("timestamp", _timestamp, "sign snapshot and timestamp for another day")
    one.add_argument("--role", metavar="ROLE", help="sign this role for another period instead")
    command("show", _show, "show roles, keys, expiry and releases")
    return complete_help(parser, commands)


def _add_publish(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "bundle",
        nargs="?",
        metavar="BUNDLE",
        help="its folder, or a name in the store; without it, --parameters only: each robot keeps its model",
    )
    one.add_argument("--group", required=True, help="of robots, as in fleet/a")
    one.add_argument("--channel", default="stable", help="default: %(default)s")
    one.add_argument(
        "--provenance",
        type=Path,
        metavar="FILE",
        help=f"JSON with trained_by and data; default: {PROVENANCE_FILE} in the bundle",
    )
    one.add_argument(
        "--stage",
        type=_whole(0, 100),
        default=100,
        metavar="PERCENT",
        help="of the robots; default: all",
    )
    one.add_argument(
        "--min-soak",
        type=_whole(0, 10**5),
        default=24,
        metavar="HOURS",
        help="until the next stage; default: %(default)s",
    )
    one.add_argument(
        "--parameters",
        type=Path,
        metavar="FILE",
        help="ROS parameter file: values that robots then have",
    )
    one.add_argument("--min-software", default="0.0.0", metavar="X.Y.Z", help="lowest version of edge_vision")
    one.add_argument("--backend", default="", help="that the robot must have; default: any")
    one.add_argument(
        "--security-floor",
        type=int,
        metavar="RELEASE",
        help="robots do not go back to releases below this number; default: as before",
    )


def _add_rollout(one: argparse.ArgumentParser) -> None:
    one.add_argument("group", metavar="GROUP", help="of robots, as in fleet/a")
    one.add_argument("--channel", default="stable", help="default: %(default)s")
    one.add_argument("--reports", type=Path, metavar="FOLDER", help="decide by the reports in this folder")
    one.add_argument(
        "--max-bad",
        type=number_type(lambda value: 0 <= value <= 100, "0 to 100"),
        default=5.0,
        metavar="PERCENT",
        help="of the robots through with the release that may have gone back; default: %(default)g",
    )


def _whole(low: int, high: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number in low..high."""

    def whole(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}, got {text}")
        return value

    return whole


@contextlib.contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Repository]:
    """The repository, for one command at a time."""
    from edge_vision.updates.repository import Repository

    repository = Repository(options.repository, options.keys)
    try:
        options.repository.mkdir(parents=True, exist_ok=True)
        with (options.repository / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield repository
    except OSError as error:
        raise UpdateError(
            "repository", f"{options.repository}: expected a folder that can be written to, got: {error}"
        ) from None


def _init(options: argparse.Namespace) -> int:
    with _opened(options) as repository:
        root = repository.init()
    print(f"created {options.repository}, with keys in {options.keys[0]}")
    print(f"copy {root} to each robot, as its parameter bootstrap_root")
    print("move the keys root1, root2 and root3 to three places that are not online")
    return 0


def _add_key(options: argparse.Namespace) -> int:
    from edge_vision.updates.signing_keys import read_public_key

    public = read_public_key(options.public) if options.public else None
    with _opened(options) as repository:
        print(f"{options.role}: added key {repository.add_key(options.role, public)}")
    return 0


def _publish(options: argparse.Namespace) -> int:
    if not options.bundle and not options.parameters:
        raise UpdateError("config", "expected a BUNDLE, --parameters FILE or both, got neither")
    bundle = load_bundle(options.bundle) if options.bundle else None
    provenance = _provenance(options.provenance or bundle.folder / PROVENANCE_FILE) if bundle else None
    parameters = _parameters(options) if options.parameters else b""
    with _opened(options) as repository:
        release = repository.publish(
            bundle,
            options.group,
            options.channel,
            provenance,
            options.security_floor,
            options.min_software,
            options.backend,
            options.stage,
            options.min_soak,
            parameters,
        )
    print(printable(f"published {release} for {options.group}, channel {options.channel}"))
    return 0


def _stage(options: argparse.Namespace) -> int:
    with _opened(options) as repository:
        release = repository.release(options.group, options.channel)
        summary = _summary(options, release)
        if summary and options.percent > release.percent:
            if summary.exceeds(options.max_bad):
                raise UpdateError("halted", f"{release}: expected fewer rollbacks, got {_counts(summary)}")
            if release.percent and not summary.good:
                raise UpdateError("soak", f"{release}: expected a robot that committed it, got none yet")
        release = repository.stage(options.group, options.channel, options.percent, options.min_soak)
    print(printable(f"{release}: {release.percent} % of {options.group} may install it"))
    return 0


def _halt(options: argparse.Namespace) -> int:
    with _opened(options) as repository:
        release = repository.release(options.group, options.channel)
        summary = _summary(options, release)
        if release.percent and (summary is None or summary.exceeds(options.max_bad, HALTING_ROLLBACKS)):
            repository.stage(options.group, options.channel, 0)
            print(printable(f"{release}: halted{f', {_counts(summary)}' if summary else ''}"))
        else:
            why = _counts(summary) if summary and release.percent else "halted already"
            print(printable(f"{release}: not changed, {why}"))
    return 0


def _summary(options: argparse.Namespace, release: Release) -> RolloutSummary | None:
    """What robots report about a release; None without --reports."""
    if options.reports is None:
        return None
    return read_reports(options.reports).of(options.group, options.channel, release.release)


def _counts(summary: RolloutSummary) -> str:
    counts = ", ".join(f"{count} {name or 'none'}" for name, count in sorted(summary.outcomes.items()))
    return counts or "no reports"


def _reports(options: argparse.Namespace) -> int:
    found = read_reports(options.folder)
    for group, channel, number in sorted({(one.group, one.channel, one.release) for one in found.valid}):
        summary = found.of(group, channel, number)
        print(f"{group} {channel}, release {number or 'none'}: {_counts(summary)}")
        for reason, count in summary.reasons.items():
            print(printable(f"    {count} x {reason}"))
    for name, why in list(found.invalid.items())[:10]:
        print(printable(f"ignored {name}: {why}"))
    print(f"{len(found.valid)} reports, {len(found.invalid)} ignored")
    return 0


def _parameters(options: argparse.Namespace) -> bytes:
    try:
        data: bytes = options.parameters.read_bytes()
        options.check_parameters(data.decode(), str(options.parameters))
    except (OSError, UnicodeDecodeError) as error:
        raise UpdateError(
            "config", f"{options.parameters}: expected a ROS parameter file, got: {error}"
        ) from None
    return data


def _provenance(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UpdateError(
            "bundle",
            f"{path}: expected JSON with the origin of the model (trained_by, data), got: {error}; "
            "give it with --provenance",
        ) from None
    return found


def _rotate(options: argparse.Namespace) -> int:
    with _opened(options) as repository:
        print(f"replaced {options.key} by {repository.rotate(options.key)}")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with _opened(options) as repository:
        print(f"revoked {options.key} of {', '.join(repository.revoke(options.key))}")
    return 0


def _timestamp(options: argparse.Namespace) -> int:
    with _opened(options) as repository:
        if options.role:
            repository.renew_role(options.role)
        for warning in repository.renew() if not options.role else ():
            print(f"warning: {warning}")
    print(f"signed {options.role or 'snapshot and timestamp'}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from edge_vision.updates.repository import Repository

    repository = Repository(options.repository)
    for state in repository.roles():
        expires = f"{state.expires:%Y-%m-%d %H:%M} UTC" if state.expires else "nothing published"
        print(
            f"{state.name:<24} version {state.version:<5} {expires}, {state.threshold} of {len(state.keys)}"
        )
        for key in state.keys:
            print(f"    {key}")
    for role, release in repository.releases():
        floor = f", security floor {release.security_floor}" if release.security_floor else ""
        print(printable(f"{role}, channel {release.channel}: {release}, {release.percent} %{floor}"))
    return 0
