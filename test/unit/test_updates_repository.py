"""The operator's repository: keys and thresholds, what is signed about a bundle, and the command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata
from update_cases import GROUP, PROVENANCE, Operator, make_bundle

from edge_vision.errors import BundleError, UpdateError
from edge_vision.updates.command import main
from edge_vision.updates.release import parse_release, role_of, target_of
from edge_vision.updates.repository import Repository
from edge_vision.updates.signing_keys import PASSPHRASE


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def metadata(operator: Operator, name: str) -> Metadata:
    return Metadata.from_file(str(operator.folder / "metadata" / f"{name}.json"))


def test_root_is_two_of_three_and_the_daily_keys_are_online(operator: Operator) -> None:
    root = metadata(operator, "1.root").signed
    assert (root.roles["root"].threshold, len(root.roles["root"].keyids)) == (2, 3)
    assert root.roles["snapshot"].keyids == root.roles["timestamp"].keyids
    assert (
        len({*root.roles["root"].keyids, *root.roles["targets"].keyids, *root.roles["snapshot"].keyids}) == 5
    )
    days = {name: (metadata(operator, name).signed.expires - operator.now).days for name in ("timestamp",)}
    assert days == {"timestamp": 1}


def test_one_root_key_cannot_change_the_root_and_two_can(operator: Operator, tmp_path: Path) -> None:
    places = [tmp_path / f"stick{number}" for number in (1, 2)]
    for number, place in enumerate(places, start=1):
        place.mkdir()
        for path in operator.keys.glob(f"root{number}-*.pem"):
            path.rename(place / path.name)
    for path in operator.keys.glob("root3-*.pem"):
        path.unlink()
    with pytest.raises(UpdateError, match=r"expected 2 of the private keys .*, got 1"):
        operator.with_keys(places[0]).add_key("root")
    assert not (operator.folder / "metadata" / "2.root.json").exists()
    operator.with_keys(*places).add_key("root")
    assert len(metadata(operator, "2.root").signed.roles["root"].keyids) == 4


def test_every_file_is_a_target_of_its_groups_role(operator: Operator) -> None:
    release = operator.publish("1.2.3", required_backend="onnxruntime", min_software="0.1.0")
    signed = metadata(operator, f"1.{role_of(GROUP)}").signed
    assert set(signed.targets) == {target_of(GROUP, "stable", file) for file in release.files}
    assert parse_release(signed.targets[target_of(GROUP, "stable")].custom) == release
    assert "provenance.json" in release.files and "model.onnx" in release.files
    for target in signed.targets.values():
        (name,) = target.get_prefixed_paths()
        target.verify_length_and_hashes((operator.folder / "targets" / name).read_bytes())
    delegation = metadata(operator, "2.targets").signed.delegations.roles[role_of(GROUP)]
    assert delegation.terminating
    assert delegation.is_delegated_path(target_of(GROUP, "stable", "a/b/c.bin"))
    assert not delegation.is_delegated_path(target_of("fleet/b", "stable"))
    assert not delegation.is_delegated_path(target_of("fleet/a/b", "stable"))


def test_releases_are_counted_and_the_security_floor_stays(operator: Operator) -> None:
    assert operator.publish("1.0.0").release == 1
    assert operator.publish("2.0.0", security_floor=2).release == 2
    third = operator.publish("1.0.0", channel="beta")
    assert (third.release, third.security_floor) == (3, 2)
    with pytest.raises(UpdateError, match="security floor of at most 4, got 9"):
        operator.publish("3.0.0", security_floor=9)


def test_damaged_metadata_is_named(operator: Operator) -> None:
    (operator.folder / "metadata" / "1.root.json").write_text("{")
    with pytest.raises(UpdateError, match=r"1\.root\.json: expected TUF metadata"):
        operator.repository.renew()


def test_no_private_key_is_published(operator: Operator) -> None:
    operator.publish("1.0.0")
    assert not any(b"PRIVATE" in path.read_bytes() for path in operator.folder.rglob("*") if path.is_file())
    assert {path.stat().st_mode & 0o777 for path in operator.keys.iterdir()} == {0o600}
    with pytest.raises(UpdateError, match="expected keys outside the published repository"):
        Repository(operator.folder, [operator.folder / "keys"])


def test_a_rotated_key_is_replaced_and_what_it_signed_is_signed_again(operator: Operator) -> None:
    operator.publish("1.0.0")
    old = operator.key_id(role_of(GROUP))
    operator.repository.rotate(old)
    targets, group = metadata(operator, "3.targets").signed, metadata(operator, f"2.{role_of(GROUP)}")
    targets.verify_delegate(role_of(GROUP), group.signed_bytes, group.signatures)
    assert not any(key.startswith(old) for key in targets.delegations.keys)
    before = metadata(operator, f"1.{role_of(GROUP)}")
    with pytest.raises(UnsignedMetadataError):
        targets.verify_delegate(role_of(GROUP), before.signed_bytes, before.signatures)


def test_the_last_key_of_a_role_is_not_revoked(operator: Operator) -> None:
    with pytest.raises(UpdateError, match="expected more than 1 keys to revoke one, got 1"):
        operator.repository.revoke(operator.key_id(role_of(GROUP)))
    old = operator.key_id(role_of(GROUP))
    operator.repository.add_key(GROUP)
    assert operator.repository.revoke(old) == [role_of(GROUP)]


def test_encrypted_keys_need_the_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    operator = Operator(tmp_path)
    assert all(b"ENCRYPTED" in path.read_bytes() for path in operator.keys.iterdir())
    operator.repository.renew()
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(UpdateError, match=f"set {PASSPHRASE}"):
        operator.repository.renew()


def test_warnings_name_the_roles_that_expire_soon(operator: Operator) -> None:
    operator.publish("1.0.0")
    assert operator.repository.renew() == []
    operator.wait(days=70)
    (warning,) = operator.repository.renew()
    assert warning.startswith("group.fleet.a expires on ")
    operator.repository.renew_role(GROUP)
    assert operator.repository.renew() == []


@pytest.mark.parametrize("provenance", [{}, {"trained_by": "me"}, {"trained_by": " ", "data": "x"}, []])
def test_a_bundle_without_provenance_is_not_published(operator: Operator, tmp_path: Path, provenance) -> None:
    bundle = make_bundle(tmp_path / "mine")
    with pytest.raises(BundleError, match=r"provenance\.json"):
        operator.repository.publish(bundle, GROUP, "stable", provenance)


def test_the_commands_make_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository, keys = str(tmp_path / "repository"), ["--keys", str(tmp_path / "keys")]
    make_bundle(tmp_path / "mine")
    (tmp_path / "mine" / "provenance.json").write_text(json.dumps(PROVENANCE))
    assert main(["init-repo", repository, *keys]) == 0
    assert main(["publish", repository, str(tmp_path / "mine"), "--group", GROUP, *keys]) == 1
    assert "edge-vision updates add-key fleet/a" in capsys.readouterr().err
    assert main(["add-key", repository, GROUP, *keys]) == 0
    assert main(["publish", repository, str(tmp_path / "mine"), "--group", GROUP, *keys]) == 0
    (tmp_path / "yard.yaml").write_text("/**/gate: {ros__parameters: {max_delay_ms: 700.0}}")
    parameters = ["--parameters", str(tmp_path / "yard.yaml")]
    assert main(["publish", repository, "--group", GROUP, *keys]) == 1
    assert "expected a BUNDLE, --parameters FILE or both, got neither" in capsys.readouterr().err
    assert main(["publish", repository, "--group", GROUP, "--channel", "beta", *parameters, *keys]) == 0
    assert main(["stage", repository, GROUP, "0", "--channel", "beta", *keys]) == 0
    assert "parameters 2.0.0 (release 2): 0 % of fleet/a may install it" in capsys.readouterr().out
    assert main(["publish", repository, str(tmp_path / "mine"), "--group", GROUP, *keys]) == 0
    assert main(["timestamp", repository, *keys]) == 0
    assert main(["show", repository]) == 0
    shown = capsys.readouterr().out
    assert "published yard 1.0.0 (release 3) for fleet/a" in shown
    assert "group.fleet.a, channel beta: parameters 2.0.0 (release 2), 0 %\n" in shown
    assert "group.fleet.a, channel stable: yard 1.0.0 (release 3), 100 %\n" in shown
    assert main(["init-repo", repository, *keys]) == 1
    assert main(["timestamp", repository]) == 1


def test_a_group_key_made_elsewhere_is_added_by_its_public_part(operator: Operator, tmp_path: Path) -> None:
    private, public = tmp_path / "ann" / "x.pem", tmp_path / "ann.pub.pem"
    private.parent.mkdir()
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    options = ["--public", str(public), "--keys", str(operator.keys)]
    assert main(["add-key", str(operator.folder), "fleet/b", *options]) == 0
    with pytest.raises(UpdateError, match=r"group\.fleet\.b: expected 1 of the private keys"):
        operator.publish("1.0.0", "fleet/b")
    bundle = make_bundle(tmp_path / "mine")
    holder = operator.with_keys(operator.keys, private.parent)
    assert holder.publish(bundle, "fleet/b", "stable", PROVENANCE).release == 1
