"""`valuer score` and `valuer rescore`: drafts against what was signed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console, lines

Source = Annotated[Path, typer.Argument(metavar="IN.jsonl", help='Lines {"id","draft","signed"}')]
Target = Annotated[Path, typer.Argument(metavar="OUT.jsonl", help='Lines {"id","r1","r2","rl",…}')]
KEYS = ("r1", "r2", "rl", "char_rl", "edit_distance", "fact_f1", "scorer")


def score(source: Source, target: Target, json: console.Json = False) -> None:
    """Score drafts against signed impressions: ROUGE on words and characters, edit distance, facts.

    F1 between 0 and 1 on the full text; an empty draft scores 0. `scorer` is the version of the scorer. Needs no database.
    """
    done = lines.convert(source, target, _line, "Scoring")
    data = {"lines": done.lines, "seconds": round(done.seconds, 3)}
    console.answer(json, data, f"Scored {done.lines:,} lines in {done.seconds:.1f} s: {target}")


def rescore(json: console.Json = False) -> None:
    """Score every sign-off that today's scorer has not scored yet. Earlier scores stay."""
    from rich.progress import track

    from clinical.score import SCORER_VERSION
    from core import db, requests
    from worker.scoring import score_sign_off

    scored, more = 0, True
    with console.opened() as here:
        while more:
            with db.transaction(here.engine) as session:
                missing = requests.unscored(session, SCORER_VERSION, limit=1000)
            found = [score_sign_off(here.engine, each) for each in track(missing, "Scoring", console=console.aside())]
            scored, more = scored + sum(found), any(found)
    console.answer(
        json, {"scored": scored, "scorer": SCORER_VERSION}, f"Scored {scored} sign-offs with {SCORER_VERSION}."
    )


def _line(given: dict[str, Any]) -> dict[str, Any]:
    from clinical.score import score as scored

    result = scored(lines.text(given, "draft", null=""), lines.text(given, "signed", null="")).as_json()
    return {key: result[key] for key in KEYS}
