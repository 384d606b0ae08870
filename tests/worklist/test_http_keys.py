"""Who may come in, and what each may do."""

import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from core import db
from core.errors import Conflict, Invalid, NotFound
from core.tables import ApiKey
from tests.builders import body
from tests.worklist.door import Door
from worklist import access


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer vk_0123456789abcdef_wrong",
        "Bearer vk__",
        "Bearer vk_zz_zz",
        "Bearer vt_wrong",
        "Bearer \udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
        "nonsense",
    ],
)
def test_a_wrong_credential_is_401_and_says_how_to_come_in(door: Door, header: str) -> None:
    answer = door.call("POST", "/v1/requests", None, json=body(), headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"] == "unauthenticated"


def test_without_a_credential_nothing_is_even_read(door: Door) -> None:
    assert door.call("POST", "/v1/requests", None, content=b"{").status_code == 401


def test_a_key_with_one_wrong_character_is_nobodys(door: Door) -> None:
    key = door.keys["system"]
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert door.call("GET", "/v1/worklist", None, headers={"Authorization": f"Bearer {wrong}"}).status_code == 401
    assert door.call("GET", "/v1/worklist", None, headers={"Authorization": f"bearer {key}"}).status_code == 200


MAY: dict[str, set[str]] = {
    "system": {"send", "look", "list", "cancel", "regenerate", "events"},
    "viewer": {"look", "list"},
    "admin": {"send", "look", "list", "cancel", "regenerate", "events"},
    "li": {"look", "list", "regenerate", "events", "sign"},
    "chief": {"send", "look", "list", "cancel", "regenerate", "events", "sign"},
}


@pytest.mark.parametrize("who", MAY)
def test_a_role_may_do_what_is_its_own_and_nothing_else(door: Door, who: str) -> None:
    deeds = [
        ("send", "POST", None, body(accession="NEW")),
        ("look", "GET", "", None),
        ("cancel", "DELETE", "", None),
        ("regenerate", "POST", "/regenerate", None),
        ("events", "POST", "/events", {"kind": "shown"}),
        ("sign", "POST", "/sign", {"impression": "未见异常。", "draft_version": 1}),
    ]
    made = [door.sent_and_drafted(accession=f"A-{number}") for number, _ in enumerate(deeds)]
    allowed = set()
    for (deed, method, tail, payload), request_id in zip(deeds, made, strict=True):
        path = "/v1/requests" if tail is None else f"/v1/requests/{request_id}{tail}"
        options: dict[str, Any] = {} if payload is None else {"json": payload}
        answer = door.call(method, path, who, **options)
        assert answer.status_code in (200, 201, 202, 403), answer.text
        if answer.status_code != 403:
            allowed.add(deed)
        else:
            assert door.state(request_id) == "drafted"
    if door.call("GET", "/v1/worklist", who).status_code == 200:
        allowed.add("list")
    assert allowed == MAY[who]


def test_a_revoked_key_stops_within_a_second_and_the_list_says_so(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id = door.keys["system"].split("_")[1]
    assert door.call("GET", "/v1/worklist").status_code == 200
    with db.transaction(door.engine) as session:
        access.revoke_key(session, key_id, by="test")
        access.revoke_key(session, key_id, by="test")
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 1.0)
    assert door.call("GET", "/v1/worklist").status_code == 401
    with db.transaction(door.engine) as session:
        listed = {key.name: key for key in access.list_keys(session)}
    assert listed["system"].revoked_at is not None
    assert listed["viewer"].revoked_at is None
    assert listed["system"].used_at is not None


def test_no_secret_is_stored(door: Door) -> None:
    secrets = [value.split("_", 2)[-1] for value in (*door.keys.values(), *door.tokens.values())]
    browser = door.browser()
    secrets += [str(browser.client.cookies["valuer_session"])]
    with db.transaction(door.engine) as session:
        rows = "".join(
            str(row)
            for table in ("api_keys", "users", "user_sessions", "audit_events")
            for row in session.execute(sa.text(f"SELECT * FROM {table}"))
        )
    assert len(secrets) == 9
    assert not any(secret in rows for secret in secrets)


def test_a_key_that_is_no_administrators_needs_an_institution(door: Door) -> None:
    with db.transaction(door.engine) as session:
        with pytest.raises(Invalid, match="needs an institution"):
            access.create_key(session, "x", "system", by="test")
        with pytest.raises(NotFound):
            access.create_key(session, "x", "system", "nowhere", by="test")
        with pytest.raises(Invalid, match="role"):
            access.create_key(session, "x", "owner", "north", by="test")
        with pytest.raises(NotFound):
            access.revoke_key(session, "0000", by="test")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"login": "Li"}, Invalid),
        ({"login": "l"}, Invalid),
        ({"login": "li"}, Conflict),
        ({"role": "king"}, Invalid),
        ({"grade": "wise"}, Invalid),
        ({"password": "short"}, Invalid),
        ({"institution": "nowhere"}, NotFound),
    ],
)
def test_a_person_who_does_not_fit_is_refused(door: Door, change: dict[str, str], error: type[Exception]) -> None:
    with db.transaction(door.engine) as session, pytest.raises(error):
        access.create_user(session, **{"login": "new", "display_name": "New", "by": "test", **change})


def test_a_disabled_person_loses_sessions_tokens_and_links(door: Door) -> None:
    browser = door.browser()
    with db.transaction(door.engine) as session:
        link = access.create_link(session, access.find_user(session, "li"), by="test")
        access.disable_user(session, "li", by="test")
    assert door.call("GET", "/v1/worklist", "li").status_code == 401
    assert browser.get("/").url.path == "/sign-in"
    assert browser.get(link).status_code == 401
    with db.transaction(door.engine) as session:
        token = access.create_token(session, access.find_user(session, "li"), by="test")
    assert door.call("GET", "/v1/worklist", None, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_a_token_ends_when_it_expires(door: Door) -> None:
    with db.transaction(door.engine) as session:
        user = access.find_user(session, "li")
        token = access.create_token(session, user, by="test", lasts=timedelta(seconds=-1))
    assert door.call("GET", "/v1/worklist", None, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_a_token_is_no_key_and_a_session_is_no_token(door: Door) -> None:
    session_secret = door.browser().client.cookies["valuer_session"]
    for forged in (f"vt_{session_secret}", f"vk_{session_secret}", door.tokens["li"].replace("vt_", "vk_")):
        assert door.call("GET", "/v1/worklist", None, headers={"Authorization": f"Bearer {forged}"}).status_code == 401


def test_using_a_key_writes_its_row_at_most_once_a_minute(door: Door) -> None:
    for _ in range(3):
        door.call("GET", "/v1/worklist")
    with db.transaction(door.engine) as session:
        key_id = door.keys["system"].split("_")[1]
        stamps = {
            session.execute(sa.select(ApiKey.__table__.c.used_at).where(ApiKey.__table__.c.id == key_id)).scalar_one()
        }
    door.call("GET", "/v1/worklist")
    with db.transaction(door.engine) as session:
        stamps.add(
            session.execute(sa.select(ApiKey.__table__.c.used_at).where(ApiKey.__table__.c.id == key_id)).scalar_one()
        )
    assert len(stamps) == 1
