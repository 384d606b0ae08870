"""Another hospital does not exist: every endpoint answers its ids as it answers ids that nobody has."""

from typing import Any
from uuid import uuid4

import pytest

from tests.builders import body
from tests.worklist.door import Browser, Door

OF_ONE_REQUEST = [
    ("GET", "", None),
    ("GET", "?wait=1", None),
    ("DELETE", "", None),
    ("POST", "/regenerate", None),
    ("POST", "/events", {"kind": "shown"}),
    ("POST", "/sign", {"impression": "未见异常。", "draft_version": 1}),
]


@pytest.mark.parametrize(("method", "tail", "payload"), OF_ONE_REQUEST)
def test_another_institutions_request_answers_as_an_unknown_one(
    door: Door, method: str, tail: str, payload: Any
) -> None:
    made = door.sent_and_drafted()
    who = "ma" if tail == "/sign" else "system-south"
    options = {} if payload is None else {"json": payload}
    theirs = door.call(method, f"/v1/requests/{made}{tail}", who, **options)
    nobodys = door.call(method, f"/v1/requests/{uuid4()}{tail}", who, **options)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json() == nobodys.json()
    assert door.state(made) == "drafted"


def test_every_call_with_an_id_is_among_those_tested_above(door: Door) -> None:
    paths = door.client.get("/openapi.json").json()["paths"]
    described = {
        (method.upper(), path.split("}")[1]) for path, calls in paths.items() if "{" in path for method in calls
    }
    assert described == {(method, tail.split("?")[0]) for method, tail, _ in OF_ONE_REQUEST}


def test_lists_hold_ones_own_institution_only(door: Door) -> None:
    made = door.sent_and_drafted()
    for path in (
        "/v1/requests?accession=A-1",
        "/v1/requests?accession=A-1&institution=north",
        "/v1/requests?since=",
        "/v1/worklist",
    ):
        assert made in door.call("GET", path, "system").text
        assert door.call("GET", path, "system-south").json()["requests"] == []
        assert door.call("GET", path, "ma").json()["requests"] == []


def test_nobody_sends_for_another_institution(door: Door) -> None:
    answer = door.call("POST", "/v1/requests", "system-south", json=body())
    unknown = door.call("POST", "/v1/requests", "system-south", json=body(institution="nowhere"))
    assert answer.status_code == unknown.status_code
    assert answer.json() == unknown.json()
    assert door.call("GET", "/v1/worklist").json()["requests"] == []


def test_the_same_accession_number_in_two_hospitals_is_two_requests(door: Door) -> None:
    north, south = door.send(), door.send("system-south", institution="south")
    assert north != south
    assert door.state(north) == door.state(south) == "queued"


def test_the_pages_of_another_institution_are_not_there(door: Door) -> None:
    made = door.sent_and_drafted()
    south = door.browser("ma")
    fields = {"csrf": south.csrf(), "impression": "未见异常。", "draft_version": "1"}
    assert made not in south.get("/").text
    assert south.get(f"/cases/{made}").status_code == 404
    assert south.get(f"/cases/{made}/notice").status_code == 404
    for deed in ("sign", "regenerate", "reopen"):
        assert south.post(f"/cases/{made}/{deed}", fields).status_code == 404
    assert _lands(south, "/find?accession=A-1") == "/"
    assert "A-1" not in south.get(f"/?signed={made}").text
    assert door.state(made) == "drafted"


def test_an_administrator_sees_every_institution(door: Door) -> None:
    north, south = door.send(), door.send("system-south", institution="south", accession="B-1")
    assert {row["id"] for row in door.call("GET", "/v1/worklist", "admin").json()["requests"]} == {north, south}
    chief = door.browser("chief")
    assert _lands(chief, "/find?accession=B-1") == f"/cases/{south}"


def _lands(browser: Browser, path: str) -> str:
    return str(browser.get(path).url.path)
