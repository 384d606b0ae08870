"""When a waiting request may have its draft."""

from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from core import leases, pace, requests
from core.db import new_id
from core.identity import Keyring
from core.tables import Draft, DraftRequest, Generation, Process
from tests.builders import ADMIN, QUEUE, accept, institution

VERSIONS = {"model_version": "m1", "prompt_version": "p1", "checks_version": "c1"}


@pytest.fixture(autouse=True)
def _north(session: Session) -> None:
    institution(session, "north")


def drafted_in(session: Session, seconds: float) -> None:
    """Has the best waiting request drafted by a worker that took so long."""
    held = leases.claim(session, "w", QUEUE)
    assert held is not None
    generation = Generation(
        id=new_id(),
        request_id=held.request.id,
        attempt_id=held.lease,
        rung=0,
        seed=1,
        text="右肺结节。",
        finish="stop",
        prompt_tokens=1,
        new_tokens=1,
        seconds=seconds,
        passed=True,
        **VERSIONS,
    )
    draft = Draft(version=0, impression="右肺结节。", label="AI", generation_id=generation.id, **VERSIONS)
    assert leases.settle_drafted(session, held, draft, [], [generation])
    took = sa.text("UPDATE attempts SET ended_at = started_at + make_interval(secs => :s) WHERE id = :id")
    session.execute(took, {"s": seconds, "id": held.lease})


def worker(session: Session, places: int) -> None:
    session.add(Process(name="worker@h:1", kind="worker", pid=1, host="h", state="ready", detail={"in_flight": places}))
    session.flush()


def row(session: Session, identity: UUID) -> DraftRequest:
    return requests.get(session, identity, ADMIN)


def expected(session: Session, identity: UUID) -> int | None:
    found = pace.wait(session, row(session, identity))
    assert found is not None
    return found.expected_s


def test_nothing_is_expected_where_nothing_was_measured_or_nobody_works(session: Session, keyring: Keyring) -> None:
    done = accept(session, keyring, accession="done")
    waiting = accept(session, keyring, accession="waiting")
    worker(session, 2)
    assert expected(session, waiting.id) is None
    drafted_in(session, 3.5)
    assert pace.wait(session, row(session, done.id)) is None
    assert expected(session, waiting.id) == 4
    session.execute(sa.text("DELETE FROM processes"))
    assert expected(session, waiting.id) is None


def test_a_waiting_request_tells_its_age(session: Session, keyring: Keyring) -> None:
    identity = accept(session, keyring).id
    session.execute(sa.text("UPDATE draft_requests SET accepted_at = accepted_at - interval '90 s'"))
    found = pace.wait(session, row(session, identity))
    assert found is not None
    assert 90 <= found.elapsed_s < 150


def test_what_is_claimed_before_it_counts_by_lane_and_due_time(session: Session, keyring: Keyring) -> None:
    worker(session, 2)
    accept(session, keyring, accession="done")
    drafted_in(session, 10.0)
    ids = [accept(session, keyring, accession=f"R{number}").id for number in range(5)]
    for number, identity in enumerate(ids):  # the tests' transaction began once, and acceptance counts from there
        each = row(session, identity)
        each.due_at += timedelta(seconds=number)
        session.add(each)
    stat = accept(session, keyring, accession="S", priority="stat").id
    session.flush()
    assert [expected(session, identity) for identity in (stat, *ids)] == [10, 10, 20, 20, 30, 30]


def test_a_request_that_is_being_drafted_is_expected_after_the_rest_of_the_usual_time(
    session: Session, keyring: Keyring
) -> None:
    worker(session, 1)
    accept(session, keyring, accession="done")
    drafted_in(session, 200.0)
    accept(session, keyring, accession="now")
    held = leases.claim(session, "w", QUEUE)
    assert held is not None
    begun = sa.text(
        "UPDATE attempts SET started_at = clock_timestamp() - make_interval(secs => :s) WHERE state = 'running'"
    )
    session.execute(begun, {"s": 100})
    left = expected(session, held.request.id)
    assert left is not None
    assert 40 < left <= 100
    session.execute(begun, {"s": 300})
    assert expected(session, held.request.id) == 0
