"""Keys and pseudonyms."""

from pathlib import Path

import pytest
from sqlmodel import Session, select

from core import identity
from core.errors import Broken
from core.identity import Keyring
from core.tables import Identity
from tests.builders import accept, institution


def test_a_pseudonym_is_stable_and_differs_by_institution_and_purpose(keyring: Keyring) -> None:
    one = keyring.pseudonym("north", "patient", "P-1")
    assert one == keyring.pseudonym("north", "patient", " ｐ-1 ")
    others = {keyring.pseudonym("south", "patient", "P-1"), keyring.pseudonym("north", "accession", "P-1"), one}
    assert len(others) == 3
    assert len(one) == 32


def test_a_sealed_value_opens_only_for_its_own_institution_and_key(keyring: Keyring, tmp_path: Path) -> None:
    sealed = keyring.seal("north", "accession", b"ACC-1")
    assert keyring.open("north", "accession", sealed) == b"ACC-1"
    other = Keyring.load(tmp_path / "other.key", create=True)
    for ring, place in ((keyring, "south"), (other, "north")):
        with pytest.raises(Broken):
            ring.open(place, "accession", sealed)
    with pytest.raises(Broken):
        keyring.open("north", "accession", sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    Keyring.load(path, create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(Broken, match="chmod 600"):
        Keyring.load(path)


def test_a_missing_or_damaged_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="VALUER_KEY_FILE"):
        Keyring.load(tmp_path / "none.key")
    (tmp_path / "bad.key").write_text("not a key")
    (tmp_path / "bad.key").chmod(0o600)
    with pytest.raises(Broken, match="32 bytes"):
        Keyring.load(tmp_path / "bad.key")


def test_an_accession_number_is_kept_once_and_revealed(session: Session, keyring: Keyring) -> None:
    institution(session)
    accept(session, keyring, accession="ACC-1")
    accept(session, keyring, accession="ACC-1", findings="右肺上叶见结节。")
    (pseudonym,) = session.exec(select(Identity.pseudonym)).all()
    assert identity.reveal(session, keyring, "north", "accession", pseudonym) == "ACC-1"
    assert identity.reveal(session, keyring, "north", "accession", "0" * 32) is None
