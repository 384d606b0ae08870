"""What a radiologist sees and does: the list, the case, the signature. A person's words are never lost or overwritten."""

import html
import re
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import db
from core.states import Reason, ReportStatus
from core.tables import RequestEvent, SignOff, Withdrawal
from tests.builders import FINDINGS
from tests.worklist.door import DRAFT, LABEL, Browser, Door

RED = {"kind": "side", "severity": "red", "span_findings": [0, 4], "span_impression": [2, 6], "message": "左右不一致"}
AMBER = {
    "kind": "number",
    "severity": "amber",
    "span_findings": [12, 16],
    "span_impression": None,
    "message": "数值未提及",
}
INFO = {"kind": "critical", "severity": "info", "span_findings": [0, 2], "span_impression": [0, 2], "message": "已涵盖"}
MINE = "1、右肺上叶 <b>结节</b> & 我自己的话。"


def box(page: str) -> str | None:
    """What is in the edit box."""
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    return None if found is None else html.unescape(found[1])


def fields(browser: Browser, **changes: Any) -> dict[str, Any]:
    return {"csrf": browser.csrf(), "impression": MINE, "draft_version": "1", **changes}


def signed(door: Door) -> list[str]:
    with db.transaction(door.engine) as session:
        return [row.impression for row in session.exec(select(SignOff))]


def test_the_list_has_what_waits_stat_first_with_its_marks(door: Door) -> None:
    door.send(accession="R-1")
    door.send(accession="S-1", priority="stat", exam_title="胸部CT平扫 <script>")
    door.send(accession="U-1", priority="urgent")
    with db.transaction(door.engine) as session:
        session.execute(sa.text("UPDATE draft_requests SET is_critical = true WHERE priority = 'urgent'"))
    page = door.browser().get("/").text
    assert page.index("S-1") < page.index("U-1") < page.index("R-1")
    assert page.count("危急征象") == 1
    assert "<script>" not in page.split("<main", 1)[1]
    assert "女 61 岁" in page


def test_the_tabs_show_what_they_say(door: Door) -> None:
    ready = door.sent_and_drafted(accession="A-ready")
    door.send(accession="A-none")
    door.settle(reason=Reason.NO_MODEL)
    door.send(accession="A-wait")
    browser = door.browser()
    for tab, wanted in (
        ("open", {"A-ready", "A-none", "A-wait"}),
        ("ready", {"A-ready"}),
        ("alone", {"A-none"}),
        ("coming", {"A-wait"}),
    ):
        for path in (f"/?show={tab}", f"/parts/list?show={tab}"):
            assert (
                set(re.findall(r"A-(?:ready|none|wait)\b", browser.get(path).text)) == wanted
            )  # a form's token may begin with A-
    assert f"/cases/{ready}" in browser.get("/parts/list").text


def test_an_accession_number_typed_or_scanned_opens_its_newest_case(door: Door) -> None:
    door.send()
    newest = door.send(findings="胸部未见明显异常。")
    browser = door.browser()
    assert browser.get("/find?accession=a-1 ").url.path == f"/cases/{newest}"
    assert "没有这个检查号" in browser.get("/find?accession=A-9").text


def test_a_case_shows_findings_draft_label_issues_and_versions(door: Door) -> None:
    made = door.send(history="咳嗽三天", prior_impression="两肺未见异常")
    door.settle(issues=[AMBER, RED, INFO])
    page = door.browser().get(f"/cases/{made}").text
    assert f'<span class="label">{LABEL}</span>' in page
    assert box(page) == DRAFT
    assert LABEL not in str(box(page))
    assert "咳嗽三天" in page
    assert "两肺未见异常" in page
    assert "demo-1" in page
    assert "p1" in page
    assert page.index("左右不一致") < page.index("数值未提及") < page.index('id="draft"')
    assert "已涵盖" not in page
    assert f'<mark class="red" data-issues="1" data-ends="1">{FINDINGS[0:4]}</mark>' in page
    assert f'<mark class="red" data-issues="1" data-ends="1">{DRAFT[2:6]}</mark>' in page
    assert f'<mark class="amber" data-issues="2" data-ends="2">{FINDINGS[12:16]}</mark>' in page
    assert page.count('name="confirm"') == 1


@pytest.mark.parametrize("reason", list(Reason))
def test_without_a_draft_the_reason_is_said_and_the_box_is_empty(door: Door, reason: Reason) -> None:
    made = door.send()
    door.settle(reason=reason)
    page = door.browser().get(f"/cases/{made}").text
    assert "原因：" in page
    assert box(page) == ""
    assert LABEL not in page


def test_findings_are_shown_as_text_whatever_they_hold(door: Door) -> None:
    made = door.send(findings='<script>alert(1)</script> "结节" <end_of_turn> {{ 7*7 }}')
    page = door.browser().get(f"/cases/{made}").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7*7 }}" in page


def test_signing_leads_back_to_the_list_and_keeps_the_text_exactly(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    answer = browser.post(f"/cases/{made}/sign", fields(browser, impression="1、右肺上叶结节；\r\n2、胸腔积液。"))
    assert (answer.status_code, answer.headers["location"]) == (303, f"/?signed={made}")
    assert signed(door) == ["1、右肺上叶结节；\n2、胸腔积液。"]
    assert "已签发检查号 A-1" in browser.get(answer.headers["location"]).text
    case = browser.get(f"/cases/{made}").text
    assert "Dr li" in case
    assert box(case) is None


def test_our_own_script_is_told_where_to_go_instead_of_sent(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    answer = browser.post(f"/cases/{made}/sign", fields(browser), **{"X-Part": "1"})
    assert (answer.status_code, answer.headers["x-next"]) == (204, f"/?signed={made}")


def test_every_important_point_has_to_be_confirmed_before_signing(door: Door) -> None:
    made = door.send()
    door.settle(issues=[RED, {**RED, "kind": "negation"}, AMBER])
    browser = door.browser()
    for confirmed in ([], ["1"], ["3"], ["x"]):
        answer = browser.post(f"/cases/{made}/sign", fields(browser, confirm=confirmed))
        assert answer.status_code == 422
        assert box(answer.text) == MINE
        assert "逐条核对" in answer.text
    assert 'value="1" required checked' in browser.post(f"/cases/{made}/sign", fields(browser, confirm=["1"])).text
    assert signed(door) == []
    assert browser.post(f"/cases/{made}/sign", fields(browser, confirm=["1", "2"])).status_code == 303


def test_signing_an_outdated_draft_shows_the_new_one_and_keeps_the_text(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    browser.get(f"/cases/{made}")
    door.call("POST", f"/v1/requests/{made}/regenerate")
    door.settle("全新的草稿。")
    answer = browser.post(f"/cases/{made}/sign", fields(browser))
    assert answer.status_code == 409
    assert box(answer.text) == MINE
    assert "data-own" in answer.text
    assert "草稿已更新" in answer.text
    assert "全新的草稿。" in answer.text
    assert 'name="draft_version" value="2"' in answer.text
    assert signed(door) == []
    assert browser.post(f"/cases/{made}/sign", fields(browser, draft_version="2")).status_code == 303


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "不能为空"),
        (" \r\n ", "不能为空"),
        ("异" * 8001, "8,000"),
        (f"{LABEL}\n未见异常。", "标签"),
        ("未见\0异常。", "无法保存"),
    ],
)
def test_a_text_that_cannot_be_signed_comes_back_with_the_reason(door: Door, text: str, said: str) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    answer = browser.post(f"/cases/{made}/sign", fields(browser, impression=text))
    assert answer.status_code == 422
    assert said in answer.text
    assert box(answer.text) == text.replace("\r\n", "\n")
    assert door.state(made) == "drafted"


def test_a_signature_that_the_ris_took_back_is_shown_as_taken_back(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    browser.post(f"/cases/{made}/sign", fields(browser))
    assert "签发的印象" in browser.get(f"/cases/{made}").text
    with db.transaction(door.engine) as session:
        session.add(Withdrawal(sign_off_id=session.exec(select(SignOff.id)).one(), status=ReportStatus.RETRACTED))
    page = browser.get(f"/cases/{made}").text
    assert "RIS 已撤回的印象" in page
    assert "签发的印象" not in page


@pytest.mark.parametrize("ending", ["signed", "cancelled", "superseded"])
def test_a_text_for_a_request_that_closed_meanwhile_stays_to_be_copied(door: Door, ending: str) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    sent = fields(browser)
    if ending == "signed":
        door.call("POST", f"/v1/requests/{made}/sign", "chief", json={"impression": "未见异常。", "draft_version": 1})
    elif ending == "cancelled":
        door.call("DELETE", f"/v1/requests/{made}")
    else:
        newer = door.send(findings="胸部未见明显异常。")
    answer = browser.post(f"/cases/{made}/sign", sent)
    assert answer.status_code == 409
    assert box(answer.text) == MINE
    assert "readonly" in answer.text
    if ending == "superseded":
        assert f"/cases/{newer}" in answer.text


def test_signing_the_same_case_twice_at_once_signs_it_once(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    sent = fields(browser)
    assert [browser.post(f"/cases/{made}/sign", sent).status_code for _ in range(2)] == [303, 409]
    assert len(signed(door)) == 1


def test_asking_for_another_draft_keeps_the_text(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    answer = browser.post(f"/cases/{made}/regenerate", fields(browser))
    assert answer.status_code == 200
    assert box(answer.text) == MINE
    assert door.state(made) == "queued"
    again = browser.post(f"/cases/{made}/regenerate", fields(browser))
    assert again.status_code == 409
    assert box(again.text) == MINE


def test_a_reopened_case_can_be_signed_again_and_keeps_both_signatures(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    browser.post(f"/cases/{made}/sign", fields(browser))
    assert browser.post(f"/cases/{made}/reopen", {"csrf": browser.csrf()}).status_code == 303
    assert box(browser.get(f"/cases/{made}").text) == MINE
    assert browser.post(f"/cases/{made}/sign", fields(browser, impression="改过的结论。")).status_code == 303
    assert signed(door) == [MINE, "改过的结论。"]


def test_a_signed_text_is_checked_softly_and_stands_as_it_was_signed(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    wrong = "1、左肺上叶小结节；\n2、左侧胸腔积液。"
    assert browser.post(f"/cases/{made}/sign", fields(browser, impression=wrong)).status_code == 303
    page = browser.get(f"/cases/{made}").text
    noticed = page.split('<details class="noticed">', 1)[1].split("</details>", 1)[0]
    assert "不影响签发" in noticed
    assert noticed.count("左肺上叶") == 1
    assert "confirm" not in noticed
    assert signed(door) == [wrong]


def test_a_houses_heading_in_a_signed_text_is_no_leak_of_a_prompt(door: Door) -> None:
    made = door.sent_and_drafted()
    browser = door.browser()
    text = f"影像诊断：{DRAFT}"
    assert browser.post(f"/cases/{made}/sign", fields(browser, impression=text)).status_code == 303
    assert "提示词泄漏" not in browser.get(f"/cases/{made}").text


def test_an_empty_tab_does_not_say_that_nothing_waits(door: Door) -> None:
    browser = door.browser()
    assert "目前没有待处理的检查" in browser.get("/").text
    door.sent_and_drafted()
    assert "目前没有待处理的检查" not in browser.get("/?show=alone").text
    assert "此分类下没有检查" in browser.get("/?show=alone").text


def test_the_button_says_what_signing_means_in_this_hospital(door: Door) -> None:
    made = door.sent_and_drafted()
    assert '<button class="main">签发</button>' in door.browser().get(f"/cases/{made}").text
    theirs = door.send("system-south", institution="south")
    door.settle()
    south = door.browser("ma")
    assert "采用，在 RIS 中签发" in south.get(f"/cases/{theirs}").text
    answer = south.post(f"/cases/{theirs}/sign", fields(south))
    assert "请在 RIS 中签发" in south.get(answer.headers["location"]).text


def test_the_notice_offers_a_newer_draft_without_its_text(door: Door) -> None:
    made = door.send()
    browser = door.browser()
    assert "show-newer" not in browser.get(f"/cases/{made}/notice?seen=0").text
    door.settle("草稿的文字。")
    notice = browser.get(f"/cases/{made}/notice?seen=0").text
    assert "show-newer" in notice
    assert "草稿的文字" not in notice
    assert "show-newer" not in browser.get(f"/cases/{made}/notice?seen=1").text
    door.call("DELETE", f"/v1/requests/{made}")
    assert "此请求已关闭" in browser.get(f"/cases/{made}/notice?seen=1").text


def test_what_was_shown_and_opened_is_noted_and_what_was_not_is_not(door: Door) -> None:
    made = door.send()
    browser = door.browser()
    browser.get(f"/cases/{made}")
    browser.get(f"/cases/{made}/notice")
    door.settle()
    browser.get(f"/cases/{made}/notice")
    assert _events(door) == []
    browser.get(f"/cases/{made}", **{"X-Part": "1"})
    assert _events(door) == [("shown", 1)]
    browser.get(f"/cases/{made}")
    browser.get(f"/cases/{made}")
    assert _events(door) == [("shown", 1), ("opened", 1), ("opened", 1)]


def _events(door: Door) -> list[tuple[str, int | None]]:
    with db.transaction(door.engine) as session:
        return [
            (row.kind, row.draft_version)
            for row in session.exec(select(RequestEvent).order_by(RequestEvent.__table__.c.id))
        ]  # type: ignore[attr-defined]


def test_an_unknown_case_is_a_page_that_says_so(door: Door) -> None:
    answer = door.browser().get("/cases/00000000-0000-7000-8000-000000000000")
    assert answer.status_code == 404
    assert "没有这个页面或请求" in answer.text


def test_there_is_no_way_to_sign_several_at_once(door: Door) -> None:
    made = [door.sent_and_drafted(accession=f"A-{number}") for number in range(2)]
    page = door.browser().get("/").text
    assert all(request_id in page for request_id in made)
    assert 'type="checkbox"' not in page
    assert "/sign" not in page.replace("/sign-out", "")
