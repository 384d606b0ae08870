"""Assessments that go on where they were, the tables and reports that are made of them, and the baselines beside the models."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlmodel import select

from clinical import overlay
from clinical.case import ClinicalInput, Modality, System
from clinical.style import Style
from core.db import transaction
from core.tables import Evaluation, JudgedCase
from tests.training import planted
from tests.worker.stand_in import StandIn
from training import assessment, baselines, energy, evaluations, statistics
from training.dataset import Case
from training.evaluate import House, Judged, judged
from training.report import Report, as_csv, html, markdown
from training.tables import tables
from training.utility import utility


def case(
    number: int, findings: str = "左侧胸腔见弧形水样影。", signed: str = "左侧胸腔积液。", institution: str = "north"
) -> Case:
    seen = ClinicalInput(institution, findings, Modality.CT, (System.CHEST,), age=50)
    return Case(f"report:{institution}/{number}", seen, signed)


CASES = [case(number) for number in range(6)]


class Drafter:
    """Drafts by a stand-in engine and counts; stops in the middle when told to."""

    def __init__(self, text: str = "左侧胸腔积液。", stop_after: int | None = None) -> None:
        self.engine, self.stop_after, self.drafted = StandIn(text), stop_after, 0

    def __call__(self, cases: Sequence[Case]) -> Iterator[Judged]:
        for one in judged(self.engine, cases, template="brief", max_new_tokens=32, in_flight=1):
            if self.drafted == self.stop_after:
                raise KeyboardInterrupt
            self.drafted += 1
            yield one


@pytest.fixture
def data(database: sa.Engine) -> str:
    with transaction(database) as session:
        return planted.dataset(session)


def assess(
    database: sa.Engine,
    data: str,
    drafter: Drafter,
    cases: Sequence[Case] = CASES,
    house: Mapping[str, House] = MappingProxyType({}),
) -> Evaluation:
    subject = assessment.Subject("model:new", "digest", drafter, told={"weights": "nf4+adapter"})
    return assessment.assess(database, subject, data, cases, house)


def test_an_assessment_that_was_stopped_goes_on_where_it_was(database: sa.Engine, data: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        assess(database, data, Drafter(stop_after=4))
    with transaction(database) as session:
        assert evaluations.newest(session, "model:new") is None  # it does not count yet
        assert len(session.exec(select(JudgedCase)).all()) == 4
    rest = Drafter()
    row = assess(database, data, rest)
    assert rest.drafted == 2
    assert row.result["metrics"]["reports"] == 6
    assert row.finished_at is not None
    again = Drafter()
    assert assess(database, data, again).id == row.id
    assert again.drafted == 0


def test_seconds_tokens_and_joules_are_of_what_was_drafted_and_add_up(database: sa.Engine, data: str) -> None:
    readings = iter((1000.0, 1030.0, 5000.0, 5006.0))

    def told(cases: Sequence[Case]) -> dict[str, Any]:
        subject = assessment.Subject("model:new", "d", Drafter(), energy=lambda: next(readings))
        return assessment.assess(database, subject, data, cases, {}).result

    first = told(CASES[:3])
    assert (first["joules"], first["joules_reports"]) == (30.0, 3)
    both = told(CASES)
    assert (both["joules"], both["joules_reports"]) == (36.0, 6)
    assert both["elapsed_tokens"] == 2 * first["elapsed_tokens"] > 0
    assert told(CASES) == both  # nothing drafted, nothing read
    assert utility("model:new", [], result=both).joules == 6.0
    assert utility("model:new", [], result={}).joules is None


def test_without_a_driver_no_card_says_what_it_used() -> None:
    assert energy.joules("GPU-0") is None


def test_more_cases_are_added_to_the_same_evaluation(database: sa.Engine, data: str) -> None:
    first = assess(database, data, Drafter(), CASES[:3])
    more = Drafter()
    assert assess(database, data, more).id == first.id
    assert more.drafted == 3


def test_a_new_scorer_scores_the_stored_drafts_again_and_drafts_nothing(database: sa.Engine, data: str) -> None:
    before = assess(database, data, Drafter())
    with transaction(database) as session:
        session.execute(sa.update(Evaluation).values(scorer="s-of-last-year"))
        session.execute(sa.update(JudgedCase).values(scores={"r1": 0.0}))
    drafter = Drafter("another text")
    after = assess(database, data, drafter)
    assert drafter.drafted == 0
    assert after.id != before.id
    assert after.result["metrics"]["r1"] == pytest.approx(1.0, abs=1e-3)
    with transaction(database) as session:
        assert {one.draft for one in evaluations.cases(session, after.id)} == {"左侧胸腔积液。"}


def test_words_that_a_department_adds_make_another_evaluation_of_the_same_drafts(
    database: sa.Engine, data: str
) -> None:
    cases = [case(1, signed="左侧胸腔白点症。")]
    before = assess(database, data, Drafter(), cases)
    house = {"north": House(words=overlay.read({"equivalents.tsv": "白点症\t积液\n"}))}
    drafter = Drafter("another text")
    after = assess(database, data, drafter, cases, house)
    assert drafter.drafted == 0
    assert [row.result["metrics"]["fact_f1"] for row in (before, after)] == [None, 1.0]
    assert after.scorer.startswith(f"{before.scorer}-")
    with transaction(database) as session:
        newest = evaluations.newest(session, "model:new")
        assert newest is not None
        assert newest.id == after.id


def test_pinned_cases_are_drafted_and_stand_in_no_table(database: sa.Engine, data: str) -> None:
    with transaction(database) as session:
        row = assessment.pin(
            session, CASES[0], forbids=["side"], fact_floor=0.5, why="left for right", approved_by="user:boss"
        )
        mistakes = assessment.pinned(session)
    made = assess(database, data, Drafter(), [*CASES, *mistakes])
    with transaction(database) as session:
        assert len(evaluations.cases(session, made.id)) == 6
        assert list(evaluations.regressions(session, made.id)) == [row.id]
    assert made.result["metrics"]["reports"] == 6


def test_the_nearest_baseline_finds_the_report_that_is_most_alike() -> None:
    taught = [
        case(1, "肝右叶见囊性灶，边界清。", "肝囊肿。"),
        case(2, "左侧胸腔见弧形水样影，深约30mm。", "左侧胸腔积液。"),
        case(3, "颅骨骨质未见异常。", "颅脑未见异常。"),
    ]
    found = baselines.baselines(taught)
    assert found["nearest"](case(9, "左侧胸腔见弧形水样影，深约12mm。")) == "左侧胸腔积液。"
    assert found["nearest"](case(9, "ab")) == ""
    assert found["copy"](case(9, "肝右叶见囊性灶。")) == "肝右叶见囊性灶。"
    lead = found["lead"](case(9, "心影不大。左侧胸腔见弧形水样影。纵隔未见肿大淋巴结，余未见异常。"))
    assert lead == "心影不大"


def test_a_baseline_is_put_in_the_house_style_scored_and_checked_like_a_draft() -> None:
    draft = assessment.of_text(
        lambda _: "右侧胸腔积液。", {"north": House(Style(numbering="{n}.", number_single=True))}
    )
    [one] = draft(CASES[:1])
    assert one.draft == "1.右侧胸腔积液。"
    assert one.measured().red
    assert one.score.r1 < 1


def test_an_interval_holds_the_mean_and_narrows_with_more_reports() -> None:
    values = np.random.default_rng(3).normal(0.6, 0.1, 1000)
    wide, narrow = statistics.interval(values[:50]), statistics.interval(values)
    assert wide.low < wide.mean < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2
    assert statistics.interval(values) == narrow
    assert statistics.interval(values[:0]).n == 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        found = statistics.interval(generator.beta(3, 2, 120), seed=seed)
        covered += found.low <= 0.6 <= found.high
    assert covered >= 180


def test_a_paired_difference_sees_what_two_intervals_would_not() -> None:
    generator = np.random.default_rng(2)
    hard = generator.uniform(0, 100, 300)
    found = statistics.difference(hard + 1 + generator.normal(0, 2, 300), hard)
    assert found.lower > 0
    assert found.p_not_better < 0.001
    assert statistics.difference(hard, hard).upper == 0.0


def report(**changes: object) -> Report:
    north = planted.evaluation(lambda _: 0.0, per_house=12, houses=("north", "south"))
    both = [replace(one, systems=("chest", "head")) for one in north[:3]] + north[3:]
    made = tables(
        {"model:new": both, "base:<b>": []}, institutions=["north", "south", "west"], in_house=frozenset({"north"})
    )
    told = utility("model:new", both, result={"weights": "nf4+adapter", "in_flight": 8, "elapsed_s": 10.0})
    options = {
        "utilities": (told,),
        "papers": ("ChatRadio-Valuer",),
        "notes": ("Skipped: GPT-4: no server.",),
    }
    return Report("Evaluation", {"dataset": "d"}, made, **{**options, **changes})  # type: ignore[arg-type]


def test_every_view_counts_its_reports_and_shows_empty_cells() -> None:
    by = {table.view.name: table for table in report().tables}
    assert list(by) == [
        "by_institution",
        "in_house_by_system",
        "overall_by_system",
        "by_modality",
        "by_sex",
        "by_age_band",
    ]
    [row, empty] = by["by_institution"].rows
    assert {group: cell.n for group, cell in row.cells.items()} == {"north": 12, "south": 12, "west": 0}
    assert (row.micro.n, empty.micro.n) == (24, 0)
    inside = by["in_house_by_system"].rows[0]
    assert (inside.cells["chest"].n, inside.cells["head"].n, inside.micro.n) == (12, 3, 12)
    means = [row.cells[name].metrics["rl"].mean for name in ("north", "south")]
    assert row.macro["rl"] == pytest.approx(sum(means) / 2)


def test_the_three_reports_say_the_same_and_mark_what_was_published() -> None:
    made = report()
    told = markdown(made)
    assert "| model:new | n | 12 | 12 | 0 | 24 |" in told
    assert "n = 0" in told
    for paper in ("Tables 2 and 3", "Tables 4 and 5", "Tables 6 and 7", "Table 8"):
        assert paper in told
    published = told.split("Published (arXiv 2310.05242)")
    assert len(published) == 5  # the paper has three views and Table 8, and nothing by modality, sex and age
    assert "| ChatRadio-Valuer | R-L | 44.6 | 46.1 | 6.4 | 8.3 | 21.3 | 7.8 |" in published[1]
    assert "| ChatRadio-Valuer | 7B | 54 h | 22.36 |" in published[4]
    assert "no comparison of figures" in published[1]
    rows = list(csv.DictReader(io.StringIO(as_csv(made))))
    ours = next(
        r
        for r in rows
        if (r["view"], r["model"], r["group"], r["metric"]) == ("by_institution", "model:new", "north", "rl")
    )
    assert ours["source"] == "ours"
    assert f"{100 * float(ours['value']):.1f} (" in told
    assert sum(row["source"] == "published" for row in rows) == 48 + 2
    utilities = {
        row["metric"]: row["value"] for row in rows if (row["source"], row["view"]) == ("ours", "practical_utility")
    }
    assert utilities["weights"] == "nf4+adapter"
    assert "joules" not in utilities  # unknown is left out here, and a dash in the tables
    page = html(made)
    assert f"{100 * float(ours['value']):.1f} (" in page
    assert page.count("Published (arXiv 2310.05242)") == 4
    assert "base:&lt;b&gt;" in page


class _Links(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        self.found += [tag] if tag in ("script", "link", "iframe", "img") else []


def test_the_page_fetches_nothing() -> None:
    links = _Links()
    links.feed(html(report()))
    assert links.found == []
