"""Coming in and going out by browser, and what stops everybody else."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from core import db
from tests.worklist.door import LABEL, Browser, Door
from worklist import access
from worklist.desk import Line

PASSWORD = "correct-horse-battery"
OURS = {"Origin": "http://worklist.test", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def browser(door: Door) -> Browser:
    """A browser of somebody who has not signed in; Wu, with a password, exists."""
    with db.transaction(door.engine) as session:
        access.create_user(session, "wu", "Dr Wu", by="test", institution="north", password=PASSWORD)
    return Browser(TestClient(door.app, base_url="http://worklist.test"))


def sign_in(browser: Browser, login: str = "wu", password: str = PASSWORD, way: str = "/", **changes: str) -> Any:
    fields = {"csrf": browser.csrf("/sign-in"), "login": login, "password": password, "next": way, **changes}
    return browser.post("/sign-in", fields)


def test_a_password_opens_a_session_whose_cookie_no_script_reads(browser: Browser) -> None:
    answer = sign_in(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith("valuer_session="))
    assert "httponly" in cookie.lower()
    assert "samesite=lax" in cookie.lower()
    assert "Dr Wu" in browser.get("/").text


def test_whoever_has_not_signed_in_is_sent_to_the_form_and_then_where_they_wanted(door: Door, browser: Browser) -> None:
    made = door.send()
    sent = browser.client.get(f"/cases/{made}", headers={"Accept": "text/html"}, follow_redirects=False)
    assert sent.headers["location"] == f"/sign-in?next=/cases/{made}"
    assert f'name="next" value="/cases/{made}"' in browser.get(sent.headers["location"]).text
    assert sign_in(browser, way=f"/cases/{made}").headers["location"] == f"/cases/{made}"


@pytest.mark.parametrize("way", ["https://evil.test/", "//evil.test/", "/\\evil.test", "javascript:alert(1)", "/\nx"])
def test_nobody_is_sent_to_a_foreign_address(browser: Browser, way: str) -> None:
    assert sign_in(browser, way=way).headers["location"] == "/"


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("wu", "wrong"),
        ("nobody", PASSWORD),
        ("wu", ""),
        ("li", ""),
        ("", ""),
        ("' OR 1=1 --", "x"),
        ("wu\0", PASSWORD),
        ("wu", "\0"),
    ],
)
def test_a_wrong_password_and_an_unknown_login_are_answered_alike(browser: Browser, login: str, password: str) -> None:
    answer = sign_in(browser, login, password)
    assert answer.status_code == 401
    assert "用户名或密码不正确" in answer.text
    assert "valuer_session" not in browser.client.cookies


def test_after_five_failures_even_the_right_password_waits(door: Door, browser: Browser) -> None:
    assert [sign_in(browser, password="wrong").status_code for _ in range(5)] == [401] * 5
    refused = sign_in(browser)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) == 900
    with db.transaction(door.engine) as session:  # as if the window had passed
        session.execute(
            sa.text("UPDATE audit_events SET id = (overlay(id::text PLACING '00000000' FROM 1 FOR 8))::uuid")
        )
    assert sign_in(browser).status_code == 303


def test_failures_of_one_person_do_not_lock_out_another_address(door: Door, browser: Browser) -> None:
    for _ in range(5):
        sign_in(browser, password="wrong")
    elsewhere = Browser(TestClient(door.app, base_url="http://worklist.test", client=("10.0.0.9", 1)))
    assert sign_in(elsewhere).status_code == 303


def test_one_address_cannot_guess_at_everybody(door: Door, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "FAILURES_PER_ADDRESS", 3)
    assert [sign_in(browser, f"user-{number}", "wrong").status_code for number in range(4)] == [401, 401, 401, 429]


def test_what_was_typed_in_vain_is_not_kept(door: Door, browser: Browser) -> None:
    sign_in(browser, login="my-secret-typed-in-the-wrong-field", password="and-another")
    with db.transaction(door.engine) as session:
        rows = str(session.execute(sa.text("SELECT * FROM audit_events WHERE action = 'user.sign_in_failed'")).all())
    assert "testclient" in rows
    assert "secret" not in rows
    assert "and-another" not in rows


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"csrf": ""}, {}),
        ({"csrf": "guessed"}, {}),
        ({}, {"Origin": "https://evil.test"}),
        ({}, {"Origin": "null"}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
    ],
)
def test_a_forged_sign_in_is_refused(browser: Browser, fields: dict[str, str], headers: dict[str, str]) -> None:
    sent = {"csrf": browser.csrf("/sign-in"), "login": "wu", "password": PASSWORD, "next": "/", **fields}
    assert browser.post("/sign-in", sent, **headers).status_code == 403


def test_a_link_opens_once(door: Door, browser: Browser) -> None:
    with db.transaction(door.engine) as session:
        link = access.create_link(session, access.find_user(session, "wu"), by="test")
    assert browser.client.get(link, headers={"Sec-Purpose": "prefetch"}).status_code == 204
    assert browser.client.get(link, follow_redirects=False).status_code == 303
    assert "Dr Wu" in browser.get("/").text
    another = Browser(TestClient(door.app, base_url="http://worklist.test"))
    spent = another.get(link)
    assert spent.status_code == 401
    assert "已使用或已过期" in spent.text


def test_a_link_expires(door: Door, browser: Browser) -> None:
    with db.transaction(door.engine) as session:
        link = access.create_link(session, access.find_user(session, "wu"), by="test", lasts=timedelta(seconds=-1))
    assert browser.get(link).status_code == 401


def test_signing_out_ends_the_session_on_the_server_too(door: Door) -> None:
    browser = door.browser()
    secret = browser.client.cookies["valuer_session"]
    assert browser.post("/sign-out", {"csrf": browser.csrf()}).headers["location"] == "/sign-in"
    assert "valuer_session" not in browser.client.cookies
    browser.client.cookies.set("valuer_session", secret)
    assert browser.get("/").url.path == "/sign-in"


def test_a_session_ends_without_use_and_lasts_with_it(door: Door) -> None:
    browser = door.browser()
    with db.transaction(door.engine) as session:
        session.execute(
            sa.text(
                "UPDATE user_sessions SET used_at = now() - interval '2 minutes', expires_at = now() + interval '1 minute'"
            )
        )
    browser.get("/")
    with db.transaction(door.engine) as session:
        left = session.execute(
            sa.text("SELECT max(expires_at - now()) FROM user_sessions WHERE kind = 'browser'")
        ).scalar_one()
        assert left > timedelta(hours=7)
        session.execute(sa.text("UPDATE user_sessions SET expires_at = now()"))
    assert browser.get("/").url.path == "/sign-in"


@pytest.mark.parametrize(
    ("path", "headers", "uses"),
    [
        ("/", {}, True),
        ("/v1/worklist", {}, True),
        ("/parts/list", {"X-Part": "1"}, False),
        ("/cases/{id}", {"X-Part": "1"}, False),
        ("/cases/{id}/notice", {"X-Part": "1"}, False),
    ],
)
def test_a_page_that_is_left_open_does_not_keep_its_session(
    door: Door, path: str, headers: dict[str, str], uses: bool
) -> None:
    made = door.send()
    browser = door.browser()
    with db.transaction(door.engine) as session:
        session.execute(
            sa.text(
                "UPDATE user_sessions SET used_at = now() - interval '2 minutes', expires_at = now() + interval '1 minute'"
                " WHERE kind = 'browser'"
            )
        )
    assert browser.get(path.format(id=made), **headers).status_code == 200
    with db.transaction(door.engine) as session:
        left = session.execute(
            sa.text("SELECT expires_at - now() FROM user_sessions WHERE kind = 'browser'")
        ).scalar_one()
    assert (left > timedelta(hours=7)) is uses


def test_a_crowd_at_the_sign_in_form_holds_up_nobody_who_is_inside(door: Door, browser: Browser, served: str) -> None:
    door.app.state.desk = replace(door.app.state.desk, sign_ins=Line(places=1, longest=2))
    token = browser.csrf("/sign-in")
    cookies = {"valuer_form": browser.client.cookies["valuer_form"]}

    def knock(number: int) -> int:
        fields = {"csrf": token, "login": f"user-{number}", "password": "x" * 12}
        return httpx.post(f"{served}/sign-in", data=fields, cookies=cookies, timeout=60).status_code

    with ThreadPoolExecutor(24) as crowd:
        knocks = [crowd.submit(knock, number) for number in range(24)]
        while not any(each.done() for each in knocks):
            assert httpx.get(f"{served}/v1/worklist", headers=_bearer(door), timeout=10).status_code == 200
        answers = [each.result() for each in knocks]
    assert set(answers) == {401, 503}
    assert sign_in(browser).status_code == 303


def _bearer(door: Door) -> dict[str, str]:
    return {"Authorization": f"Bearer {door.tokens['li']}"}


def test_a_session_ends_after_a_day_however_busy(door: Door) -> None:
    browser = door.browser()
    with db.transaction(door.engine) as session:
        session.execute(
            sa.text(
                "UPDATE user_sessions SET used_at = now() - interval '2 minutes', created_at = now() - interval '23 hours'"
            )
        )
    browser.get("/")
    with db.transaction(door.engine) as session:
        left = session.execute(
            sa.text("SELECT max(expires_at - now()) FROM user_sessions WHERE kind = 'browser'")
        ).scalar_one()
    assert left <= timedelta(hours=1)


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("/cases/{id}/sign", {"impression": "未见异常。", "draft_version": "1"}),
    ("/cases/{id}/regenerate", {"impression": ""}),
    ("/cases/{id}/reopen", {"nothing": ""}),
    ("/sign-out", {"nothing": ""}),
]


@pytest.mark.parametrize(("path", "fields"), CHANGES)
def test_every_form_needs_its_sessions_token_and_our_origin(door: Door, path: str, fields: dict[str, Any]) -> None:
    made = door.sent_and_drafted()
    browser, other = door.browser(), door.browser("chief")
    address = path.format(id=made)
    good = {**fields, "csrf": browser.csrf()}
    assert browser.post(address, fields).status_code == 403
    assert browser.post(address, {**fields, "csrf": other.csrf()}).status_code == 403
    assert browser.post(address, good, Origin="https://evil.test").status_code == 403
    assert browser.post(address, good, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert door.state(made) == "drafted"
    assert browser.get("/").status_code == 200


def test_every_form_of_the_page_is_among_those_tested_above(door: Door) -> None:
    posts = {
        route.path.replace("{request_id}", "{id}")
        for route in _routes(door.app)
        if "POST" in (getattr(route, "methods", None) or ()) and not route.path.startswith("/v1/")
    }
    assert posts == {path for path, _ in CHANGES} | {"/sign-in"}


def _routes(app: Any) -> Any:
    for route in app.routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            yield from inner
        else:
            yield route


def test_the_api_takes_a_session_only_with_its_token(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    path, event = f"/v1/requests/{made}/events", {"kind": "copied", "draft_version": 1}
    assert browser.client.get("/v1/worklist").status_code == 200
    assert browser.client.post(path, json=event, headers=OURS).status_code == 403
    assert browser.client.post(path, json=event, headers={**OURS, "X-CSRF-Token": "guessed"}).status_code == 403
    token = {"X-CSRF-Token": browser.csrf()}
    assert browser.client.post(path, json=event, headers={**token, "Origin": "https://evil.test"}).status_code == 403
    assert browser.client.post(path, json=event, headers={**OURS, **token}).status_code == 201


def test_keys_and_tokens_do_not_open_pages(door: Door) -> None:
    for who in ("admin", "li"):
        assert door.call("GET", "/", who).status_code == 401


def test_the_language_switch_stays_and_changes_nothing_else(door: Door) -> None:
    browser = door.browser()
    assert 'lang="zh-Hans"' in browser.get("/").text
    for language, title in (("en", "Worklist"), ("fr", "Liste de travail"), ("zh-Hant", "檢查號")):
        said = browser.get(f"/language?to={language}&next=/?show=ready")
        assert str(said.url).endswith("/?show=ready")
        assert f'<html lang="{language}">' in said.text
        assert title in said.text
        assert f'<html lang="{language}">' in browser.get("/").text
    assert browser.get("/language?to=de").status_code == 422


def test_a_switch_of_language_leads_back_to_the_same_tab(door: Door) -> None:
    page = door.browser().get("/?show=ready").text
    assert 'href="/language?to=en&amp;next=/%3Fshow%3Dready"' in page


@pytest.mark.parametrize("language", ["en", "fr"])
def test_no_chinese_is_left_on_a_page_in_another_language(door: Door, language: str) -> None:
    made = door.send(findings="A nodule of 6 mm.", body_part="chest", language=language)
    door.settle("1. A nodule of 6 mm.")
    browser = door.browser()
    browser.get(f"/language?to={language}")
    for path in ("/", "/?show=ready", f"/cases/{made}", f"/cases/{made}/notice", "/nowhere", "/find", "/?show=none"):
        text = browser.get(path).text
        for theirs in (LABEL, "简体中文", "繁體中文"):  # the draft's own label, and the names of languages
            text = text.replace(theirs, "")
        assert re.search(r"[\u3000-\u9fff]", text) is None, path
