"""`valuer models tokens`: how long a house's texts are for a base model, and what share of them fits. Shows counts, no text."""

import json as encoding
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from admin import console, lines
from core.errors import Invalid, NotFound
from core.settings import WorkerSettings

if TYPE_CHECKING:
    from worker.prompt import Prompt

Source = Annotated[
    Path | None,
    typer.Argument(
        metavar="[IN.jsonl]", help='Lines {"findings","impression"?,"language"?}; without it, stored reports'
    ),
]
Model = Annotated[str | None, typer.Option(help="Base model: a directory, a hub id or `demo`; default VALUER_MODEL")]
Count = Annotated[int, typer.Option(min=1, help="Without IN.jsonl: how many stored reports, the newest")]
NAMES = {
    "findings_characters": "findings, characters",
    "findings_tokens": "findings, tokens",
    "prompt_tokens": "whole prompt, tokens",
    "impression_tokens": "impression, tokens",
}


def tokens(
    source: Source = None,
    model: Model = None,
    template: Annotated[str, typer.Option(help="Prompt template")] = "brief",
    count: Count = 20_000,
    json: console.Json = False,
) -> None:
    """Count findings, prompts and impressions in a base model's tokens: what fits VALUER_MAX_INPUT_TOKENS and VALUER_MAX_NEW_TOKENS.

    What does not fit is withheld as too_long, never cut. Only the base's tokenizer is read.
    """
    from transformers import AutoConfig, AutoTokenizer

    from worker.engine.weights import base_model
    from worker.lengths import SERVED_CHARACTERS, Lengths

    settings = console.read(WorkerSettings, model=model)
    base = base_model(settings.model, settings.models_dir)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    context = int(AutoConfig.from_pretrained(base, local_files_only=True).get_text_config().max_position_embeddings)
    lengths = Lengths()
    lengths.add(tokenizer, _stored(settings, template, count) if source is None else _read(source, template))
    data = {
        "model": settings.model,
        "template": template,
        "context": context,
        "max_input_tokens": settings.max_input_tokens,
        "max_new_tokens": settings.max_new_tokens,
        **lengths.summary(settings.max_input_tokens, settings.max_new_tokens, context),
    }
    console.answer(json, data, None if json else _words(data))
    if data["texts"] and data["served_characters"] < SERVED_CHARACTERS:
        console.note(
            f"Findings of {data['served_characters']:,} characters are about the longest that fit; {SERVED_CHARACTERS:,} should. "
            "Raise VALUER_MAX_INPUT_TOKENS, lower VALUER_MAX_NEW_TOKENS, or take a base with a longer context."
        )


def _read(source: Path, template: str) -> Iterator[tuple[str, "Prompt", str | None]]:
    from clinical.case import ClinicalInput
    from worker.prompt import model_text, render

    if not source.is_file():
        raise NotFound(f"There is no file {source}.", code="no_file")
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                given: dict[str, Any] = encoding.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                findings, language = lines.text(given, "findings"), lines.text(given, "language", null="zh-Hans")
                impression = lines.optional(given, "impression")
            except Invalid as error:
                raise Invalid(f"Line {number}: {error.message}") from None
            except (ValueError, AttributeError):
                raise Invalid(f"Line {number} is not a JSON object in UTF-8.") from None
            read = model_text(findings, language=language)
            case = ClinicalInput(institution="-", findings=read, language=language)
            said = None if impression is None else model_text(impression, language=language)
            yield read, render(template, case), said


def _stored(settings: WorkerSettings, template: str, count: int) -> Iterator[tuple[str, "Prompt", str | None]]:
    from sqlmodel import col, select

    from core import vocabulary
    from core.db import transaction
    from core.tables import Report
    from worker.prompt import clinical_input, model_text, render

    with console.opened(settings) as here, transaction(here.engine) as session:
        newest = select(Report).order_by(col(Report.signed_at).desc().nulls_last()).limit(count)
        for row in session.exec(newest.execution_options(yield_per=1000)):
            phrases = vocabulary.of(settings.home, row.institution).phrases
            case = clinical_input(row, phrases)
            said = model_text(row.impression, language=row.language, phrases=phrases)
            yield case.findings, render(template, case), said or None


def _words(data: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    if not data["texts"]:
        return "There is no text to count."
    shares = {
        name: "none" if data[name] is None else f"{data[name]:.1%}"
        for name in ("prompts_that_fit", "impressions_that_fit")
    }
    most = max(data["histogram"].values())
    bars = [
        f"{'up to ' + edge:>12}  {'█' * round(40 * number / most) or '▏'} {number:,}"
        for edge, number in data["histogram"].items()
    ]
    rows = [{"": said, **(data[name] or {})} for name, said in NAMES.items()]
    said = (
        f"{data['texts']:,} texts for {data['model']}: {data['tokens_per_character']:.2f} tokens per character, context {data['context']:,}.\n"
        f"Prompts up to {data['longest_prompt']:,} tokens fit: {shares['prompts_that_fit']} of them. Impressions up to "
        f"{data['max_new_tokens']:,}: {shares['impressions_that_fit']}. Findings of about {data['served_characters']:,} characters fit.\n"
    )
    return Group(Text(said), console.table(rows, ""), Text("\nTokens of the whole prompt\n" + "\n".join(bars)))
