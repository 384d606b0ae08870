"""`valuer vocabulary`: what a department's own words are, and how much of its texts the checks understand. Needs no database."""

from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console, lines
from core.settings import Settings

LEAST = 3
"""Lines in which a word must occur to be shown: one that occurs in fewer could be somebody's name."""
SECTIONS = ("findings", "impression")

app = typer.Typer(no_args_is_help=True, help="A department's own words, and how much of its texts the checks read.")
Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN.jsonl",
        help='Lines {"id","findings","impression","language"?,"institution"?}, as for `valuer check`',
    ),
]
Top = Annotated[int, typer.Option(min=0, help="How many unknown words, the most frequent first")]


@app.command()
def show(json: console.Json = False) -> None:
    """The own words of each institution, counted by file. A row that does not fit is named (exit status 2)."""
    from clinical.lexicon import OWN_FILES
    from core import vocabulary

    every = vocabulary.load(console.read(Settings).home)
    rows = [
        {
            "institution": code or "*",
            **{name.partition(".")[0]: len(each.words.rows.get(name, ())) for name in OWN_FILES},
            "phrases": len(each.phrases.reasons),
            "digest": each.words.digest[:8],
        }
        for code, each in every.items()
    ]
    console.answer(json, {"institutions": rows}, console.table(rows, ""))


@app.command()
def coverage(source: Source, top: Top = 50, json: console.Json = False) -> None:
    """Count how many statements the vocabulary reads, by section and body system, and the words of the others that it does not know.

    No sentence is shown. Words come from de-identified text, and one has to occur in three lines to be shown. A line that does not fit is
    named and left out (exit status 2).
    """
    done = lines.count(source, _line, _tally, "Reading")
    rows = _rows(done.totals)
    words = sorted(
        ((name.removeprefix("word "), int(number)) for name, number in done.totals.items() if name.startswith("word ")),
        key=lambda one: (-one[1], one[0]),
    )
    unknown = [{"word": word, "lines": number} for word, number in words if number >= LEAST][:top]
    data = {
        "lines": done.lines, "refused": done.refused, "seconds": round(done.seconds, 3), "coverage": rows, "unknown": unknown
    }  # fmt: skip
    console.answer(json, data, _shown(rows, unknown))
    done.demand_all()


def _line(given: dict[str, Any]) -> dict[str, Any]:
    from clinical import coverage

    language, own = lines.language(given), lines.own_words(lines.text(given, "institution", null=""))
    read = [coverage.read(lines.text(given, name, null=""), language=language, words=own) for name in SECTIONS]
    return {
        "system": coverage.system_of(read) or "unknown",
        "read": [[section.statements, section.read] for section in read],
        "unknown": sorted(frozenset().union(*(section.unknown for section in read))),
    }


def _tally(made: dict[str, Any]) -> dict[str, float]:
    counted = {f"word {word}": 1.0 for word in made["unknown"]}
    for name, (statements, read) in zip(SECTIONS, made["read"], strict=True):
        for system in (made["system"], "all"):
            counted |= {f"{system} {name} statements": statements, f"{system} {name} read": read}
    return counted


def _rows(totals: dict[str, float]) -> list[dict[str, Any]]:
    """One row a section and system, those of all systems first."""
    systems = sorted({name.split(" ")[0] for name in totals if name.endswith(" read")} - {"all"})
    rows = []
    for system in ("all", *systems):
        for section in SECTIONS:
            statements, read = (int(totals.get(f"{system} {section} {what}", 0)) for what in ("statements", "read"))
            share = round(read / statements, 4) if statements else None
            rows.append(
                {"system": system, "section": section, "statements": statements, "read": read, "coverage": share}
            )
    return rows


def _shown(rows: list[dict[str, Any]], unknown: list[dict[str, Any]]) -> Any:
    from rich.console import Group
    from rich.text import Text

    said = "  ".join(f"{one['word']} {one['lines']:,}" for one in unknown)
    words = f"\nUnknown words and the lines that have them: {said}" if said else "\nNo unknown word occurs often."
    return Group(console.table(rows, ""), Text(words))
