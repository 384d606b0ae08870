"""A number is a number: what another reader of JSON might take for one, or for none, is refused in every body of the API."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from core import db
from tests.builders import body
from tests.worklist.door import Door

JSON = {"Content-Type": "application/json"}
LOOKALIKES = ["true", "false", '"61"', '""', "61.5", "[61]", "{}", "1e999", "-1e999", "1e3", str(10**18), "9" * 4000]


@pytest.mark.parametrize("number", LOOKALIKES, ids=lambda number: number[:8])
def test_an_age_that_is_no_whole_number_is_refused_by_its_name(door: Door, number: str) -> None:
    sent = json.dumps(body()).replace('"age": 61', f'"age": {number}')
    assert number in sent
    answer = door.call("POST", "/v1/requests", content=sent.encode(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert answer.json()["detail"].startswith("The request does not fit: patient.age: ")
    with db.transaction(door.engine) as session:
        assert session.execute(sa.text("SELECT count(*) FROM draft_requests")).scalar_one() == 0


@pytest.mark.parametrize(
    "field", ["accession", "exam_title", "patient_class", "history", "author", "findings", "priority"]
)
@pytest.mark.parametrize("value", [True, 1, 1.5, ["A"], {"A": 1}], ids=str)
def test_a_text_that_is_no_text_is_refused_by_its_name(door: Door, field: str, value: Any) -> None:
    answer = door.call("POST", "/v1/requests", json=body(**{field: value}))
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert f"{field}: " in answer.json()["detail"]


@pytest.mark.parametrize("version", ["true", '"1"', "1.0", "1e0", "[1]", "0", "-1", str(2**31), "1e999"])
@pytest.mark.parametrize(
    ("path", "rest"),
    [("events", '"kind": "shown"'), ("sign", '"impression": "右肺上叶结节。"')],
    ids=["events", "sign"],
)
def test_a_draft_s_version_that_is_no_whole_number_is_refused_by_its_name(
    door: Door, path: str, rest: str, version: str
) -> None:
    made = door.send()
    sent = f'{{{rest}, "draft_version": {version}}}'
    answer = door.call(
        "POST", f"/v1/requests/{made}/{path}", "li" if path == "sign" else "system", content=sent.encode(), headers=JSON
    )
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert "draft_version: " in answer.json()["detail"]


@pytest.mark.parametrize("numbers", ["[true]", '["1"]', "[1.0]", "1", "true", "[[1]]"])
def test_confirmed_issues_are_whole_numbers(door: Door, numbers: str) -> None:
    made = door.send()
    sent = f'{{"impression": "右肺上叶结节。", "draft_version": null, "confirmed": {numbers}}}'
    answer = door.call("POST", f"/v1/requests/{made}/sign", "li", content=sent.encode(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert "confirmed" in answer.json()["detail"]


@pytest.mark.parametrize(
    "sent",
    [
        '{"kind": "shown", "kind": "opened"}',
        '{"kind": "shown", "\\u006bind": "opened"}',
        '{"kind": "shown", "draft_version": NaN}',
        '{"kind": "shown", "draft_version": -Infinity}',
        '{"kind": "shown", "draft_version": ' + "9" * 5000 + "}",
        '{"kind": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
    ids=["twice", "twice by escape", "nan", "infinity", "long", "deep"],
)
def test_json_that_could_be_read_two_ways_is_400_at_every_address(door: Door, sent: str) -> None:
    made = door.send()
    for path, who in (
        (f"/v1/requests/{made}/events", "system"),
        (f"/v1/requests/{made}/sign", "li"),
        ("/v1/requests", "system"),
    ):
        answer = door.call("POST", path, who, content=sent.encode(), headers=JSON)
        assert (answer.status_code, answer.json()["error"]) == (400, "malformed"), path


@pytest.mark.parametrize("text", ["右肺\0结节。", "右肺\ud800结节。"], ids=["nul", "half"])
def test_a_signature_that_is_no_text_is_refused(door: Door, text: str) -> None:
    made = door.send()
    sent = json.dumps({"impression": text, "draft_version": None}).encode()
    answer = door.call("POST", f"/v1/requests/{made}/sign", "li", content=sent, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert door.state(made) == "queued"


@pytest.mark.parametrize("field", ["id", "callback_url", "prior_impression"])
def test_half_a_character_is_refused_in_every_other_field_too(door: Door, field: str) -> None:
    changed = {"patient": {"id": "P\ud800"}} if field == "id" else {field: "右\udfff肺"}
    answer = door.call("POST", "/v1/requests", content=json.dumps(body(**changed)).encode(), headers=JSON)
    assert answer.status_code == 422, answer.text
