"""What a draft rests on: told by the API, shown by the page with letters and words, lit by pointer and keyboard."""

from collections.abc import Iterator
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import db, vocabulary
from core.settings import WorklistSettings
from core.tables import DraftRequest, SignOff
from tests.worklist import chromium
from tests.worklist.chromium import Chromium
from tests.worklist.door import Door
from worker.scoring import score_sign_off
from worklist import access
from worklist.marks import Link, Span, stretches

FINDINGS = "右肺上叶见实性结节影，长径约6mm。左侧胸腔见弧形水样影。肝内囊性灶。膈下新月形游离气体。"
DRAFT = "1、右肺上叶结节；\n2、左侧胸腔积液；\n3、脾大。"


def _drafted(door: Door) -> str:
    made = door.send(findings=FINDINGS)
    door.settle(DRAFT)
    return made


def test_the_api_tells_what_each_sentence_rests_on_and_what_is_left_out_gravest_first(door: Door) -> None:
    made = _drafted(door)
    found = door.call("GET", f"/v1/requests/{made}").json()["draft"]["evidence"]
    told = [
        (DRAFT[slice(*one["span"])], one["standing"], [FINDINGS[slice(*span)] for span in one["findings"]])
        for one in found["sentences"]
    ]
    assert told[0] == ("1、右肺上叶结节", "supported", ["右肺上叶见实性结节影"])
    assert told[1] == ("2、左侧胸腔积液", "supported", ["左侧胸腔见弧形水样影"])
    assert told[2] == ("3、脾大", "unsupported", [])
    left_out = [one for one in found["findings"] if one["omitted"]]
    assert FINDINGS[slice(*left_out[0]["span"])] == "膈下新月形游离气体"
    assert [one["severity"] for one in left_out] == sorted((one["severity"] for one in left_out), reverse=True)
    assert all(one["impression"] == [] for one in left_out)


def test_a_list_of_requests_carries_no_evidence(door: Door) -> None:
    made = _drafted(door)
    (one,) = door.call("GET", "/v1/requests?accession=A-1").json()["requests"]
    assert one["id"] == made
    assert "evidence" not in one["draft"]


def test_the_page_says_by_letters_what_belongs_together_and_by_words_what_is_missing(door: Door) -> None:
    page = door.browser().get(f"/cases/{_drafted(door)}").text
    assert '<span class="link" data-keys="a" data-letters="a">右肺上叶见实性结节影</span>' in page
    assert (
        'data-keys="a" data-letters="a" tabindex="0" title="所见依据：“右肺上叶见实性结节影”">1、右肺上叶结节</span>'
        in page
    )
    assert 'data-letters="?" tabindex="0" title="所见中未找到依据">3、脾大</span>' in page
    assert "相同字母" in page
    assert page.index("<b>危急</b> 膈下新月形游离气体") > page.index("未写入印象的阳性发现：")
    assert '<details class="untold-list" open>' in page


def test_without_a_draft_nothing_is_linked(door: Door) -> None:
    page = door.browser().get(f"/cases/{door.send(findings=FINDINGS)}").text
    assert FINDINGS in page
    assert "data-keys" not in page
    assert "相同字母" not in page


def test_a_signed_case_says_how_far_the_draft_was_from_it_and_by_which_scorer(
    door: Door, settings: WorklistSettings
) -> None:
    made = _drafted(door)
    assert (
        door.call(
            "POST",
            f"/v1/requests/{made}/sign",
            "li",
            json={"impression": DRAFT.replace("右", "左"), "draft_version": 1},
        ).status_code
        == 200
    )
    browser = door.browser()
    assert "与草稿相比" not in browser.get(f"/cases/{made}").text
    with db.transaction(door.engine) as session:
        signed = session.exec(select(SignOff.id).where(SignOff.request_id == UUID(made))).one()
    assert score_sign_off(door.engine, signed, settings.home)
    page = browser.get(f"/cases/{made}").text
    assert "改动 1 字" in page
    assert "改动种类：侧别" in page
    with db.transaction(door.engine) as session:
        scorer = session.execute(sa.text("SELECT scorer FROM scores")).scalar_one()
    assert f"评分器 {scorer}" in page


def test_a_score_follows_the_language_of_the_request(door: Door, settings: WorklistSettings) -> None:
    made = door.send(findings="There is a 6 mm nodule in the right upper lobe.", language="en")
    door.settle("Right upper lobe nodule.")
    sent = {"impression": "RIGHT UPPER LOBE NODULE", "draft_version": 1}
    assert door.call("POST", f"/v1/requests/{made}/sign", "li", json=sent).status_code == 200
    with db.transaction(door.engine) as session:
        assert session.get_one(DraftRequest, UUID(made)).language == "en"
        signed = session.exec(select(SignOff.id).where(SignOff.request_id == UUID(made))).one()
    score_sign_off(door.engine, signed, settings.home)
    with db.transaction(door.engine) as session:
        assert session.execute(sa.text("SELECT r1 FROM scores")).scalar_one() == pytest.approx(1, abs=1e-6)


def test_evidence_and_fact_score_accept_what_the_institution_takes_for_the_same(
    door: Door, settings: WorklistSettings
) -> None:
    own = settings.home / vocabulary.FOLDER / "north"
    own.mkdir(parents=True)
    (own / "equivalents.tsv").write_text("胶质瘤\t脱髓鞘灶\n", "utf-8")
    vocabulary._load.cache_clear()
    standing = {}
    for who in ("system", "system-south"):
        institution = "north" if who == "system" else "south"
        made = door.send(who=who, institution=institution, accession=f"E-{who}", findings="右侧额叶胶质瘤。")
        door.settle("右侧额叶脱髓鞘灶。")
        (sentence,) = door.call("GET", f"/v1/requests/{made}", who).json()["draft"]["evidence"]["sentences"]
        standing[institution] = sentence["standing"]
    assert standing == {"north": "supported", "south": "unsupported"}


def test_stretches_are_the_text_and_letters_stand_where_their_links_end() -> None:
    found = stretches(
        "abcdefgh", [Span(2, 6, "red", 1)], [Link(1, 4, "a"), Link(3, 7, "b"), Link(3, 7, "!1"), Link(5, 99, "c")]
    )
    assert ["".join(piece.text for piece in one.pieces) for one in found] == ["a", "bc", "d", "efg", "h"]
    assert [one.letters for one in found] == ["", "", "a", "b", ""]
    assert [one.is_untold for one in found] == [False, False, True, True, False]
    assert [piece.ends for one in found for piece in one.pieces if piece.severity] == [(), (), (1,)]
    assert stretches("", [], []) == []


@pytest.fixture(scope="module")
def window() -> Iterator[Chromium]:
    with Chromium() as opened:
        yield opened


@pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium here")
def test_pointing_at_a_sentence_lights_its_findings_and_back_and_copies_no_letter(
    window: Chromium, door: Door, served: str
) -> None:
    made = _drafted(door)
    window.fresh()
    with db.transaction(door.engine) as session:
        link = access.create_link(session, access.find_user(session, "li"), by="test")
    window.open(served + link)
    window.open(f"{served}/cases/{made}")
    lit = "[...document.querySelectorAll('.lit')].map((one) => one.textContent)"
    window.run("document.querySelector('#draft .link').focus()")
    assert window.run(lit) == ["右肺上叶见实性结节影", "1、右肺上叶结节"]
    window.run(
        "document.activeElement.blur(); document.querySelector('#findings .link').dispatchEvent(new Event('mouseenter'))"
    )
    assert window.run(lit) == ["右肺上叶见实性结节影", "1、右肺上叶结节"]
    window.run("document.querySelector('#findings .link').dispatchEvent(new Event('mouseleave'))")
    window.run("document.querySelector('.untold-list li').focus()")
    assert window.run(f"{lit}[0]") == "膈下新月形游离气体"
    assert (
        window.run("getSelection().selectAllChildren(document.getElementById('draft')) ?? getSelection().toString()")
        == DRAFT
    )
    assert window.complaints == []
    window.fresh()
