"""The audit chain shows every edit, deletion and reordering."""

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from core import audit, db
from core.audit import GENESIS


@pytest.fixture(autouse=True)
def _five(database: sa.Engine) -> None:
    with db.transaction(database) as session:
        for number in range(5):
            audit.record(session, "key:a", "request.accepted", f"request:{number}", institution="north", number=number)
    with db.transaction(database) as session:
        assert audit.seal(session) == 5


def test_a_whole_chain_verifies(session: Session) -> None:
    verdict = audit.verify(session)
    assert (verdict.events, verdict.unsealed, verdict.broken_at) == (5, 0, None)
    assert verdict.head != GENESIS


@pytest.mark.parametrize(
    ("tampering", "where"),
    [
        ("UPDATE audit_events SET actor = 'key:b' WHERE seq = 3", 3),
        ("DELETE FROM audit_events WHERE seq = 2", 2),
        ("UPDATE audit_events SET seq = CASE seq WHEN 4 THEN 50 ELSE 4 END WHERE seq IN (4)", 4),
    ],
)
def test_an_event_that_was_edited_deleted_or_moved_breaks_it(database: sa.Engine, tampering: str, where: int) -> None:
    with database.begin() as owner:  # whoever owns the database can switch the trigger off; the chain still tells
        owner.execute(sa.text("ALTER TABLE audit_events DISABLE TRIGGER refuse_sealed"))
        owner.execute(sa.text(tampering))
    with db.transaction(database) as session:
        assert audit.verify(session).broken_at == where


def test_a_sealed_event_refuses_to_be_changed(database: sa.Engine) -> None:
    for statement in ("UPDATE audit_events SET actor = 'x'", "DELETE FROM audit_events"):
        with pytest.raises(sa.exc.IntegrityError), database.begin() as owner:
            owner.execute(sa.text(statement))
