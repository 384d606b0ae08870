"""How requests are held: one worker at a time, and nothing lost when it dies."""

import threading
import time

import pytest
import sqlalchemy as sa
from sqlmodel import Session, select

from core import db, leases, requests, sign_offs
from core.errors import Broken
from core.identity import Keyring
from core.settings import QueueSettings
from core.states import AttemptState, Reason, RequestState
from core.tables import Attempt, Callback, DraftRequest
from tests.builders import ADMIN, DOCTOR, QUEUE, accept, institution

SHORT = QueueSettings(lease_s=0.05)


@pytest.fixture(autouse=True)
def _north(database: sa.Engine) -> None:
    with db.transaction(database) as session:
        institution(session)


def test_stat_comes_first_then_the_earliest_due(session: Session, keyring: Keyring) -> None:
    for accession, priority in (("A", "routine"), ("B", "urgent"), ("C", "stat")):
        accept(session, keyring, accession=accession, priority=priority)
    claimed = [leases.claim(session, "w", QUEUE) for _ in range(4)]
    assert [held and held.request.priority for held in claimed] == ["stat", "urgent", "routine", None]


def test_a_routine_request_that_waits_long_enough_overtakes_younger_urgent_ones(
    session: Session, keyring: Keyring
) -> None:
    old = accept(session, keyring, accession="old")
    session.execute(sa.text("UPDATE draft_requests SET due_at = due_at - interval '2 hours'"))
    accept(session, keyring, accession="young", priority="urgent")
    held = leases.claim(session, "w", QUEUE)
    assert held is not None
    assert held.request.id == old.id


def test_many_threads_never_claim_the_same_request(database: sa.Engine, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        for number in range(30):
            accept(session, keyring, accession=f"A-{number}")
    claimed: list[object] = []

    def worker() -> None:
        while True:
            with db.transaction(database) as session:
                held = leases.claim(session, "w", QUEUE)
            if held is None:
                return
            claimed.append(held.request.id)

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 30


def test_a_lease_without_heartbeat_is_taken_back_and_the_late_writer_is_fenced(
    database: sa.Engine, keyring: Keyring
) -> None:
    with db.transaction(database) as session:
        accept(session, keyring)
        zombie = leases.claim(session, "zombie", SHORT)
    assert zombie is not None
    time.sleep(0.1)
    with db.transaction(database) as session:
        assert leases.take_back(session, SHORT) == 1
        session.execute(sa.text("UPDATE draft_requests SET not_before = NULL"))
        second = leases.claim(session, "healthy", QUEUE)
    assert second is not None
    assert second.number == 2
    with db.transaction(database) as session:
        assert not leases.settle_without(session, zombie, Reason.CHECKS_FAILED)
        assert not leases.give_back(session, zombie, retry_after=0, error="late")
        assert leases.settle_without(session, second, Reason.CHECKS_FAILED)
        attempts = session.exec(select(Attempt).order_by(Attempt.number)).all()  # type: ignore[arg-type]
    assert [attempt.state for attempt in attempts] == [AttemptState.CRASHED, AttemptState.FINISHED]


def test_a_heartbeat_keeps_a_lease_and_tells_of_a_lost_one(database: sa.Engine, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        accept(session, keyring)
        held = leases.claim(session, "w", SHORT)
    assert held is not None
    with db.transaction(database) as session:
        assert leases.heartbeat(session, [held.lease], QUEUE) == {held.lease}
    time.sleep(0.1)
    with db.transaction(database) as session:
        assert leases.take_back(session, QUEUE) == 0
        sign_offs.sign(session, held.request.id, "右肺结节。", None, DOCTOR)
    with db.transaction(database) as session:
        assert leases.heartbeat(session, [held.lease], QUEUE) == frozenset()


def test_the_third_crash_needs_a_human(database: sa.Engine, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        accept(session, keyring)
    for _ in range(3):
        with db.transaction(database) as session:
            session.execute(sa.text("UPDATE draft_requests SET not_before = NULL"))
            assert leases.claim(session, "w", SHORT) is not None
        time.sleep(0.1)
        with db.transaction(database) as session:
            leases.take_back(session, SHORT)
    with db.transaction(database) as session:
        row = session.exec(select(DraftRequest)).one()
    assert (row.state, row.reason, row.attempts) == (RequestState.NEEDS_HUMAN, Reason.CRASHED, 3)


def test_signing_while_a_worker_drafts_wins_over_the_draft(session: Session, keyring: Keyring) -> None:
    accept(session, keyring)
    held = leases.claim(session, "w", QUEUE)
    assert held is not None
    sign_offs.sign(session, held.request.id, "右肺结节。", None, DOCTOR)
    assert not leases.settle_without(session, held, Reason.CHECKS_FAILED)
    assert requests.get(session, held.request.id, DOCTOR).state is RequestState.SIGNED


def test_an_end_that_comes_too_late_tells_the_sender_nothing(session: Session, keyring: Keyring) -> None:
    institution(session, callback_hosts=("ris.test",))
    made = accept(session, keyring, callback_url="https://ris.test/done")
    held = leases.claim(session, "w", QUEUE)
    assert held is not None
    requests.cancel(session, made.id, ADMIN)
    assert not leases.settle_without(session, held, Reason.CHECKS_FAILED)
    assert [notice.request_state for notice in session.exec(select(Callback))] == ["cancelled"]


@pytest.mark.parametrize(
    ("part", "index"),
    [
        ("FOR UPDATE SKIP LOCKED", "ix_draft_requests_claim"),
        ("ORDER BY draft_requests.accepted_at", "uq_draft_requests_current"),
    ],
)
def test_what_each_request_asks_the_database_can_use_its_index_in_a_plan_that_is_kept(
    session: Session, keyring: Keyring, part: str, index: str
) -> None:
    for number in range(8):  # from the sixth time on the driver has the server keep a statement
        accept(session, keyring, accession=f"A-{number}")
        assert leases.claim(session, "w", QUEUE) is not None
    kept = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE :part"
    statement = session.execute(sa.text(kept), {"part": f"%{part}%"}).scalar_one()
    session.execute(sa.text("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off"))
    plan = session.connection().exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {statement}").scalars().all()
    assert any(index in line for line in plan), plan


def test_the_bell_is_rung_again_only_after_a_while(session: Session, keyring: Keyring) -> None:
    one = accept(session, keyring)
    assert leases.unrung(session, QUEUE, 10) == []  # the door has just rung
    session.execute(sa.text("UPDATE draft_requests SET rung_at = rung_at - interval '31 seconds'"))
    assert leases.unrung(session, QUEUE, 10) == [(one.id, False)]
    assert leases.unrung(session, QUEUE, 10) == []


def test_a_move_that_the_table_of_moves_does_not_allow_is_a_bug(session: Session, keyring: Keyring) -> None:
    one = accept(session, keyring)
    with pytest.raises(Broken):
        db.move(session, DraftRequest, {"id": one.id}, from_=RequestState.CANCELLED, to=RequestState.QUEUED)
