"""The Celery door gives the same result as HTTP, and loses nothing that does not fit."""

import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from kombu import serialization
from kombu.utils.json import dumps, loads
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


@pytest.fixture
def _as_sent() -> Iterator[None]:
    intake.read_as_sent()
    yield
    serialization.register("json", dumps, loads, "application/json", "utf-8")


@pytest.mark.usefixtures("_as_sent")
@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ('"language": null', '"findings": "未见异常。"', "未见异常。"),
        ('"age": 61', '"age": 16, "age": 61', "16"),
        ('"age": 61', '"age": true', "true"),
        ('"age": 61', '"age": "61"', '"61"'),
        ('"age": 61', '"age": 6.1', "6.1"),
        ('"age": 61', '"age": NaN', "NaN"),
        ('"age": 61', '"age": 1e999', "Infinity"),
        ('"age": 61', f'"age": {"9" * 5000}', "9" * 5000),
        ('"age": 61', '"age": {"__type__": "decimal", "__value__": "61"}', "__type__"),
        ('"language": null', '"history": "咳\\ud800嗽"', "\\ud800"),
        ('"language": null', '"history": "咳\\u0000嗽"', "\\u0000"),
    ],
    ids=["two findings", "two ages", "true", "text", "fraction", "nan", "infinity", "long", "typed", "half", "nul"],
)
def test_json_that_could_be_read_two_ways_is_quarantined_with_all_that_it_says(
    database: sa.Engine, keyring: Keyring, old: str, new: str, kept: str
) -> None:
    sent = json.dumps({**body(), "language": None}, ensure_ascii=False)
    assert old in sent
    message = serialization.loads(sent.replace(old, new).encode(), "application/json", "utf-8")
    assert intake.take(database, keyring, QUEUE, message) is None
    with db.transaction(database) as session:
        row = session.exec(select(Quarantine)).one()
    raw = keyring.open(row.institution, "quarantine", row.raw).decode()
    assert kept in raw or kept in json.loads(raw)["findings"]


@pytest.mark.usefixtures("_as_sent")
def test_a_plain_message_reads_as_before(database: sa.Engine, keyring: Keyring) -> None:
    message = serialization.loads(json.dumps(body()).encode(), "application/json", "utf-8")
    assert message == body()
    assert intake.take(database, keyring, QUEUE, message) is not None
