"""Versions of a report: whatever the order of arrival, the strongest stands, and every one that arrived is kept."""

import itertools
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import db, institutions
from core.states import ReportStatus
from core.tables import Report
from ingest import load, mapping
from ingest.cleaning import cleaned_batch
from ingest.rows import Rows
from ingest.sources import Batch
from tests.ingest.hospital import FINDINGS, IMPRESSION, NOON, Hospital, versions_of

STEPS = {
    "preliminary": ("0", 0, FINDINGS, ""),
    "final": ("1", 10, FINDINGS, IMPRESSION),
    "corrected": ("1", 20, FINDINGS, "右肺上叶实性小结节，良性可能。"),
    "amended": ("2", 15, FINDINGS, "补充：右肺上叶实性小结节，随诊。"),
    "retracted": ("9", 30, FINDINGS, IMPRESSION),
    "unsigned": ("3", 12, FINDINGS, IMPRESSION),
    "preliminary again": ("0", 25, FINDINGS, ""),
}


def arrive(hospital: Hospital, *names: str) -> tuple[Report, int]:
    """Loads these versions of report 1 in this order, a batch each; what stands, and how many versions are kept."""
    of = mapping.load(hospital.settings.institutions_dir / f"{hospital.code}.toml")
    rows = Rows(of, hospital.keyring)
    for name in names:
        status, minutes, findings, impression = STEPS[name]
        columns = ("source_id", "accession", "patient", "status", "findings", "impression", "modified_at")
        values = (1, "A-1", "P-00001", status, findings, impression, NOON + timedelta(minutes=minutes))
        taken, rejects = rows.take(Batch("reports", columns, [values], None, None, NOON))
        assert not rejects
        with db.transaction(hospital.ours) as session:
            institutions.sync(session, institutions.load_profiles(hospital.settings.institutions_dir))
            load.store(
                session,
                of.code,
                load.lines(of.code, of.language, list(zip(taken, cleaned_batch(taken), strict=True))),
                of.by_time,
            )
    with db.transaction(hospital.ours) as session:
        return hospital.report(1), len(versions_of(session, hospital.report(1)))


@pytest.mark.parametrize(
    ("names", "stands"),
    [
        (("preliminary", "final"), "final"),
        (("preliminary", "final", "corrected"), "corrected"),
        (("final", "corrected", "amended"), "amended"),
        (("preliminary", "final", "retracted"), "retracted"),
    ],
)
def test_any_order_of_arrival_ends_in_the_same_report(north: Hospital, names: tuple[str, ...], stands: str) -> None:
    for order in itertools.permutations(names):
        with db.transaction(north.ours) as session:
            session.execute(sa.text("TRUNCATE report_versions, reports CASCADE"))
        report, versions = arrive(north, *order, order[0])
        status, minutes, _, impression = STEPS[stands]
        assert (report.impression_raw, report.modified_at) == (impression, NOON + timedelta(minutes=minutes)), order
        assert report.status == {"0": "preliminary", "1": "final", "2": "amended", "9": "retracted"}[status]
        assert versions == len(names)


def test_a_late_preliminary_does_not_take_a_final_report_back(north: Hospital) -> None:
    north.write(1)
    north.poll()
    north.write(1, st="0", zd="", at=NOON + timedelta(minutes=1))
    north.poll()
    assert north.report(1).status == ReportStatus.FINAL
    assert [version.status for version in north.versions(1)] == ["final", "preliminary"]


@pytest.mark.parametrize(
    ("names", "stands"),
    [
        (("preliminary", "final", "unsigned"), "unsigned"),
        (("final", "unsigned", "corrected"), "corrected"),
        (("final", "amended", "unsigned"), "amended"),
        (("unsigned", "amended", "corrected"), "corrected"),
        (("final", "unsigned", "preliminary again"), "unsigned"),
        (("final", "unsigned", "retracted"), "retracted"),
    ],
)
def test_a_signature_that_is_taken_back_stands_until_the_next(
    north: Hospital, names: tuple[str, ...], stands: str
) -> None:
    north.describe(**{"3": "unsigned"})
    for order in itertools.permutations(names):
        with db.transaction(north.ours) as session:
            session.execute(sa.text("TRUNCATE report_versions, reports CASCADE"))
        report, _ = arrive(north, *order, order[0])
        status, minutes, _, impression = STEPS[stands]
        assert (report.impression_raw, report.modified_at) == (impression, NOON + timedelta(minutes=minutes)), order
        assert report.status == {"1": "final", "2": "amended", "3": "unsigned", "9": "retracted"}[status], order


@pytest.mark.parametrize("names", list(itertools.permutations(("preliminary", "final", "preliminary again"))))
def test_a_newer_preliminary_takes_a_signature_back_only_where_the_mapping_says_so(
    north: Hospital, names: tuple[str, ...]
) -> None:
    assert arrive(north, *names)[0].status == ReportStatus.FINAL
    with db.transaction(north.ours) as session:
        session.execute(sa.text("TRUNCATE report_versions, reports CASCADE"))
    north.describe(extra="unsign = true")
    report, _ = arrive(north, *names)
    assert (report.status, report.modified_at) == (ReportStatus.PRELIMINARY, NOON + timedelta(minutes=25))
    report, _ = arrive(north, "corrected")
    assert report.status == ReportStatus.PRELIMINARY  # it is older


def test_a_correction_is_a_further_version(north: Hospital) -> None:
    north.write(1)
    north.poll()
    north.write(1, zd="左肺上叶实性小结节。", at=NOON + timedelta(minutes=1))
    result = north.poll()
    assert (result.stored, result.unchanged) == (1, 0)
    report = north.report(1)
    assert (report.version, report.impression) == (2, "左肺上叶实性小结节。")
    assert [version.impression_raw for version in north.versions(1)] == [IMPRESSION, "左肺上叶实性小结节。"]


def test_a_touched_report_that_says_the_same_is_no_new_version(north: Hospital) -> None:
    north.write(1)
    north.poll()
    north.write(1, at=NOON + timedelta(hours=1))
    result = north.poll()
    assert (result.stored, result.unchanged) == (0, 1)
    assert (north.report(1).version, north.report(1).modified_at) == (1, NOON + timedelta(hours=1))


def test_of_reports_with_the_same_findings_one_may_train(north: Hospital) -> None:
    for key in (1, 2, 3):
        north.write(key, yx=FINDINGS, at=NOON + timedelta(seconds=key))
    north.poll()
    north.write(4, yx=FINDINGS.replace("，", ","), at=NOON + timedelta(minutes=1))
    north.poll()
    excluded = [north.report(key).excluded for key in (1, 2, 3, 4)]
    assert excluded == [None, "duplicate", "duplicate", "duplicate"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"zd": "AI 草稿，须医师审核\n右肺上叶结节。"}, "label_left_over"),
        ({"yx": "肝右叶见囊状低密度影，大小约3.2cm?。"}, "lossy_source"),
        ({"yx": "肝右叶见囊状\ufffd密度影，边界清。"}, "replacement_char"),
        ({"zd": "补充报告：右肺上叶结节较前相仿。"}, "addendum_only"),
        ({"yx": "肝脏____，胆囊____。"}, "template_unfilled"),
        ({"zd": "L4/5椎间盘突出？"}, None),
    ],
)
def test_what_must_never_train_is_kept_and_marked(north: Hospital, changes: dict[str, str], reason: str | None) -> None:
    north.write(1, **changes)
    north.poll()
    assert north.report(1).excluded == reason


def test_the_split_belongs_to_the_patient_and_stays(north: Hospital) -> None:
    for key in range(300):
        north.write(key, pid=f"P-{key % 100:05d}")
    north.poll()
    by_patient: dict[str, set[str]] = {}
    for report in north.reports().values():
        by_patient.setdefault(str(report.patient), set()).add(report.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert 8 <= sum(splits == {"test"} for splits in by_patient.values()) <= 35
    before = {accession: report.split for accession, report in north.reports().items()}
    for key in range(300):
        north.write(key, pid=f"P-{key % 100:05d}", zd="双肺未见异常。", at=NOON + timedelta(minutes=1))
    assert north.poll().stored == 300
    assert {accession: report.split for accession, report in north.reports().items()} == before
