"""What a training set is made of, on the real database."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from clinical.text import findings_hash
from core.errors import Broken, Refused
from core.states import ReportStatus, RequestState
from core.tables import DraftRequest, Report, SignOff
from tests import builders
from training import dataset
from training.dataset import TEST, TRAIN, Case, Policy


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


def sign_off(
    session: Session, keyring: Any, number: int, exposure: str, *, place: str = "here", of: Report | None = None
) -> SignOff:
    accepted = builders.accept(session, keyring, accession=f"A-{number}", findings=f"左肺见{number}枚结节。")
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
    first = dataset.build(hospitals, home, Policy())
    assert dataset.build(hospitals, home, Policy()).id == first.id
    assert dataset.build(hospitals, home / "elsewhere", Policy(modalities=("CT",))).id != first.id
    report(hospitals, 4)
    assert dataset.build(hospitals, home, Policy()).id != first.id


def test_final_reports_of_the_training_part_of_training_institutions_train_and_nothing_else(
    hospitals: Session, home: Path
) -> None:
    report(hospitals, 1)
    report(hospitals, 2, status=ReportStatus.PRELIMINARY)
    report(hospitals, 3, excluded="duplicate")
    report(hospitals, 4, split="test")
    report(hospitals, 5, institution="south")
    report(hospitals, 6, status=ReportStatus.AMENDED)
    row = dataset.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。", "右肺6枚结节。"]
    assert [case.signed for case in cases(row, TEST)] == ["右肺4枚结节。", "右肺5枚结节。"]
    assert row.counts["train"]["institution"] == {"north": 2}


def test_no_patient_and_no_findings_are_on_both_sides(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    report(hospitals, 2, split="test")
    report(hospitals, 3, findings="右肺上叶见2枚结节。")
    report(hospitals, 4, patient="patient-2")
    row = dataset.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。"]
    assert row.counts["left_out"] == {"findings_occur_elsewhere": 1, "patient_is_tested_on": 1}


def test_what_a_draft_may_have_shaped_is_no_reference_and_a_copied_draft_does_not_train(
    hospitals: Session, home: Path, keyring: Any
) -> None:
    report(hospitals, 1)
    sign_off(hospitals, keyring, 1, "verbatim", place="ris", of=report(hospitals, 2))
    sign_off(hospitals, keyring, 2, "heavy_edit", place="ris", of=report(hospitals, 3))
    sign_off(hospitals, keyring, 3, "heavy_edit", place="ris", of=report(hospitals, 4, split="test"))
    sign_off(hospitals, keyring, 4, "hold_back", place="ris", of=report(hospitals, 5, split="test"))
    row = dataset.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺1枚结节。", "右肺3枚结节。"]
    assert [case.signed for case in cases(row, TEST)] == ["右肺5枚结节。"]


def test_an_impression_signed_here_trains_until_the_ris_reports_its_own(
    hospitals: Session, home: Path, keyring: Any
) -> None:
    signed = sign_off(hospitals, keyring, 7, "heavy_edit")
    row = dataset.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN) + cases(row, TEST)] == ["左肺7枚结节。"]
    request = hospitals.get(DraftRequest, signed.request_id)
    assert request is not None
    report(hospitals, 8, accession=request.accession)
    row = dataset.build(hospitals, home, Policy())
    assert [case.signed for case in cases(row, TRAIN)] == ["右肺8枚结节。"]


def test_a_policy_narrows_the_set_by_system_modality_and_institution(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    report(hospitals, 2, systems=["head"])
    report(hospitals, 3, modality="MR")
    chosen = dataset.build(hospitals, home, Policy(systems=("head",)))
    assert [case.signed for case in cases(chosen, TRAIN)] == ["右肺2枚结节。"]
    with pytest.raises(Refused, match="no signed report"):
        dataset.build(hospitals, home, Policy(institutions=("west",)))


def test_the_files_hold_no_identifier_of_a_patient_and_come_with_a_card(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    row = dataset.build(hospitals, home, Policy())
    folder = Path(row.path)
    assert folder == home / "datasets" / row.id
    [line] = (folder / TRAIN).read_text("utf-8").splitlines()
    assert "patient-1" not in line
    assert "accession-1" not in line
    assert json.loads(line)["findings"] == "右肺上叶见1枚结节。"
    assert "train: 1 reports" in (folder / dataset.CARD).read_text("utf-8")


def test_a_changed_file_is_noticed(hospitals: Session, home: Path) -> None:
    report(hospitals, 1)
    row = dataset.build(hospitals, home, Policy())
    file = Path(row.path) / TRAIN
    file.write_text(file.read_text("utf-8").replace("1枚", "9枚"), "utf-8")
    with pytest.raises(Broken, match="not what its digest says"):
        dataset.build(hospitals, home, Policy())


def test_a_line_gives_back_its_case(hospitals: Session, home: Path) -> None:
    report(hospitals, 1, age=None, sex="U", exam_title="胸部CT平扫", history="咳嗽")
    [case] = cases(dataset.build(hospitals, home, Policy()), TRAIN)
    assert dataset.from_line(case.as_line()) == case
    assert (case.input.age, case.input.history, case.id) == (None, "咳嗽", "report:north/source-1")
    assert dataset.scope(iter([case])) == [
        {"modality": "CT", "system": "chest", "age_band": "unknown", "language": "zh-Hans", "count": 1}
    ]
