"""The same product with RabbitMQ's quorum queues as its doorbell, on a real server: VALUER_TEST_AMQP, by default the one of this machine."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from bench.ward.house import FINDINGS, INSTITUTION, Door, House
from core import queue

pytestmark = pytest.mark.timeout(300)
FAST = {"VALUER_LEASE_S": "4", "VALUER_HEARTBEAT_S": "1", "VALUER_RING_AGAIN_S": "3", "VALUER_IN_FLIGHT": "4"}


@pytest.fixture
def rabbit(servers_required: Callable[[str], None]) -> Iterator[Connection]:
    """A connection to the server, without our queues."""
    with Connection(os.environ.get("VALUER_TEST_AMQP", "amqp://guest:guest@127.0.0.1:5672//")) as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=3)
        except (OperationalError, OSError):
            servers_required("no RabbitMQ answers; VALUER_TEST_AMQP names another one")
        for name in queue.QUEUES:
            connection.default_channel.queue_delete(name)
        yield connection
        for name in queue.QUEUES:
            connection.default_channel.queue_delete(name)


def states(house: House) -> dict[str, int]:
    with house.reading() as connection:
        return dict(connection.execute("SELECT state, count(*) FROM draft_requests GROUP BY state").fetchall())


def declared(rabbit: Connection, name: str, arguments: dict[str, Any]) -> None:
    """Raises when the queue is not there as described: RabbitMQ compares every argument with what it has."""
    rabbit.default_channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)


def test_requests_are_drafted_over_quorum_queues_and_lost_messages_lose_nothing(rabbit: Connection) -> None:
    with House(**FAST) as house:
        house.over(rabbit.as_uri(include_password=True))
        for name in ("worklist", "clerk", "score"):
            house.start(name)
        (worker,) = house.start("worker", "0.05")
        house.until(lambda: all(house.ready(kind) for kind in ("worklist", "worker", "score")), 90)
        quorum = {"x-queue-type": "quorum", "x-delivery-limit": queue.DELIVERIES}
        declared(rabbit, "draft.stat", quorum)
        declared(rabbit, "draft.routine", quorum)
        declared(rabbit, "intake", {"x-queue-type": "quorum"})

        door = Door(house)
        for number in range(20):
            assert door.send(f"first-{number}", priority="stat" if number % 5 == 0 else "routine")[0] == 202
        house.until(lambda: states(house) == {"drafted": 20}, 60)

        worker.kill()
        worker.wait()
        for number in range(10):
            assert door.send(f"second-{number}")[0] == 202
        rabbit.default_channel.queue_purge("draft.routine")
        house.start("worker", "0.05")
        house.until(lambda: states(house) == {"drafted": 30}, 90)


def test_a_request_comes_in_over_a_quorum_queue(rabbit: Connection) -> None:
    with House(**FAST) as house:
        house.over(rabbit.as_uri(include_password=True))
        with house.reading() as connection:
            connection.execute("UPDATE institutions SET profile = jsonb_set(profile, '{intake}', 'true')")
        for name in ("score", "worker"):
            house.start(name)
        house.until(lambda: house.ready("score") and house.ready("worker"), 90)
        queue.configure(rabbit.as_uri(include_password=True))
        patient = {"id": "P-1", "sex": "F", "age": 61}
        body = {
            "institution": INSTITUTION,
            "accession": "I-1",
            "modality": "CT",
            "patient": patient,
            "findings": FINDINGS,
        }
        queue.app.send_task(queue.INTAKE, args=[body], queue="intake", argsrepr="<request>", ignore_result=True)
        queue.app.send_task(queue.INTAKE, args=[{"institution": INSTITUTION}], queue="intake", ignore_result=True)
        house.until(lambda: states(house) == {"drafted": 1}, 60)
        with house.reading() as connection:
            house.until(lambda: connection.execute("SELECT count(*) FROM quarantine").fetchone() == (1,), 30)
