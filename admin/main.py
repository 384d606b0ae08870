"""The `valuer` command: puts the nouns together and turns errors into one sentence and an exit status.

Heavy imports happen inside the commands, so that `--help` answers at once.
"""

import sys
from collections.abc import Callable

import typer

from admin import (
    audit,
    callbacks,
    check,
    dataset,
    demo,
    doctor,
    draft,
    evaluate,
    experts,
    ingest,
    institutions,
    keys,
    models,
    pool,
    schedule,
    score,
    status,
    train,
    up,
    users,
    vocabulary,
)
from core.errors import Refused, ValuerError

app = typer.Typer(
    name="valuer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Drafts the impression of a radiology report from its findings, checks it, and learns from what is signed.",
    epilog="Settings come from the environment (VALUER_…); .env.example lists them. "
    "Exit status: 0 done, 2 refused with a sentence, 1 broken.",
)
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Running it": (demo.demo, up.up, up.down, status.status, up.migrate, doctor.doctor),
    "Texts": (draft.draft, check.check, score.rescore),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(score.app, name="score", rich_help_panel="Texts")
app.add_typer(vocabulary.app, name="vocabulary", rich_help_panel="Texts")
app.add_typer(ingest.app, name="ingest", rich_help_panel="Data and models")
app.add_typer(institutions.app, name="institutions", rich_help_panel="Data and models")
app.add_typer(dataset.app, name="dataset", rich_help_panel="Data and models")
train.app.add_typer(schedule.app, name="schedule")
app.add_typer(train.app, name="train", rich_help_panel="Data and models")
evaluate.app.command()(pool.pool)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel="Data and models")
app.add_typer(experts.app, name="experts", rich_help_panel="Data and models")
app.add_typer(models.app, name="models", rich_help_panel="Data and models")
app.add_typer(keys.app, name="keys", rich_help_panel="People and systems")
app.add_typer(callbacks.app, name="callbacks", rich_help_panel="People and systems")
app.add_typer(users.app, name="users", rich_help_panel="People and systems")
app.add_typer(audit.app, name="audit", rich_help_panel="People and systems")


def main() -> None:
    """Entry point. 0 done, 2 refused with a sentence on standard error, 1 broken."""
    try:
        app()
    except ValuerError as error:
        typer.echo(error.message, err=True)
        sys.exit(2 if isinstance(error, Refused) else 1)


if __name__ == "__main__":
    main()
