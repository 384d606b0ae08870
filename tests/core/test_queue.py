"""The bell over a real Valkey: what a message says, and how many of them a burst costs."""

import base64
import json
import time
from typing import Any

import pytest
import redis

from core import queue
from core.db import new_id


@pytest.fixture
def messages(broker_url: str) -> Any:
    """What lies in a lane's queue now, as the tasks' arguments."""
    queue.configure(broker_url)

    def lying(lane: str) -> list[list[Any]]:
        with redis.Redis(unix_socket_path=broker_url.removeprefix("redis+socket://")) as client:
            bodies = [json.loads(raw)["body"] for raw in client.lrange(f"draft.{lane}", 0, -1)]
        return [json.loads(base64.b64decode(body))[0] for body in reversed(bodies)]

    return lying


def test_a_quiet_bell_rings_at_once(messages: Any) -> None:
    identity = new_id()
    assert queue.ring("stat", identity)
    assert messages("stat") == [[str(identity)]]


def test_a_burst_shares_permits_and_none_of_it_is_left_without(messages: Any) -> None:
    time.sleep(2 * queue.BETWEEN_RINGS_S)
    ids = [new_id() for _ in range(60)]
    for identity in ids:
        assert queue.ring("routine", identity)
    deadline = time.monotonic() + 5
    while sum(arguments[1] if len(arguments) > 1 else 1 for arguments in messages("routine")) < 60:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sent = messages("routine")
    assert len(sent) < 30
    assert sum(arguments[1] if len(arguments) > 1 else 1 for arguments in sent) == 60
    assert {arguments[0] for arguments in sent} <= {str(identity) for identity in ids}


def test_a_new_broker_is_told_of_its_own_kind_of_queue(messages: Any, broker_url: str) -> None:
    assert queue.ring("stat", new_id())
    assert queue.app.amqp.queues["draft.stat"].queue_arguments is None
    try:
        queue.configure("amqp://nobody@127.0.0.1:1//")
        assert queue.app.amqp.queues["draft.stat"].queue_arguments == {
            "x-queue-type": "quorum",
            "x-delivery-limit": queue.DELIVERIES,
        }
        assert queue.app.amqp.queues["intake"].queue_arguments == {"x-queue-type": "quorum"}
    finally:
        queue.configure(broker_url)
