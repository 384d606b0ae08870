"""Equal and nearly equal reports: which one stays, and that nothing near a tested text ever trains."""

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from clinical.text import comparable, findings_hash
from core.db import transaction
from core.errors import Retryable
from core.hours import Hours
from core.settings import IngestSettings
from core.states import ReportStatus
from core.tables import FindingsSketch, Report
from ingest import duplicates, service, standing
from ingest.load import LOAD_LOCK
from ingest.nightly import Nightly
from ingest.sketches import NEAR, Index, grams, overlap, sketch
from sandbox import generator
from tests import builders

LONG = (
    "两肺纹理清晰，右肺上叶尖段见实性小结节影，边缘光整，长径约6mm，邻近胸膜未见牵拉。左肺下叶背段见条索状高密度影。纵隔内未见肿大淋巴结，心影大小正常，"
    "冠状动脉走行区见点状钙化。两侧胸腔未见积液，所示肝内见类圆形低密度影，直径约12mm，边界清楚。"
)
NEARLY = LONG.replace("6mm", "7mm")


@pytest.fixture
def engine(database: sa.Engine) -> sa.Engine:
    with transaction(database) as session:
        builders.institution(session, "north", role="train")
        builders.institution(session, "south", role="test")
    return database


def store(engine: sa.Engine, name: str, findings: str, **changes: Any) -> None:
    values = {
        "institution": "north", "source_id": name, "status": ReportStatus.FINAL, "content_hash": name, "findings_hash": findings_hash(findings),
        "findings_raw": findings, "impression_raw": "结节。", "findings": findings, "impression": "结节。", "cleaning_version": "1", "split": "train",
    }  # fmt: skip
    with transaction(engine) as session:
        session.add(Report(**{**values, **changes}))


def excluded(engine: sa.Engine) -> dict[str, str | None]:
    with transaction(engine) as session:
        return {row.source_id: row.excluded for row in session.exec(select(Report))}


def change(engine: sa.Engine, name: str, **values: Any) -> None:
    with transaction(engine) as session:
        session.execute(sa.update(Report).where(col(Report.source_id) == name).values(**values))


def test_of_two_nearly_equal_training_reports_the_earlier_one_stays(engine: sa.Engine) -> None:
    store(engine, "a", LONG)
    store(engine, "b", NEARLY)
    store(engine, "c", "头颅CT平扫：双侧大脑半球对称，灰白质分界清楚，脑室系统未见扩张，中线结构居中，颅骨未见骨折。")
    assert duplicates.search(engine) == duplicates.Found(examined=3, near=1, exact=0)
    assert excluded(engine) == {"a": None, "b": "near_duplicate", "c": None}
    assert duplicates.search(engine) == duplicates.Found()


@pytest.mark.parametrize(
    "tested", [{"split": "test"}, {"institution": "south"}], ids=["by the patient's split", "by the institution's role"]
)
@pytest.mark.parametrize("first", ["train", "test"])
def test_a_report_near_a_tested_one_never_trains_whichever_came_first(
    engine: sa.Engine, tested: dict[str, str], first: str
) -> None:
    for name in ("train", "test") if first == "train" else ("test", "train"):
        store(engine, name, LONG if name == "test" else NEARLY, **(tested if name == "test" else {}))
        duplicates.search(engine)
    assert excluded(engine) == {"test": None, "train": "near_duplicate"}


def test_of_equal_findings_the_tested_report_stays_across_institutions_too(engine: sa.Engine) -> None:
    store(engine, "train", LONG)
    store(engine, "test", LONG, institution="south", excluded="duplicate")
    store(engine, "again", LONG)
    assert duplicates.search(engine).exact == 3
    assert excluded(engine) == {"train": "duplicate", "test": None, "again": "duplicate"}


def test_tested_reports_are_not_thinned(engine: sa.Engine) -> None:
    store(engine, "a", LONG, split="test")
    store(engine, "b", NEARLY, split="test")
    duplicates.search(engine)
    assert excluded(engine) == {"a": None, "b": None}


def test_what_was_kept_out_comes_back_when_the_report_that_stayed_is_gone(engine: sa.Engine) -> None:
    store(engine, "a", LONG)
    store(engine, "b", NEARLY)
    store(engine, "c", LONG, excluded="duplicate")
    duplicates.search(engine)
    change(engine, "a", status=ReportStatus.RETRACTED)
    duplicates.search(engine)
    assert sorted(str(excluded(engine)[name]) for name in "bc") == ["None", "near_duplicate"]


def test_a_report_whose_findings_changed_is_looked_at_anew(engine: sa.Engine) -> None:
    store(engine, "a", LONG)
    store(engine, "b", NEARLY)
    duplicates.search(engine)
    other = "腰椎生理曲度变直，各椎体缘见骨质增生，腰4/5椎间盘向后突出，硬膜囊受压，椎管未见狭窄。"
    change(engine, "b", findings=other, findings_hash=findings_hash(other), excluded=None)
    assert duplicates.search(engine).examined == 1
    assert excluded(engine) == {"a": None, "b": None}


def test_when_an_institution_starts_to_train_its_reports_are_compared(engine: sa.Engine) -> None:
    store(engine, "a", LONG, institution="south")
    store(engine, "b", NEARLY, institution="south")
    duplicates.search(engine)
    assert excluded(engine) == {"a": None, "b": None}
    with transaction(engine) as session:
        builders.institution(session, "south", role="train")
    duplicates.search(engine)
    assert excluded(engine) == {"a": None, "b": "near_duplicate"}


def test_a_pass_that_was_stopped_goes_on_where_it_was(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    for number in range(30):
        store(engine, f"r{number}", "".join(rng.choices(LONG, k=120)) if number % 3 else LONG.replace("6", str(number)))
    monkeypatch.setattr(duplicates, "BLOCK", 7)

    def stop(done: int, of: int) -> None:
        if done >= 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        duplicates.search(engine, stop)
    with transaction(engine) as session:
        assert len(session.exec(select(FindingsSketch)).all()) == 14
    duplicates.search(engine)
    out = {name for name, why in excluded(engine).items() if why == "near_duplicate"}
    assert len(out) == 9
    assert out <= {f"r{number}" for number in range(0, 30, 3)}


def test_two_passes_at_once_are_one_too_many(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": duplicates.LOCK})
        with pytest.raises(Retryable, match="Another process"):
            duplicates.search(engine)
        connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": duplicates.LOCK})


def test_the_index_proposes_nearly_everything_that_is_near() -> None:
    """Against every pair measured exactly, over generated findings each of which stands beside an edited copy."""
    rng = random.Random(11)
    texts = list({comparable(report.findings) for report in generator.generate("balanced", scale=0.001, seed=11)})
    for text in texts[:]:
        edited = list(text)
        for at in rng.sample(range(len(text)), max(1, len(text) // rng.choice((60, 90, 150)))):
            edited[at] = rng.choice(LONG)
        texts.append("".join(edited))
    sets = [grams(text) for text in texts]
    near = {(i, j) for i in range(len(texts)) for j in range(i) if overlap(sets[i], sets[j]) >= NEAR}
    rows = sketch(texts)
    index = Index()
    for start in range(0, len(rows), 100):
        index.add(rows[start : start + 100])
    proposed = {(i, j) for i, places in enumerate(index.near(rows)) for j in places if j < i}
    assert len(near) > 150
    assert len(near & proposed) >= 0.99 * len(near)
    assert len(proposed) < 5 * len(near)


def test_sketches_agree_as_much_as_the_texts_overlap() -> None:
    rows = sketch([LONG, NEARLY, LONG[:60], "", "肺"])
    for one, other in ((0, 1), (0, 2), (0, 3), (3, 4)):
        texts = [LONG, NEARLY, LONG[:60], "", "肺"]
        assert abs((rows[one] == rows[other]).mean() - overlap(grams(texts[one]), grams(texts[other]))) < 0.13


# --- at night -----------------------------------------------------------------------------------------------------------------


def test_a_search_that_runs_out_of_time_says_what_is_left_and_the_next_goes_on(engine: sa.Engine) -> None:
    for number in range(3):
        store(engine, f"r{number}", LONG.replace("6mm", f"{number}1mm"))
    assert duplicates.search(engine, until=0.0) == duplicates.Found()
    with transaction(engine) as session:
        stopped = standing.searched(session)
        assert not duplicates.searched_since(session, datetime.min.replace(tzinfo=UTC))
    assert stopped is not None
    assert (stopped["waiting"], stopped["examined"], stopped["ended_at"]) == (3, 0, None)
    duplicates.search(engine)
    with transaction(engine) as session:
        done = standing.searched(session)
        assert duplicates.searched_since(session, datetime.min.replace(tzinfo=UTC))
    assert done is not None
    assert (done["waiting"], done["examined"], done["near"]) == (3, 3, 2)
    assert done["ended_at"] is not None


def test_reports_are_stored_while_a_search_works_something_out_and_wait_only_for_its_changes(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock under which batches are stored is free while sketches are made, and held once reports are marked."""
    store(engine, "a", LONG)
    store(engine, "b", NEARLY)
    free: dict[str, bool] = {}

    def note(when: str) -> None:
        with transaction(engine) as session:
            lock = sa.text("SELECT pg_try_advisory_xact_lock(:key)")
            free[when] = session.execute(lock, {"key": LOAD_LOCK}).scalar_one()

    def before(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO findings_sketches"):
            note("changes")

    real = duplicates.sketch
    monkeypatch.setattr(duplicates, "sketch", lambda texts: (note("sketches"), real(texts))[1])
    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        duplicates.search(engine)
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)
    assert free == {"sketches": True, "changes": False}


def test_the_nightly_search_runs_once_in_its_window_in_a_process_of_its_own(
    engine: sa.Engine, settings: IngestSettings
) -> None:
    store(engine, "a", LONG)
    store(engine, "b", NEARLY)
    closed = Hours((datetime.now() + timedelta(hours=2)).time(), (datetime.now() + timedelta(hours=3)).time())  # noqa: DTZ005
    for hours, runs in ((closed, False), (Hours.of("00:00-00:00"), True)):
        night = Nightly(engine, service.place(engine, settings), hours)
        night.round()
        process = night._process
        assert (process is not None) is runs
        if process is not None:
            process.join(60)
            night.round()
    assert excluded(engine) == {"a": None, "b": "near_duplicate"}
    store(engine, "c", LONG.replace("12mm", "13mm"))
    night.round()
    assert night._process is None  # this window's search is done
    with transaction(engine) as session:
        session.execute(sa.text("UPDATE duplicate_searches SET began_at = began_at - interval '25 hours'"))
    night.round()
    assert night._process is not None
    night._process.join(60)
    night.round()
    assert excluded(engine)["c"] == "near_duplicate"


def test_a_search_that_never_ends_is_killed_after_its_window(engine: sa.Engine, settings: IngestSettings) -> None:
    store(engine, "a", LONG)
    night = Nightly(engine, service.place(engine, settings), Hours.of("00:00-00:00"))
    with engine.connect() as other:
        other.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": LOAD_LOCK})
        night.round()
        process = night._process
        assert process is not None
        night.round()
        assert night._process is process
        night._ends = time.monotonic() - 61
        night.round()
        assert night._process is None
        other.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": LOAD_LOCK})
    night.round()
    assert night._process is None  # not before an hour has passed
