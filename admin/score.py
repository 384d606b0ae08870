"""`valuer score` and `valuer rescore`: drafts against what was signed, and the words that are counted."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from typer.core import TyperGroup

from admin import console, lines

KEYS = ("r1", "r2", "rl", "char_rl", "edit_distance", "fact_f1", "scorer")
MEANS = ("r1", "r2", "rl", "char_rl", "edit_distance", "fact_f1")

Source = Annotated[
    Path, typer.Argument(metavar="IN.jsonl", help='Lines {"id","draft","signed","language"?,"institution"?}')
]
Target = Annotated[Path, typer.Argument(metavar="OUT.jsonl", help=f"Lines {{id, {', '.join(KEYS)}}}")]
Compat = Annotated[
    bool,
    typer.Option("--compat", help="ROUGE as published tables have it: the libraries' defaults on the text as it is."),
]
Full = Annotated[
    bool, typer.Option("--full", help="Every figure: core text, precision and recall, edit kinds, coverage.")
]
Language = Annotated[str, typer.Option(metavar="CODE", help="Language of the text: zh-Hans, zh-Hant, en or fr.")]


class _FilesFirst(TyperGroup):
    """`valuer score IN.jsonl OUT.jsonl` is `valuer score files IN.jsonl OUT.jsonl`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if not args or args[0] in known else ["files", *args])


app = typer.Typer(
    cls=_FilesFirst,
    no_args_is_help=True,
    help="Score drafts against signed impressions: `valuer score IN.jsonl OUT.jsonl`.",
    epilog='IN.jsonl has lines {"id","draft","signed"}; F1 between 0 and 1 on the full text; an empty draft scores 0.',
)


@app.command()
def files(
    source: Source, target: Target, compat: Compat = False, full: Full = False, json: console.Json = False
) -> None:
    """Score drafts against signed impressions: ROUGE on words and characters, edit distance, facts. No database.

    `scorer` is the version of the scorer: figures of two versions are never compared. A line that does not fit is named and left out (exit
    status 2).
    """
    done = lines.convert(source, target, partial(_line, compat=compat, full=full), _tally, "Scoring")
    means = {name: _mean(done, name) for name in MEANS}
    data = {"lines": done.lines, "refused": done.refused, "seconds": round(done.seconds, 3), **means}
    shown = ", ".join(f"{name} {means[name]:.4f}" for name in ("r1", "r2", "rl", "fact_f1") if means[name] is not None)
    console.answer(json, data, f"Scored {done.lines:,} lines in {done.seconds:.1f} s (means: {shown}): {target}")
    done.demand_all()


@app.command()
def tokens(
    text: Annotated[str, typer.Argument(metavar="TEXT|FILE", help="A text, or the name of a file that holds one")],
    compat: Compat = False,
    language: Language = "zh-Hans",
    json: console.Json = False,
) -> None:
    """The words that ROUGE counts, as the scorer cuts them."""
    from clinical.score import tokens as cut
    from clinical.score import version
    from clinical.words import cut_as_published

    given = _text_of(text)
    found = cut_as_published(given) if compat else cut(given, language=language)
    data = {"tokens": found, "scorer": version(compat=compat)}
    console.answer(json, data, " ".join(found))


@app.command()
def rescore(json: console.Json = False) -> None:
    """Score every sign-off that today's scorer has not scored yet. Earlier scores stay; stopped, it goes on where it was."""
    from sqlmodel import select

    from admin.bar import Bar
    from clinical.score import SCORER_VERSION, version
    from core import db, sign_offs, vocabulary
    from core.tables import Institution
    from worker.scoring import score_sign_off

    scored = 0
    with console.opened() as here:
        with db.transaction(here.engine) as session:
            houses = session.exec(select(Institution.code).order_by(Institution.code)).all()
            scorers = {code: version(vocabulary.of(here.settings.home, code).words) for code in houses}
            waiting = sum(sign_offs.count_unscored(session, scorers[code], institution=code) for code in houses)
        with Bar("Scoring", waiting) as bar:
            for code, scorer in scorers.items():
                last: list[UUID] = []
                while True:
                    with db.transaction(here.engine) as session:
                        missing = sign_offs.unscored(session, scorer, limit=1000, institution=code)
                    if missing == last:  # nothing left, or nothing that could be scored
                        break
                    for each in missing:
                        scored += score_sign_off(here.engine, each, here.settings.home)
                        bar.advance(1, scored, what="sign-offs")
                    last = missing
    data = {"scored": scored, "scorer": SCORER_VERSION, "scorers": scorers}
    console.answer(json, data, f"Scored {scored:,} sign-offs with {SCORER_VERSION}.")


def _text_of(given: str) -> str:
    try:
        path = Path(given)
        return path.read_text("utf-8-sig") if path.is_file() else given
    except (OSError, ValueError):  # a text is not always a name that a file could have
        return given


def _line(given: dict[str, Any], *, compat: bool, full: bool) -> dict[str, Any]:
    from clinical.score import score

    draft, signed = lines.draft(given, "draft"), lines.draft(given, "signed")
    words = lines.own_words(lines.text(given, "institution", null=""))
    result = score(draft, signed, language=lines.language(given), words=words, compat=compat).as_json()
    return result if full else {key: result[key] for key in KEYS}


def _tally(made: dict[str, Any]) -> dict[str, float]:
    known = {name: made[name] for name in MEANS if made[name] is not None}
    return {**known, **{f"n {name}": 1 for name in known}}


def _mean(done: lines.Done, name: str) -> float | None:
    number = done.totals.get(f"n {name}", 0)
    return round(done.totals[name] / number, 6) if number else None
