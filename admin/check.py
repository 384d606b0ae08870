"""`valuer check`: the checks over a file of findings and impressions. Needs no database."""

from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console, lines

Source = Annotated[
    Path, typer.Argument(metavar="IN.jsonl", help='Lines {"id","findings","impression","sex"?,"modality"?}')
]
Target = Annotated[Path, typer.Argument(metavar="OUT.jsonl", help='Lines {"id","issues":[…]}')]


def check(source: Source, target: Target, json: console.Json = False) -> None:
    """Check impressions against their findings: sides, sizes, negations, omissions, repetition and more.

    Severities: withhold (not shown at all), red (shown, to be confirmed), amber (marked), info (stored). Each issue names
    its spans in both texts, as [start, end) in characters.
    """
    done = lines.convert(source, target, _line, "Checking")
    data = {"lines": done.lines, "seconds": round(done.seconds, 3)}
    console.answer(json, data, f"Checked {done.lines:,} lines in {done.seconds:.1f} s: {target}")


def _line(given: dict[str, Any]) -> dict[str, Any]:
    from clinical.checks import check
    from clinical.issues import Pair

    pair = Pair(
        findings=lines.text(given, "findings"),
        impression=lines.text(given, "impression", null=""),
        sex=lines.optional(given, "sex"),
        modality=lines.optional(given, "modality"),
    )
    keys = ("kind", "severity", "span_findings", "span_impression", "message")
    issues = [issue.as_json() for issue in check(pair)]
    return {"issues": [{key: issue[key] for key in keys} for issue in issues]}
