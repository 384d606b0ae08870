"""The blocks of an institution file as text: what `ingest.proposal` puts together. Each line that rests on a guess ends in `# ?`, and says so in `doubts`."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clinical.case import systems_of
from ingest import meanings, survey, writing
from ingest.meanings import Meaning
from ingest.writing import Column

TIMES = ("modified_at", "signed_at", "reported_at", "examined_at")
_CUT = ("findings", "impression", "report_text")
_WIDE = 8000
"""Characters of a column that no report fills."""
MEANINGS: dict[str, Callable[[Counter[str]], list[Meaning]]] = {
    "status": meanings.status_meanings,
    "sex": meanings.sex_meanings,
    "modality": meanings.modality_meanings,
    "system": meanings.system_meanings,
}


@dataclass(frozen=True, slots=True)
class Heading:
    """What is known of the institution before its data are looked at."""

    code: str
    name: str
    language: str
    timezone: str


def whole(
    heading: Heading,
    settings: Sequence[str],
    cursor: Sequence[str],
    codes: dict[str, Counter[str]],
    columns: dict[str, tuple[Column, ...]],
    doubts: list[str],
) -> str:
    if "modality" not in codes:
        doubts.append("No column is a modality: every report counts as OT.")
    blocks = [
        "# Proposed by valuer ingest init from a look at the data. Lines marked with a question mark are guesses: look at each of them.",
        "# Every setting is explained in docs/institutions.md. Nothing has been stored yet.",
        "",
        "[institution]",
        f'code = "{heading.code}"',
        f"name = {quoted(heading.name)}",
        f'language = "{heading.language}"',
        'role = "test"          # train: its train part may be learnt from; with role_from = 2026-01-01 from that day on',
        'sign = "accept_here_sign_in_ris"',
        "",
        "[institution.stages]   # how far a model goes: collect (no draft), then shadow (drafted and scored when signed, shown to nobody), then live",
        '"*" = "collect"        # later "*" = "shadow"; then what has proved itself, such as "CT/chest" = "live". See docs/interfaces.md',
        "",
        "[source]",
        *settings,
        "",
        *cursor,
        "# [backfill]           # for the years before: when, and how fast at most",
        '# hours = "22:00-06:00"',
        "# rows_per_s = 500",
        "",
        *_codes("status", codes.get("status"), doubts),
        *(
            line
            for word in ("sex", "modality", "system")
            if word in codes
            for line in _codes(word, codes[word], doubts)
        ),
        *([] if "system" in codes else _systems(columns, doubts)),
    ]
    return "\n".join(blocks).rstrip() + "\n"


def common(heading: Heading, columns: dict[str, tuple[Column, ...]], doubts: list[str], at: str | None) -> list[str]:
    lines = [f'timezone = "{heading.timezone}"  # of times that carry none']
    formats: list[str] = []
    for word in sorted((word for word in TIMES if word in columns), key=lambda word: word != at):
        for column in columns[word]:
            found = writing.time_formats(column)
            if found is None:
                doubts.append(f"{word}: some times of {column.name} are written in no form that we know.")
            for each in found or ():
                if each not in formats:
                    formats.append(each)
                if writing.is_ambiguous(each):
                    doubts.append(f"{word}: day and month of {column.name} may be the other way round.")
    if formats:
        value = quoted(formats[0]) if len(formats) == 1 else json.dumps(formats, ensure_ascii=False)
        lines.append(f"time_format = {value}{'  # ?' if any(map(writing.is_ambiguous, formats)) else ''}")
    return lines


def cursor(at: str | None) -> list[str]:
    if at in (None, "modified_at"):
        return [
            "[cursor]               # index (time, key) in the database",
            'time = "modified_at"',
            'key = "source_id"',
            "",
        ]
    return [
        "[cursor]               # index (time, key) in the database",
        f'time = "{at}"  # ? no time of change: what is edited later without a new {at} is found by valuer ingest reconcile only',
        'key = "source_id"',
        "",
    ]


def widths(columns: dict[str, tuple[Column, ...]], charset: str, doubts: list[str]) -> list[str]:
    """What columns of texts hold: as the database says, else where many texts end at the same byte."""
    lines = []
    for word in _CUT:
        for column in columns.get(word, ())[:1]:
            if column.width is not None and column.width <= _WIDE:
                lines.append(f"{word} = {column.width}")
            elif (cut := writing.cut_at(column, charset)) is not None:
                lines.append(f"{word} = {cut}  # ? many texts end there")
                doubts.append(
                    f"{word}: many texts of {column.name} end at {cut} characters or bytes: they seem to be cut off at the source, and never train."
                )
    return (
        ["", "[source.widths]        # a text as long as its column may be cut off and never trains", *lines]
        if lines
        else []
    )


def _codes(word: str, values: Counter[str] | None, doubts: list[str]) -> list[str]:
    if values is None:
        return ["[codes.status]", 'final = "final"', ""] if word == "status" else []
    lines = [f"[codes.{word}]"]
    for each in MEANINGS[word](values):
        rows = f"{each.count} rows"
        if each.means is None:
            lines.append(
                f'# {quoted(each.value)} = ""  # ? {rows} wait in quarantine until somebody says what this means'
            )
            doubts.append(f"{word}: nobody knows what {each.value} means ({rows}).")
        else:
            lines.append(f'{quoted(each.value)} = "{each.means}"  # {"" if each.sure else "? "}{rows}')
            if not each.sure:
                doubts.append(f"{word}: {each.value} is taken for {each.means} ({rows}).")
    if word == "status" and not any('= "final"' in line and not line.startswith("#") for line in lines):
        lines.append('final = "final"  # ? no value of the column is known to be final')
        doubts.append("status: no value of the column is known to be final.")
    return [*lines, ""]


def _systems(columns: dict[str, tuple[Column, ...]], doubts: list[str]) -> list[str]:
    """Nothing where our own words know the body parts; else what they do not know, for rules."""
    for word in ("part", "exam_title"):
        if word in columns:
            values = Counter(
                text for column in columns[word] for value in column.values if (text := survey.code(value))
            )
            unknown = Counter({value: count for value, count in values.items() if not systems_of(value)})
            if not unknown:
                return []
            share = unknown.total() / values.total()
            if share > 0.05:
                doubts.append(f"{word}: {share:.0%} of the rows name no body system that we know.")
            return [
                "# Body systems are read off the words of the body part or the title. Once there is a rule, only rules count.",
                f"# Without a system until a rule names it: {', '.join(f'{value} ({count})' for value, count in unknown.most_common(8))}".replace(
                    "\n", " "
                ),
                "# [[system_rules]]",
                f'# field = "{word}"',
                "# pattern = '胸|肺'",
                '# systems = ["chest"]',
                "",
            ]
    doubts.append(
        "No column names the body part or the examination: reports have no body system, and none is found missing for a first training."
    )
    return []


def quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)
