"""`valuer ingest init`: an institution file from a look at a database or an export, with what would become of its rows before any is stored."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import console
from core.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ingest.mapping import Mapping
    from ingest.proposal import Proposal
    from ingest.trial import Trial


def init(
    name: Annotated[str, typer.Argument(help="The institution's code, such as north")],
    url: Annotated[str | None, typer.Option(help="Database: postgresql://reader@host/name, without a password")] = None,
    table: Annotated[str | None, typer.Option(help="Table or view; none: the one that looks most like reports")] = None,
    file: Annotated[Path | None, typer.Option(help="Export: Excel, CSV, TSV or JSON lines")] = None,
    sheet: Annotated[list[str] | None, typer.Option(help="Only this sheet; may be repeated")] = None,
    password_env: Annotated[str | None, typer.Option(help="Variable that holds the database's password")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File that holds it")] = None,
    title: Annotated[str | None, typer.Option(help="The institution's name for people")] = None,
    language: Annotated[str, typer.Option(help="zh-Hans, zh-Hant, en or fr")] = "zh-Hans",
    timezone: Annotated[str, typer.Option(help="Zone of times that carry none")] = "Asia/Shanghai",
    rows: Annotated[int, typer.Option(min=1, help="Rows to try")] = 20_000,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing")] = False,
    json: console.Json = False,
) -> None:
    """Propose an institution file: look, guess which column is what, try the rows, and store none of them."""
    from core import institutions
    from core.errors import Refused
    from ingest import exclusions, mapping, rejections, trial
    from ingest.blocks import Heading

    settings = console.read(Settings)
    target = settings.institutions_dir / f"{name}.toml"
    if not institutions.CODE.fullmatch(name):
        raise Refused("The code of an institution is lower-case letters, digits and hyphens.", code="code")
    if (url is None) == (file is None):
        raise Refused("Say where the reports are: --url for a database, or --file for an export.", code="source")
    if target.exists() and not force and not dry_run:
        raise Refused(f"{target} is there already; --force writes over it, --dry-run only looks.", code="exists")
    heading = Heading(name, title or name, language, timezone)
    others: list[str] = []
    if url is not None:
        proposal, others = _database(url, table, heading, password_env, password_file)
    else:
        assert file is not None  # noqa: S101 - one of the two, as was just asked
        proposal = _file(file, sheet or [], heading)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        draft.write_text(proposal.text, "utf-8")
        institutions.load_profiles(Path(folder))
        tried = _tried(mapping.load(draft, settings.home), rows)
    if not dry_run:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(proposal.text, "utf-8")
    why: dict[str, str] = {**rejections.WHY, **exclusions.WHY}
    data: dict[str, Any] = {
        "file": str(target),
        "written": not dry_run,
        "table": proposal.table,
        "others": others,
        "guesses": [{"word": g.word, "column": g.column, "sure": g.sure, "why": g.why} for g in proposal.guesses],
        "doubts": list(proposal.doubts),
        "read": tried.read,
        "complete": tried.complete,
        "accepted": tried.accepted,
        "same_key": tried.same_key,
        "quarantined": dict(tried.rejected.most_common()),
        "sheets": tried.sheets,
        "excluded": dict(tried.excluded.most_common()),
        "training": tried.missing(),
        "needed": trial.FIRST_TRAINING,
        "preview": tried.preview,
        "why": {str(reason): why[reason] for reason in (*tried.rejected, *tried.excluded) if reason in why},
    }
    console.answer(json, data, _page(data))


def _database(
    url: str, table: str | None, heading: Any, password_env: str | None, password_file: Path | None
) -> tuple["Proposal", list[str]]:
    import sqlalchemy as sa

    from core.errors import Broken, Refused
    from core.settings import referenced
    from ingest import proposal, survey

    try:
        address = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise Refused("--url is no database address such as postgresql://reader@host/name.", code="url") from None
    if address.password is not None:
        raise Refused(
            "A password on the command line is seen by everybody on this machine: use --password-env or --password-file.",
            code="password",
        )
    line = None
    if password_env:
        if not (password := referenced(password_env)):
            raise Refused(f"The environment variable {password_env} is not set.", code="password")
        line, address = f'password_env = "{password_env}"', address.set(password=password)
    elif password_file:
        try:
            password = password_file.read_text("utf-8").strip()
        except OSError as error:
            raise Refused(f"{password_file} cannot be read ({error.strerror}).", code="password") from None
        line, address = f'password_file = "{password_file.resolve()}"', address.set(password=password)
    try:
        with survey.database(address, heading.timezone) as look:
            found = [name for name, _ in look.tables()] if table is None else [table]
            if not found:
                raise Refused(
                    "No table or view that this account may read has a column of findings; name one by --table.",
                    code="no_table",
                )
            return proposal.of_database(look, look.table(found[0]), heading, address, line), found[1:]
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        raise Broken(f"The database does not answer as it should ({_first_line(error)}).", code="source_away") from None
    except sa.exc.SQLAlchemyError as error:
        raise Broken(f"The database refused our look ({_first_line(error)}).", code="source_failed") from None


def _file(path: Path, only: list[str], heading: Any) -> "Proposal":
    from core.errors import Refused
    from ingest import proposal, survey

    sheets = survey.file(path, path.name, only)
    made = proposal.of_file(path, sheets, heading, _left_out(path, only))
    if not made.table:
        raise Refused(
            f"No column of {path.name} holds findings: it needs a line of headers above its rows, and one of them for the findings.",
            code="no_findings",
        )
    if not any(each.word == "source_id" for each in made.guesses):
        sentence = f"No column of {path.name} tells one report from another: ask for an export with the number of the report or the examination."
        raise Refused(sentence, code="no_key")
    return made


def _left_out(path: Path, only: list[str]) -> list[str]:
    """The sheets that --sheet leaves out."""
    from ingest import excel

    return [each.name for each in excel.sheets(path, path.name) if each.name not in only] if only else []


def _tried(of: "Mapping", rows: int) -> "Trial":
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from ingest import trial

    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console.aside(), transient=True) as bar:
        shown = bar.add_task("Trying the rows …")
        return trial.run(of, rows, lambda read: bar.update(shown, description=f"{read} rows tried"))


def _line(row: dict[str, str]) -> dict[str, str]:
    """A previewed row in few columns."""
    who = " ".join(filter(None, (row["patient"] or row["accession"], row["sex"], row["age"])))
    what = " ".join(filter(None, (row["status"], row["modality"], row["systems"])))
    return {
        "who": who,
        "what": what,
        "when": row["time"][:10],
        "findings": row["findings"],
        "impression": row["impression"],
    }


def _first_line(error: Exception) -> str:
    """What the driver says, without the statement: its first line."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0][:200]


def _page(data: dict[str, Any]) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    def block(title: str, body: "RenderableType") -> list["RenderableType"]:
        return [Text(""), Text(title, style="bold"), body]

    def told(reason: str) -> str:
        return f"{reason}: {data['why'][reason]}" if reason in data["why"] else reason

    quarantined = sum(data["quarantined"].values())
    counts = [
        f"{data['read']} rows tried{'' if data['complete'] else ', and there are more'}: {data['accepted']} accepted, {quarantined} to quarantine.",
        *(f"  quarantine: {count} {told(reason)}" for reason, count in data["quarantined"].items()),
        *(f"  never trains: {count} {told(reason)}" for reason, count in data["excluded"].items()),
        *(
            [f"  {data['same_key']} rows have the key of an earlier row and would be its versions"]
            if data["same_key"]
            else []
        ),
        *(f"  sheet {each['sheet']}: no column for {', '.join(each['missing'])}" for each in data["sheets"]),
    ]
    guesses = [
        {"word": g["word"], "column": g["column"], "": "" if g["sure"] else f"? {g['why']}"} for g in data["guesses"]
    ]
    training = [
        {"system": t["system"], "modality": t["modality"], "have": t["have"], "missing": t["missing"]}
        for t in data["training"]
    ]
    head = f"Written: {data['file']}" if data["written"] else "Nothing was written (--dry-run)."
    parts: list[RenderableType] = [
        *block(f"Columns of {data['table']}", console.table(guesses, "None is known.")),
        *block("First rows, masked", console.table([_line(row) for row in data["preview"]], "No row could be taken.")),
        *block("What would become of the rows", Text("\n".join(counts))),
        *block(
            f"For a first training ({data['needed']} different reports of each kind, train part)",
            console.table(training, "No report could train."),
        ),
        *block("Look at", Text("\n".join(f"? {each}" for each in data["doubts"]) or "Everything was clear.")),
        *(block("Other tables that look like reports", Text(", ".join(data["others"]))) if data["others"] else []),
        Text(""),
        Text(f"{head} Mend the lines marked with ?, then: valuer ingest doctor, valuer ingest run."),
    ]
    return Group(*parts)
