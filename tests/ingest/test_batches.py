"""Batches: what a row becomes does not depend on its neighbours, nor on the way by which it reaches the table."""

import hashlib
import hmac
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import db, institutions
from core.errors import Retryable
from core.identity import Keyring
from ingest import load, mapping
from ingest.cells import copy_cells
from ingest.cleaning import cleaned_batch
from ingest.mapping import Mapping
from ingest.rows import Incoming, Rows
from ingest.sources import Batch
from tests.ingest.hospital import FILE, FINDINGS, IMPRESSION, NOON, Hospital

ODD_TEXTS = [
    "",
    " ",
    "无",
    "\\N",
    "\\.",
    "a\tb\\tc",
    "行\r\n行\n",
    "肺\x00野",
    "肺\ud800野",
    "右肺结节，建议".encode("gbk").decode("latin-1"),
    "5×4㎜²",
    "××××",
    "约5×4mm，±2°C",
    "肺??? ??",
    "? ?",
]
TEXT = st.one_of(
    st.none(),
    st.sampled_from([*ODD_TEXTS, FINDINGS, IMPRESSION]),
    st.text(max_size=12),
    st.text(max_size=6).map(lambda text: text.encode("gb18030", "ignore")),
    st.binary(max_size=5),
)
EARLIEST, LATEST = (
    datetime.min.replace(tzinfo=ZoneInfo("Asia/Shanghai")),
    datetime.max.replace(tzinfo=ZoneInfo("America/New_York")),
)
TIME = st.one_of(
    st.none(),
    st.sampled_from(["", "0000-00-00", "2025-06-01 08:00:00", "昨天", EARLIEST, LATEST, date(2025, 6, 1)]),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
)
CODES = {
    "status": ["0", "1", " 1 ", "2", "9", "7", None],
    "sex": ["F", " M ", "X", None, ""],
    "age": ["45", "45岁", 7, 45.0, "999", "成人", None],
    "modality": ["CT", "DR", "PT", None],
    "system": ["chest", "chest、head", "hat", None],
    "part": ["胸部", "头颅+胸部", None],
    "author": ["王医生", " ", None],
}
WORDS = ("source_id", "accession", "patient", "known_name", "findings", "impression", "history", "exam_title")
TIMES = ("examined_at", "reported_at", "signed_at", "modified_at")
COLUMNS = (*WORDS, *TIMES, *CODES)
ROW = st.tuples(
    st.one_of(TEXT, st.integers(0, 9), st.floats(0, 9).map(lambda number: round(number, 1))),
    *[TEXT] * (len(WORDS) - 1),
    *[TIME] * len(TIMES),
    *[st.sampled_from(values) for values in CODES.values()],
)


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Mapping:
    """The mapping of a hospital whose columns may arrive as GB18030 bytes."""
    path = tmp_path_factory.mktemp("mapping") / "north.toml"
    path.write_text(
        FILE.format(code="north", connection='url = "postgresql:///x"', findings="yx", extra='charset = "gb18030"'),
        "utf-8",
    )
    return mapping.load(path)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    """Keys of these tests."""
    return Keyring.load(tmp_path_factory.mktemp("keys") / "master.key", create=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=8))
def test_a_batch_is_the_same_as_its_rows_one_by_one(of: Mapping, keys: Keyring, rows: list[tuple[Any, ...]]) -> None:
    def batch(some: list[tuple[Any, ...]]) -> Batch:
        return Batch("reports", COLUMNS, some, None, None, NOON)

    taken, rejects = Rows(of, keys).take(batch(rows))
    alone = [Rows(of, keys).take(batch([row])) for row in rows]
    assert taken == [row for each, _ in alone for row in each]
    assert rejects == [reject for _, each in alone for reject in each]
    assert len(taken) + len(rejects) == len(rows)


@settings(max_examples=60, deadline=None)
@given(value=st.text(min_size=1, max_size=40))
def test_a_pseudonym_is_an_hmac_of_the_value(value: str) -> None:
    ring = Keyring(bytes(range(32)))
    key = ring._derive("north", "pseudonym", "patient")  # the derived key itself is nobody's business but this test's
    normal = unicodedata.normalize("NFKC", value).strip().upper()
    expected = hmac.new(key, normal.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]
    assert ring.pseudonym("north", "patient", value) == expected


def test_ids_made_together_are_distinct_version_7_and_ascend() -> None:
    ids = [UUID(each) for each in db.new_ids(500)]
    assert len(set(ids)) == 500
    assert ids == sorted(ids)
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
    now = datetime.now(UTC).timestamp()
    assert all(abs((each.int >> 80) / 1000 - now) < 60 for each in ids)


@given(moment=st.datetimes() | st.datetimes(timezones=st.sampled_from([UTC, ZoneInfo("Asia/Shanghai")])))
def test_times_are_written_as_python_writes_them(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    assert copy_cells([moment, None, whole]) == [moment.isoformat(" "), "\\N", whole.isoformat(" ")]


# --- into the table --------------------------------------------------------------------------------------------------------------

KEPT = (
    "source_id, accession, patient, version, status, content_hash, findings_hash, language, modality, systems, exam_title, sex, age, patient_class,"
    " history, prior_impression, findings_raw, impression_raw, findings, impression, cleaning_version, author, author_grade, reviewer, reviewer_grade,"
    " examined_at, reported_at, signed_at, modified_at, split, excluded, removed"
)


def incoming(hospital: Hospital, rows: list[dict[str, Any]]) -> list[Incoming]:
    of = mapping.load(hospital.settings.institutions_dir / f"{hospital.code}.toml")
    full = [
        {"source_id": 1, "accession": "A", "patient": "P", "status": "1", "findings": FINDINGS, "impression": IMPRESSION,
         "history": None, "exam_title": "胸部CT", "age": "50", "modality": "CT", "part": "胸部", "author": "王", "reported_at": None,
         "modified_at": NOON} | row
        for row in rows
    ]  # fmt: skip
    taken, rejects = Rows(of, hospital.keyring).take(
        Batch("reports", tuple(full[0]), [tuple(row.values()) for row in full], None, None, NOON)
    )
    assert not rejects
    return taken


def stored(hospital: Hospital, rows: list[Incoming], *, unseen: bool) -> list[tuple[Any, ...]]:
    """What stands in the table after these rows, in an empty database, by the one way or the other."""
    with db.transaction(hospital.ours) as session:
        session.execute(sa.text("TRUNCATE report_versions, reports CASCADE"))
        institutions.sync(session, institutions.load_profiles(hospital.settings.institutions_dir))
    put(hospital, rows, {row.source_id for row in rows} if unseen else set())
    return table(hospital)


def put(hospital: Hospital, rows: list[Incoming], unseen: set[str]) -> load.Stored:
    lines = load.lines(hospital.code, "zh-Hans", list(zip(rows, cleaned_batch(rows), strict=True)), unseen)
    with db.transaction(hospital.ours) as session:
        return load.store(session, hospital.code, lines)


def table(hospital: Hospital) -> list[tuple[Any, ...]]:
    with db.transaction(hospital.ours) as session:
        return [tuple(row) for row in session.execute(sa.text(f"SELECT {KEPT} FROM reports ORDER BY source_id"))]


def mixed(hospital: Hospital) -> list[Incoming]:
    odd = "左\t肺\\N见\r\n\\结节，5×4㎜²，“𠮷”\u00a0\\.\n\\."
    return incoming(
        hospital,
        [
            {"source_id": 1, "findings": odd, "impression": f" {odd} ", "history": odd, "exam_title": "a\tb\\"},
            {"source_id": 2, "findings": "\\N", "impression": "\\N", "age": None, "author": None, "part": None},
            {"source_id": 3, "modified_at": NOON + timedelta(minutes=1)},
            {"source_id": 4, "findings": FINDINGS.replace("，", ","), "reported_at": NOON - timedelta(hours=1)},
            {"source_id": 5, "status": "0", "impression": None},
            {"source_id": 6, "impression": "AI 草稿，须医师审核\n右肺结节。", "modified_at": None},
            {"source_id": 7, "status": "9"},
            {"source_id": 8, "findings": f"{FINDINGS}姓名：张三", "accession": None, "patient": None},
            {"source_id": 8, "findings": f"{FINDINGS}另一份。", "modified_at": NOON + timedelta(minutes=2)},
        ],
    )


def test_new_reports_end_as_the_same_rows_by_copy_as_by_upsert(north: Hospital) -> None:
    rows = mixed(north)
    by_copy, by_upsert = stored(north, rows, unseen=True), stored(north, rows, unseen=False)
    assert by_copy == by_upsert
    assert len(by_copy) == 8
    excluded = [row[-2] for row in by_copy]
    assert excluded.count("duplicate") == 1
    assert excluded.count("label_left_over") == 1


def test_a_report_that_somebody_else_stored_meanwhile_is_no_obstacle(north: Hospital) -> None:
    rows = mixed(north)
    expected = stored(north, rows, unseen=False)
    put(north, rows, set())
    assert stored(north, rows[:1], unseen=True) != expected
    result = put(north, rows, {row.source_id for row in rows})  # the first of them is there by now
    assert table(north) == expected
    assert result.reports == len(expected) - 1


def test_the_only_version_of_a_report_is_kept_once(north: Hospital) -> None:
    north.write(1)
    north.poll()
    with db.transaction(north.ours) as session:
        assert session.execute(sa.text("SELECT count(*) FROM report_versions")).scalar_one() == 0
    north.write(1, zd="左肺上叶实性小结节。", at=NOON + timedelta(minutes=1))
    north.poll()
    with db.transaction(north.ours) as session:
        rows = session.execute(
            sa.text("SELECT v.version, v.impression_raw, v.ingested_at = r.ingested_at FROM report_versions v"
                    " JOIN reports r ON r.id = v.report_id ORDER BY v.version")
        )  # fmt: skip
        assert [tuple(row) for row in rows] == [(1, IMPRESSION, True), (2, "左肺上叶实性小结节。", False)]


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("SET LOCAL statement_timeout = 50", "database_slow"),
        ("SELECT pg_terminate_backend(pg_backend_pid(), 0)", "database_away"),
    ],
)
def test_what_stops_copy_is_an_error_to_try_again_after(database: sa.Engine, first: str, code: str) -> None:
    with pytest.raises(Retryable) as raised:
        _copy_slowly_after(database, first)
    assert raised.value.code == code
    with db.transaction(database) as session:
        assert session.execute(sa.text("SELECT 1")).scalar_one() == 1


def _copy_slowly_after(database: sa.Engine, first: str) -> None:
    with db.transaction(database) as session:
        driver = session.connection().connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute(first)
        with driver.cursor() as cursor, cursor.copy("COPY (SELECT pg_sleep(20)) TO STDOUT") as copy:
            copy.read()
