"""`valuer check`: the checks over a file of findings and impressions. Needs no database."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from admin import console, lines

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN.jsonl",
        help='Lines {"id","findings","impression","sex"?,"modality"?,"prior"?,"language"?,"institution"?}',
    ),
]
Target = Annotated[Path, typer.Argument(metavar="OUT.jsonl", help='Lines {"id","issues":[…]}')]

KEYS = ("kind", "severity", "span_findings", "span_impression", "message")
SEVERITIES = ("withhold", "red", "amber", "info")


def check(source: Source, target: Target, json: console.Json = False) -> None:
    """Check impressions against their findings: sides, sizes, negations, omissions, repetition and more.

    Severities: withhold (not shown at all), red (shown, to be confirmed), amber (marked), info (stored). Each issue names
    its spans in both texts, as [start, end) in characters. A line that does not fit is named and left out (exit status 2).
    """
    done = lines.convert(source, target, _line, _tally, "Checking")
    issues = {severity: int(done.totals.get(severity, 0)) for severity in SEVERITIES}
    kinds = {name: int(number) for name, number in sorted(done.totals.items()) if name not in SEVERITIES}
    data = {
        "lines": done.lines, "refused": done.refused, "seconds": round(done.seconds, 3), "issues": issues, "kinds": kinds
    }  # fmt: skip
    said = ", ".join(f"{number:,} {severity}" for severity, number in issues.items())
    console.answer(json, data, f"Checked {done.lines:,} lines in {done.seconds:.1f} s ({said}): {target}")
    done.demand_all()


def _line(given: dict[str, Any]) -> dict[str, Any]:
    from clinical.checks import check
    from clinical.issues import Pair

    pair = Pair(
        findings=lines.text(given, "findings"),
        impression=lines.draft(given, "impression"),
        sex=lines.optional(given, "sex"),
        modality=lines.optional(given, "modality"),
        prior=lines.optional(given, "prior"),
        language=lines.language(given),
        words=lines.own_words(lines.text(given, "institution", null="")),
    )
    issues = [issue.as_json() for issue in check(pair)]
    return {"issues": [{key: issue[key] for key in KEYS} for issue in issues]}


def _tally(made: dict[str, Any]) -> Mapping[str, float]:
    return Counter(issue[key] for issue in made["issues"] for key in ("severity", "kind"))
