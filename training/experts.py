"""Studies in which radiologists read impressions without knowing who wrote them: made, handed out, taken in and evaluated.

Views as in the paper's Figure 6: overall (OG), in-house (IHG) and out-of-house (OHG), by body system. What a reader is asked is
`core.questionnaire`'s; that a text's form does not tell its writer, `training.blinding`'s.
"""

import csv
import io
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from statistics import fmean
from typing import Any
from uuid import UUID

from sqlmodel import Session, col, select

from clinical.case import System
from core import audit
from core.errors import Conflict, Invalid, NotFound, Refused
from core.questionnaire import GRADES, METRICS, rate, readings
from core.tables import ExpertAssignment, ExpertRating, ExpertStudy, ExpertText
from training.blinding import blinded
from training.dataset import Case
from training.measured import UNKNOWN

HUMAN = "human"
VIEWS = {"OG": None, "IHG": True, "OHG": False}
"""Each view and whether its reports are in-house; None takes all."""
_SHOWN = ("assignment", "position", "modality", "exam_title", "findings", "impression")
_ASKED = ("score", "excerpts", "explanations")
_NA = ("NA", "N/A", "不适用")


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer with everything that evaluating it takes."""

    text: UUID
    writer: str
    systems: tuple[str, ...]
    in_house: bool
    reader: str
    grade: str
    metric: str
    score: int | None


@dataclass(frozen=True, slots=True)
class Point:
    """One corner of a radar: the mean over reader grades of each grade's mean, and how many scores and NAs stand behind it."""

    mean: float | None
    scores: int
    na: int


def create(
    session: Session,
    identity: str,
    title: str,
    cases: Sequence[Case],
    drafts: Mapping[str, Mapping[str, str]],
    readers: Mapping[str, str],
    *,
    in_house: frozenset[str],
    count: int,
    readers_per_grade: int,
    seed: int,
    actor: str,
) -> ExpertStudy:
    """Draws `count` cases evenly over in-house × system, and gives every text of a case to `readers_per_grade` readers of each grade.

    `drafts` maps a writer (the subject of an evaluation) to case ids and their drafts; a case without a draft of every writer is not drawn.
    `readers` maps a reader to a grade. The signed impression is a text among the others. The same arguments give the same study.

    Raises:
        Conflict: a study of this name exists.
        Refused: there are too few readers or cases.
    """
    if session.get(ExpertStudy, identity) is not None:
        raise Conflict(f"There is a study called {identity} already.", code="study_taken")
    by_grade = {grade: sorted(reader for reader, of in readers.items() if of == grade) for grade in GRADES}
    unknown = set(readers.values()) - set(GRADES)
    if unknown:
        raise Refused(f"A reader is {', '.join(GRADES)}, and not {unknown.pop()}.")
    present = {grade: names for grade, names in by_grade.items() if names}
    if sum(map(len, present.values())) < 2 or any(len(names) < readers_per_grade for names in present.values()):
        raise Refused("A study needs at least two readers, and of each grade as many as read a text.")
    usable = [case for case in cases if all(drafts[writer].get(case.id) for writer in drafts)]
    chosen = _draw(usable, count, in_house, seed)
    if not chosen:
        raise Refused("There is no case for which every writer has a draft.")
    study = ExpertStudy(id=identity, title=title, seed=seed, writers=[HUMAN, *drafts], created_by=actor)
    session.add(study)
    session.flush()
    lots: dict[str, list[UUID]] = defaultdict(list)
    chance = random.Random(seed)
    turn = dict.fromkeys(present, 0)
    for case in chosen:
        texts = [_text(identity, case, writer, text, in_house) for writer, text in _texts(case, drafts)]
        session.add_all(texts)
        for grade, names in present.items():
            for _ in range(readers_per_grade):
                lots[names[turn[grade] % len(names)]] += [text.id for text in texts]
                turn[grade] += 1
    session.flush()
    for reader, lot in sorted(lots.items()):
        chance.shuffle(lot)
        session.add_all(
            ExpertAssignment(study=identity, text_id=text, reader=reader, grade=readers[reader], position=position)
            for position, text in enumerate(lot, 1)
        )
    session.flush()
    audit.record(session, actor, "experts.created", f"study:{identity}", cases=len(chosen), readers=len(lots))
    return study


def exported(session: Session, study: str, reader: str, kind: str) -> str:
    """What a reader fills in, as `csv` or `json`: one line or object a text, in the reader's order, nobody's name in it. Raises NotFound."""
    texts = readings(session, study, reader)
    if not texts:
        raise NotFound(f"The study {study} has nothing for {reader}.", code="unknown_reader")
    given = {
        (row.assignment_id, row.metric): row
        for row in session.exec(
            select(ExpertRating)
            .join(ExpertAssignment, col(ExpertAssignment.id) == col(ExpertRating.assignment_id))
            .where(ExpertAssignment.study == study, ExpertAssignment.reader == reader)
        )
    }
    rows = []
    for text in texts:
        row: dict[str, Any] = {name: str(getattr(text, name) or "") for name in _SHOWN}
        for metric in METRICS:
            answer = given.get((text.assignment, metric.name))
            score = "" if answer is None else "NA" if answer.score is None else str(answer.score)
            row |= {
                f"{metric.name}_score": score,
                f"{metric.name}_excerpts": "" if answer is None else "\n".join(answer.excerpts),
                f"{metric.name}_explanations": "" if answer is None else "\n".join(answer.explanations),
            }
        rows.append(row)
    if kind == "json":
        asked = [{"metric": m.name, "chinese": m.chinese, "asks": m.asks, "bands": m.bands} for m in METRICS]
        return json.dumps(
            {"study": study, "reader": reader, "questions": asked, "texts": rows}, ensure_ascii=False, indent=1
        )
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        # a cell that begins like a formula would be run by a spreadsheet; these columns are not read back
        shown = {name: f"'{row[name]}" if row[name][:1] in "=+-@" and row[name] else row[name] for name in _SHOWN}
        writer.writerow({**row, **shown})
    return "\ufeff" + out.getvalue()


def take_in(session: Session, study: str, reader: str, text: str, kind: str, actor: str) -> int:
    """Keeps the answers of a file that `exported` made and a reader filled in; empty scores are not answers. Returns how many there were.

    The rows may stand in any order, and some may be gone; each has to be the text that its assignment is of.

    Raises:
        NotFound: the study has nothing for the reader.
        Invalid: an answer does not fit, or a row was mixed up; the sentence names its place in the file. Nothing is kept then.
    """
    shown = {str(one.assignment): one for one in readings(session, study, reader)}
    if not shown:
        raise NotFound(f"The study {study} has nothing for {reader}.", code="unknown_reader")
    count = 0
    for place, row in enumerate(_rows(text, kind), 2 if kind == "csv" else 1):
        own = shown.get(str(row["assignment"]).strip())
        if own is None:
            raise Invalid(f"Row {place}: the reader has no such assignment.")
        for name in ("findings", "impression"):
            if _letters(row[name]) != _letters(getattr(own, name)):
                raise Invalid(
                    f"Row {place}: its {name} are not those of its assignment: the rows were mixed up, or a text was changed."
                )
        for metric in METRICS:
            given = str(row.get(f"{metric.name}_score", "")).strip()
            if not given:
                continue
            try:
                score = None if given.upper() in _NA else int(given)
            except ValueError:
                raise Invalid(
                    f"Row {place}: {metric.name} is a whole number from 0 to 100 or NA, not {given[:20]!r}."
                ) from None
            lists = {name: str(row.get(f"{metric.name}_{name}", "")).splitlines() for name in _ASKED[1:]}
            try:
                rate(session, own.assignment, reader, metric.name, score, **lists)
            except (Invalid, NotFound) as error:
                raise Invalid(f"Row {place}: {error.message}") from None
            count += 1
    audit.record(session, actor, "experts.imported", f"study:{study}", reader=reader, answers=count)
    return count


def rated(session: Session, study: str) -> list[Rated]:
    """Every answer of a study."""
    query = (
        select(ExpertRating, ExpertAssignment, ExpertText)
        .join(ExpertAssignment, col(ExpertAssignment.id) == col(ExpertRating.assignment_id))
        .join(ExpertText, col(ExpertText.id) == col(ExpertAssignment.text_id))
        .where(ExpertAssignment.study == study)
    )
    return [
        Rated(
            text.id,
            text.writer,
            tuple(text.systems) or (UNKNOWN,),
            text.in_house,
            assignment.reader,
            assignment.grade,
            rating.metric,
            rating.score,
        )
        for rating, assignment, text in session.exec(query)
    ]


def points(answers: Iterable[Rated], *, view: str, system: str | None = None) -> dict[str, dict[str, Point]]:
    """Writer to metric to its corner of the radar, in one view and body system (None: all)."""
    house = VIEWS[view]
    found: dict[str, dict[str, list[Rated]]] = defaultdict(lambda: defaultdict(list))
    for one in answers:
        if (house is None or one.in_house == house) and (system is None or system in one.systems):
            found[one.writer][one.metric].append(one)
    return {
        writer: {metric.name: _point(by_metric.get(metric.name, [])) for metric in METRICS}
        for writer, by_metric in sorted(found.items())
    }


def agreement(answers: Iterable[Rated], metric: str) -> tuple[float | None, int]:
    """Krippendorff's alpha (interval) over the texts that at least two readers scored, and how many those are.

    1 is agreement, 0 what chance gives, below 0 worse; None where no two readers scored a text, or all scores are equal.
    """
    by_text: dict[UUID, list[int]] = defaultdict(list)
    for one in answers:
        if one.metric == metric and one.score is not None:
            by_text[one.text].append(one.score)
    units = [scores for scores in by_text.values() if len(scores) > 1]
    total = sum(map(len, units))
    if not units:
        return None, 0
    observed = (
        sum(2 * sum((a - b) ** 2 for a, b in combinations(scores, 2)) / (len(scores) - 1) for scores in units) / total
    )
    every = [score for scores in units for score in scores]
    mean = fmean(every)
    # the mean squared difference over all ordered pairs of different scores
    expected = 2 * sum((score - mean) ** 2 for score in every) / (total - 1)
    return (None if expected == 0 else 1 - observed / expected), len(units)


def _point(answers: Sequence[Rated]) -> Point:
    grades: dict[str, list[int]] = defaultdict(list)
    for one in answers:
        if one.score is not None:
            grades[one.grade].append(one.score)
    scores = sum(map(len, grades.values()))
    mean = fmean(fmean(values) for values in grades.values()) if grades else None
    return Point(mean, scores, len(answers) - scores)


def _draw(cases: Sequence[Case], count: int, in_house: frozenset[str], seed: int) -> list[Case]:
    """At most `count` cases, evenly over in-house × system, by the hash of seed and id."""
    ordered = sorted(cases, key=lambda case: sha256(f"{seed}/{case.id}".encode()).digest())
    queues: dict[tuple[bool, str], list[Case]] = defaultdict(list)
    for case in ordered:
        first = str(case.input.systems[0]) if case.input.systems else UNKNOWN
        queues[(case.input.institution in in_house, first)].append(case)
    chosen: list[Case] = []
    while len(chosen) < count and any(queues.values()):
        chosen += [queue.pop(0) for _, queue in sorted(queues.items()) if queue][: count - len(chosen)]
    return chosen


def _texts(case: Case, drafts: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    return [(HUMAN, case.signed), *((writer, texts[case.id]) for writer, texts in drafts.items())]


def _text(study: str, case: Case, writer: str, text: str, in_house: frozenset[str]) -> ExpertText:
    seen = case.input
    return ExpertText(
        study=study,
        case_id=case.id,
        writer=writer,
        institution=seen.institution,
        systems=[str(system) for system in seen.systems if system in set(System)],
        in_house=seen.institution in in_house,
        modality=str(seen.modality or "OT"),
        exam_title=seen.exam_title,
        findings=seen.findings,
        impression=blinded(text, seen.language),
    )


def _rows(text: str, kind: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = (
            list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
            if kind == "csv"
            else list(json.loads(text)["texts"])
        )
        whole = bool(rows) and all(
            isinstance(row[name], str) for row in rows for name in ("assignment", "findings", "impression")
        )
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise Invalid(
            "The file is not what `valuer experts export` wrote: its columns have to stay, with commas between them in a CSV."
        )
    return rows


def _letters(text: str) -> str:
    """What a spreadsheet does not change: no blanks, line ends and guards against formulas."""
    return "".join(text.split()).removeprefix("'")
