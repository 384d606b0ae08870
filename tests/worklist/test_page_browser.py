"""The page's own scripts in a real browser: drafts arrive by themselves, and nobody's words are overwritten. Skipped where there is no Chromium."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import db
from core.tables import RequestEvent
from tests.worklist import chromium
from tests.worklist.chromium import Chromium
from tests.worklist.door import DRAFT, Door
from worklist import access
from worklist.words import LANGUAGES, Language, Words

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium here")

BOX = "document.getElementById('impression')"
SIGN = "document.querySelector('#sign button.main')"
NEW = "全新的草稿。"


@pytest.fixture(scope="module")
def window() -> Iterator[Chromium]:
    with Chromium() as opened:
        yield opened


@pytest.fixture
def page(window: Chromium, door: Door, served: str) -> Iterator[Chromium]:
    """A browser in which Dr Li has just signed in and sees the list."""
    window.fresh()
    with db.transaction(door.engine) as session:
        link = access.create_link(session, access.find_user(session, "li"), by="test")
    window.open(served + link)
    window.until("document.getElementById('live')?.textContent === '实时更新'")
    yield window
    window.fresh()  # its stream ends before the server does


def case(page: Chromium, served: str, request_id: str) -> None:
    """Opens a case and waits until its stream listens."""
    page.open(f"{served}/cases/{request_id}")
    page.until("document.getElementById('case').dataset.live === 'true'")


def write(page: Chromium, text: str) -> None:
    """Puts the caret at the end of the box and types."""
    page.run(f"{BOX}.focus(); {BOX}.setSelectionRange({BOX}.value.length, {BOX}.value.length)")
    page.type(text)


def test_a_request_and_its_draft_appear_in_the_list_without_a_reload(page: Chromium, door: Door) -> None:
    page.run("window.stayed = true")
    made = door.send()
    page.until(f"document.querySelector('a[data-id=\"{made}\"]') && document.querySelector('.state.queued')")
    door.settle()
    page.until("document.querySelector('.state.drafted')?.textContent === '草稿就绪'")
    assert page.run("window.stayed") is True
    assert page.complaints == []


def test_the_list_is_walked_by_keyboard_and_keeps_its_place_when_it_changes(page: Chromium, door: Door) -> None:
    made = [door.send(accession=f"A-{number}") for number in range(3)]
    page.until("document.querySelectorAll('.exam a').length === 3")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.run("document.activeElement.dataset.id") == made[1]
    door.send(accession="S", priority="stat")
    page.until("document.querySelectorAll('.exam a').length === 4")
    assert page.run("document.activeElement.dataset.id") == made[1]
    page.press("Enter")
    page.until(f"location.pathname === '/cases/{made[1]}'")


def test_a_draft_arrives_in_an_open_case_without_a_reload(page: Chromium, door: Door, served: str) -> None:
    made = door.send()
    case(page, served, made)
    page.run("window.stayed = true")
    assert page.run(f"{BOX}.value") == ""
    door.settle()
    page.until(f"{BOX}.value !== ''")
    assert page.run(f"{BOX}.value") == DRAFT
    assert page.run("document.querySelector('.label').textContent") == "AI 草稿，须医师审核"
    assert page.run("window.stayed") is True
    page.run(f"{SIGN}.click()")
    page.until("location.pathname === '/'")
    assert door.state(made) == "signed"
    assert page.complaints == []


def test_the_time_that_a_draft_takes_goes_on_and_a_caret_in_the_empty_box_stays(
    page: Chromium, door: Door, served: str
) -> None:
    made = door.send()
    case(page, served, made)
    page.run(f"{BOX}.focus()")
    before = page.run("document.getElementById('waited').textContent")
    page.until(f"document.getElementById('waited').textContent !== {before!r}")
    assert page.run("document.activeElement.id") == "impression"
    door.settle()
    page.until("document.getElementById('draft')")
    assert page.run("document.activeElement.id") == "impression"
    assert page.complaints == []


def test_a_draft_that_arrives_while_somebody_writes_is_offered_and_touches_nothing(
    page: Chromium, door: Door, served: str
) -> None:
    made = door.send()
    case(page, served, made)
    write(page, "我自己写的第一句。")
    door.settle(NEW)
    page.until("document.getElementById('show-newer')")
    assert page.run(f"{BOX}.value") == "我自己写的第一句。"
    assert page.run("document.activeElement.id") == "impression"
    assert NEW not in page.run("document.body.textContent")
    write(page, "第二句。")
    page.run("document.getElementById('show-newer').click()")
    page.until("document.getElementById('draft')")
    assert page.run("document.getElementById('draft').textContent") == NEW
    assert page.run(f"{BOX}.value") == "我自己写的第一句。第二句。"
    page.run(f"{SIGN}.click()")
    page.until("location.pathname === '/'")
    assert door.state(made) == "signed"


def test_replacing_ones_text_by_the_draft_can_be_undone(page: Chromium, door: Door, served: str) -> None:
    made = door.sent_and_drafted()
    case(page, served, made)
    assert page.run("document.getElementById('restore').hidden") is True
    write(page, "再加一句。")
    assert page.run("document.getElementById('restore').hidden") is False
    page.run("document.getElementById('restore').click()")
    assert page.run(f"{BOX}.value") == DRAFT
    page.run("document.getElementById('undo').click()")
    assert page.run(f"{BOX}.value") == DRAFT + "再加一句。"


def test_signing_what_is_outdated_says_so_and_loses_nothing(page: Chromium, door: Door, served: str) -> None:
    made = door.sent_and_drafted()
    case(page, served, made)
    write(page, "再加一句。")
    door.call("POST", f"/v1/requests/{made}/regenerate")
    door.settle(NEW)
    page.until("document.getElementById('show-newer')")
    page.run(f"{SIGN}.click()")
    page.until("document.querySelector('#notice .message.bad')")
    assert "草稿已更新" in page.run("document.getElementById('notice').textContent")
    assert page.run(f"{BOX}.value") == DRAFT + "再加一句。"
    assert page.run("document.getElementById('draft').textContent") == NEW
    assert door.state(made) == "drafted"


def test_asking_for_another_draft_keeps_what_was_written(page: Chromium, door: Door, served: str) -> None:
    made = door.sent_and_drafted()
    case(page, served, made)
    write(page, "再加一句。")
    page.run("document.querySelector('[data-regenerate]').click()")
    page.until("document.querySelector('.state.queued')")
    assert page.run(f"{BOX}.value") == DRAFT + "再加一句。"
    door.settle(NEW)
    page.until("document.getElementById('show-newer')")
    assert page.run(f"{BOX}.value") == DRAFT + "再加一句。"


def test_another_draft_comes_by_itself_when_nothing_was_written(page: Chromium, door: Door, served: str) -> None:
    made = door.sent_and_drafted()
    case(page, served, made)
    page.run("document.querySelector('[data-regenerate]').click()")
    page.until("document.querySelector('.state.queued')")
    door.settle(NEW)
    page.until(f"{BOX}.value === '{NEW}'")


def test_an_important_point_holds_the_signature_until_it_is_ticked(page: Chromium, door: Door, served: str) -> None:
    issue = {
        "kind": "side",
        "severity": "red",
        "span_findings": [0, 4],
        "span_impression": [2, 6],
        "message": "左右不一致",
    }
    made = door.send()
    door.settle(issues=[issue])
    case(page, served, made)
    page.run(f"{SIGN}.click()")
    assert page.run("document.querySelector('[name=confirm]').validity.valueMissing") is True
    assert door.state(made) == "drafted"
    page.run("document.querySelector('[data-issue]').focus()")
    assert page.run("document.querySelectorAll('mark.lit').length") == 2
    page.run("document.querySelector('[name=confirm]').click()")
    page.run(f"{SIGN}.click()")
    page.until("location.pathname === '/'")
    assert door.state(made) == "signed"


def test_when_the_session_has_ended_the_text_stays_and_signing_again_works_after_signing_in(
    page: Chromium, door: Door, served: str
) -> None:
    made = door.sent_and_drafted()
    case(page, served, made)
    write(page, "再加一句。")
    with db.transaction(door.engine) as session:
        user = access.find_user(session, "li")
        session.execute(sa.text("UPDATE user_sessions SET ended_at = now()"))
        link = access.create_link(session, user, by="test")
    page.run(f"{SIGN}.click()")
    page.until("document.querySelector('#notice .message.bad')")
    assert "会话已结束" in page.run("document.getElementById('notice').textContent")
    page.run(f"fetch({link!r}).then(() => true)")  # as in another tab
    page.run("window.dispatchEvent(new Event('focus'))")
    page.until("!document.querySelector('#notice .message.bad')")
    assert page.run(f"{BOX}.value") == DRAFT + "再加一句。"
    page.run(f"{SIGN}.click()")
    page.until("location.pathname === '/'")
    assert door.state(made) == "signed"


def test_copying_from_the_draft_is_noted_once(page: Chromium, door: Door, served: str) -> None:
    made = door.sent_and_drafted()
    case(page, served, made)
    for _ in range(2):
        page.run("getSelection().selectAllChildren(document.getElementById('draft')); document.execCommand('copy')")
    page.run("new Promise(resolve => setTimeout(resolve, 300))")
    with db.transaction(door.engine) as session:
        kinds = [row.kind for row in session.exec(select(RequestEvent))]
    assert kinds.count("copied") == 1


def test_e_goes_to_the_box_and_control_enter_to_the_button_and_neither_signs(
    page: Chromium, door: Door, served: str
) -> None:
    made = door.sent_and_drafted()
    case(page, served, made)
    page.press("e")
    assert page.run("document.activeElement.id") == "impression"
    page.press("e")
    assert page.run(f"{BOX}.value") == DRAFT
    page.press("Enter", modifiers=2)
    assert page.run(f"document.activeElement === {SIGN}") is True
    assert door.state(made) == "drafted"


def speak(page: Chromium, language: Language) -> None:
    """Chooses a language from the menu, by keyboard."""
    page.run("document.querySelector('.languages summary').focus()")
    page.press("Enter")
    page.until("document.querySelector('.languages').open")
    page.run(f"document.querySelector('.languages a[lang={language}]').focus()")
    page.press("Enter")
    page.until(f"document.documentElement.lang === '{language}'")


RED = {"kind": "side", "severity": "red", "span_findings": [0, 4], "span_impression": [2, 6], "message": "M"}


@pytest.mark.parametrize("language", ["zh-Hant", "en", "fr"])
def test_the_whole_way_from_the_list_to_the_next_case_in_each_language(
    page: Chromium, door: Door, served: str, language: Language
) -> None:
    words = Words(language)
    speak(page, language)
    page.until(f"document.getElementById('live').textContent === {words('list.live')!r}")
    made, after = door.send(accession="A-1"), door.send(accession="A-2")
    page.until(f"document.querySelector('.state.queued')?.textContent === {words('state.queued')!r}")
    case(page, served, made)
    assert words("state_sentence.queued") in page.run("document.querySelector('.nodraft').textContent")
    door.settle(issues=[RED])
    page.until("document.getElementById('draft')")
    text = page.run("document.querySelector('.draft').textContent")
    for key in ("case.draft", "case.issues", "case.red", "kind.side", "case.confirm", "case.regenerate"):
        assert words(key) in text
    assert page.run(f"{SIGN}.textContent") == words("case.sign_here")
    page.run("document.querySelector('[name=confirm]').click()")
    write(page, "；")
    door.call("POST", f"/v1/requests/{made}/regenerate")
    door.settle()  # the other one, which came first
    door.settle(NEW)
    page.until("document.getElementById('show-newer')")
    assert words("notice.newer") in page.run("document.getElementById('notice').textContent")
    page.run(f"{SIGN}.click()")
    page.until("document.querySelector('#notice .message.bad')")
    assert page.run("document.getElementById('notice').textContent") == words("notice.outdated")
    page.run(f"{SIGN}.click()")
    page.until("location.pathname === '/'")
    assert words("list.signed_note", accession="A-1") in page.run("document.querySelector('.message').textContent")
    page.until("document.activeElement.dataset.id")
    assert page.run("document.activeElement.dataset.id") == after
    page.press("Enter")
    page.until(f"location.pathname === '/cases/{after}'")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", [1280, 390])
def test_no_word_is_cut_off_in_any_language(
    page: Chromium, door: Door, served: str, language: Language, width: int
) -> None:
    page.size(width, 844)
    made = door.send(priority="stat", exam_title="CT")
    door.settle(issues=[RED, {**RED, "kind": "sex_organ", "severity": "amber"}])
    door.send(priority="urgent", accession="A-2")
    with db.transaction(door.engine) as session:
        session.execute(sa.text("UPDATE draft_requests SET is_critical = true"))
        session.execute(sa.text("UPDATE users SET display_name = 'Dr Marie-Hélène Dubois-Lefèvre'"))
    page.open(f"{served}/language?to={language}")
    for path in ("/", f"/cases/{made}", "/sign-in", "/nowhere"):
        page.open(served + path)
        page.run("for (const menu of document.querySelectorAll('details')) menu.open = true")
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), path
        cut = (
            "e => e.clientWidth && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth)"
        )
        of = "button, .state, .lane, .label, .tabs a, th, summary, .languages a, h1, h2, .alarm"
        assert page.run(f"[...document.querySelectorAll({of!r})].filter({cut}).map(e => e.textContent)") == [], path


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Chromium, door: Door, served: str, width: int) -> None:
    made = door.send(
        findings="结节" * 60 + " " + "x" * 300, accession="A" * 60, exam_title="胸部CT平扫增强三维重建" * 5
    )
    page.size(width, 844)
    for path in ("/", f"/cases/{made}"):
        page.open(served + path)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), path
