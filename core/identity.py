"""Keys, pseudonyms and the identities table: what stands between a patient's numbers and everything we store.

One 0600 master key; a key per institution and purpose is derived from it by HKDF-SHA256 (RFC 5869). A pseudonym is HMAC-SHA256 cut to
128 bits; the raw value for display and return messages lies sealed with AES-256-GCM. Losing the key file loses the link to the source's
numbers, not the reports.
"""

import base64
import hashlib
import os
import secrets
import stat
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlmodel import Session

from core.errors import Broken
from core.tables import Identity

Purpose = Literal["accession", "patient", "doctor", "source_id", "quarantine"]


class Keyring:
    """The master key and what is derived from it. `key_id` names the key in every row that it protects."""

    def __init__(self, master: bytes) -> None:
        if len(master) != 32:
            raise Broken("The master key must be 32 bytes in base64.")
        self._master = master
        self.key_id = hashlib.sha256(b"valuer key id" + master).hexdigest()[:16]
        self._derive = lru_cache(maxsize=4096)(self._derived)
        self._naming = lru_cache(maxsize=4096)(self.naming)

    @classmethod
    def load(cls, path: Path, *, create: bool = False) -> "Keyring":
        """The keyring of the file at `path`; with `create`, a new random key is written there when there is none.

        Raises:
            Broken: the file is missing, unreadable by us, readable by others, or no key.
        """
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass  # another process was faster; its key counts
            else:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        try:
            mode = path.stat().st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise Broken(f"The master key {path} can be read by others; run: chmod 600 {path}")
            return cls(base64.b64decode(path.read_bytes().strip(), validate=True))
        except FileNotFoundError:
            raise Broken(f"There is no master key at {path}; set VALUER_KEY_FILE or run `valuer up` once.") from None
        except PermissionError:
            raise Broken(f"The master key {path} cannot be read by this user.") from None
        except ValueError:
            raise Broken(f"The master key {path} is not 32 bytes in base64.") from None

    def _derived(self, institution: str, use: str, purpose: str) -> bytes:
        info = "\x1f".join(("valuer", use, institution, purpose)).encode()
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(self._master)

    def naming(self, institution: str, purpose: Purpose) -> Callable[[str], str]:
        """What gives a value its pseudonym: 32 hex digits, the same ones for the same value (ignoring width, case and outer spaces)."""
        # HMAC with its two keyed states made once, RFC 2104: a third of the time of making them for each value
        key = self._derive(institution, "pseudonym", purpose).ljust(64, b"\0")
        inner, outer = (hashlib.sha256(bytes(byte ^ pad for byte in key)) for pad in (0x36, 0x5C))

        def name(value: str) -> str:
            if not value.isascii():
                value = unicodedata.normalize("NFKC", value)
            inside, outside = inner.copy(), outer.copy()
            inside.update(value.strip().upper().encode())
            outside.update(inside.digest())
            return outside.hexdigest()[:32]

        return name

    def pseudonym(self, institution: str, purpose: Purpose, value: str) -> str:
        """32 hex digits that stand for `value`: the same value (ignoring width, case and outer spaces) always gets the same ones."""
        return self._naming(institution, purpose)(value)

    def secret(self, institution: str, purpose: str) -> bytes:
        """A 32-byte secret for signing (callbacks, hold-back assignment), one per institution and purpose."""
        return self._derive(institution, "secret", purpose)

    def seal(self, institution: str, purpose: Purpose, data: bytes) -> bytes:
        """Nonce (12 bytes) + AES-256-GCM ciphertext, bound to the institution and the purpose."""
        nonce = os.urandom(12)
        return nonce + AESGCM(self._derive(institution, "seal", purpose)).encrypt(
            nonce, data, f"{institution}/{purpose}".encode()
        )

    def open(self, institution: str, purpose: Purpose, sealed: bytes) -> bytes:
        """What `seal` sealed. Raises Broken when it was sealed by another key or changed since."""
        try:
            return AESGCM(self._derive(institution, "seal", purpose)).decrypt(
                sealed[:12], sealed[12:], f"{institution}/{purpose}".encode()
            )
        except InvalidTag:
            raise Broken(f"A sealed {purpose} of {institution} does not open with key {self.key_id}.") from None


def split_of(pseudonym: str) -> str:
    """`train` for four patients of five, `test` for the fifth, by their pseudonym: it never changes, and no patient is on both sides."""
    return "test" if int.from_bytes(hashlib.sha256(pseudonym.encode()).digest()[:8]) % 5 == 0 else "train"


SEALED = ("institution", "purpose", "pseudonym", "sealed", "key_id")


def sealed(keyring: Keyring, institution: str, purpose: Purpose, value: str) -> dict[str, Any]:
    """The row of identities that keeps `value` behind its pseudonym, for display and return messages, by SEALED."""
    pseudonym = keyring.pseudonym(institution, purpose, value)
    kept = keyring.seal(institution, purpose, value.strip().encode())
    return dict(zip(SEALED, (institution, purpose, pseudonym, kept, keyring.key_id), strict=True))


def reveal(session: Session, keyring: Keyring, institution: str, purpose: Purpose, pseudonym: str) -> str | None:
    """The value behind a pseudonym, or None when it was never kept."""
    row = session.get(Identity, (institution, purpose, pseudonym))
    return None if row is None else keyring.open(institution, purpose, row.sealed).decode()
