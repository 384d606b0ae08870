"""What a training set is made of, on the real database."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from clinical.text import findings_hash
from core.db import new_id, transaction
from core.errors import Broken, NotFound, Refused
from core.identity import Keyring, split_of
from core.states import ReportStatus, RequestState
from core.tables import DraftRequest, Report, ScoreRow, SignOff
from tests import builders
from tests.core.test_requests import drafted
from training import dataset, eligible
from training.dataset import TEST, TRAIN, Case
from training.policy import Policy


def report(session: Session, number: int, institution: str = "north", **changes: Any) -> Report:
    findings = f"右肺上叶见{number}枚结节。"
    row = Report(
        **{
            "institution": institution,
            "source_id": f"source-{number}",
            "accession": f"accession-{number}",
            "patient": f"patient-{number}",
            "status": ReportStatus.FINAL,
            "content_hash": f"{number}",
            "findings_hash": findings_hash(changes.get("findings", findings)),
            "modality": "CT",
            "systems": ["chest"],
            "sex": "F",
            "age": 61,
            "findings_raw": findings,
            "impression_raw": f"右肺{number}枚结节。",
            "findings": findings,
            "impression": f"右肺{number}枚结节。",
            "cleaning_version": "1",
            "split": "train",
            **changes,
        }
    )
    session.add(row)
    session.flush()
    return row


def patient_on(side: str, keyring: Keyring, institution: str = "north") -> str:
    """A patient whose pseudonym under this run's random key falls on that side of the split."""
    numbers = (f"P-{number}" for number in range(1000))
    return next(number for number in numbers if split_of(keyring.pseudonym(institution, "patient", number)) == side)


def sign_off(
    session: Session, keyring: Keyring, number: int, exposure: str, *, place: str = "here", of: Report | None = None
) -> SignOff:
    accepted = builders.accept(
        session,
        keyring,
        accession=f"A-{number}",
        findings=f"左肺见{number}枚结节。",
        patient={"id": patient_on("train", keyring), "sex": "F", "age": 61},
    )
    request = session.get(DraftRequest, accepted.id)
    assert request is not None
    request.state = RequestState.SIGNED
    row = SignOff(
        request_id=request.id,
        version=1,
        place=place,
        text_role="author",
        impression=f"左肺{number}枚结节。",
        signer="dr-li",
        exposure=exposure,
        report_id=None if of is None else of.id,
        report_version=None if of is None else of.version,
    )
    session.add(row)
    session.flush()
    return row


@pytest.fixture
def hospitals(session: Session) -> Session:
    builders.institution(session, "north", role="train")
    builders.institution(session, "south", role="test")
    return session


def cases(row: Any, part: str) -> list[Case]:
    return list(dataset.read(Path(row.path), part))


def test_the_same_reports_and_policy_give_the_same_set_once(hospitals: Session, home: Path) -> None:
    for number in (1, 2, 3):
        report(hospitals, number)
    first = eligible.build(hospitals, home, Policy())
    assert eligible.build(hospitals, home, Policy()).id == first.id
    assert eligible.build(hospitals, home / "elsewhere", Policy(modalities=("CT",))).id != first.id
    report(hospitals, 4)
    assert eligible.build(hospitals, home, Policy()).id != first.id


def test_two_who_freeze_the_same_set_at_once_get_the_same_row(database: sa.Engine, home: Path) -> None:
    with transaction(database) as session:
        builders.institution(session, "north", role="train")
        report(session, 1)

    def build() -> str:
        with transaction(database) as session:
            return eligible.build(session, home, Policy()).id

    with ThreadPoolExecutor(1) as aside, transaction(database) as session:
        first = eligible.build(session, home, Policy())
        second = aside.submit(build)
        with pytest.raises(TimeoutError):
            second.result(timeout=1.0)
        session.commit()
        assert second.result(timeout=60) == first.id
    dataset.verify(Path(first.path), first.digest)


def test_final_reports_of_the_training_part_of_training_institutions_train_and_nothing_else(
    hospitals: Session, home: Path
) -> None:
    report(hospitals, 1)
    report(hospitals, 2, status=ReportStatus.PRELIMINARY)
    report(hospitals, 3, excluded="duplicate")
    report(hospitals, 4, split="test")
    report(hospitals, 5, institution="south")
    report(hospitals, 6, status=ReportStatus.AMENDED)
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。", "右肺6枚结节。"]
    assert [case.signed for case in cases(row, TEST)] == ["右肺4枚结节。", "右肺5枚结节。"]
    assert row.counts["train"]["institution"] == {"north": 2}


def test_a_role_that_begins_later_moves_the_training_part_on_its_day_and_the_tested_part_stays(
    hospitals: Session, home: Path
) -> None:
    report(hospitals, 1)
    report(hospitals, 2, institution="south")
    report(hospitals, 3, institution="south", split="test")
    tested = {}
    for day in ("2999-01-01", "2020-01-01"):
        builders.institution(hospitals, "south", role="train", role_from=day)
        row = eligible.build(hospitals, home, Policy())
        tested[day] = [case.signed for case in cases(row, TEST)]
        assert len(cases(row, TRAIN)) == (1 if day == "2999-01-01" else 2)
    assert tested == {"2999-01-01": ["右肺2枚结节。", "右肺3枚结节。"], "2020-01-01": ["右肺3枚结节。"]}


def test_no_patient_and_no_findings_are_on_both_sides(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    report(hospitals, 2, split="test")
    report(hospitals, 3, findings="右肺上叶见2枚结节。")
    report(hospitals, 4, patient="patient-2")
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。"]
    assert row.counts["left_out"] == {"findings_occur_elsewhere": 1, "patient_is_tested_on": 1}


def test_findings_of_the_test_side_never_train_even_where_their_report_is_left_out(
    hospitals: Session, home: Path
) -> None:
    report(hospitals, 1)
    report(hospitals, 2)
    report(hospitals, 3, institution="south", findings="右肺上叶见2枚結節。", excluded="duplicate")
    report(hospitals, 4, findings="右肺上叶见5枚结节。")
    report(hospitals, 5, institution="south", systems=["head"])
    row = eligible.build(hospitals, home, Policy(systems=("chest",)))
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。"]
    assert row.counts["left_out"] == {"findings_occur_elsewhere": 2, "not_in_policy": 1}


def test_what_a_draft_may_have_shaped_is_no_reference_and_a_copied_draft_does_not_train(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    report(hospitals, 1)
    sign_off(hospitals, keyring, 1, "verbatim", place="ris", of=report(hospitals, 2))
    sign_off(hospitals, keyring, 2, "heavy_edit", place="ris", of=report(hospitals, 3))
    sign_off(hospitals, keyring, 3, "heavy_edit", place="ris", of=report(hospitals, 4, split="test"))
    sign_off(hospitals, keyring, 4, "hold_back", place="ris", of=report(hospitals, 5, split="test"))
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。", "右肺3枚结节。"]
    assert [case.signed for case in cases(row, TEST)] == ["右肺5枚结节。"]


def noticed(session: Session, signed: SignOff, *severities: str, scored: int = 2024) -> None:
    """What worker.scoring stores of a signed text; by the scorer of that year."""
    issues = [{"kind": "side", "severity": severity, "rule": "side"} for severity in severities]
    figures = dict.fromkeys(("r1", "r2", "rl", "char_rl"), 1.0)
    row = ScoreRow(sign_off_id=signed.id, scorer=f"{scored}", edit_distance=0, **figures)
    row.detail, row.created_at = {"signed_issues": issues}, datetime(scored, 1, 1, tzinfo=UTC)
    session.add(row)
    session.flush()


def test_a_text_that_was_signed_with_a_red_issue_does_not_train_unless_that_is_asked(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    report(hospitals, 1)
    for number, severities in enumerate((("info", "red"), ("amber", "info"), ("withhold",), ()), start=2):
        signed = sign_off(hospitals, keyring, number, "heavy_edit", place="ris", of=report(hospitals, number))
        noticed(hospitals, signed, *severities)
    for number in (0, 6, 7, 8):  # human texts, so that the edited ones find room
        report(hospitals, number)
    noticed(hospitals, sign_off(hospitals, keyring, 9, "heavy_edit"), "red")  # signed here
    measured = report(hospitals, 10, split="test")
    noticed(hospitals, sign_off(hospitals, keyring, 10, "hold_back", place="ris", of=measured), "red")
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed[2] for case in cases(row, TRAIN)] == ["0", "1", "3", "5", "6", "7", "8"]
    assert [case.signed for case in cases(row, TEST)] == ["右肺10枚结节。"]  # what is measured on stays what it was
    assert row.counts["left_out"] == {"red_issue_in_signed_text": 3}
    assert "| red_issue_in_signed_text | 3 |" in (Path(row.path) / dataset.CARD).read_text("utf-8")
    assert eligible.build(hospitals, home, Policy()).id == row.id
    everything = eligible.build(hospitals, home, Policy(red_issues=True))
    assert sorted(case.signed[2] for case in cases(everything, TRAIN)) == list("0123456789")
    assert (everything.id != row.id, everything.counts["left_out"]) == (True, {})


def test_a_red_issue_is_resolved_by_a_text_signed_anew_or_by_what_the_checks_say_now(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    for number in (1, 2, 3):
        report(hospitals, number)
    mended, kept = report(hospitals, 4), report(hospitals, 5)
    first = sign_off(hospitals, keyring, 4, "heavy_edit", place="ris", of=mended)
    noticed(hospitals, first, "red")
    noticed(hospitals, sign_off(hospitals, keyring, 5, "heavy_edit", place="ris", of=kept), "red")
    here = sign_off(hospitals, keyring, 6, "heavy_edit")
    noticed(hospitals, here, "red")

    def train() -> list[str]:
        return [case.signed[2] for case in cases(eligible.build(hospitals, home, Policy()), TRAIN)]

    assert train() == ["1", "2", "3"]
    mended.version = 2
    again = {**first.model_dump(exclude={"id"}), "version": 2, "report_version": 2}
    hospitals.add_all([mended, SignOff(**again)])
    noticed(hospitals, here, "amber", scored=2025)
    assert sorted(train()) == ["1", "2", "3", "4", "6"]
    mended.version = 1  # the RIS went back to its first text
    hospitals.add(mended)
    assert sorted(train()) == ["1", "2", "3", "6"]


def test_a_report_whose_ris_went_back_to_an_earlier_text_counts_by_how_that_text_came_about(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    report(hospitals, 1)
    again = report(hospitals, 2)
    first = sign_off(hospitals, keyring, 2, "verbatim", place="ris", of=again)
    later = {**first.model_dump(exclude={"id"}), "version": 2, "report_version": 2, "exposure": "heavy_edit"}
    hospitals.add(SignOff(**later))
    hospitals.flush()
    assert eligible.build(hospitals, home, Policy()).counts["left_out"] == {"exposure_verbatim": 1}
    again.version = 2
    hospitals.add(again)
    assert eligible.build(hospitals, home, Policy()).counts["left_out"] == {}


def test_a_draft_that_was_on_offer_is_no_reference_to_measure_by_though_nobody_opened_it(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    report(hospitals, 1)
    sign_off(hospitals, keyring, 1, "not_opened", place="ris", of=report(hospitals, 2))
    sign_off(hospitals, keyring, 2, "not_opened", place="ris", of=report(hospitals, 3, split="test"))
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。", "右肺2枚结节。"]
    assert cases(row, TEST) == []
    assert row.counts["left_out"] == {"test_text_may_be_shaped_by_a_draft": 1}


def test_a_report_of_a_cancelled_request_may_be_its_draft_and_counts_as_copied(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    request = builders.accept(hospitals, keyring, accession="A-1").id
    drafted(hospitals)
    hospitals.execute(sa.update(DraftRequest).values(state=RequestState.CANCELLED))
    accession = hospitals.get_one(DraftRequest, request).accession
    after, before = datetime(2999, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    report(hospitals, 1, accession=accession, signed_at=after)
    report(hospitals, 2, accession=accession, signed_at=before)  # it was signed when there was no draft yet
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺2枚结节。"]
    assert row.counts["left_out"] == {"exposure_verbatim": 1}


def test_a_stratum_short_of_human_texts_keeps_those_from_before_the_days_asked_for(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    for number in (1, 2, 3):
        report(hospitals, number, signed_at=datetime(2023, number, 1, tzinfo=UTC))
    for number in (4, 5):
        signed = report(hospitals, number, signed_at=datetime(2024, 2, 1, tzinfo=UTC))
        sign_off(hospitals, keyring, number, "heavy_edit", place="ris", of=signed)
    row = eligible.build(hospitals, home, Policy(since="2024-01-01"))
    assert [case.id[-1] for case in cases(row, TRAIN)] == ["2", "3", "4", "5"]
    assert (row.counts["older"], row.counts["left_out"]) == (2, {"not_signed_within": 1})
    assert "2 human texts from before the days asked for" in (Path(row.path) / dataset.CARD).read_text("utf-8")


def test_a_set_that_says_less_than_people_do_is_refused_and_its_human_texts_alone_are_not(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    types = ("结节", "积液", "气胸", "肺炎", "骨折", "钙化", "肺不张", "肺气肿")
    for number in range(250):
        report(hospitals, number, impression=f"右肺{types[number % 8]}，大小约{number}mm，考虑炎症可能。")
    flat = [report(hospitals, number, impression="双肺结节。") for number in range(1000, 1250)]
    shaped = sign_off(hospitals, keyring, 1, "heavy_edit", place="ris", of=flat[0])
    hospitals.execute(
        sa.insert(SignOff),
        [
            {**shaped.model_dump(exclude={"id"}), "id": new_id(), "report_id": row.id, "version": 2 + number}
            for number, row in enumerate(flat[1:])
        ],
    )
    with pytest.raises(Refused, match=r"says less than people do .*different words.*at least 90 %"):
        eligible.build(hospitals, home, Policy())
    assert eligible.build(hospitals, home, Policy(exposures=("unassisted",))).counts["train"]["reports"] == 250


def test_an_impression_signed_here_trains_until_the_ris_reports_its_own(
    hospitals: Session, home: Path, keyring: Keyring
) -> None:
    report(hospitals, 1)
    signed = sign_off(hospitals, keyring, 7, "heavy_edit")
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。", "左肺7枚结节。"]
    request = hospitals.get(DraftRequest, signed.request_id)
    assert request is not None
    report(hospitals, 8, accession=request.accession)
    row = eligible.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。", "右肺8枚结节。"]


def test_a_lightly_edited_text_counts_half(hospitals: Session, home: Path, keyring: Keyring) -> None:
    report(hospitals, 1)
    sign_off(hospitals, keyring, 1, "light_edit", place="ris", of=report(hospitals, 2))
    row = eligible.build(hospitals, home, Policy())
    assert {case.signed: case.weight for case in cases(row, TRAIN)} == {"右肺1枚结节。": 1.0, "右肺2枚结节。": 0.5}
    assert row.counts["train"]["weight"] == 1.5


def test_dates_caps_and_exclusions_narrow_the_training_part_only(hospitals: Session, home: Path) -> None:
    for number in range(1, 7):
        report(hospitals, number, signed_at=datetime(2024, number, 1, 12, tzinfo=UTC))
    report(hospitals, 7)
    report(hospitals, 8, split="test", signed_at=datetime(2020, 1, 1, tzinfo=UTC))
    dated = eligible.build(hospitals, home, Policy(since="2024-02-01", until="2024-05-01"))
    assert [case.id[-1] for case in cases(dated, TRAIN)] == ["2", "3", "4"]
    assert [case.id[-1] for case in cases(dated, TEST)] == ["8"]
    assert dated.counts["left_out"] == {"not_signed_within": 4}
    capped = eligible.build(hospitals, home, Policy(cap=2))
    assert capped.counts["train"]["reports"] == 2
    assert capped.counts["left_out"] == {"over_the_cap": 5}
    assert eligible.build(hospitals, home, Policy(cap=2)).id == capped.id
    without = eligible.build(hospitals, home, Policy(exclude=("report:north/source-3", "report:north/source-8")))
    assert [case.id[-1] for case in cases(without, TRAIN)] == ["1", "2", "4", "5", "6", "7"]
    assert cases(without, TEST) == []


def test_what_an_earlier_set_was_tested_on_never_trains_where_that_is_asked(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    report(hospitals, 2, institution="south")
    report(hospitals, 3, institution="south")
    before = eligible.build(hospitals, home, Policy(exclude=("report:south/source-3",)))
    assert [case.id for case in cases(before, TEST)] == ["report:south/source-2"]
    builders.institution(hospitals, "south", role="train")
    row = eligible.build(hospitals, home, Policy(apart_from=(before.id,)))
    assert [case.id for case in cases(row, TRAIN)] == ["report:north/source-1", "report:south/source-3"]
    with pytest.raises(NotFound, match="no training set 0123"):
        eligible.build(hospitals, home, Policy(apart_from=("0123",)))


def test_a_policy_narrows_the_set_by_system_modality_and_institution(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    report(hospitals, 2, systems=["head"])
    report(hospitals, 3, modality="MR")
    chosen = eligible.build(hospitals, home, Policy(systems=("head",)))
    assert [case.signed for case in cases(chosen, TRAIN)] == ["右肺2枚结节。"]
    with pytest.raises(Refused, match="no signed report"):
        eligible.build(hospitals, home, Policy(institutions=("west",)))


def test_the_files_hold_no_identifier_of_a_patient_and_come_with_a_card(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    row = eligible.build(hospitals, home, Policy())
    folder = Path(row.path)
    assert folder == home / "datasets" / row.id
    [line] = (folder / TRAIN).read_text("utf-8").splitlines()
    assert "patient-1" not in line
    assert "accession-1" not in line
    assert json.loads(line)["findings"] == "右肺上叶见1枚结节。"
    assert "train: 1 reports" in (folder / dataset.CARD).read_text("utf-8")


def test_a_changed_file_is_noticed(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    row = eligible.build(hospitals, home, Policy())
    file = Path(row.path) / TRAIN
    file.write_text(file.read_text("utf-8").replace("1枚", "9枚"), "utf-8")
    with pytest.raises(Broken, match="not what its digest says"):
        eligible.build(hospitals, home, Policy())


def test_a_line_gives_back_its_case(hospitals: Session, home: Path) -> None:
    report(hospitals, 1, age=None, sex="U", exam_title="胸部CT平扫", history="咳嗽")
    [case] = cases(eligible.build(hospitals, home, Policy()), TRAIN)
    assert dataset.from_line(case.as_line()) == case
    assert (case.input.age, case.input.history, case.id) == (None, "咳嗽", "report:north/source-1")
    assert dataset.scope(iter([case])) == [
        {"modality": "CT", "system": "chest", "age_band": "unknown", "language": "zh-Hans", "count": 1}
    ]
