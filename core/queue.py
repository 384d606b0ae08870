"""The Celery application, its queue and task names, and the bell.

A message is a permit to work: it carries an id as a hint and nothing clinical, and losing every message loses nothing, since the clerk rings
again for what waits in PostgreSQL. Retries, leases and deadlines are rows of ours; Celery's are off.
"""

import logging
import os
import threading
import time
from typing import Literal
from uuid import UUID

from celery import Celery
from kombu import Exchange, Queue, pools
from kombu.exceptions import OperationalError

from core.logs import event

DRAFT, SCORE, TRAIN, INTAKE = "valuer.draft", "valuer.score", "valuer.train", "valuer.intake"
Lane = Literal["stat", "routine"]
QUEUES = ("draft.stat", "draft.routine", "score", "intake", "training")

AT_ONCE = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.1, "interval_max": 0.1}
"""How long a sender tries to reach a broker that is away: hardly at all. By default it is 6 s, and a door would stand still for each request."""

DELIVERIES = 20
"""How often RabbitMQ delivers one message that nobody acknowledges."""

BETWEEN_RINGS_S = 0.02
PER_PERMIT = 8
"""How many requests one message may stand for; so few that a burst is shared among several workers."""

app = Celery("valuer", set_as_current=True)


def _queues(quorum: bool) -> list[Queue]:
    """One direct queue per name. On RabbitMQ they are quorum queues: replicated, and never lost with a broker's restart.

    A permit that was delivered in vain so often that its workers must be dying of it is dropped: the clerk rings again, and the request's own
    count of crashes ends that. `intake` is declared as its senders declare it; what to do with its dead letters is the operator's policy.
    """
    made = []
    for name in QUEUES:
        arguments: dict[str, str | int] = {"x-queue-type": "quorum"}
        if name != "intake":
            arguments["x-delivery-limit"] = DELIVERIES
        exchange = Exchange(name, type="direct")
        made.append(Queue(name, exchange, routing_key=name, queue_arguments=arguments if quorum else None))
    return made


def configure(broker_url: str) -> Celery:
    """Points the application at its broker: `redis://`, `redis+socket://` or `amqp://`, and lets go of a former one."""
    pools.reset()
    app._after_fork()  # forgets the pools of a former broker; Celery has no public name for it
    app.__dict__.pop("amqp", None)  # and its queues and routes, which are made once and kept
    redis = broker_url.startswith(("redis", "rediss"))
    app.conf.update(
        broker_url=broker_url,
        broker_connection_retry_on_startup=True,
        broker_transport_options=(
            {
                "visibility_timeout": 300,
                "unacked_restore_interval": 5,
                "unacked_restore_throttle": 1,
                "queue_order_strategy": "priority",
                "socket_timeout": 30,
                "socket_connect_timeout": 3,
                "socket_keepalive": not broker_url.startswith("redis+socket"),
                "health_check_interval": 25,
                **AT_ONCE,
            }
            if redis
            else {"confirm_publish": True, **AT_ONCE}
        ),
        task_queues=_queues(quorum=not redis),
        task_default_queue="draft.routine",
        task_routes={SCORE: {"queue": "score"}, TRAIN: {"queue": "training"}, INTAKE: {"queue": "intake"}},
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        task_acks_late=True,
        task_acks_on_failure=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_publish_retry=False,
        worker_detect_quorum_queues=not redis,
        worker_enable_remote_control=redis,
        task_store_errors_even_if_ignored=False,
        enable_utc=True,
    )
    return app


def _send(task: str, queue: str, argument: UUID, *more: int) -> bool:
    try:
        app.send_task(
            task,
            args=[str(argument), *more],
            queue=queue,
            argsrepr="<id>",
            kwargsrepr="<none>",
            ignore_result=True,
            retry=False,
        )
    except (OperationalError, ConnectionError, TimeoutError, OSError) as error:
        event("bell_failed", level=logging.WARNING, queue=queue, error=type(error).__name__, pid=os.getpid())
        return False
    return True


class _Bell:
    """Rings a lane at once when it was quiet, and within 20 ms for all who came meanwhile when it was not."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._condition = threading.Condition()
        self._rung_at = -1.0
        self._hint: UUID | None = None
        self._many = 0
        self._process = 0

    def ring(self, request_id: UUID) -> bool:
        with self._condition:
            now = time.monotonic()
            if now - self._rung_at >= BETWEEN_RINGS_S and not self._many:
                self._rung_at = now
            else:
                self._hint, self._many = request_id, self._many + 1
                if self._process != os.getpid():  # a thread does not survive a fork
                    self._process = os.getpid()
                    threading.Thread(target=self._ring_on, name=f"bell-{self._lane}", daemon=True).start()
                self._condition.notify()
                return True
        return _send(DRAFT, f"draft.{self._lane}", request_id)

    def _ring_on(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._many)
                self._condition.wait(max(0.0, self._rung_at + BETWEEN_RINGS_S - time.monotonic()))
                hint, many = self._hint, min(self._many, PER_PERMIT)
                self._many -= many
                self._rung_at = self._rung_at if self._many else time.monotonic()
            if hint is not None:
                _send(DRAFT, f"draft.{self._lane}", hint, many)


_BELLS = {"stat": _Bell("stat"), "routine": _Bell("routine")}


def ring(lane: Lane, request_id: UUID) -> bool:
    """Lets a worker know that something waits in `lane`; False when the broker is away, and then the clerk rings again.

    Requests that come within 20 ms of one another share a permit, up to eight of them: a burst costs the broker an eighth of its messages.
    """
    return _BELLS[lane].ring(request_id)


def canary() -> bool:
    """A permit for nothing, in a message of its own: whoever consumes it shows that it does."""
    return _send(DRAFT, "draft.routine", UUID(int=0))


def ring_score(sign_off_id: UUID) -> bool:
    """Asks for the score of a sign-off; False when the broker is away, and then the clerk asks again."""
    return _send(SCORE, "score", sign_off_id)


def ring_training(run_id: UUID) -> bool:
    """Asks a training worker to take a run; False when the broker is away, and then the clerk asks again."""
    return _send(TRAIN, "training", run_id)
