"""What a card does to a worker, proved on the worker's own process: it ends with 70 and gives its work back, or begins again smaller and goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
import torch

from core import db, queue, registry, requests
from core.identity import Keyring
from core.states import AttemptState, RequestState
from core.tables import Attempt, DraftRequest
from tests.builders import ADMIN, accept, institution
from tests.engine.conftest import AdapterMaker, make_adapter, tiny_base, tiny_llama, tiny_tokenizer
from worker.app import FATAL_EXIT
from worker.engine.adapter import attach, verify
from worker.engine.weights import digest

__all__ = ["make_adapter", "tiny_base"]  # fixtures of the engine's tests
PATIENCE_S = 400.0
"""A process of its own imports torch first: most of a minute where ten others want the core."""
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


class Ward:
    """A department whose worker has a card that goes wrong."""

    def __init__(self, database: sa.Engine, keyring: Keyring, environment: dict[str, str], base: Path) -> None:
        self.database, self.keyring, self._environment, self._base = database, keyring, environment, base
        self.process: subprocess.Popen[bytes] | None = None

    def accept(self, accession: str) -> UUID:
        with db.transaction(self.database) as session:
            return accept(session, self.keyring, ADMIN, accession=accession).id

    def row(self, identity: UUID) -> DraftRequest:
        with db.transaction(self.database) as session:
            return requests.get(session, identity, ADMIN)

    def attempts(self, identity: UUID) -> list[tuple[AttemptState, str | None]]:
        with db.transaction(self.database) as session:
            rows = session.exec(sa.select(Attempt).where(Attempt.request_id == identity).order_by(Attempt.number))  # type: ignore[call-overload]
            return [(row.state, row.error) for row in rows.scalars()]

    def work(self, harm: str) -> subprocess.Popen[bytes]:
        """The worker, started."""
        command = [sys.executable, "-m", "tests.worker.faulty", harm, str(self._base)]
        self.process = subprocess.Popen(command, env=self._environment)
        return self.process

    def until(self, true: Callable[[], bool], ring: UUID) -> None:
        """Rings, as the clerk would, until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline
            queue.ring("routine", ring)
            time.sleep(0.5)


@pytest.fixture
def ward(
    database: sa.Engine,
    database_url: str,
    broker_url: str,
    home: Path,
    keyring: Keyring,
    tiny_base: Path,
    make_adapter: AdapterMaker,
) -> Iterator[Ward]:
    """A version with a golden answer of its own serves everybody."""
    folder = make_adapter(tiny_base, "plain")
    model = attach(tiny_llama(len(tiny_tokenizer())), verify(folder, digest(tiny_base)))
    with torch.no_grad():
        first = int(model(input_ids=torch.tensor([[0, 5, 6, 7]])).logits[0, -1].argmax())
    golden = {"prompt_tokens": [0, 5, 6, 7], "first_tokens": [first]}
    with db.transaction(database) as session:
        institution(session)
        version = registry.register(session, make_adapter(tiny_base, "v1", golden=golden))
        registry.promote(session, version.id, "test")
    queue.configure(broker_url)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VALUER_")}
    settings = {
        "HOME": str(home),
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "HEARTBEAT_S": "1",
        "IN_FLIGHT": "2",
        "STAT_THREADS": "0",
        "MAX_NEW_TOKENS": "64",
        "MAX_INPUT_TOKENS": "1500",
    }
    made = Ward(database, keyring, {**kept, **{f"VALUER_{name}": value for name, value in settings.items()}}, tiny_base)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(60)


def test_an_error_of_the_card_ends_the_process_with_70_and_its_work_goes_back(ward: Ward) -> None:
    identity = ward.accept("A")
    process = ward.work("illegal")
    ward.until(lambda: process.poll() is not None, identity)
    assert process.returncode == FATAL_EXIT == 70
    assert ward.row(identity).state is RequestState.QUEUED
    assert (AttemptState.RETRIED, "engine_restarting") in ward.attempts(identity)
    assert ward.row(identity).crashes == 0  # nobody has to wait for a lease that runs out


def test_too_little_memory_is_no_reason_to_end_and_what_did_not_suffice_twice_is_tried_again(ward: Ward) -> None:
    identity = ward.accept("A")
    process = ward.work("memory")
    ward.until(lambda: ward.row(identity).state in (RequestState.WITHHELD, RequestState.DRAFTED), identity)
    assert process.poll() is None
    assert ward.attempts(identity)[0] == (AttemptState.RETRIED, "out_of_memory")
    assert ward.attempts(identity)[-1][0] is AttemptState.FINISHED
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def test_two_degenerate_answers_in_a_row_and_a_wrong_golden_answer_end_the_process_with_70(ward: Ward) -> None:
    ids = [ward.accept(f"A-{number}") for number in range(4)]
    process = ward.work("garbage")
    ward.until(lambda: process.poll() is not None, ids[0])
    assert process.returncode == FATAL_EXIT
    assert all(ward.row(identity).lease is None for identity in ids)
