"""From a row in the hospital's database to the answer of the API: a report that was drafted for is signed, corrected, opened again or taken back there."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from core import db, queue, sign_offs
from core.settings import WorklistSettings
from ingest import mapping, service
from ingest.child import Child, Job
from ingest.poll import poll
from ingest.sql import SqlSource
from tests.ingest.hospital import IMPRESSION, Hospital
from tests.worklist.door import DRAFT, Door
from worklist import access
from worklist.app import create_app

CORRECTED = "右肺上叶实性小结节，良性可能。"


@pytest.fixture
def door(north: Hospital, broker_url: str) -> Iterator[Door]:
    """The reporting system of the hospital, at our door."""
    north.describe(**{"3": "unsigned"})
    service.look(north.ours, north.settings)
    queue.configure(broker_url)
    app = create_app(WorklistSettings(home=north.settings.home), north.ours, north.keyring)
    with TestClient(app, base_url="http://worklist.test") as client:
        door = Door(app, client, north.ours)
        with db.transaction(north.ours) as session:
            door.keys["system"] = access.create_key(session, "system", "system", "north", by="test")
        yield door


@pytest.fixture
def asked(door: Door) -> str:
    """A request with its draft, for the report of row 1."""
    return door.sent_and_drafted()


def answer(door: Door, request: str) -> dict[str, Any]:
    found: dict[str, Any] = door.call("GET", f"/v1/requests/{request}").json()
    return found


def read(hospital: Hospital) -> None:
    """One poll of the real source, in this process."""
    of = mapping.load(hospital.settings.institutions_dir / "north.toml", hospital.settings.home)
    source = SqlSource(of, deadline_s=60)
    try:
        result = poll(hospital.ours, source, of, hospital.keyring, budget_s=60, resume={}, told=lambda _: None)
    finally:
        source.close()
    assert (result.error, result.quarantined) == (None, 0)


def row(hospital: Hospital, status: str, minutes: int = 0, **changes: Any) -> None:
    """What row 1 says now; `minutes` after the request came in by the source's clock, which it may not be ahead of."""
    hospital.write(1, st=status, at=datetime.now(UTC) - timedelta(hours=1) + timedelta(minutes=minutes), **changes)


@pytest.fixture(autouse=True)
def _long_ago(asked: str, north: Hospital) -> None:
    with db.transaction(north.ours) as session:
        session.execute(sa.text("UPDATE draft_requests SET accepted_at = accepted_at - interval '2 hours'"))


def to_score(hospital: Hospital) -> int:
    with db.transaction(hospital.ours) as session:
        return len(sign_offs.unscored(session, "any", 10))


def test_what_the_ris_signs_is_the_signature_and_its_correction_a_further_version(
    north: Hospital, door: Door, asked: str
) -> None:
    row(north, "0", zd="")
    read(north)
    assert answer(door, asked)["state"] == "drafted"
    row(north, "1", 1)
    read(north)
    assert answer(door, asked)["signed"] == {"version": 1, "impression": IMPRESSION, "place": "ris"}
    feed = door.call("GET", "/v1/requests?since=").json()
    row(north, "2", 2, zd=CORRECTED)
    for _ in range(2):
        read(north)
    assert answer(door, asked)["signed"] == {"version": 2, "impression": CORRECTED, "place": "ris"}
    told = door.call("GET", f"/v1/requests?since={feed['cursor']}").json()["requests"]
    assert [each["signed"]["version"] for each in told] == [2]


def test_a_retraction_cancels_an_open_request(north: Hospital, door: Door, asked: str) -> None:
    row(north, "9")
    read(north)
    found = answer(door, asked)
    assert (found["state"], "signed" in found) == ("cancelled", False)


def test_a_retraction_that_left_the_time_alone_cancels_too_and_one_from_before_the_request_does_not(
    north: Hospital, door: Door, asked: str
) -> None:
    before = -75  # minutes: the request came two hours ago, and `row` counts from one hour ago
    row(north, "0", before, zd="")
    read(north)
    moment = north.report(1).modified_at
    north.write(1, st="9", at=moment)
    read(north)
    assert answer(door, asked)["state"] == "cancelled"
    other = door.sent_and_drafted(accession="A-2")
    north.write(2, st="0", zd="", at=datetime.now(UTC) - timedelta(hours=3))
    read(north)
    north.write(2, st="9", at=datetime.now(UTC) - timedelta(hours=2, minutes=30))
    read(north)
    assert answer(door, other)["state"] == "drafted"  # it was asked for after that: another examination


def test_a_retraction_after_the_signature_leaves_no_text_that_looks_signed(
    north: Hospital, door: Door, asked: str
) -> None:
    row(north, "1")
    read(north)
    assert to_score(north) == 1
    feed = door.call("GET", "/v1/requests?since=").json()
    row(north, "9", 1)
    for _ in range(2):
        read(north)
    found = answer(door, asked)
    assert "signed" not in found
    assert found["withdrawn"] == {"version": 1, "place": "ris", "status": "retracted"}
    assert [each["id"] for each in door.call("GET", f"/v1/requests?since={feed['cursor']}").json()["requests"]] == [
        asked
    ]
    assert to_score(north) == 0


def test_a_signature_that_is_taken_back_brings_the_draft_back_until_the_next(
    north: Hospital, door: Door, asked: str
) -> None:
    row(north, "1")
    read(north)
    row(north, "3", 1)
    read(north)
    found = answer(door, asked)
    assert (found["state"], found["draft"]["impression"]) == ("drafted", DRAFT)
    assert not {"signed", "withdrawn"} & found.keys()
    row(north, "1", 2, zd=CORRECTED)
    read(north)
    assert answer(door, asked)["signed"] == {"version": 2, "impression": CORRECTED, "place": "ris"}
    assert to_score(north) == 1


STEPS: dict[str, tuple[str, int, dict[str, str]]] = {
    "preliminary": ("0", 1, {"zd": ""}),
    "signed": ("1", 2, {}),
    "corrected": ("2", 3, {"zd": CORRECTED}),
    "retracted": ("9", 4, {}),
}


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        (("preliminary", "signed", "corrected"), {"signed"}),
        (("signed", "corrected", "retracted"), {"withdrawn", "cancelled"}),
    ],
)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_in_whatever_order_and_however_often_the_row_is_seen_nothing_taken_back_stands(
    north: Hospital, door: Door, asked: str, names: tuple[str, ...], ends: set[str], order: tuple[int, ...]
) -> None:
    """A replica may show an older row after a newer one. What was signed before a retraction is withdrawn; what was not is cancelled."""
    for place in (*order, order[0]):
        status, minutes, changes = STEPS[names[place]]
        row(north, status, minutes, **changes)
        read(north)
    found = answer(door, asked)
    assert ends & {found["state"], *found}
    assert found.get("signed", {}).get("impression") in ({CORRECTED} if "signed" in ends else {None})


def test_a_report_that_is_gone_takes_its_open_request_along_and_its_signature_with_it(
    north: Hospital, door: Door, asked: str
) -> None:
    signed = door.sent_and_drafted(accession="A-2")
    with db.transaction(north.ours) as session:
        session.execute(sa.text("UPDATE draft_requests SET accepted_at = accepted_at - interval '2 hours'"))
    noon = datetime.now(UTC) - timedelta(days=2)
    north.write(1, st="0", zd="", at=noon)
    north.write(2, at=noon)
    for key in range(10, 20):
        north.write(key, at=noon)
    read(north)
    assert [answer(door, each)["state"] for each in (asked, signed)] == ["drafted", "signed"]
    of = mapping.load(north.settings.institutions_dir / "north.toml", north.settings.home)
    day = noon.astimezone(of.source.zone).date()
    child = Child(service.place(north.ours, north.settings), "north")
    try:
        for step in range(4):
            if step == 1:
                north.connection.execute("DELETE FROM report WHERE k < 10")
            if step == 3:
                assert answer(door, asked)["state"] == "cancelled"
                assert answer(door, signed)["withdrawn"]["status"] == "final"
                north.write(2, at=noon)
            assert child.work(Job(of.file, 60, "reconcile", days=(day,))).error is None
    finally:
        child.close()
    assert answer(door, signed)["signed"]["impression"] == IMPRESSION
