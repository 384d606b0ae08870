"""What the doors promise, whichever door it is."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlmodel import Session, select

from core import answers, leases, requests, sign_offs
from core.db import new_id
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.identity import Keyring
from core.states import Reason, ReportStatus, RequestState
from core.tables import Draft, DraftIssue, DraftRequest, Generation, Identity, Report, SignOff, Withdrawal
from tests.builders import ADMIN, DOCTOR, FINDINGS, QUEUE, SYSTEM, accept, body, institution


@pytest.fixture(autouse=True)
def _north(session: Session) -> None:
    institution(session, "north")
    institution(session, "south")


def drafted(session: Session, text: str = "1、右肺上叶小结节；\n2、左侧胸腔积液。") -> Draft:
    """Has the best waiting request drafted."""
    held = leases.claim(session, "test", QUEUE)
    assert held is not None
    generation = Generation(
        id=new_id(),
        request_id=held.request.id,
        attempt_id=held.lease,
        rung=0,
        seed=1,
        text=text,
        finish="stop",
        prompt_tokens=10,
        new_tokens=5,
        seconds=0.1,
        passed=True,
        model_version="m1",
        prompt_version="p1",
        checks_version="c1",
    )
    draft = Draft(
        request_id=held.request.id,
        version=0,
        impression=text,
        label="AI",
        generation_id=generation.id,
        model_version="m1",
        prompt_version="p1",
        checks_version="c1",
    )
    issue = DraftIssue(draft_id=draft.id, kind="side", severity="red", message="…", rule="side")
    assert leases.settle_drafted(session, held, draft, [issue], [generation])
    return draft


def state(session: Session, identity: object) -> RequestState:
    """The state as the database has it now."""
    return session.execute(sa.select(DraftRequest.state).where(DraftRequest.id == identity)).scalar_one()


def test_the_same_request_again_is_the_same_one(session: Session, keyring: Keyring) -> None:
    first, second = accept(session, keyring), accept(session, keyring)
    assert (first.created, second.created) == (True, False)
    assert first.id == second.id


def test_findings_that_differ_in_spacing_only_are_the_same(session: Session, keyring: Keyring) -> None:
    assert accept(session, keyring).id == accept(session, keyring, findings=f"  {FINDINGS}\r\n").id


def test_changed_findings_supersede_an_unclosed_request(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    second = accept(session, keyring, findings=FINDINGS + "心影不大。")
    assert state(session, first.id) is RequestState.SUPERSEDED
    assert answers.view(session, requests.get(session, second.id, SYSTEM))["supersedes"] == str(first.id)


def test_changed_findings_after_signing_open_a_linked_amendment(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    sign_offs.sign(session, first.id, "右肺上叶小结节。", None, DOCTOR)
    second = accept(session, keyring, findings=FINDINGS + "心影不大。")
    row = requests.get(session, second.id, SYSTEM)
    assert (row.amends, row.supersedes) == (first.id, None)
    assert state(session, first.id) is RequestState.SIGNED


def test_asking_again_after_cancel_opens_a_new_one(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    requests.cancel(session, first.id, SYSTEM)
    second = accept(session, keyring)
    assert second.created
    assert second.id != first.id


def test_going_back_to_superseded_findings_opens_a_new_request(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    second = accept(session, keyring, findings=FINDINGS + "心影不大。")
    third = accept(session, keyring)
    assert len({first.id, second.id, third.id}) == 3
    assert state(session, second.id) is RequestState.SUPERSEDED


def test_asking_again_with_stat_raises_a_waiting_request(session: Session, keyring: Keyring) -> None:
    accept(session, keyring)
    again = accept(session, keyring, priority="stat")
    assert (again.created, again.is_stat, again.rings) == (False, True, True)
    assert requests.get(session, again.id, SYSTEM).is_stat


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"findings": ""}, "empty_findings"),
        ({"findings": " \n　。，"}, "empty_findings"),
        ({"findings": "肺" * 8_001}, "findings_too_long"),
        ({"findings": "右肺\0结节"}, "not_text"),
        ({"findings": "右肺\ud800结节"}, "not_text"),
        ({"accession": "A\0"}, "not_text"),
        ({"modality": "US"}, "invalid"),
        ({"priority": "now"}, "invalid"),
        ({"patient": {"id": "P", "age": 200}}, "invalid"),
        ({"patient": {"id": "P", "name": "王某"}}, "invalid"),
        ({"unknown": 1}, "invalid"),
        ({"callback_url": "http://elsewhere/x"}, "callback_host"),
        ({"callback_url": "file:///etc/passwd"}, "callback_url"),
        ({"callback_url": "http://[::1"}, "callback_url"),
        ({"callback_url": "http://ris.example:port/"}, "callback_url"),
        ({"callback_url": "http://ris.example:99999/"}, "callback_url"),
        ({"callback_url": "http://ris.example/\x7f"}, "callback_url"),
        ({"callback_url": "http://ris.example@elsewhere/"}, "callback_url"),
        ({"callback_url": "http://elsewhere#ris.example"}, "callback_host"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence_and_no_values(
    session: Session, keyring: Keyring, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(Invalid) as refused:
        accept(session, keyring, **changes)
    assert refused.value.code == code
    assert refused.value.message.endswith(".")
    assert "王某" not in refused.value.message
    assert session.exec(select(DraftRequest)).all() == []


def test_an_unknown_institution_is_named_as_unknown(session: Session, keyring: Keyring) -> None:
    with pytest.raises(NotFound) as refused:
        accept(session, keyring, ADMIN, institution="nowhere")
    assert refused.value.code == "unknown_institution"


def test_a_key_does_not_speak_for_another_institution(session: Session, keyring: Keyring) -> None:
    with pytest.raises(Forbidden):
        accept(session, keyring, institution="south")


def test_another_institutions_request_does_not_exist(session: Session, keyring: Keyring) -> None:
    other = accept(session, keyring, ADMIN, institution="south")
    for call in (requests.get, requests.cancel, requests.regenerate):
        with pytest.raises(NotFound):
            call(session, other.id, SYSTEM)
    with pytest.raises(NotFound):
        sign_offs.sign(session, other.id, "未见异常。", None, DOCTOR)
    with pytest.raises(NotFound):
        requests.get(session, uuid4(), SYSTEM)


def test_a_system_key_never_signs(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    for actor in (SYSTEM, ADMIN):
        with pytest.raises(Forbidden):
            sign_offs.sign(session, first.id, "未见异常。", None, actor)


def test_a_sign_off_of_an_outdated_draft_is_refused_and_changes_nothing(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    drafted(session)
    requests.regenerate(session, first.id, DOCTOR)
    drafted(session, "右肺上叶结节，左侧胸腔积液。")
    with pytest.raises(Conflict) as refused:
        sign_offs.sign(session, first.id, "右肺上叶结节。", 1, DOCTOR)
    assert refused.value.code == "outdated_draft"
    assert state(session, first.id) is RequestState.DRAFTED
    signed = sign_offs.sign(session, first.id, "右肺上叶结节。", 2, DOCTOR)
    assert signed.version == 1


def test_the_former_draft_stands_where_another_could_not_be_made(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    drafted(session)
    requests.regenerate(session, first.id, DOCTOR)
    held = leases.claim(session, "w", QUEUE)
    assert held is not None
    assert leases.settle_without(session, held, Reason.CHECKS_FAILED)
    row = requests.get(session, first.id, DOCTOR)
    assert (row.state, row.reason, row.draft_version) == (RequestState.DRAFTED, None, 1)
    assert answers.view(session, row)["draft"]["version"] == 1


def test_signing_twice_is_refused_and_keeps_the_first_text(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    sign_offs.sign(session, first.id, "右肺上叶小结节。", None, DOCTOR)
    with pytest.raises(Conflict):
        sign_offs.sign(session, first.id, "别的。", None, DOCTOR)
    assert [row.impression for row in session.exec(select(SignOff))] == ["右肺上叶小结节。"]


def test_a_reopened_report_is_signed_as_a_new_version(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    drafted(session)
    sign_offs.sign(session, first.id, "右肺上叶小结节。", 1, DOCTOR)
    assert sign_offs.reopen(session, first.id, DOCTOR).state is RequestState.DRAFTED
    assert sign_offs.sign(session, first.id, "右肺上叶结节。", 1, DOCTOR).version == 2


def test_the_label_of_a_draft_cannot_be_signed(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    with pytest.raises(Invalid) as refused:
        sign_offs.sign(session, first.id, "AI 草稿，须医师审核\n右肺结节。", None, DOCTOR)
    assert refused.value.code == "label_left_over"


def test_exposure_follows_what_was_displayed_and_how_much_was_changed(session: Session, keyring: Keyring) -> None:
    classes = []
    edits = {
        "A": "1、右肺上叶小结节；\n2、左侧胸腔积液。",
        "B": "1、右肺上叶结节；\n2、左侧胸腔积液。",
        "C": "未见异常。",
    }
    for accession, text in edits.items():
        one = accept(session, keyring, accession=accession)
        drafted(session)
        requests.record_event(session, one.id, "shown", DOCTOR)
        classes.append(sign_offs.sign(session, one.id, text, 1, DOCTOR).exposure)
    hidden = accept(session, keyring, accession="D")
    drafted(session)
    classes.append(sign_offs.sign(session, hidden.id, "右肺结节。", None, DOCTOR).exposure)
    none = accept(session, keyring, accession="E")
    classes.append(sign_offs.sign(session, none.id, "右肺结节。", None, DOCTOR).exposure)
    assert classes == ["verbatim", "light_edit", "heavy_edit", "not_opened", "unassisted"]


def ris_report(
    session: Session, keyring: Keyring, accession: str = "A-1", impression: str = "右肺上叶结节，左侧胸腔积液。"
) -> Report:
    """A final report as ingest stores it."""
    report = Report(
        institution="north",
        source_id=uuid4().hex,
        accession=keyring.pseudonym("north", "accession", accession),
        status="final",
        content_hash=uuid4().hex,
        findings_hash="f",
        findings_raw=FINDINGS,
        impression_raw=impression,
        findings=FINDINGS,
        impression=impression,
        cleaning_version="1",
        author="a",
        reviewer="r",
        split="test",
    )
    session.add(report)
    session.flush()
    return report


def test_a_report_signed_in_the_ris_closes_its_request_and_is_scored_once(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    drafted(session)
    report = ris_report(session, keyring)
    matched = sign_offs.match_ris(session, report)
    assert len(matched) == 1
    assert state(session, first.id) is RequestState.SIGNED
    assert sign_offs.match_ris(session, report) == []
    assert sign_offs.unscored(session, "any", 10) == matched


def test_the_ris_text_becomes_a_further_version_of_what_was_signed_here(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    drafted(session)
    sign_offs.sign(session, first.id, "右肺上叶小结节。", 1, DOCTOR)
    sign_offs.match_ris(session, ris_report(session, keyring))
    versions = session.exec(select(SignOff).order_by(SignOff.version)).all()  # type: ignore[arg-type]
    assert [(row.version, row.place, row.text_role) for row in versions] == [
        (1, "here", "author"),
        (2, "ris", "reviewer"),
    ]


def taken_back(session: Session, report: Report, status: ReportStatus) -> None:
    """The institution says this of the report now, as ingest stores it."""
    report.status, report.modified_at = status, datetime.now(UTC) + timedelta(minutes=1)
    session.flush()
    sign_offs.withdraw_ris(session, report)


def test_a_report_that_is_opened_again_takes_its_score_away_and_brings_the_draft_back(
    session: Session, keyring: Keyring
) -> None:
    first = accept(session, keyring)
    drafted(session)
    report = ris_report(session, keyring)
    matched = sign_offs.match_ris(session, report)
    taken_back(session, report, ReportStatus.UNSIGNED)
    assert state(session, first.id) is RequestState.DRAFTED
    assert sign_offs.unscored(session, "any", 10) == []
    report.status = ReportStatus.FINAL
    assert sign_offs.match_ris(session, report) == []
    assert state(session, first.id) is RequestState.SIGNED
    assert sign_offs.unscored(session, "any", 10) == matched


def test_a_signature_on_our_page_stands_when_the_ris_opens_its_report_again(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    drafted(session)
    sign_offs.sign(session, first.id, "右肺上叶小结节。", 1, DOCTOR)
    report = ris_report(session, keyring)
    sign_offs.match_ris(session, report)
    taken_back(session, report, ReportStatus.PRELIMINARY)
    assert state(session, first.id) is RequestState.SIGNED
    withdrawn = session.exec(select(SignOff.place).join(Withdrawal)).all()
    assert withdrawn == ["ris"]


def test_a_retraction_takes_an_open_request_off_the_worklist_and_a_signature_out_of_the_scores(
    session: Session, keyring: Keyring
) -> None:
    first = accept(session, keyring)
    drafted(session)
    report = ris_report(session, keyring)
    taken_back(session, report, ReportStatus.RETRACTED)
    assert state(session, first.id) is RequestState.CANCELLED
    assert answers.worklist(session, DOCTOR, keyring=keyring) == []
    signed = accept(session, keyring, accession="A-2")
    report = ris_report(session, keyring, "A-2")
    assert sign_offs.match_ris(session, report)
    taken_back(session, report, ReportStatus.RETRACTED)
    assert state(session, signed.id) is RequestState.SIGNED
    assert sign_offs.unscored(session, "any", 10) == []


def test_a_request_that_came_after_the_retraction_is_a_new_examination(session: Session, keyring: Keyring) -> None:
    report = ris_report(session, keyring)
    again = accept(session, keyring)
    report.status, report.modified_at = ReportStatus.RETRACTED, datetime.now(UTC) - timedelta(hours=1)
    session.flush()
    sign_offs.withdraw_ris(session, report)
    assert state(session, again.id) is RequestState.QUEUED


def test_the_raw_accession_is_sealed_and_the_request_holds_a_pseudonym_only(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring, accession="ACC-778899", patient={"id": "PAT-112233"})
    row = requests.get(session, first.id, SYSTEM)
    assert "778899" not in row.accession
    assert "112233" not in row.patient
    assert b"778899" not in session.exec(select(Identity)).one().sealed
    assert answers.worklist(session, DOCTOR, keyring=keyring)[0]["accession"] == "ACC-778899"


def test_the_worklist_is_stat_first_then_by_due_time(session: Session, keyring: Keyring) -> None:
    for accession, priority in (("A", "routine"), ("B", "urgent"), ("C", "stat")):
        accept(session, keyring, accession=accession, priority=priority)
    shown = answers.worklist(session, DOCTOR, keyring=keyring)
    assert [entry["accession"] for entry in shown] == ["C", "B", "A"]


def test_a_missing_draft_is_told_with_its_reason(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    held = leases.claim(session, "test", QUEUE)
    assert held is not None
    assert leases.settle_without(session, held, Reason.NO_MODEL)
    assert answers.view(session, requests.get(session, first.id, SYSTEM)) == {
        "id": str(first.id),
        "state": "withheld",
        "reason": "no_model",
    }


def test_a_body_is_whole_as_the_interface_names_it() -> None:
    full = body(
        exam_title="胸部CT平扫",
        patient_class="inpatient",
        history="咳嗽",
        prior_impression="右肺结节",
        author="doctor-7",
        language="zh-Hans",
        callback_url="https://ris.example/draft",
    )
    assert requests.parse(full).model_dump(exclude_none=True).keys() == full.keys()


def test_a_critical_finding_moves_a_request_up_without_making_it_stat(session: Session, keyring: Keyring) -> None:
    accept(session, keyring, accession="first")
    critical = accept(
        session, keyring, accession="second", findings="右侧额叶团状高密度影，约30ml，考虑脑出血。中线结构左移。"
    )
    row = requests.get(session, critical.id, SYSTEM)
    assert (row.is_critical, row.is_stat) == (True, False)
    held = leases.claim(session, "w", QUEUE)
    assert held is not None
    assert held.request.id == critical.id


def test_the_signed_text_returns_through_the_door_it_came_by(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    sign_offs.sign(session, first.id, "右肺上叶小结节。", None, DOCTOR)
    told = answers.view(session, requests.get(session, first.id, SYSTEM))
    assert told["signed"] == {"version": 1, "impression": "右肺上叶小结节。", "place": "here"}


def test_rows_of_a_restored_dump_come_back_into_the_change_feed(session: Session, keyring: Keyring) -> None:
    first = accept(session, keyring)
    session.flush()
    session.execute(sa.text("ALTER TABLE draft_requests DISABLE TRIGGER stamp_change"))
    session.execute(sa.text("UPDATE draft_requests SET changed_xid = 9000000000000000"))
    session.execute(sa.text("ALTER TABLE draft_requests ENABLE TRIGGER stamp_change"))
    assert requests.restamp(session) == 1
    stamped = session.execute(
        sa.text("SELECT changed_xid FROM draft_requests WHERE id = :id"), {"id": first.id}
    ).scalar_one()
    assert 0 < stamped < 9000000000000000
