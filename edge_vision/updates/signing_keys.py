"""Private keys of the repository: Ed25519, one PEM file each, in folders of the operator, not on a robot."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from edge_vision.errors import UpdateError

PASSPHRASE = "EDGE_VISION_KEY_PASSPHRASE"
"""Environment variable. If set, new keys are encrypted with it, and encrypted ones are read with it."""


def create_key(folder: Path, label: str) -> CryptoSigner:
    """Create a private key in a folder, as LABEL-KEYID.pem. Raises UpdateError."""
    signer = CryptoSigner.generate_ed25519()
    path = folder / f"{label}-{signer.public_key.keyid[:12]}.pem"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_pem(signer))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UpdateError("keys", f"{path}: expected to write a new key, got: {error.strerror}") from None
    return signer


def _pem(signer: CryptoSigner) -> bytes:
    secret = os.environ.get(PASSPHRASE, "").encode()
    if not secret:
        return signer.private_bytes
    private = serialization.load_pem_private_key(signer.private_bytes, None)
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(secret),
    )


def find_signer(key: Key, folders: Sequence[Path]) -> CryptoSigner | None:
    """The private key of a public one, None if no folder has it.

    A file that is named after the key must be readable (UpdateError); of the others, those that are not are
    ignored.
    """
    suffix = f"-{key.keyid[:12]}.pem"
    for path in sorted(path for folder in folders for path in folder.glob("*.pem")):
        with contextlib.nullcontext() if path.name.endswith(suffix) else contextlib.suppress(UpdateError):
            signer = _read(path)
            if signer.public_key.keyid == key.keyid:
                return signer
    return None


def _read(path: Path) -> CryptoSigner:
    secret = os.environ.get(PASSPHRASE, "").encode() or None
    try:
        data = path.read_bytes()
        encrypted = b"ENCRYPTED" in data
        private = serialization.load_pem_private_key(data, secret if encrypted else None)
    except (OSError, ValueError, TypeError) as error:
        hint = f"; set {PASSPHRASE}" if secret is None else ""
        raise UpdateError("keys", f"{path}: expected a private key in PEM, got: {error}{hint}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise UpdateError("keys", f"{path}: expected an Ed25519 key, got {type(private).__name__}")
    return CryptoSigner(private)


def read_public_key(path: Path) -> SSlibKey:
    """A public key, as `openssl pkey -pubout` writes it. Raises UpdateError."""
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UpdateError("keys", f"{path}: expected a public key in PEM, got: {error}") from None
    if not isinstance(public, Ed25519PublicKey):
        raise UpdateError("keys", f"{path}: expected an Ed25519 key, got {type(public).__name__}")
    return SSlibKey.from_crypto(public)
