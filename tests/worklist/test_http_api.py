"""The calls of the HTTP table, each as docs/interfaces.md says it."""

import json
import re
import time
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlmodel import select

from core import db, queue
from core.states import Reason
from core.tables import DraftRequest, RequestEvent, SignOff
from tests.builders import FINDINGS, body, institution
from tests.worklist.door import DRAFT, LABEL, Door
from worklist.shapes import RequestOut, RequestsOut, SignedOut, Standing, WorklistOut


def described(shape: type[BaseModel], answer: Any) -> bool:
    """Whether an answer is exactly what /openapi.json says of it."""
    return bool(shape.model_validate(answer).model_dump(mode="json", exclude_unset=True) == answer)


def test_a_new_request_is_202_and_the_same_again_is_200_with_the_same_id(door: Door) -> None:
    first = door.call("POST", "/v1/requests", json=body())
    again = door.call("POST", "/v1/requests", json=body())
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert first.json()["state"] == "queued"
    assert first.headers["location"] == f"/v1/requests/{first.json()['id']}"
    assert described(Standing, first.json())


def test_changed_findings_supersede_an_open_request_and_amend_a_signed_one(door: Door) -> None:
    first = door.send()
    second = door.send(findings="右肺上叶见结节，大小约9mm。")
    assert door.state(first) == "superseded"
    assert door.call("GET", f"/v1/requests/{second}").json()["supersedes"] == first
    door.call("POST", f"/v1/requests/{second}/sign", "li", json={"impression": "右肺上叶结节。", "draft_version": None})
    third = door.send(findings="右肺上叶见结节，大小约10mm。")
    assert door.state(second) == "signed"
    assert door.call("GET", f"/v1/requests/{third}").json()["amends"] == second


def test_a_cancelled_request_can_be_asked_for_again(door: Door) -> None:
    first = door.send()
    assert door.call("DELETE", f"/v1/requests/{first}").json() == {"id": first, "state": "cancelled"}
    assert door.call("DELETE", f"/v1/requests/{first}").status_code == 200
    again = door.call("POST", "/v1/requests", json=body())
    assert again.status_code == 202
    assert again.json()["id"] != first


def test_a_draft_is_answered_with_its_label_beside_the_text(door: Door) -> None:
    made = door.send()
    issue = {
        "kind": "side",
        "severity": "red",
        "span_findings": [0, 4],
        "span_impression": [2, 6],
        "message": "侧别不一致",
    }
    door.settle(issues=[issue])
    answer = door.call("GET", f"/v1/requests/{made}").json()
    assert described(RequestOut, answer)
    assert len(answer["draft"].pop("evidence")["sentences"]) == 2
    assert answer == {
        "id": made,
        "state": "drafted",
        "draft": {"version": 1, "impression": DRAFT, "issues": [issue], "model": "demo-1", "label": LABEL},
    }
    assert LABEL not in answer["draft"]["impression"]


def test_a_request_without_a_draft_says_why(door: Door) -> None:
    made = door.send()
    door.settle(reason=Reason.NO_MODEL)
    assert door.call("GET", f"/v1/requests/{made}").json() == {"id": made, "state": "withheld", "reason": "no_model"}


def test_an_accession_number_finds_its_requests_newest_first(door: Door) -> None:
    first = door.send()
    second = door.send(findings="胸部未见明显异常。")
    answer = door.call("GET", "/v1/requests?accession=a-1").json()
    assert [row["id"] for row in answer["requests"]] == [second, first]
    assert described(RequestsOut, answer)
    assert door.call("GET", "/v1/requests?accession=A-2").json() == {"requests": []}


def test_an_administrator_names_the_institution_of_an_accession_number(door: Door) -> None:
    made = door.send()
    assert door.call("GET", "/v1/requests?accession=A-1", "admin").status_code == 422
    answer = door.call("GET", "/v1/requests?accession=A-1&institution=north", "admin").json()
    assert [row["id"] for row in answer["requests"]] == [made]


def test_the_change_feed_tells_each_change_once_from_its_cursor_on(door: Door) -> None:
    made = [door.send(accession=f"A-{number}") for number in range(3)]
    first = door.call("GET", "/v1/requests?since=").json()
    assert [row["id"] for row in first["requests"]] == made
    assert door.call("GET", "/v1/requests", params={"since": first["cursor"]}).json() == {
        "requests": [],
        "cursor": first["cursor"],
    }
    door.settle()
    after = door.call("GET", "/v1/requests", params={"since": first["cursor"]}).json()
    assert [(row["id"], row["state"]) for row in after["requests"]] == [(made[0], "drafted")]


@pytest.mark.parametrize("query", ["", "?accession=A-1&since=", "?since=nonsense", "?accession="])
def test_a_look_up_without_one_clear_question_is_refused(door: Door, query: str) -> None:
    answer = door.call("GET", f"/v1/requests{query}")
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "detail"}


def test_regenerate_puts_a_settled_request_back_and_keeps_the_present_draft(door: Door) -> None:
    made = door.sent_and_drafted()
    assert door.call("POST", f"/v1/requests/{made}/regenerate").json() == {"id": made, "state": "queued"}
    assert door.call("GET", f"/v1/requests/{made}").json()["draft"]["version"] == 1
    assert door.call("POST", f"/v1/requests/{made}/regenerate").status_code == 409
    door.settle("右肺上叶结节，建议复查。")
    assert door.call("GET", f"/v1/requests/{made}").json()["draft"]["version"] == 2


def test_events_are_kept_with_who_and_which_version(door: Door) -> None:
    made = door.sent_and_drafted()
    for kind in ("shown", "opened", "copied", "accepted", "rejected"):
        answer = door.call("POST", f"/v1/requests/{made}/events", json={"kind": kind, "draft_version": 1})
        assert answer.status_code == 201
    with db.transaction(door.engine) as session:
        rows = session.exec(select(RequestEvent)).all()
    assert [row.kind for row in rows] == ["shown", "opened", "copied", "accepted", "rejected"]
    assert {(row.draft_version, row.actor.split(":")[0]) for row in rows} == {(1, "key")}


@pytest.mark.parametrize(
    "payload", [{"kind": "loved"}, {"kind": "shown", "draft_version": 7}, {}, [], {"kind": "shown", "x": 1}]
)
def test_an_event_that_cannot_be_is_refused(door: Door, payload: object) -> None:
    made = door.sent_and_drafted()
    assert door.call("POST", f"/v1/requests/{made}/events", json=payload).status_code == 422


def test_a_person_signs_by_token_and_the_score_is_asked_for(door: Door) -> None:
    made = door.sent_and_drafted()
    answer = door.call(
        "POST", f"/v1/requests/{made}/sign", "li", json={"impression": "右肺上叶结节。", "draft_version": 1}
    )
    assert answer.status_code == 200
    assert answer.json() == {"id": made, "state": "signed", "version": 1}
    assert described(SignedOut, answer.json())
    told = door.call("GET", f"/v1/requests/{made}").json()
    assert told["signed"] == {"version": 1, "impression": "右肺上叶结节。", "place": "here"}
    assert described(RequestOut, told)
    with db.transaction(door.engine) as session:
        signed = session.exec(select(SignOff)).one()
        assert (signed.impression, signed.place, signed.signer_grade) == ("右肺上叶结节。", "here", "senior")
    again = door.call("POST", f"/v1/requests/{made}/sign", "li", json={"impression": "另一结论。", "draft_version": 1})
    assert (again.status_code, again.json()["error"]) == (409, "already_signed")


def test_signing_an_outdated_draft_is_409_and_changes_nothing(door: Door) -> None:
    made = door.sent_and_drafted()
    door.call("POST", f"/v1/requests/{made}/regenerate")
    door.settle("右肺上叶结节。")
    answer = door.call("POST", f"/v1/requests/{made}/sign", "li", json={"impression": DRAFT, "draft_version": 1})
    assert (answer.status_code, answer.json()["error"]) == (409, "outdated_draft")
    assert door.state(made) == "drafted"


def test_signing_without_a_draft_is_legal(door: Door) -> None:
    made = door.send()
    answer = door.call(
        "POST", f"/v1/requests/{made}/sign", "li", json={"impression": "未见异常。", "draft_version": None}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "payload",
    [
        {"impression": "未见异常。"},
        {"draft_version": 1},
        {"impression": "", "draft_version": 1},
        {"impression": " \n", "draft_version": 1},
        {"impression": "未见\0异常", "draft_version": 1},
        {"impression": "异" * 8001, "draft_version": 1},
        {"impression": f"{LABEL}：未见异常。", "draft_version": 1},
        {"impression": "未见异常。", "draft_version": "1"},
        {"impression": "未见异常。", "draft_version": 2**40},
        {"impression": "未见异常。", "draft_version": 1, "final": True},
    ],
)
def test_a_signature_that_does_not_fit_is_refused(door: Door, payload: dict[str, object]) -> None:
    made = door.sent_and_drafted()
    answer = door.call("POST", f"/v1/requests/{made}/sign", "li", json=payload)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "detail"}
    assert door.state(made) == "drafted"


def test_the_worklist_says_what_waits_stat_first(door: Door) -> None:
    routine = door.send(accession="A-1")
    stat = door.send(accession="A-2", priority="stat")
    signed = door.send(accession="A-3")
    door.call("POST", f"/v1/requests/{signed}/sign", "li", json={"impression": "未见异常。", "draft_version": None})
    answer = door.call("GET", "/v1/worklist", "li").json()
    assert described(WorklistOut, answer)
    assert [(row["id"], row["accession"]) for row in answer["requests"]] == [(stat, "A-2"), (routine, "A-1")]
    of_state = door.call("GET", "/v1/worklist?state=signed&state=withheld", "li").json()
    assert [row["id"] for row in of_state["requests"]] == [signed]
    assert door.call("GET", "/v1/worklist?state=lost", "li").status_code == 422


def test_findings_in_gb18030_are_stored_as_the_same_text(door: Door) -> None:
    text = "右肺上叶见结节，大小约8mm×6mm，㎜²③，𠮷。"
    data = json.dumps(body(findings=text), ensure_ascii=False).encode("gb18030")
    answer = door.call(
        "POST", "/v1/requests", content=data, headers={"Content-Type": 'application/json; charset="GB18030"'}
    )
    assert answer.status_code == 202
    with db.transaction(door.engine) as session:
        assert session.exec(select(DraftRequest)).one().findings == text


def test_a_client_that_calls_its_gb18030_gbk_is_understood(door: Door) -> None:
    data = (
        '{"institution":"north","accession":"A","modality":"CT","patient":{"id":"P"},"findings":"右肺未见异常。"}'
    ).encode("gbk")
    answer = door.call("POST", "/v1/requests", content=data, headers={"Content-Type": "application/json;charset=GBK"})
    assert answer.status_code == 202


def test_the_broker_being_away_neither_refuses_nor_holds_up_a_request(door: Door) -> None:
    queue.configure("redis+socket:///nowhere/valkey.sock")
    assert door.call("POST", "/v1/requests", json=body()).status_code == 202
    began = time.monotonic()
    assert door.call("POST", "/v1/requests", json=body(accession="A-2")).status_code == 202
    assert time.monotonic() - began < 4


def test_the_description_names_every_call_and_no_other(door: Door) -> None:
    paths = door.client.get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, calls in paths.items() for method in calls} == {
        ("POST", "/v1/requests"),
        ("GET", "/v1/requests"),
        ("GET", "/v1/requests/{request_id}"),
        ("DELETE", "/v1/requests/{request_id}"),
        ("POST", "/v1/requests/{request_id}/regenerate"),
        ("POST", "/v1/requests/{request_id}/events"),
        ("POST", "/v1/requests/{request_id}/sign"),
        ("GET", "/v1/worklist"),
        ("GET", "/v1/worklist/stream"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    }


def test_everything_that_the_description_refers_to_is_in_it(door: Door) -> None:
    whole = door.client.get("/openapi.json").json()
    refers = set(re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(whole)))
    assert refers
    for place in refers:
        found = whole
        for step in place.removeprefix("#/").split("/"):
            assert step in found, place
            found = found[step]
    sent = whole["paths"]["/v1/requests"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert sent["properties"]["patient"]["properties"]["sex"]["anyOf"][0]["enum"] == ["F", "M", "O", "U"]


def test_nothing_that_is_not_signed_is_called_final(door: Door) -> None:
    made = door.sent_and_drafted()
    for path in (f"/v1/requests/{made}", "/v1/requests?since=", "/v1/worklist"):
        assert "final" not in door.call("GET", path).text


def test_findings_are_never_told_back(door: Door) -> None:
    made = door.sent_and_drafted()
    answers = [door.call("GET", path).text for path in (f"/v1/requests/{made}", "/v1/requests?since=", "/v1/worklist")]
    answers.append(door.call("POST", "/v1/requests", json=body(modality=FINDINGS)).text)
    answers.append(door.call("GET", f"/v1/requests/{uuid4()}").text)
    assert not any(FINDINGS[:8] in answer for answer in answers)


def test_every_deed_leaves_an_audit_event(door: Door) -> None:
    made = door.sent_and_drafted()
    door.call("GET", f"/v1/requests/{made}", "li")
    door.call("POST", f"/v1/requests/{made}/sign", "li", json={"impression": DRAFT, "draft_version": 1})
    with db.transaction(door.engine) as session:
        actions = (
            session.execute(
                sa.text("SELECT action FROM audit_events WHERE subject = :s ORDER BY id"), {"s": f"request:{made}"}
            )
            .scalars()
            .all()
        )
    assert actions == ["request.accepted", "draft.shown", "draft.read", "request.signed"]


def test_an_institution_may_demand_that_red_issues_are_confirmed_over_the_api_too(door: Door) -> None:
    made = door.send()
    red = {"kind": "side", "severity": "red", "span_findings": [0, 2], "span_impression": [2, 4], "message": "左右不符"}
    door.settle(issues=[{**red, "kind": "number", "severity": "amber"}, red])
    body = {"impression": "右肺上叶结节。", "draft_version": 1}
    with db.transaction(door.engine) as session:
        institution(session, confirm_red=True)
    refused = door.call("POST", f"/v1/requests/{made}/sign", "li", json=body)
    assert (refused.status_code, refused.json()["error"]) == (409, "unconfirmed")
    assert "1 (side)" in refused.json()["detail"]
    assert door.state(made) == "drafted"
    signed = door.call("POST", f"/v1/requests/{made}/sign", "li", json={**body, "confirmed": [1]})
    assert signed.status_code == 200


def test_without_that_demand_the_published_body_signs_as_ever(door: Door) -> None:
    made = door.send()
    red = {"kind": "side", "severity": "red", "span_findings": [0, 2], "span_impression": [2, 4], "message": "左右不符"}
    door.settle(issues=[red])
    body = {"impression": "右肺上叶结节。", "draft_version": 1}
    assert door.call("POST", f"/v1/requests/{made}/sign", "li", json=body).status_code == 200


def test_a_hidden_draft_is_shown_by_no_call_and_scored_when_the_report_is_signed(door: Door) -> None:
    made = door.send()
    door.settle(hidden=True)
    told = door.call("GET", f"/v1/requests/{made}").json()
    assert told == {"id": made, "state": "withheld", "reason": "held_back"}
    for path in ("/v1/requests?since=", "/v1/requests?accession=A-1", "/v1/worklist"):
        assert DRAFT[:6] not in door.call("GET", path).text
    assert DRAFT[:6] not in door.browser().get(f"/requests/{made}").text
    door.call("POST", f"/v1/requests/{made}/sign", "li", json={"impression": "右肺上叶结节。", "draft_version": None})
    with db.transaction(door.engine) as session:
        signed = session.exec(select(SignOff)).one()
    assert (signed.exposure, signed.draft_id is not None) == ("hold_back", True)
