"""Waiting for a draft: long polls and streams hear of it at once, hold nothing, and block nobody.

Times are compared with the sixty seconds of the longest wait, so that a busy machine fails no test.
"""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from core import db
from core.states import Reason
from tests.worklist.conftest import Later
from tests.worklist.door import Door
from worklist import access, api


def bearer(door: Door, who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {door.keys.get(who) or door.tokens[who]}"}


def timed(call: Any) -> tuple[Any, float]:
    began = time.monotonic()
    answer = call()
    return answer, time.monotonic() - began


def test_a_wait_ends_soon_after_the_draft_is_there(door: Door, later: Later) -> None:
    made = door.send()
    later(door.settle)
    answer, seconds = timed(lambda: door.call("GET", f"/v1/requests/{made}?wait=60"))
    assert answer.json()["state"] == "drafted"
    assert 0.3 < seconds < 15


@pytest.mark.parametrize("ending", ["withheld", "cancelled", "superseded", "signed"])
def test_a_wait_ends_however_the_request_ends(door: Door, later: Later, ending: str) -> None:
    made = door.send()
    deeds = {
        "withheld": lambda: door.settle(reason=Reason.NO_MODEL),
        "cancelled": lambda: door.call("DELETE", f"/v1/requests/{made}"),
        "superseded": lambda: door.send(findings="胸部未见明显异常。"),
        "signed": lambda: door.call(
            "POST", f"/v1/requests/{made}/sign", "li", json={"impression": "未见异常。", "draft_version": None}
        ),
    }
    later(deeds[ending])
    answer, seconds = timed(lambda: door.call("GET", f"/v1/requests/{made}?wait=60"))
    assert answer.json()["state"] == ending
    assert seconds < 15


def test_a_settled_request_is_answered_at_once_however_long_the_wait(door: Door) -> None:
    made = door.sent_and_drafted()
    answer, seconds = timed(lambda: door.call("GET", f"/v1/requests/{made}?wait=1e9"))
    assert answer.json()["state"] == "drafted"
    assert seconds < 15


def test_a_wait_without_news_ends_in_time_and_says_how_things_stand(door: Door) -> None:
    made = door.send()
    answer, seconds = timed(lambda: door.call("GET", f"/v1/requests/{made}?wait=0.6"))
    assert (answer.json()["id"], answer.json()["state"]) == (made, "queued")
    assert 0.5 < seconds < 15


def test_a_wait_is_cut_to_the_longest(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LONGEST_WAIT", 0.5)
    made = door.send()
    answer, seconds = timed(lambda: door.call("GET", f"/v1/requests/{made}?wait=600"))
    assert answer.json()["state"] == "queued"
    assert seconds < 15


def test_sixty_waits_hold_no_connection_and_block_nobody(door: Door, served: str) -> None:
    made = door.send()
    answers: list[int] = []

    def wait() -> None:
        answers.append(
            httpx.get(f"{served}/v1/requests/{made}?wait=60", headers=bearer(door, "system"), timeout=90).status_code
        )

    threads = [threading.Thread(target=wait) for _ in range(60)]
    for thread in threads:
        thread.start()
    time.sleep(2.5)
    with db.transaction(door.engine) as session:
        busy = session.execute(
            sa.text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
            )
        ).scalar_one()
    _, seconds = timed(lambda: httpx.get(f"{served}/v1/worklist", headers=bearer(door, "system"), timeout=10))
    door.settle()
    for thread in threads:
        thread.join(timeout=60)
    assert answers == [200] * 60
    assert busy <= 1  # the watch's own short look at most
    assert seconds < 15


def test_a_change_under_an_older_open_transaction_is_heard_of_at_once(door: Door, later: Later) -> None:
    made = door.send()
    with door.engine.connect() as old, old.begin():
        old.execute(sa.text("SELECT pg_current_xact_id()"))
        later(door.settle)
        answer, seconds = timed(lambda: door.call("GET", f"/v1/requests/{made}?wait=60"))
    assert answer.json()["state"] == "drafted"
    assert seconds < 15


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_a_stream_tells_ids_and_states_of_ones_own_institution_only(door: Door, served: str) -> None:
    with httpx.stream("GET", f"{served}/v1/worklist/stream", headers=bearer(door, "li"), timeout=10) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        heard = events(response)
        assert next(heard) == ("ready", {})
        door.send("system-south", institution="south")
        made = door.send()
        assert next(heard) == ("change", {"id": made, "state": "queued"})
        door.settle()  # south's, which is older
        door.settle()
        name, change = next(heard)
        assert (name, change["id"]) == ("change", made)
        assert set(change) == {"id", "state"}


def test_a_stream_needs_somebody(door: Door, served: str) -> None:
    assert httpx.get(f"{served}/v1/worklist/stream").status_code == 401


def test_a_stream_ends_when_its_person_is_disabled(door: Door, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "HEARTBEAT", 0.2)
    with httpx.stream("GET", f"{served}/v1/worklist/stream", headers=bearer(door, "li"), timeout=10) as response:
        heard = events(response)
        assert next(heard) == ("ready", {})
        with db.transaction(door.engine) as session:
            access.disable_user(session, "li", by="test")
        assert list(heard) == []


def test_a_stream_ends_with_its_session_however_busy_the_department_is(
    door: Door, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "HEARTBEAT", 1.0)
    with httpx.stream("GET", f"{served}/v1/worklist/stream", headers=bearer(door, "li"), timeout=10) as response:
        heard = events(response)
        assert next(heard) == ("ready", {})
        with db.transaction(door.engine) as session:
            access.disable_user(session, "li", by="test")
        stop, sent = threading.Event(), []

        def news() -> None:
            while not stop.wait(0.3) and len(sent) < 60:
                sent.append(door.send(accession=f"A-{len(sent)}"))

        thread = threading.Thread(target=news)
        thread.start()
        told = list(heard)
        stop.set()
        thread.join()
    assert len(told) < len(sent) < 60


def test_streams_do_not_keep_a_stopping_server(door: Door, served: str) -> None:
    with httpx.stream("GET", f"{served}/v1/worklist/stream", headers=bearer(door, "li"), timeout=10) as response:
        heard = events(response)
        assert next(heard) == ("ready", {})
        door.app.state.desk.watch.close()  # what the server does first when it is told to stop
        assert list(heard) == []


def test_a_waiting_request_tells_how_long_and_an_answered_one_does_not(door: Door) -> None:
    made = door.send()
    told = door.call("GET", f"/v1/requests/{made}").json()
    assert told["state"] == "queued"
    assert told["elapsed_s"] >= 0
    assert "expected_s" not in told
    assert "草稿已等待" in door.browser().get(f"/cases/{made}").text
    door.settle()
    assert "elapsed_s" not in door.call("GET", f"/v1/requests/{made}").json()
    assert "草稿已等待" not in door.browser().get(f"/cases/{made}").text
