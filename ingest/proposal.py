"""An institution file proposed from a look at a database or an export: commented TOML in which everything that is not sure is marked `# ?`.

Whoever knows the hospital reads it, mends it and only then lets ingest run. It is text that `ingest.mapping.load` accepts; what would become of the rows
under it is counted by `ingest.trial`.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from ingest import blocks, guess, meanings, survey, writing
from ingest.blocks import Heading
from ingest.guess import Guess
from ingest.origin import SHEET, TEXTS
from ingest.survey import Database, Sheets, Table
from ingest.writing import Column

_TAKEN_BACK = re.compile("作废|撤销|撤回|召回|删除|withdraw|retract|cancel|isdel|delflag|deleted|zfbz|zfbj|scbz|scbj")
_AGE_UNITS = frozenset({"年龄单位", "岁月天", "nldw", "ageunit", "ageunits"})


@dataclass(frozen=True, slots=True)
class Proposal:
    """The file's text; the guesses it rests on; and sentences about what a person has to look at."""

    text: str
    guesses: tuple[Guess, ...]
    doubts: tuple[str, ...]
    table: str


def of_database(look: Database, table: Table, heading: Heading, url: sa.URL, password: str | None) -> Proposal:
    """A proposal for one table or view. `password` is the TOML line that says where the password is."""
    found = {each.word: each for each in guess.words(table.columns)}
    doubts = _unread(table, found)
    key = _keyed(look, table, found, doubts)
    unit = _age_unit(table, found)
    at = next((word for word in blocks.TIMES if word in found), None)
    if at is None:
        doubts.append("No column is a time: every poll reads the whole table. Ask for a time of change, indexed.")
    lines = [f"  {key} AS source_id,{_doubt(found.get('source_id'))}"]
    for word, each in found.items():
        if word == "source_id":
            continue
        column = f"r.{look.quoted(each.column)}"
        if word == "age" and unit is not None:
            column = look.joined(column, f"r.{look.quoted(unit.name)}")
        if word == at and word == "modified_at" and (other := _fallback(table, found)):
            column = f"COALESCE({column}, r.{look.quoted(other)})"
            doubts.append(
                f"{each.column} is empty in some rows, where {other} counts: such a cursor has an index only if one is made for COALESCE."
            )
        lines.append(f"  {column} AS {look.quoted(word)},{_doubt(each)}")
    if "status" not in found:
        lines.append("  'final' AS status,  -- ? no column is a status, so every row counts as final")
        doubts.append("No column is a status: every row counts as final.")
    if at is None:
        kind = {"MySQL/MariaDB": "datetime", "SQL Server": "datetime2"}.get(look.dialect.title, "timestamp")
        lines.append(f"  CAST(NULL AS {kind}) AS modified_at,  -- ? no column is a time")
    # the last comma stands before a comment
    body, comma, note = lines[-1].partition(",  --")
    lines[-1] = f"{body}  --{note}" if comma else lines[-1].rstrip(",")
    doubts += _no_text(found)
    columns: dict[str, tuple[Column, ...]] = {
        word: (table.column(each.column),) for word, each in found.items() if "+" not in each.column
    }
    wrong = {word: charset for word in TEXTS if word in columns and (charset := writing.lost_charset(columns[word][0]))}
    raw = any(isinstance(value, bytes) for word in wrong for value in columns[word][0].values)
    settings = [
        'kind = "sql"',
        f"url = {blocks.quoted(_without_password(url))}",
        *([password] if password else []),
        *blocks.common(heading, columns, doubts, at),
        *(['charset = "gb18030"  # the texts arrive as bytes'] if raw else []),
        "settle_s = 60        # younger rows wait for the next poll",
        "overlap_s = 259200   # every poll looks back so far, for rows that were committed late",
        "sql = '''",
        "SELECT",
        *lines,
        f"FROM {look.named(table.name)} r",
        "'''",
    ]
    if wrong and not raw:
        doubts.append(f"{', '.join(wrong)}: the database takes GBK text for Latin-1; it is read as bytes and decoded.")
        settings += [
            "",
            "[source.decode]        # GBK text that the database takes for Latin-1",
            *(f'{word} = "{each}"' for word, each in wrong.items()),
        ]
    settings += blocks.widths(columns, "utf-8", doubts)
    codes = {word: look.codes(table.name, found[word].column) for word in blocks.MEANINGS if word in found}
    text = blocks.whole(heading, settings, blocks.cursor(at), codes, columns, doubts)
    return Proposal(text, tuple(found.values()), _said(found, doubts), table.name)


def of_file(path: Path, sheets: Sheets, heading: Heading, skipped: Sequence[str] = ()) -> Proposal:
    """A proposal for a folder into which files like this one are dropped. Sheets without reports are named as skipped; `skipped` are sheets not looked at."""
    fitting = [(table, {each.word: each for each in guess.words(table.columns)}) for table in sheets.tables]
    fitting = [(table, words) for table, words in fitting if {"findings", "report_text"} & words.keys()]
    doubts = [sentence for table, words in fitting for sentence in _unread(table, words)]
    for table, words in fitting:
        if (unit := _age_unit(table, words)) is not None:
            words.pop("age")
            doubts.append(
                f"age: {unit.name} says what the numbers mean, in a column of its own: ages are left out. Ask for them in one column."
            )
    skip = [*skipped, *(table.name for table in sheets.tables if table.name not in {each.name for each, _ in fitting})]
    if skip and sheets.format == "excel":
        doubts.append(f"Left out for want of a column of findings: the sheets {', '.join(skip)}.")
    found: dict[str, Guess] = {}
    names: dict[str, list[str]] = {}
    for _, words in fitting:
        for word, each in words.items():
            found[word] = each if word not in found or not each.sure else found[word]
            names.setdefault(word, [])
            if each.column not in names[word]:
                names[word].append(each.column)
    columns = {
        word: tuple(table.column(words[word].column) for table, words in fitting if word in words) for word in names
    }
    optional = [
        word for word in names if any(word not in words for _, words in fitting) and word not in ("source_id", "status")
    ]
    constants = {}
    if any("status" not in words for _, words in fitting):
        names.pop("status", None)
        found.pop("status", None)
        columns.pop("status", None)
        constants["status"] = "final"
        doubts.append("No column is a status (or not in every sheet): every row counts as final.")
    doubts += _no_text(found)
    if "source_id" in found and not found["source_id"].sure:
        doubts.append(
            f"source_id: {found['source_id'].column} ({found['source_id'].why}): rows of one key become versions of one report."
        )
    codes = {
        word: Counter(text for column in columns[word] for value in column.values if (text := survey.code(value)))
        for word in blocks.MEANINGS
        if word in columns
    }
    _by_sheet(fitting, names, codes, optional, doubts)
    at = next((word for word in blocks.TIMES if word in names), None)
    settings = [
        'kind = "files"',
        f"path = {blocks.quoted(str(path.resolve().parent))}  # the folder; new and changed files in it are read",
        f"pattern = {blocks.quoted(path.name)}  # widen it to what the hospital will call them, such as {blocks.quoted('*' + path.suffix)}",
        f'format = "{sheets.format}"',
        *([f'charset = "{sheets.charset}"'] if sheets.format != "excel" else []),
        *([f"delimiter = {blocks.quoted(sheets.delimiter)}"] if sheets.delimiter != "," else []),
        *blocks.common(heading, columns, doubts, at),
        *([f"optional = {json.dumps(optional)}  # columns that not every sheet has"] if optional else []),
        *([f"skip_sheets = {json.dumps(skip, ensure_ascii=False)}"] if skip and sheets.format == "excel" else []),
        "",
        "[source.columns]       # our word = the column's name, or several by which it goes",
        *(
            f"{word} = {blocks.quoted(each[0]) if len(each) == 1 else json.dumps(each, ensure_ascii=False)}{_mark(found.get(word))}"
            for word, each in names.items()
        ),
    ]
    settings += blocks.widths(columns, sheets.charset, doubts)
    if constants:
        settings += [
            "",
            "[source.constants]     # our word = what every row has",
            *(f"{word} = {blocks.quoted(value)}  # ?" for word, value in constants.items()),
        ]
    text = blocks.whole(heading, settings, [], codes, columns, doubts)
    return Proposal(text, tuple(found.values()), _said(found, doubts), ", ".join(table.name for table, _ in fitting))


# --- what a person has to know ------------------------------------------------------------------------------------------------


def _unread(table: Table, found: dict[str, Guess]) -> list[str]:
    """Columns that a person would expect to be read and that are not."""
    doubts = [
        f"{each.word}: {each.column} is called so, and its values are in no form that we know: it is not read."
        for each in guess.unfit(table.columns, list(found.values()))
        if not writing.is_time_of_day(table.column(each.column))
    ]
    used = {each.column for each in found.values()}
    doubts += [
        f"{column.name} seems to mark reports that were taken back, and is not read: have it count in the status, or they are learnt from."
        for column in table.columns
        if column.name not in used and _TAKEN_BACK.search(writing.plain(column.name))
    ]
    alone = [column.name for column in table.columns if writing.is_time_of_day(column)]
    if alone:
        doubts.append(
            f"{', '.join(alone)}: times of day without their date are not read; join date and time in one column (in a SELECT, or ask for it)."
        )
    return doubts


def _no_text(found: dict[str, Guess]) -> list[str]:
    if "report_text" in found:
        return []
    return [
        f"No column holds {word}: nothing would be accepted."
        for word in ("findings", "impression")
        if word not in found
    ]


def _age_unit(table: Table, found: dict[str, Guess]) -> Column | None:
    """The column that says in what the ages are counted, where it is not years throughout."""
    for column in table.columns:
        if "age" in found and writing.plain(column.name) in _AGE_UNITS and set(column.texts()) - {"岁", "年", "Y", "y"}:
            return column
    return None


def _keyed(look: Database, table: Table, found: dict[str, Guess], doubts: list[str]) -> str:
    """The expression of the row's own key: the primary key where there is one."""
    if len(table.key) == 1:
        found["source_id"] = Guess("source_id", table.key[0], True, "primary key")
    if len(table.key) <= 1 and "source_id" in found:
        each = found["source_id"]
        if not each.sure:
            doubts.append(f"source_id: {each.column} ({each.why}).")
        return f"r.{look.quoted(each.column)}"
    if len(table.key) > 1:
        parts = [f"r.{look.quoted(name)}" for name in table.key]
        found["source_id"] = Guess("source_id", "+".join(table.key), True, "primary key of several columns")
        return look.joined(parts[0], *(piece for part in parts[1:] for piece in ("'|'", part)))
    doubts.append("source_id: no column is unique. Name a key, or join several columns to one.")
    return f"r.{look.quoted(table.columns[0].name)}"


def _fallback(table: Table, found: dict[str, Guess]) -> str | None:
    """The time that counts where the time of change is empty, if it is empty anywhere."""
    column = table.column(found["modified_at"].column)
    others = [table.column(found[word].column) for word in blocks.TIMES[1:] if word in found]
    other = next((each.name for each in others if writing.is_time(each) == writing.is_time(column)), None)
    return other if any(value is None for value in column.values) else None


def _by_sheet(
    fitting: Sequence[tuple[Table, dict[str, Guess]]],
    names: dict[str, list[str]],
    codes: dict[str, Counter[str]],
    optional: list[str],
    doubts: list[str],
) -> None:
    """The modality by the sheets' names, where they are modalities and some sheet has no column for it."""
    lacking = Counter({table.name: table.rows for table, words in fitting if "modality" not in words})
    known = [each for each in meanings.modality_meanings(lacking) if each.means is not None]
    if known and len(known) == len(lacking):
        names.setdefault("modality", []).append(SHEET)
        codes["modality"] = codes.get("modality", Counter()) + lacking
        if "modality" in optional:
            optional.remove("modality")
        doubts.append(f"modality: the name of the sheet, for {', '.join(lacking)}.")


def _said(found: dict[str, Guess], doubts: Iterable[str]) -> tuple[str, ...]:
    unsure = [
        f"{each.word}: {each.column} ({each.why})."
        for each in found.values()
        if not each.sure and each.word != "source_id"
    ]
    return tuple(dict.fromkeys([*unsure, *doubts]))


def _doubt(each: Guess | None) -> str:
    return "" if each is None or each.sure else f"  -- ? {each.why}"


def _mark(each: Guess | None) -> str:
    return "" if each is None or each.sure else f"  # ? {each.why}"


def _without_password(url: sa.URL) -> str:
    bare = sa.URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return bare.render_as_string()
