"""What happens when things die: every request still settles, once, without a hand on it. Judged from outside, by reading PostgreSQL."""

import os
import shutil
import signal
import time
from uuid import UUID

import psutil
import pytest

from core import embedded
from sandbox import generator
from tests.flow.conftest import Running

pytestmark = pytest.mark.timeout(900)  # the first one waits for a whole demo


def send(running: Running, prefix: str, count: int, **more: str) -> list[UUID]:
    """Requests of hospital 1 with held-out findings."""
    reports = [each for each in generator.generate("demo", scale=0.002, seed=77, houses=(1,)) if each.impression]
    ids = []
    with running.http() as http:
        for number, report in enumerate(reports[:count]):
            body = {
                "institution": "sandbox-1",
                "accession": f"{prefix}-{number}",
                "modality": report.modality,
                "patient": {"id": report.person.id, "sex": report.sex, "age": report.age},
                "findings": report.findings,
                **more,
            }
            answer = http.post("/v1/requests", json=body)
            assert answer.status_code == 202, answer.text
            ids.append(UUID(answer.json()["id"]))
    return ids


def drafting(running: Running, ids: list[UUID]) -> int:
    """How many of them a worker holds now."""
    return int(
        running.town.rows("SELECT count(*) FROM draft_requests WHERE id = ANY(%s) AND state = 'drafting'", ids)[0][0]
    )


def settled(running: Running, ids: list[UUID]) -> bool:
    """Whether each has its answer."""
    query = "SELECT count(*) FROM draft_requests WHERE id = ANY(%s) AND state IN ('drafted', 'withheld')"
    return bool(running.town.rows(query, ids)[0][0] == len(ids))


def judge(running: Running, ids: list[UUID]) -> None:
    """The invariants: one visible draft for each drafted request, none for another, no lease left, no attempt left open."""
    rows = running.town.rows(
        "SELECT r.state, r.lease, (SELECT count(*) FROM drafts d WHERE d.request_id = r.id AND d.visible),"
        " (SELECT count(*) FROM attempts a WHERE a.request_id = r.id AND a.state = 'running') FROM draft_requests r WHERE id = ANY(%s)",
        ids,
    )
    assert len(rows) == len(ids)
    for state, lease, visible, running_attempts in rows:
        assert (visible, lease, running_attempts) == (1 if state == "drafted" else 0, None, 0)


def test_a_worker_killed_in_the_middle_of_drafts_loses_and_doubles_nothing(running: Running) -> None:
    ids = send(running, "kill", 8)
    running.until(lambda: drafting(running, ids) >= 2)
    os.kill(running.pid("worker"), signal.SIGKILL)
    running.until(lambda: settled(running, ids), 180)
    judge(running, ids)
    crashed = running.town.rows("SELECT count(*) FROM attempts WHERE request_id = ANY(%s) AND state = 'crashed'", ids)
    assert crashed[0][0] >= 1


def test_a_broker_killed_and_wiped_loses_nothing(running: Running) -> None:
    ids = send(running, "wipe", 12)
    running.until(lambda: drafting(running, ids) >= 1)
    (valkey,) = [each for each in embedded.status(running.town.home) if each.name == "valkey"]
    assert valkey.pid is not None
    data = (running.town.home / "servers").resolve() / "valkey"
    os.kill(valkey.pid, signal.SIGKILL)
    for path in data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    late = send(running, "late", 2)  # the door takes requests while its doorbell is away
    running.until(lambda: settled(running, ids + late), 240)
    judge(running, ids + late)


def test_a_process_that_dies_is_started_again(running: Running) -> None:
    before = running.pid("score")
    os.kill(before, signal.SIGKILL)
    time.sleep(1)
    running.until(lambda: running.pid("score") not in (before, None), 60)


def test_ctrl_c_leaves_no_process(running: Running) -> None:
    processes = [psutil.Process(int(each["pid"])) for each in running.status()["processes"]]
    running.process.send_signal(signal.SIGINT)
    running.process.wait(timeout=120)
    _, alive = psutil.wait_procs([each for each in processes if each.is_running()], timeout=10)
    left = [each.name() for each in alive if each.status() != psutil.STATUS_ZOMBIE]  # init takes its time to bury
    assert left == []
    assert len(processes) >= 8
