"""What the database itself guarantees, whoever asks."""

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from core import db, schema
from core.identity import Keyring
from migrations import run
from tests.builders import DOCTOR, accept, institution


def test_the_tables_and_the_migrations_agree(database: sa.Engine) -> None:
    assert run.differences(database) == []
    assert run.revisions()[0] == schema.REVISION == schema.revision(database)


def test_the_drafting_role_cannot_read_identities(database: sa.Engine, database_url: str, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        institution(session)
        accept(session, keyring)
    worker = db.connect(database_url, role="valuer_worker")
    with db.transaction(worker) as session:
        assert session.execute(sa.text("SELECT count(*) FROM draft_requests")).scalar_one() == 1
    for table in ("identities", "users", "api_keys", "user_sessions", "quarantine"):
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), db.transaction(worker) as session:
            session.execute(sa.text(f"SELECT * FROM {table}"))
    worker.dispose()


def test_what_a_person_signed_is_never_overwritten(database: sa.Engine, keyring: Keyring) -> None:
    from core import sign_offs

    with db.transaction(database) as session:
        institution(session)
        sign_offs.sign(session, accept(session, keyring).id, "右肺结节。", None, DOCTOR)
    with pytest.raises(sa.exc.IntegrityError, match="append-only"), db.transaction(database) as session:
        session.execute(sa.text("UPDATE sign_offs SET impression = ''"))


def test_two_current_requests_for_the_same_findings_cannot_exist(session: Session, keyring: Keyring) -> None:
    institution(session)
    accept(session, keyring)
    copy = "INSERT INTO draft_requests (id, institution, accession, patient, findings_hash, door, sent_by, priority, is_stat, is_critical,"
    columns = " modality, systems, sex, language, findings, state, attempts, crashes, changed_xid)"
    select = (
        " SELECT gen_random_uuid(), institution, accession, patient, findings_hash, door, sent_by, priority, is_stat, is_critical,"
        " modality, systems, sex, language, findings, state, attempts, crashes, changed_xid FROM draft_requests"
    )
    with pytest.raises(sa.exc.IntegrityError, match="uq_draft_requests_current"), session.begin_nested():
        session.execute(sa.text(copy + columns + select))
