"""`valuer experts`: blinded reading of impressions by radiologists, from the draw to the radar plots."""

from pathlib import Path
from typing import Annotated

import typer

from admin import console

app = typer.Typer(no_args_is_help=True, help="Let radiologists rate impressions without knowing who wrote them.")
Study = Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study")]
Reader = Annotated[str, typer.Option("--reader", help="Login or name of the reader")]


@app.command()
def create(
    study: Study,
    subject: Annotated[
        list[str], typer.Option("--subject", help="model:ID, pool:NAME or baseline:NAME; may be repeated")
    ],
    reader: Annotated[
        list[str], typer.Option("--reader", help="NAME=GRADE, GRADE junior, intermediate or senior; may be repeated")
    ],
    cases: Annotated[int, typer.Option(help="How many reports, evenly over in-house and body system", min=1)] = 50,
    readers_per_grade: Annotated[int, typer.Option(help="How many readers of each grade read a text", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The same seed draws the same study")] = 0,
    title: Annotated[str | None, typer.Option(help="As shown on the plots")] = None,
    json: console.Json = False,
) -> None:
    """Draw cases of the newest evaluations and hand every writer's text, the signed one among them, to the readers in random order."""
    from core.db import transaction
    from core.errors import NotFound, Refused
    from core.tables import Dataset
    from training import dataset as sets
    from training import evaluations, experts

    readers = {name: grade for name, _, grade in (each.partition("=") for each in reader)}
    with console.opened() as here, transaction(here.engine) as session:
        drafts: dict[str, dict[str, str]] = {}
        data: Dataset | None = None
        for name in subject:
            found = evaluations.newest(session, name, dataset=None if data is None else data.id, scorer=None)
            if found is None:
                raise NotFound(
                    f"There is no finished evaluation of {name} on the same reports: `valuer evaluate run` makes one."
                )
            data = data or session.get_one(Dataset, found.dataset)
            drafts[name] = {one.case_id: one.draft for one in evaluations.cases(session, found.id)}
        if data is None:
            raise Refused("A study needs at least one --subject.")
        made = experts.create(
            session,
            study,
            title or study,
            list(sets.read(Path(data.path), sets.TEST)),
            drafts,
            readers,
            in_house=frozenset(data.counts["train"]["institution"]),
            count=cases,
            readers_per_grade=readers_per_grade,
            seed=seed,
            actor=console.person(),
        )
        writers = list(made.writers)
    console.answer(
        json,
        {"study": study, "writers": writers, "readers": readers},
        f"{study}: {len(writers)} writers, {len(readers)} readers.",
    )


@app.command("list")
def listed(json: console.Json = False) -> None:
    """Studies and how far each reader is."""
    from sqlalchemy import func, select
    from sqlmodel import col

    from core.db import transaction
    from core.questionnaire import METRICS
    from core.tables import ExpertAssignment, ExpertRating

    rating = col(ExpertRating.assignment_id)
    given = select(rating, func.count().label("answers")).group_by(rating).subquery()
    who = (col(ExpertAssignment.study), col(ExpertAssignment.reader), col(ExpertAssignment.grade))
    query = (
        select(*who, func.count(), func.coalesce(func.sum(given.c.answers), 0))
        .join(given, given.c.assignment_id == col(ExpertAssignment.id), isouter=True)
        .group_by(*who)
        .order_by(*who)
    )
    with console.opened() as here, transaction(here.engine) as session:
        rows = [
            {
                "study": study,
                "reader": reader,
                "grade": grade,
                "texts": texts,
                "answers": int(answers),
                "of": texts * len(METRICS),
            }
            for study, reader, grade, texts, answers in session.execute(query)
        ]
    console.answer(json, {"readers": rows}, console.table(rows, "There is no study yet."))


@app.command()
def export(study: Study, reader: Reader, target: Path, json: console.Json = False) -> None:
    """Write what a reader fills in: a .csv that a spreadsheet opens, or a .json with the questions."""
    from core.db import transaction
    from training import experts

    with console.opened() as here, transaction(here.engine) as session:
        text = experts.exported(session, study, reader, _kind(target))
    target.write_text(text, "utf-8", newline="")
    console.answer(json, {"study": study, "reader": reader, "file": str(target)}, f"{target} is for {reader}.")


@app.command("import")
def take_in(study: Study, reader: Reader, source: Path, json: console.Json = False) -> None:
    """Take in what a reader filled in. Given again, the newer answer stands."""
    from core.db import transaction
    from core.errors import Refused
    from training import experts

    try:
        text = source.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Refused(f"{source} cannot be read as UTF-8 text.", code="unreadable") from None
    with console.opened() as here, transaction(here.engine) as session:
        answers = experts.take_in(session, study, reader, text, _kind(source), console.person())
    console.answer(json, {"study": study, "reader": reader, "answers": answers}, f"{answers} answers of {reader}.")


@app.command()
def plot(
    study: Study,
    out: Annotated[Path | None, typer.Option(help="Folder for the page, the SVGs and the CSV")] = None,
    json: console.Json = False,
) -> None:
    """Radar plots of the seven metrics: overall, in-house, out-of-house, by body system; and how far readers agree."""
    from core.db import transaction
    from core.errors import NotFound
    from core.tables import ExpertStudy
    from training import experts, readout

    with console.opened() as here, transaction(here.engine) as session:
        row = session.get(ExpertStudy, study)
        if row is None:
            raise NotFound(
                f"There is no study {study}; `valuer experts list` shows those that are.", code="unknown_study"
            )
        answers = experts.rated(session, study)
        title = row.title
        folder = out or here.settings.home / "experts" / study
    files = readout.write(study, title, answers, folder)
    means = {
        view: {
            writer: {name: point.mean for name, point in each.items()}
            for writer, each in experts.points(answers, view=view).items()
        }
        for view in experts.VIEWS
    }
    data = {
        "study": study,
        "answers": len(answers),
        "views": means,
        "files": {name: str(path) for name, path in files.items()},
    }
    console.answer(json, data, f"{len(answers)} answers; {files['html']}")


def _kind(file: Path) -> str:
    from core.errors import Refused

    kind = file.suffix.removeprefix(".").lower()
    if kind not in ("csv", "json"):
        raise Refused(f"{file.name} must end in .csv or .json.", code="unknown_format")
    return kind
