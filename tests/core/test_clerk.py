"""The clerk keeps promises that nobody else keeps."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import UUID

import pytest
import redis
import sqlalchemy as sa
from sqlmodel import select

from core import callbacks, db, leases, processes, queue, requests, sign_offs
from core.clerk import Clerk
from core.identity import Keyring
from core.settings import ClerkSettings
from core.states import Reason, RequestState
from core.tables import AuditEvent, Callback, DraftRequest
from tests.builders import DOCTOR, QUEUE, accept, institution


@pytest.fixture
def clerk(database: sa.Engine, keyring: Keyring, broker_url: str) -> Clerk:
    queue.configure(broker_url)
    with db.transaction(database) as session:
        institution(session, callback_hosts=("127.0.0.1",))
    return Clerk(database, keyring, ClerkSettings(lease_s=0.05))


def messages(broker_url: str, name: str) -> list[UUID]:
    """The ids that lie in a queue."""
    with redis.Redis(unix_socket_path=broker_url.removeprefix("redis+socket://")) as client:
        found = client.lrange(name, 0, -1)
    assert isinstance(found, list)
    return [UUID(body(message)[0][0]) for message in found]


def body(message: bytes) -> list[Any]:
    """The arguments of a Celery message."""
    decoded = json.loads(base64.b64decode(json.loads(message)["body"]))
    assert isinstance(decoded, list)
    return decoded


def test_a_request_whose_bell_was_lost_is_rung_again(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, broker_url: str
) -> None:
    with db.transaction(database) as session:
        one = accept(session, keyring, priority="stat")
    assert clerk.once()["ring"] == 0
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE draft_requests SET rung_at = now() - interval '31 s'"))
    assert clerk.once()["ring"] == 1
    assert messages(broker_url, "draft.stat") == [one.id]


def test_a_message_holds_an_id_and_nothing_clinical(
    database: sa.Engine, keyring: Keyring, broker_url: str, clerk: Clerk
) -> None:
    with db.transaction(database) as session:
        accepted = accept(session, keyring, accession="ACC-778899", patient={"id": "PAT-112233"})
    assert requests.ring(accepted)
    with redis.Redis(unix_socket_path=broker_url.removeprefix("redis+socket://")) as client:
        (raw,) = client.lrange("draft.routine", 0, -1)
    text = json.dumps([json.loads(raw), body(raw)], ensure_ascii=False)
    assert str(accepted.id) in text
    for canary in ("778899", "112233", "结节", "胸腔", "north"):
        assert canary not in text


def test_a_stale_lease_goes_back_to_the_queue_and_is_rung(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, broker_url: str
) -> None:
    with db.transaction(database) as session:
        accept(session, keyring)
        assert leases.claim(session, "dead", ClerkSettings(lease_s=0.05)) is not None
    time.sleep(0.1)
    assert clerk.once()["take_back"] == 1
    time.sleep(1.1)  # the first crash waits a second
    assert clerk.once()["ring"] == 1


def test_a_broker_that_is_away_stops_no_chore(clerk: Clerk, database: sa.Engine, keyring: Keyring) -> None:
    queue.configure("redis://127.0.0.1:1/0")
    with db.transaction(database) as session:
        accept(session, keyring)
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE draft_requests SET rung_at = NULL"))
    done = clerk.once()
    assert done["ring"] == 0
    assert done["seal"] >= 1


def test_every_deed_ends_in_the_sealed_chain(clerk: Clerk, database: sa.Engine, keyring: Keyring) -> None:
    with db.transaction(database) as session:
        one = accept(session, keyring)
        sign_offs.sign(session, one.id, "右肺结节。", None, DOCTOR)
    clerk.once()
    with db.transaction(database) as session:
        actions = {event.action for event in session.exec(select(AuditEvent)) if event.seq is not None}
    assert {"request.accepted", "request.signed"} <= actions


def test_scores_are_asked_for_again_until_they_are_there(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, broker_url: str
) -> None:
    with db.transaction(database) as session:
        one = accept(session, keyring)
        held = leases.claim(session, "w", QUEUE)
        assert held is not None
        leases.settle_without(session, held, Reason.CHECKS_FAILED)
        sign_off = sign_offs.sign(session, one.id, "右肺结节。", None, DOCTOR).id
    assert clerk.once()["scores"] == 1
    assert messages(broker_url, "score") == [sign_off]


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.got.append((body, self.headers["X-Valuer-Signature"]))
        self.send_response(server.answer)
        self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(HTTPServer):
    got: list[tuple[bytes, str]]
    answer = 200


@pytest.fixture
def receiver() -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Receiver)
    server.got = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def withheld(database: sa.Engine, keyring: Keyring, server: _Server, **changes: Any) -> UUID:
    """A request with a callback that has just settled."""
    with db.transaction(database) as session:
        one = accept(session, keyring, callback_url=f"http://127.0.0.1:{server.server_port}/draft", **changes)
        held = leases.claim(session, "w", QUEUE)
        assert held is not None
        leases.settle_without(session, held, Reason.NO_MODEL)
    return one.id


def test_a_callback_carries_id_and_state_only_and_is_signed(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, receiver: _Server
) -> None:
    identity = withheld(database, keyring, receiver)
    assert clerk.once()["callbacks"] == 1
    ((body, signature),) = receiver.got
    assert json.loads(body) == {"id": str(identity), "state": "withheld"}
    expected = hmac.new(callbacks.secret(keyring, "north").encode(), body, hashlib.sha256).hexdigest()
    assert signature == f"sha256={expected}"
    assert clerk.once()["callbacks"] == 0


@pytest.mark.parametrize("status", [302, 500])
def test_a_redirect_is_not_followed_and_a_failure_is_tried_again_later(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, receiver: _Server, status: int
) -> None:
    receiver.answer = status
    withheld(database, keyring, receiver)
    assert clerk.once()["callbacks"] == 0
    assert clerk.once()["callbacks"] == 0  # not due yet
    assert len(receiver.got) == 1
    with db.transaction(database) as session:
        row = session.exec(select(Callback)).one()
    assert (row.state, row.tries, row.last_error) == ("waiting", 1, f"HTTP {status}")


def test_a_callback_nobody_takes_is_dead_in_the_end(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, receiver: _Server
) -> None:
    receiver.answer = 500
    withheld(database, keyring, receiver)
    for _ in range(callbacks.TRIES):
        with database.begin() as connection:
            connection.execute(sa.text("UPDATE callbacks SET next_at = now()"))
        clerk.once()
    with db.transaction(database) as session:
        (given_up,) = callbacks.dead(session)
        assert (given_up.state, given_up.last_error) == ("dead", "HTTP 500")
    assert len(receiver.got) == callbacks.TRIES
    receiver.answer = 200
    with db.transaction(database) as session:
        assert callbacks.again(session, "user:operator", [given_up.id]) == 1
        assert callbacks.again(session, "user:operator") == 0
    assert clerk.once()["callbacks"] == 1


def test_an_address_that_cannot_be_called_holds_up_no_other_callback(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, receiver: _Server
) -> None:
    bad = withheld(database, keyring, receiver)
    with database.begin() as connection:
        connection.execute(
            sa.text("UPDATE callbacks SET url = 'http://127.0.0.1:99999/', next_at = now() - interval '1 h'")
        )
    good = withheld(database, keyring, receiver, accession="A-2")
    assert clerk.once()["callbacks"] == 1
    assert [json.loads(body)["id"] for body, _ in receiver.got] == [str(good)]
    with db.transaction(database) as session:
        row = session.exec(select(Callback).where(Callback.request_id == bad)).one()
    assert (row.state, row.tries) == ("waiting", 1)
    assert row.last_error


def test_receivers_that_answer_slowly_take_no_longer_together_than_one(
    clerk: Clerk, database: sa.Engine, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "TIMEOUT_S", 0.5)
    slow = socket.create_server(("127.0.0.1", 0), backlog=20)
    stop = threading.Event()

    def drip() -> None:  # a byte of the status line now and then, for ever
        slow.settimeout(0.05)
        taken: list[socket.socket] = []
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                taken.append(slow.accept()[0])
            for each in taken:
                with contextlib.suppress(OSError):
                    each.sendall(b"H")
        for each in taken:
            each.close()

    thread = threading.Thread(target=drip)
    thread.start()
    with db.transaction(database) as session:
        for number in range(8):
            url = f"http://127.0.0.1:{slow.getsockname()[1]}/"
            accept(session, keyring, accession=f"A-{number}", callback_url=url)
            held = leases.claim(session, "w", QUEUE)
            assert held is not None
            leases.settle_without(session, held, Reason.NO_MODEL)
    began = time.monotonic()
    assert clerk.once()["callbacks"] == 0
    assert time.monotonic() - began < 3.0  # one after the other it would be four seconds, and by bytes never
    stop.set()
    thread.join()
    slow.close()
    with db.transaction(database) as session:
        assert [row.tries for row in session.exec(select(Callback))] == [1] * 8


def test_a_process_that_was_silent_is_forgotten(clerk: Clerk, database: sa.Engine) -> None:
    presence = processes.Presence(database, "worker", in_flight=3).start()
    with db.transaction(database) as session:
        assert [p.detail for p in processes.alive(session, "worker")] == [{"in_flight": 3}]
    presence.stop()
    with db.transaction(database) as session:
        assert processes.alive(session) == []


def test_only_one_clerk_works(clerk: Clerk, database: sa.Engine, keyring: Keyring) -> None:
    other = Clerk(database, keyring, ClerkSettings(tick_s=0.05))
    first = Clerk(database, keyring, ClerkSettings(tick_s=0.05))
    with db.transaction(database) as session:
        accept(session, keyring)
    threads = [threading.Thread(target=each.run) for each in (first, other)]
    for thread in threads:
        thread.start()
        time.sleep(0.3)
    assert first._round > 0
    assert other._round == 0
    for each in (first, other):
        each.stopping.set()
    for thread in threads:
        thread.join(timeout=10)
    with db.transaction(database) as session:
        assert session.exec(select(DraftRequest)).one().state is RequestState.QUEUED
