"""What other machines ask this one; and the process itself."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from core import db, queue
from core.embedded import Servers
from core.identity import Keyring
from core.processes import DEAF_S, Presence
from core.settings import WorklistSettings
from core.states import Reason
from tests.worklist.door import DRAFT, Door
from worklist.app import create_app


def test_a_process_that_can_work_is_ready(door: Door) -> None:
    assert door.client.get("/healthz").json() == {"status": "ok"}
    assert door.client.get("/readyz").json() == {"status": "ready"}


def test_ready_says_what_is_missing(door: Door) -> None:
    queue.configure("redis+socket:///nowhere/valkey.sock")
    answer = door.client.get("/readyz")
    assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")
    assert answer.json()["detail"] == "The broker cannot be reached."


def test_ready_says_that_the_schema_is_another_releases(door: Door) -> None:
    with db.transaction(door.engine) as session:
        ours = session.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one()
        session.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    try:
        answer = door.client.get("/readyz")
    finally:
        with db.transaction(door.engine) as session:
            session.execute(sa.text("UPDATE alembic_version SET version_num = :ours"), {"ours": ours})
    assert answer.status_code == 503
    assert "0000" in answer.json()["detail"]


def test_without_a_database_a_process_lives_and_is_not_ready(
    settings: WorklistSettings, keyring: Keyring, broker_url: str
) -> None:
    queue.configure(broker_url)
    with TestClient(create_app(settings, db.connect("postgresql:///valuer?host=/nowhere"), keyring)) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["detail"] == "The database cannot be reached."


def test_metrics_are_for_this_machine_or_for_a_key(door: Door) -> None:
    assert door.call("GET", "/metrics", None).status_code == 401
    assert door.call("GET", "/metrics", "viewer").status_code == 200
    local = TestClient(door.app, client=("127.0.0.1", 1234))
    assert local.get("/metrics").status_code == 200
    assert local.get("/metrics", headers={"X-Forwarded-For": "10.0.0.8"}).status_code == 401


def test_metrics_count_the_queue_and_hold_no_id(door: Door) -> None:
    made = door.send(priority="stat")
    door.call("GET", f"/v1/requests/{made}")
    text = door.call("GET", "/metrics", "viewer").text
    assert 'valuer_requests{lane="stat",state="queued"} 1.0' in text
    assert 'valuer_http_answers_total{method="GET",route="/v1/requests/{request_id}",status="200"} 1.0' in text
    assert made not in text
    assert "A-1" not in text


def test_metrics_tell_of_the_drafting_without_a_text(door: Door) -> None:
    door.sent_and_drafted()
    door.send(accession="A-2")
    door.settle(reason=Reason.TOO_LONG)
    text = door.call("GET", "/metrics", "viewer").text
    assert "valuer_generation_end_ratio 1.0" in text
    assert "valuer_generation_loop_ratio 0.0" in text
    assert "valuer_generation_null_ratio 0.0" in text
    assert "valuer_request_tokens_per_second 100.0" in text
    assert 'valuer_requests_without_draft{reason="too_long"} 1.0' in text
    assert 'valuer_attempts{state="finished"} 2.0' in text
    assert 'valuer_request_seconds_bucket{lane="routine",le="+Inf"} 1.0' in text
    assert DRAFT[:6] not in text


def test_ready_names_a_worker_that_no_permit_reaches(door: Door) -> None:
    worker = Presence(door.engine, "worker", in_flight=1)
    worker.watch(lambda: {"permit_age_s": 5})
    worker.update("ready")
    assert worker.name not in door.client.get("/readyz").text
    worker.watch(lambda: {"permit_age_s": DEAF_S + 1})
    worker.update()
    answer = door.client.get("/readyz")
    assert (answer.status_code, worker.name in answer.json()["detail"]) == (503, True)
    worker.stop()
    assert worker.name not in door.client.get("/readyz").text


@pytest.mark.parametrize("path", ["/sign-in", "/v1/worklist", "/nothing", "/healthz", "/static/valuer.css"])
def test_every_answer_carries_the_security_headers(door: Door, path: str) -> None:
    headers = door.client.get(path, follow_redirects=False).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert ("no-store" in headers["cache-control"]) is not path.startswith("/static")


def test_every_file_that_the_pages_name_is_ours_and_is_served(door: Door) -> None:
    import re

    browser = door.browser()
    made = door.sent_and_drafted()
    named = {
        address
        for path in ("/", f"/cases/{made}", "/sign-in")
        for address in re.findall(r'(?:src|href)="([^"]+)"', browser.get(path).text)
    }
    assert not any(address.startswith(("http", "//")) for address in named)
    files = [address for address in named if address.startswith("/static/")]
    assert len(files) == 4
    for address in files:
        assert door.client.get(address).status_code == 200


def test_the_process_serves_and_stops_with_an_open_stream_when_it_is_told(
    door: Door, servers: Servers, home: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "VALUER_HOME": str(home),
        "VALUER_PORT": str(port),
        "VALUER_DATABASE_URL": door.engine.url.set(drivername="postgresql").render_as_string(hide_password=False),
        "VALUER_BROKER_URL": servers.broker_url,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "worklist.app"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(300):
            assert process.poll() is None
            try:
                ready = httpx.get(f"{address}/readyz?canary=张三")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert ready.json() == {"status": "ready"}
        assert "server" not in httpx.get(f"{address}/nothing/张三?name=张三").headers
        headers = {"Authorization": f"Bearer {door.keys['viewer']}"}
        with httpx.stream("GET", f"{address}/v1/worklist/stream", headers=headers, timeout=20) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: ready"
            process.send_signal(signal.SIGTERM)
            assert "event: change" not in list(lines)
    finally:
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=15)
    assert process.returncode == 0
    assert '"route": "/v1/worklist/stream"' in logged
    assert "张三" not in logged
    assert "%E5" not in logged
    with db.transaction(door.engine) as session:
        assert session.execute(sa.text("SELECT count(*) FROM processes")).scalar_one() == 0


def test_the_process_does_not_start_on_a_schema_of_another_release(servers: Servers, tmp_path: Path) -> None:
    environment = os.environ | {
        "VALUER_HOME": str(tmp_path),
        "VALUER_DATABASE_URL": servers.database_url,
        "VALUER_BROKER_URL": servers.broker_url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "worklist.app"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "this release needs" in done.stderr
