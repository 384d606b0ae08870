"""Cleaning beside reading: the same texts, a second process only for a large reading, and none that outlives it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psutil
import pytest

from clinical.non_essential import read
from core.errors import Broken
from core.states import ReportStatus
from ingest import service
from ingest.child import Child, Job
from ingest.cleaner import Cleaner
from ingest.cleaning import STANDARD, Cleaning, cleaned_batch
from ingest.poll import PollResult
from tests.ingest.hospital import NOON, Hospital

MANY = 12_000
FINAL = ReportStatus.FINAL


class Row(NamedTuple):
    findings: str
    impression: str
    history: str | None
    prior_impression: str | None
    status: ReportStatus
    known: tuple[str, ...]


ROWS = [
    Row("患者王小明，右肺见结节，约6mm。", "右肺结节。", "咳嗽", None, FINAL, ("王小明",)),
    Row("", "", None, None, ReportStatus.PRELIMINARY, ()),
    Row("住院号：12345678。\n肝内见囊性灶。肝内见囊性灶。", "【诊断】肝囊肿。", "", "肝囊肿\t复查\\", FINAL, ()),
    Row("𠮷见影", "X", None, "\x01", FINAL, ("A-1", "P-00001")),
]


@pytest.fixture
def cleaner() -> Iterator[Cleaner]:
    made = Cleaner()
    yield made
    made.close()


def test_texts_are_the_same_wherever_they_are_cleaned(cleaner: Cleaner) -> None:
    for cleaning in (STANDARD, Cleaning("en", read('[[reason]]\nname = "ours"\ntexts = ["约6mm"]', "own.toml"))):
        several = (ROWS, [], ROWS[:1], ROWS * 2000)
        apart = [cleaner.begin(rows, cleaning, more=True) for rows in several]
        assert [batch.result() for batch in apart] == [cleaned_batch(rows, cleaning) for rows in several]


def test_what_a_live_poll_brings_is_cleaned_where_it_was_read(cleaner: Cleaner) -> None:
    assert cleaner.begin(ROWS, STANDARD, more=False).done()
    assert not cleaner.begin(ROWS * 2000, STANDARD, more=True).done()
    cleaner.reading()
    assert cleaner.begin(ROWS, STANDARD, more=False).done()


def test_a_text_that_cannot_be_cleaned_stops_the_reading_and_is_not_quoted(cleaner: Cleaner) -> None:
    with pytest.raises(Broken, match=r"^A batch could not be cleaned \(TypeError at \w+\.py:\d+\)\.$"):
        cleaner.begin([ROWS[0]._replace(known=(7,))], STANDARD, more=True).result()
    assert cleaner.begin(ROWS, STANDARD, more=True).result() == cleaned_batch(ROWS)


@pytest.fixture
def large(north: Hospital) -> Hospital:
    north.connection.execute(
        "INSERT INTO report SELECT n, 'A-'||n, 'P-'||n, NULL, '1', '患者王小明，右肺上叶见结节影，编号'||n||'。', '右肺上叶结节。', 'F', '50', 'CT',"
        " '胸部', %s + n * interval '1 second' FROM generate_series(1, %s) n",
        [NOON, MANY],
    )
    service.look(north.ours, north.settings)
    return north


def beside(child: Child) -> list[psutil.Process]:
    """The processes of a child that is up."""
    pid = None if child._process is None else child._process.pid
    return [] if pid is None else psutil.Process(pid).children()


def gone(processes: list[psutil.Process], within_s: float) -> bool:
    """Whether none of them runs any more; who was left behind by its parent may wait for a while to be buried."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes):
            return True
        time.sleep(0.005)
    return False


def read_until(child: Child, job: Job, then: Callable[[list[psutil.Process]], None]) -> PollResult:
    """The result of a reading in which `then` is told of the cleaner as soon as there is one."""
    over = threading.Event()
    told: list[bool] = []

    def watch() -> None:
        while not over.wait(0.002):
            try:
                found = beside(child)
            except psutil.Error:
                continue
            if found:
                told.append(True)
                then(found)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return child.work(job)
    finally:
        over.set()
        watcher.join()
        assert told


def test_a_large_reading_is_cleaned_beside_it_and_the_cleaner_ends_with_its_child(large: Hospital) -> None:
    child, seen = Child(service.place(large.ours, large.settings), large.code), list[psutil.Process]()
    try:
        result = read_until(child, Job(large.settings.institutions_dir / f"{large.code}.toml", 60), seen.extend)
        assert (result.error, result.stored) == (None, MANY)
        assert seen[0].cpu_times().user > 0.1  # seconds: it has had work
    finally:
        child.close()
    assert gone(seen, within_s=1)
    assert {report.findings.partition("，")[0] for report in large.reports().values()} == {"患者○○"}


@pytest.mark.parametrize("who", ["child", "cleaner"])
def test_whoever_is_killed_nothing_is_lost_and_no_process_stays(large: Hospital, who: str) -> None:
    child, seen = Child(service.place(large.ours, large.settings), large.code), list[psutil.Process]()
    job, in_time = Job(large.settings.institutions_dir / f"{large.code}.toml", 60), list[bool]()

    def kill(found: list[psutil.Process]) -> None:
        while found[0].cpu_times().user < 0.02:  # until it is at work
            time.sleep(0.002)
        seen.extend(found)
        assert child._process is not None
        assert child._process.pid is not None
        os.kill(child._process.pid if who == "child" else found[0].pid, signal.SIGKILL)
        in_time.append(gone(found, within_s=1))

    try:
        first = read_until(child, job, kill)
        assert first.error == ("crashed" if who == "child" else "cleaner_away")
        assert in_time == [True]
        assert child.work(job).error is None
    finally:
        child.close()
    assert len(large.reports()) == MANY
    assert gone(seen, within_s=1)
