"""What somebody tries who means harm: a session of their own making, a link for two, forms from elsewhere, a page inside a report."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from core import db
from core.institutions import Profile, sync
from tests.worklist import chromium
from tests.worklist.chromium import Chromium
from tests.worklist.door import Door
from worklist import access

EVIL = "\"'></textarea></script><script>document.title='in'</script><img src=x onerror=document.title='in'><svg onload=document.title='in'>"


def link_of(door: Door, login: str = "li") -> str:
    with db.transaction(door.engine) as session:
        return access.create_link(session, access.find_user(session, login), by="test")


def test_a_cookie_from_before_the_sign_in_opens_nothing_after_it(door: Door, served: str) -> None:
    planted = {"valuer_session": "planted-by-somebody-else"}
    entered = httpx.get(served + link_of(door), cookies=planted)
    assert entered.cookies["valuer_session"] != planted["valuer_session"]
    assert httpx.get(f"{served}/v1/worklist", cookies=planted).status_code == 401


def test_a_link_that_many_try_at_once_lets_one_in(door: Door, served: str) -> None:
    address = served + link_of(door)
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda _: httpx.get(address, timeout=60).status_code, range(8)))
    assert sorted(answers) == [303] + [401] * 7


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/json"])
@pytest.mark.parametrize("origin", [{}, {"Origin": "https://evil.test"}, {"Origin": "null"}])
def test_nothing_changes_by_a_cookie_alone(door: Door, media: str, origin: dict[str, str]) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    body = '{"impression": "Normal.", "draft_version": 1, "kind": "rejected"}'
    for method, path in (
        ("POST", f"/v1/requests/{made}/sign"),
        ("POST", f"/v1/requests/{made}/regenerate"),
        ("POST", f"/v1/requests/{made}/events"),
        ("DELETE", f"/v1/requests/{made}"),
        ("POST", "/v1/requests"),
        ("POST", f"/cases/{made}/sign"),
        ("POST", f"/cases/{made}/regenerate"),
        ("POST", "/sign-out"),
    ):
        sent = browser.client.request(method, path, content=body.encode(), headers={"Content-Type": media, **origin})
        assert sent.status_code in (403, 415), path
    assert door.state(made) == "drafted"
    assert browser.client.get("/v1/worklist").status_code == 200


@pytest.mark.parametrize("way", ["/%0d%0aX: 1", "//evil.test", "/%09/evil.test", "/\\evil.test", "https:evil.test"])
def test_the_language_switch_sends_nobody_elsewhere(door: Door, way: str) -> None:
    answer = door.client.get(f"/language?to=en&next={way}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "x" not in answer.headers


@pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium here")
def test_no_text_of_anybody_becomes_a_part_of_the_page(door: Door, served: str) -> None:
    with db.transaction(door.engine) as session:
        sync(session, {code: Profile(code=code, name=EVIL, sign="sign_here") for code in ("north", "south")})
        access.create_user(session, "evil", EVIL, by="test", role="admin")
    text = f"{EVIL}右肺上叶见结节。"
    made = door.send(
        accession=EVIL[:128],
        exam_title=EVIL[:200],
        patient_class=EVIL[:40],
        history=EVIL,
        prior_impression=EVIL,
        findings=text,
    )
    issue = {"kind": "side", "span_findings": [0, 9], "span_impression": [0, 9], "message": EVIL}
    door.settle(text, issues=[{**issue, "severity": severity} for severity in ("red", "amber")])
    with Chromium() as window:
        window.open(served + link_of(door, "evil"))
        window.until("document.getElementById('live')?.textContent === '实时更新'")
        for path in ("/", f"/cases/{made}"):
            window.open(served + path)
            window.run("new Promise(done => setTimeout(done, 300))")
            assert window.run("document.title") != "in", path
            assert window.run("[...document.querySelectorAll('main img, main svg, main script')].length") == 0, path
            assert window.run(f"document.body.textContent.includes({EVIL[:40]!r})"), path
        assert window.run("document.getElementById('impression').value") == text
        window.run(
            "document.querySelector('[name=confirm]').click(); document.querySelector('#sign button.main').click()"
        )
        window.until("location.pathname === '/'")
        window.open(f"{served}/cases/{made}")
        assert window.run("document.querySelector('.signed .text').textContent") == text
        assert window.run("document.title") != "in"
        assert window.complaints == []
