"""Cleaned texts made anew when the rules have changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from clinical.text import findings_hash
from core import vocabulary
from core.db import transaction
from core.errors import NotFound
from core.states import ReportStatus
from core.tables import Absence, Report
from ingest import reclean
from ingest.cleaning import Cleaning
from tests import builders

RAW = "王小明两肺纹理清晰，右肺上叶见实性结节，长径约6mm。本科室存档。"
READ = "○○两肺纹理清晰，右肺上叶见实性结节，长径约6mm。本科室存档。"


def store(engine: sa.Engine, name: str, **changes: Any) -> None:
    values = {
        "institution": "north", "source_id": name, "status": ReportStatus.FINAL, "content_hash": name, "findings_hash": findings_hash(READ),
        "findings_raw": RAW, "impression_raw": "右肺结节。", "findings": READ, "impression": "右肺结节。", "cleaning_version": "old",
        "split": "train",
    }  # fmt: skip
    with transaction(engine) as session:
        session.add(Report(**{**values, **changes}))


@pytest.fixture
def engine(database: sa.Engine) -> sa.Engine:
    with transaction(database) as session:
        builders.institution(session, "north", role="train")
        builders.institution(session, "south")
    return database


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / vocabulary.FOLDER / vocabulary.PHRASES
    path.parent.mkdir()
    path.write_text('[[reason]]\nname = "archive"\ntexts = ["本科室存档"]\n', "utf-8")
    return tmp_path


def held(engine: sa.Engine) -> dict[str, Report]:
    with transaction(engine) as session:
        rows = session.exec(select(Report).order_by(col(Report.source_id))).all()
        session.expunge_all()
    return {row.source_id: row for row in rows}


def test_texts_are_made_anew_and_what_only_the_source_knew_stays_out(engine: sa.Engine, home: Path) -> None:
    store(engine, "a")
    assert reclean.reclean(engine, home, ["north"]) == [reclean.Recleaned("north", 1, 1)]
    row = held(engine)["a"]
    assert row.findings == "○○两肺纹理清晰，右肺上叶见实性结节，长径约6mm。"
    assert (row.findings_raw, row.removed) == (RAW, ["本科室存档"])
    assert row.findings_hash == findings_hash(row.findings)
    assert row.cleaning_version == Cleaning("zh-Hans", vocabulary.of(home, "north").phrases).version
    assert reclean.reclean(engine, home) == [reclean.Recleaned("north", 0, 0), reclean.Recleaned("south", 0, 0)]


def test_reasons_are_found_anew_and_those_of_others_stay(engine: sa.Engine, home: Path) -> None:
    store(engine, "advice", impression_raw="请结合临床。", findings_raw="腰椎退变，椎管未见狭窄。")
    store(engine, "filled", excluded="template_unfilled", findings_raw="头颅未见异常，脑室不大。")
    store(engine, "gone", excluded="absent", findings_raw="肝脾不大，胆囊未见结石。")
    reclean.reclean(engine, home)
    assert {name: row.excluded for name, row in held(engine).items()} == {
        "advice": "advice_only",
        "filled": None,
        "gone": "absent",
    }


def test_what_is_said_of_a_report_that_is_gone_waits_for_its_return(engine: sa.Engine, home: Path) -> None:
    store(engine, "gone", excluded="absent", impression_raw="请结合临床。", findings_raw="腰椎退变，椎管未见狭窄。")
    gone = held(engine)["gone"].id
    with transaction(engine) as session:
        session.add(Absence(report_id=gone, institution="north", times=2, excluded_before="title_only"))
    reclean.reclean(engine, home)
    with transaction(engine) as session:
        assert session.get_one(Absence, gone).excluded_before == "advice_only"
    assert held(engine)["gone"].excluded == "absent"


def test_a_pass_that_was_stopped_goes_on_where_it_was(
    engine: sa.Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        store(engine, f"r{number}")
    monkeypatch.setattr(reclean, "BATCH", 3)

    def stop(name: str, done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reclean.reclean(engine, home, ["north"], stop)
    told: list[tuple[str, int, int]] = []
    done = reclean.reclean(engine, home, ["north"], lambda *each: told.append(each))
    assert done == [reclean.Recleaned("north", 4, 4)]
    assert told == [("north", 0, 4), ("north", 3, 4), ("north", 4, 4)]
    assert {row.removed[0] for row in held(engine).values() if row.removed} == {"本科室存档"}


def test_what_was_taken_out_is_counted_by_institution_version_and_statement(engine: sa.Engine) -> None:
    store(engine, "a", removed=["以下空白", "以下空白", "title"])
    store(engine, "b", removed=["以下空白"])
    store(engine, "c", institution="south")
    with transaction(engine) as session:
        rows = reclean.removals(session)
    assert json.loads(json.dumps(rows)) == [
        {"institution": "north", "cleaning_version": "old", "term": "以下空白", "places": 3, "reports": 2},
        {"institution": "north", "cleaning_version": "old", "term": "title", "places": 1, "reports": 1},
    ]


def test_an_institution_that_does_not_exist_is_named(engine: sa.Engine, home: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        reclean.reclean(engine, home, ["nowhere"])


@pytest.mark.parametrize(
    ("raw", "read", "known"),
    [
        ("王小明左肺结节", "○○左肺结节", ["王小明"]),
        ("左肺结节，编号A12345，右肺清", "左肺结节，编号○○，右肺清", ["A12345"]),
        ("左肺结节", "左肺结节", []),
        ("左肺结节○○", "左肺结节○○", []),
    ],
)
def test_the_pieces_that_were_taken_out_are_read_off_the_two_texts(raw: str, read: str, known: list[str]) -> None:
    assert reclean.taken_out(raw, read) == known
