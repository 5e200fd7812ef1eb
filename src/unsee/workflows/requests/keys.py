"""Keys of a user: one for pseudonyms and ledger seals, and one for signing receipts.

They are stored outside the project, so that a holder of the project alone can neither guess names from pseudonyms nor
forge entries: `UNSEE_KEYS` names the folder, else it is `unsee` in the user's configuration folder.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from unsee.errors import UserError
from unsee.utils.files import atomic_write_text, write_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VARIABLE: Final = "UNSEE_KEYS"
LEDGER, SIGNING, PUBLIC = "ledger.key", "signing.pem", "signing.pub"
_BYTES: Final = 32
MISSING: Final = 'Signatures need the package cryptography. Run: pip install "unsee[receipts]". Without it receipts are written unsigned.'


def _place() -> Path:
    """Return the folder of the keys, which may not be there."""
    custom_path = os.environ.get(VARIABLE, "")
    return (
        Path(custom_path)
        if custom_path
        else Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "unsee"
    )


def folder() -> Path:
    """Return the folder of the keys, created for this user alone."""
    path = _place()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def ledger_key(*, create: bool = True) -> bytes:
    """Return the key of pseudonyms and of the ledger's seals, created at first use.

    Args:
        create: Make the key where there is none. False where something is read that another key must have sealed.

    Raises:
        UserError: The file is damaged, so that no new key is made, which could not read what the old one sealed; or it is
            missing, and none is to be made.
    """
    file = _place() / LEDGER
    if not create and not file.is_file():
        raise UserError(
            f"There is no key here ({file}), so what another key has sealed cannot be read. Set {VARIABLE} to the folder of its key."
        )
    with FileLock(folder() / f"{file.stem}.lock"):
        if not file.exists():
            write_private(file, secrets.token_bytes(_BYTES))
        key = file.read_bytes()
    if len(key) != _BYTES:
        raise UserError(f"{file} is damaged: expected {_BYTES} bytes, got {len(key)}. Restore it from a backup.")
    return key


def key_id(key: bytes) -> str:
    """Return what tells a key from others, without giving it away."""
    return seal_of(key, "key")[:16]


def require_key(expected_id: str, sealed: Path, key: bytes | None = None) -> bytes:
    """Return a key, or raise if it is not the one that a file was made with.

    Args:
        expected_id: Id of the key that the file was made with (`key_id`).
        sealed: The file, for the message.
        key: The key. None: the user's own.
    """
    key = ledger_key(create=False) if key is None else key
    if key_id(key) != expected_id:
        raise UserError(
            f"{sealed} was sealed with another key ({expected_id}); this one is {key_id(key)}. "
            f"Set {VARIABLE} to the folder of its key."
        )
    return key


def seal_of(key: bytes, *parts: str) -> str:
    """Return the HMAC-SHA256 of the list of parts, in hexadecimal.

    Each part is prefixed with its length, so that no two lists give the same input.
    """
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def can_sign() -> bool:
    """Tell whether the package that signs receipts is installed."""
    return find_spec("cryptography") is not None


def signing_key() -> Ed25519PrivateKey | None:
    """Return this user's Ed25519 key, created at first use, or None without cryptography."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ModuleNotFoundError:
        return None
    file = folder() / SIGNING
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            new_key = Ed25519PrivateKey.generate()
            pem_options = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            write_private(file, new_key.private_bytes(*pem_options))
        try:
            key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        except ValueError as error:
            raise UserError(f"{file} is damaged ({error!s:.80}). Restore it from a backup.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UserError(f"{file} is no Ed25519 key. Restore it, or move it away for a new one.")
        _keep_public(public_text(key.public_key()))
    return key


def _keep_public(text: str) -> None:
    """Write the public key, unless it is there: a kill may have come between it and the private one."""
    file = folder() / PUBLIC
    if not file.is_file() or file.read_text(encoding="ascii", errors="replace").strip() != text:
        atomic_write_text(file, f"{text}\n")


def public_text(key: Any) -> str:
    """Return a public key as the 64 hexadecimal digits of its raw bytes."""
    return str(key.public_bytes_raw().hex())
