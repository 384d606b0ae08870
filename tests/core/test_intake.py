"""The Celery door gives the same result as HTTP, and loses nothing that does not fit."""

import json

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import db, intake, queue
from core.identity import Keyring
from core.tables import DraftRequest, Quarantine
from tests.builders import QUEUE, accept, body, institution


@pytest.fixture(autouse=True)
def _institutions(database: sa.Engine, broker_url: str) -> None:
    queue.configure(broker_url)
    with db.transaction(database) as session:
        institution(session, "north", intake=True)
        institution(session, "south")


def test_a_message_is_the_same_request_as_over_http(database: sa.Engine, keyring: Keyring) -> None:
    taken = intake.take(database, keyring, QUEUE, body())
    assert taken is not None
    with db.transaction(database) as session:
        assert accept(session, keyring).id == taken.id
        row = session.exec(select(DraftRequest)).one()
    assert (row.door, row.is_stat, row.modality, row.systems) == ("celery", False, "CT", ["chest"])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (body(findings=""), "empty_findings"),
        (body(institution="south"), "intake_closed"),
        (body(institution="nowhere"), "unknown_institution"),
        ({"institution": "north"}, "invalid"),
        ("not even an object", "invalid"),
        (None, "invalid"),
    ],
)
def test_what_does_not_fit_is_quarantined_sealed_with_its_reason(
    database: sa.Engine, keyring: Keyring, message: object, reason: str
) -> None:
    for _ in range(2):
        assert intake.take(database, keyring, QUEUE, message) is None
    with db.transaction(database) as session:
        row = session.exec(select(Quarantine)).one()
        assert session.exec(select(DraftRequest)).all() == []
    assert (row.reason, row.times, row.stream) == (reason, 2, "intake")
    assert json.loads(keyring.open(row.institution, "quarantine", row.raw)) == message
    assert "右肺".encode() not in row.raw
