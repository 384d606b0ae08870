"""Blinded reading: drawn and handed out at random, filled in, taken back in, evaluated and drawn."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from sqlmodel import Session, select

from clinical.case import ClinicalInput, Modality, System
from clinical.style import Style
from core import questionnaire
from core.errors import Conflict, Invalid, NotFound, Refused
from core.tables import ExpertAssignment, ExpertText
from training import experts, readout
from training.blinding import blinded
from training.dataset import Case
from training.experts import Rated

READERS = {"li": "junior", "wang": "intermediate", "zhao": "senior", "chen": "senior"}
SYSTEMS = tuple(System)


def case(number: int) -> Case:
    institution = "north" if number % 2 else "south"
    seen = ClinicalInput(institution, f"所见{number}：右肺结节。", Modality.CT, (SYSTEMS[number // 2 % 5],))
    return Case(f"case-{number}", seen, f"签发{number}：右肺结节。")


CASES = [case(number) for number in range(40)]
DRAFTS = {
    "model:new": {one.id: f"甲稿：{one.input.findings}" for one in CASES},
    "pool:GPT-4": {one.id: f"乙稿：{one.input.findings}" for one in CASES if one.id != "case-0"},
}


def study(session: Session, name: str = "s1", **changes: object) -> None:
    options = {"in_house": frozenset({"north"}), "count": 20, "readers_per_grade": 1, "seed": 7, "actor": "user:boss"}
    experts.create(session, name, "Autumn", CASES, DRAFTS, READERS, **{**options, **changes})  # type: ignore[arg-type]


def test_every_text_of_a_case_goes_to_a_reader_of_each_grade_in_the_readers_own_order(session: Session) -> None:
    study(session)
    rows = session.exec(select(ExpertAssignment)).all()
    texts = session.exec(select(ExpertText)).all()
    assert len(texts) == 20 * 3
    assert len(rows) == 60 * 3
    assert {row.reader for row in rows} == set(READERS)
    cells = {(text.in_house, tuple(text.systems)) for text in texts}
    assert len(cells) == 10
    assert "case-0" not in {text.case_id for text in texts}  # one writer has no draft of it
    orders = {
        reader: [r.text_id for r in sorted(rows, key=lambda r: r.position) if r.reader == reader] for reader in READERS
    }
    assert orders["li"] != orders["wang"]
    assert sorted(orders["li"]) == sorted(orders["wang"])
    with pytest.raises(Conflict):
        study(session)


def test_a_study_without_enough_readers_or_drafts_is_refused(session: Session) -> None:
    with pytest.raises(Refused, match="at least two readers"):
        study(session, readers_per_grade=2)
    with pytest.raises(Refused, match="no case"):
        experts.create(
            session,
            "s2",
            "",
            CASES,
            {"model:new": {}},
            READERS,
            in_house=frozenset(),
            count=5,
            readers_per_grade=1,
            seed=0,
            actor="x",
        )


def test_nothing_that_a_reader_gets_names_a_writer(session: Session) -> None:
    study(session)
    for kind in ("csv", "json"):
        text = experts.exported(session, "s1", "li", kind)
        assert not any(word in text for word in ("model:", "pool:", "GPT", "human", "case-", "north"))
        assert text.count("甲稿") == text.count("乙稿") == 20
    assert "可理解性" in experts.exported(session, "s1", "li", "json")
    with pytest.raises(NotFound):
        experts.exported(session, "s1", "nobody", "csv")


def filled(text: str, **answers: str) -> str:
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, **answers})
    return "\ufeff" + out.getvalue()


def test_a_filled_in_sheet_is_taken_in_and_a_second_one_replaces_it(session: Session) -> None:
    study(session)
    sheet = experts.exported(session, "s1", "li", "csv")
    first = filled(
        sheet,
        coherence_score="80",
        relevance_score="NA",
        relevance_explanations="答非所问\n冗长",
        relevance_excerpts="右肺结节",
    )
    assert experts.take_in(session, "s1", "li", first, "csv", "user:boss") == 120
    assert experts.take_in(session, "s1", "li", filled(sheet, coherence_score="60"), "csv", "user:boss") == 60
    answers = experts.rated(session, "s1")
    assert {(one.metric, one.score) for one in answers} == {("coherence", 60), ("relevance", None)}
    again = json.loads(experts.exported(session, "s1", "li", "json"))["texts"][0]
    assert (again["relevance_score"], again["relevance_explanations"]) == ("NA", "答非所问\n冗长")
    assert (
        experts.take_in(session, "s1", "li", experts.exported(session, "s1", "li", "json"), "json", "user:boss") == 120
    )


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"coherence_score": "101"}, "Row 2: coherence: a score lies between 0 and 100"),
        ({"coherence_score": "good"}, "Row 2: coherence is a whole number"),
        ({"coherence_score": "NA"}, "Row 2: coherence: 0 and NA need an explanation"),
        ({"coherence_score": "50", "coherence_excerpts": "左肺"}, "an excerpt is copied"),
        ({"coherence_score": "80.0"}, "Row 2: coherence is a whole number"),
        ({"coherence_score": "50", "assignment": str(uuid4())}, "Row 2: the reader has no such assignment"),
        ({"coherence_score": "50", "impression": "右肺结节？"}, "Row 2: its impression are not those"),
    ],
)
def test_an_answer_that_does_not_fit_is_told_with_its_row(session: Session, answers: dict[str, str], told: str) -> None:
    study(session)
    sheet = filled(experts.exported(session, "s1", "li", "csv"), **answers)
    with pytest.raises(Invalid, match=told):
        experts.take_in(session, "s1", "li", sheet, "csv", "user:boss")


def rows_of(sheet: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet.removeprefix("\ufeff"), newline="")))


def written(rows: list[dict[str, str]], **options: str) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **options)  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def test_rows_may_be_sorted_or_left_out_but_not_mixed_up(session: Session) -> None:
    study(session)
    rows = rows_of(experts.exported(session, "s1", "li", "csv"))
    for number, row in enumerate(rows):
        row["coherence_score"] = str(number)
    first = next(row for row in rows if row["impression"].startswith("甲稿"))
    other = next(row for row in rows if row["impression"].startswith("乙稿"))
    assert experts.take_in(session, "s1", "li", written(rows[::-1][:50]), "csv", "user:boss") == 50
    kept = {one.text: one.score for one in experts.rated(session, "s1")}
    assert len(set(kept.values())) == 50
    first["assignment"], other["assignment"] = other["assignment"], first["assignment"]
    with pytest.raises(Invalid, match="the rows were mixed up"):
        experts.take_in(session, "s1", "li", written(rows), "csv", "user:boss")


def test_a_file_that_is_no_sheet_of_ours_is_refused_and_not_taken_for_no_answers(session: Session) -> None:
    study(session)
    rows = rows_of(experts.exported(session, "s1", "li", "csv"))
    for broken in (written(rows, delimiter=";"), written([{"coherence_score": "50"}]), "", "not a sheet"):
        with pytest.raises(Invalid, match="its columns have to stay"):
            experts.take_in(session, "s1", "li", broken or "x", "csv", "user:boss")
    with pytest.raises(Invalid, match="not what `valuer experts export` wrote"):
        experts.take_in(session, "s1", "li", '{"texts": 3}', "json", "user:boss")


def test_the_form_of_a_text_does_not_tell_in_which_house_or_by_whom_it_was_written() -> None:
    said = "1、左侧胸腔大量积液；\n2、右肺上叶结节，约25mm；\n3、腰4/5椎间盘突出（新鲜）。"
    forms = {
        Style(numbering=numbering, number_single=True, separator=separator, end=end, half_width=half).apply(said)
        for numbering in ("{n}、", "{n}.", "({n})", "{circled}", "{han}、", "")
        for separator, end in (("；\n", "。"), ("。\n", "。"), ("\n", ""))
        for half in (False, True)
    }
    forms |= {f"  {said}\r\n ", said.replace("\n", "\r\n"), f"{said}\nAI 草稿，须医师审核", "印象：" + said}
    forms |= {said.replace("25mm", "2.5cm"), Style().apply(said, "zh-Hant")}
    assert len(forms) > 20
    assert {blinded(form, "zh-Hans") for form in forms} == {
        "左侧胸腔大量积液\n右肺上叶结节，约25mm\n腰4/5椎间盘突出（新鲜）"
    }
    assert blinded("1. Pleural effusion.\n2. Nodule, 5 mm.", "en") == "Pleural effusion\nNodule, 5 mm"


def test_a_human_text_and_a_draft_of_the_same_words_are_the_same_bytes_in_a_readers_file(session: Session) -> None:
    cases = [replace(one, signed=f"（1）右肺结节{one.id[5:]};\n(2)胸腔积液.  ") for one in CASES]
    drafts = {"model:new": {one.id: f"1、右肺结节{one.id[5:]}；\n2、胸腔积液。\n" for one in CASES}}
    options = {"in_house": frozenset({"north"}), "count": 20, "readers_per_grade": 1, "seed": 7, "actor": "user:boss"}
    experts.create(session, "s2", "Twins", cases, drafts, READERS, **options)  # type: ignore[arg-type]
    shown = [row["impression"] for row in rows_of(experts.exported(session, "s2", "li", "csv"))]
    assert len(shown) == 40
    assert len(set(shown)) == 20


def test_one_reader_cannot_answer_for_another(session: Session) -> None:
    study(session)
    sheet = filled(experts.exported(session, "s1", "li", "csv"), coherence_score="50")
    with pytest.raises(Invalid, match="no such assignment"):
        experts.take_in(session, "s1", "wang", sheet, "csv", "user:boss")


def answer(
    writer: str, score: int | None, grade: str = "senior", *, in_house: bool = True, text: object = None, **more: str
) -> Rated:
    return Rated(text or uuid4(), writer, (more.get("system", "chest"),), in_house, grade, grade, "coherence", score)  # type: ignore[arg-type]


def test_a_point_is_the_mean_over_grades_and_counts_na_apart() -> None:
    answers = [
        answer("a", 90),
        answer("a", 70),
        answer("a", 20, "junior"),
        answer("a", None),
        answer("a", 0, in_house=False),
    ]
    inside = experts.points(answers, view="IHG")["a"]["coherence"]
    assert inside == experts.Point(50.0, 3, 1)
    assert experts.points(answers, view="OHG")["a"]["coherence"].mean == 0.0
    assert experts.points(answers, view="OG")["a"]["coherence"].scores == 4
    assert experts.points(answers, view="OG", system="head") == {}
    assert experts.points(answers, view="OG")["a"]["relevance"] == experts.Point(None, 0, 0)


def test_agreement_is_one_for_equal_scores_and_below_nought_for_opposite_ones() -> None:
    texts = [uuid4() for _ in range(4)]
    same = [
        answer("a", score, grade, text=text)
        for text, score in zip(texts, (10, 40, 60, 90), strict=True)
        for grade in ("junior", "senior")
    ]
    assert experts.agreement(same, "coherence") == (1.0, 4)
    opposite = [
        answer("a", s, g, text=t)
        for t, pair in zip(texts, ((0, 100), (100, 0), (0, 100), (100, 0)), strict=True)
        for s, g in zip(pair, ("junior", "senior"), strict=True)
    ]
    alpha, _ = experts.agreement(opposite, "coherence")
    assert alpha is not None
    assert alpha == pytest.approx(-0.75)  # 1 - 10000 / (2 * 8 * 2500 / 7)
    assert experts.agreement(same[:1], "coherence") == (None, 0)


def test_the_plots_show_every_writer_and_are_whole_svg(tmp_path: Path) -> None:
    answers = [
        answer(writer, score, in_house=house)
        for writer, score in (("human", 90), ("model:new", 60))
        for house in (True, False)
    ]
    files = readout.write("s1", "Autumn & winter", answers, tmp_path)
    root = ET.fromstring(files["radar-IHG-chest.svg"].read_text("utf-8"))  # noqa: S314 - our own
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any(title.startswith("model:new: coherence 60.0") for title in titles)
    page = files["html"].read_text("utf-8")
    assert "Autumn &amp; winter" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "IHG,chest,human,coherence,90.000,1,0" in files["csv"].read_text("utf-8")


def test_a_writer_has_the_same_colour_in_every_plot_and_a_plot_alone_says_whose_it_is(tmp_path: Path) -> None:
    answers = [answer("a", 90), answer("b", 60), answer("b", 40, system="head")]
    files = readout.write("s1", "x", answers, tmp_path)
    for name in ("radar-OG-chest.svg", "radar-OG-head.svg"):
        svg = files[name].read_text("utf-8")
        assert re.search(r'<line class="key c1"[^>]*/><text[^>]*>b</text>', svg)
    assert '<circle class="dot c1"' in files["radar-OG-head.svg"].read_text("utf-8")
    assert '<circle class="dot c0"' not in files["radar-OG-head.svg"].read_text("utf-8")


def test_every_metric_has_five_bands_and_high_is_good() -> None:
    assert len(questionnaire.METRICS) == 7
    utility = questionnaire.METRICS[4]
    assert [utility.band(score) for score in (100, 80, 79, 20, 0)] == [
        "highly useful",
        "highly useful",
        "fairly useful",
        "somewhat unhelpful",
        "completely useless",
    ]
