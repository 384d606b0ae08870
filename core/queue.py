"""The Celery application, its queue and task names, and the bell.

A message is a permit to work: it carries an id as a hint and nothing clinical, and losing every message loses nothing, since the clerk rings
again for what waits in PostgreSQL. Retries, leases and deadlines are rows of ours; Celery's are off.
"""

import logging
import os
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

app = Celery("valuer", set_as_current=True)


def _queues(quorum: bool) -> list[Queue]:
    """One direct queue per name. On RabbitMQ they are quorum queues: replicated, and never lost with a broker's restart."""
    arguments = {"x-queue-type": "quorum"} if quorum else None
    return [Queue(name, Exchange(name, type="direct"), routing_key=name, queue_arguments=arguments) for name in QUEUES]


def configure(broker_url: str) -> Celery:
    """Points the application at its broker: `redis://`, `redis+socket://` or `amqp://`, and lets go of a former one."""
    pools.reset()
    app._after_fork()  # forgets the pools of a former broker; Celery has no public name for it
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


def _send(task: str, queue: str, argument: UUID) -> bool:
    try:
        app.send_task(
            task,
            args=[str(argument)],
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


def ring(lane: Lane, request_id: UUID) -> bool:
    """Lets a worker know that something waits in `lane`; False when the broker is away, and then the clerk rings again."""
    return _send(DRAFT, f"draft.{lane}", request_id)


def ring_score(sign_off_id: UUID) -> bool:
    """Asks for the score of a sign-off; False when the broker is away, and then the clerk asks again."""
    return _send(SCORE, "score", sign_off_id)


def ring_training(run_id: UUID) -> bool:
    """Asks a training worker to take a run; False when the broker is away, and then the clerk asks again."""
    return _send(TRAIN, "training", run_id)
